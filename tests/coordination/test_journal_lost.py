"""Connections to a PostgreSQL server that are lost while they are opened or taken over."""

import pytest
from helpers.postgresql import connect

from tuner.errors import JournalError
from tuner.journal import locks as server_lock
from tuner.journal.locks import Held, StudyLock
from tuner.journal.storage import is_held, quiet_journal, write_journal


def write(url):
    with write_journal(url, "s"):
        pass


def read(url):
    with quiet_journal(url, "s"):
        pass


def look(url):
    is_held(url, "s")


@pytest.mark.parametrize("way", [write, read, look])
def test_a_connection_lost_on_opening_is_one_line(postgresql_url, monkeypatch, caplog, capfd, way):
    write(postgresql_url)
    introduce = StudyLock._introduce

    def lose(lock, connection):
        introduce(lock, connection)
        pid = connection.info.backend_pid
        with connect(postgresql_url) as another:
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


def test_a_slowly_ending_own_connection_is_waited_for(monkeypatch):
    lock, now = StudyLock("s"), [0.0]
    own = [(7, lock._me.written, "tuner", "ExclusiveLock")]

    def ask(connection, statement):
        now[0] += 0.3  # a slow server; it ends the connection between two questions
        return [(now[0] > 9,)] if "pg_try" in statement else [(True,)]

    monkeypatch.setattr(server_lock, "_ask", ask)
    monkeypatch.setattr(server_lock, "_key", lambda *_: 1)
    monkeypatch.setattr(server_lock, "_holders", lambda *_: own if now[0] < 8.5 else [])
    monkeypatch.setattr(server_lock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(server_lock.time, "sleep", lambda s: None)
    lock._take(None, "s", shared=False)
    now[0] = -1000.0
    with pytest.raises(Held):  # one that does not end is given up
        lock._take(None, "s", shared=False)
    assert -971 < now[0] < -965
