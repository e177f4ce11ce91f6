"""Messages: passwords never appear in them."""

from __future__ import annotations

import pytest

from tuner.errors import show_location


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("studies/s.journal", "studies/s.journal"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://me:sec/ret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://me:sec@ret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql://host/db?password=secret&a=1", "postgresql://host/db?password=…&a=1"),
        (
            "postgresql:///db?passfile=/p&sslpassword=secret&user=me",
            "postgresql:///db?passfile=/p&sslpassword=…&user=me",
        ),
        (
            "mysql://host/db?ssl_Password_2=a=b&PASSWD=secret",
            "mysql://host/db?ssl_Password_2=…&PASSWD=…",
        ),
        ("mssql://host/db?pwd=secret, then more", "mssql://host/db?pwd=… then more"),
        ("http://me@host/x", "http://host/x"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        (
            "http://host:5000/x, then postgresql://me:secret@host",
            "http://host:5000/x, then postgresql://host",
        ),
    ],
)
def test_a_location_is_shown_without_its_password(location, shown):
    assert show_location(location) == shown
