"""Connections to a PostgreSQL server that are lost while they are opened or taken over."""

from __future__ import annotations

import psycopg
import pytest
from postgresql import SCHEME

from tuner.coordination.journal import is_held, quiet_journal, write_journal
from tuner.coordination.server_lock import StudyLock
from tuner.errors import JournalError


def write(url):
    with write_journal(url, "s"):
        pass


def read(url):
    with quiet_journal(url, "s"):
        pass


def look(url):
    is_held(url, "s")


@pytest.mark.parametrize("way", [write, read, look])
def test_a_connection_lost_while_a_journal_is_opened_is_said_in_one_line(
    postgresql_url, monkeypatch, caplog, capfd, way
):
    write(postgresql_url)
    introduce = StudyLock._introduce

    def lose(lock, connection):
        introduce(lock, connection)
        pid = connection.info.backend_pid
        with psycopg.connect(postgresql_url.replace(SCHEME, "postgresql://")) as another:
            another.execute("SELECT pg_terminate_backend(%s)", [pid])

    def taken(lock, connection):
        lose(lock, connection)
        connection.execute("SELECT 1")

    monkeypatch.setattr(StudyLock, "_introduce", lose)
    monkeypatch.setattr(StudyLock, "is_taken", taken)
    with pytest.raises(JournalError) as error:
        way(postgresql_url)
    assert "terminating connection" in str(error.value)
    assert "\n" not in str(error.value)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_an_own_connection_that_the_server_has_not_missed_is_waited_for_past_all_patience(
    postgresql_url, monkeypatch
):
    monkeypatch.setattr("tuner.coordination.server_lock.PATIENCE_S", -1)  # as after a suspension
    lock = StudyLock("s")
    plain = postgresql_url.replace(SCHEME, "postgresql://")
    with psycopg.connect(plain) as vanished, psycopg.connect(plain) as new:
        lock.take(vanished)
        lock.take(new)
        assert vanished.info.backend_pid != new.info.backend_pid
