"""Errors: their fields, their text, and no passwords in it."""

import pickle

import pytest

from tuner.errors import DataError, ExperimentError, InputError, Setting, show_location


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("studies/s.journal", "studies/s.journal"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://me:sec/ret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql+psycopg://me:sec@ret@host/db", "postgresql+psycopg://host/db"),
        ("postgresql://host/db?password=secret&a=1", "postgresql://host/db?password=…&a=1"),
        ("postgresql:///db?passfile=/p&sslpassword=secret&user=me",
         "postgresql:///db?passfile=/p&sslpassword=…&user=me"),
        ("mysql://host/db?ssl_Password_2=a=b&PASSWD=secret",
         "mysql://host/db?ssl_Password_2=…&PASSWD=…"),
        ("mssql://host/db?pwd=secret, then more", "mssql://host/db?pwd=… then more"),
        ("http://me@host/x", "http://host/x"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://host:5000/x, then postgresql://me:secret@host",
         "http://host:5000/x, then postgresql://host"),
    ],
)  # fmt: skip
def test_a_location_is_shown_without_its_password(location, shown):
    assert show_location(location) == shown


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "is empty"),
        ({"where": "a.csv"}, "a.csv: is empty"),
        ({"key": "data.id", "got": 3}, "data.id: is empty, got 3"),
        ({"where": "a.csv", "remedy": "write one"}, "a.csv: is empty; write one"),
        (
            {"where": "a.csv", "key": "data.id", "got": "''", "remedy": "write one\n or two"},
            "a.csv: data.id: is empty, got ''; write one or two",
        ),
    ],
)
def test_an_error_is_one_line_of_its_fields(fields, text):
    assert str(InputError("is empty", **fields)) == text


def test_a_file_is_shown_relative_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert InputError("is empty", where=tmp_path / "a" / "b.csv").where == "a/b.csv"


def test_a_copy_of_an_error_has_other_fields():
    error = DataError("is empty", where="a.csv", got=3, remedy="write one")
    changed = error.with_(where="b.csv", remedy=None)
    assert (type(changed), str(changed)) == (DataError, "b.csv: is empty, got 3")
    assert str(error) == "a.csv: is empty, got 3; write one"


def test_changes_of_the_experiment_follow_the_remedy():
    changes = (Setting("data.read.sort", "true", ", say"), "choose another column")
    error = DataError("must rise", remedy="sort it", change=changes)
    text = "must rise; sort it, or write data.read.sort: true, say, or choose another column"
    assert (str(error), error.changes) == (text, changes)
    assert str(DataError("must rise", change=Setting("data.time", None, "leave it out"))) == (
        "must rise; leave it out"
    )
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


def test_an_error_is_the_same_in_another_process():
    error = ExperimentError("is empty", where="a.csv", key="data.id", got=3, remedy="write one")
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
