"""Journals by URL that cannot be used: said in one line, within ten seconds, without passwords."""

import socket
import sys
import time

import pytest
import sqlalchemy
from helpers.ports import free_port
from optuna.storages._rdb.models import BaseModel

from tuner.errors import JournalError
from tuner.journal.storage import (
    journal_exists,
    quiet_journal,
    read_journal,
    study_names,
    write_journal,
)


def refusal(url):
    """What every way of opening a journal says."""
    messages = set()
    begun = time.monotonic()
    with pytest.raises(JournalError) as error, write_journal(url, "s"):
        pass
    messages.add(str(error.value))
    assert time.monotonic() - begun < 10
    with pytest.raises(JournalError) as error:
        read_journal(url)
    messages.add(str(error.value))
    with pytest.raises(JournalError) as error, quiet_journal(url, "s"):
        pass
    messages.add(str(error.value))
    assert len(messages) == 1
    (message,) = messages
    assert "\n" not in message
    assert message.startswith("--journal: ")
    assert "secret" not in message
    return message


def test_a_server_that_is_not_there_is_named():
    port = free_port()
    message = refusal(f"postgresql+psycopg://me:secret@127.0.0.1:{port}/studies")
    assert f"postgresql+psycopg://127.0.0.1:{port}/studies: cannot be opened: " in message
    assert "Connection refused" in message


def test_a_host_without_an_address_is_named(monkeypatch):
    def unknown(*arguments, **options):  # at once, whatever this machine's name servers do
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refusal("postgresql+psycopg://me:secret@nowhere.invalid/studies")
    assert "nowhere.invalid/studies: cannot be opened: " in message
    assert "Name or service not known" in message


@pytest.fixture
def silent():
    """A port that takes connections and never says a word, as behind many a firewall."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_silent_server_is_given_up_within_ten_seconds(silent):
    begun = time.monotonic()
    with pytest.raises(JournalError, match=f"127.0.0.1:{silent}/studies: ") as error:
        read_journal(f"postgresql+psycopg://me:secret@127.0.0.1:{silent}/studies")
    assert 3 < time.monotonic() - begun < 10
    assert "secret" not in str(error.value)


def test_many_addresses_that_never_answer_take_no_longer(silent):
    hosts = "&".join(f"host=127.0.0.1:{silent}" for _ in range(4))
    begun = time.monotonic()
    with pytest.raises(JournalError, match="does not answer within 7 s; check the host"):
        read_journal(f"postgresql+psycopg:///studies?{hosts}")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgres://me:secret@h/d", "pip install 'lstm-tuner[postgresql]'"),
        ("mysql://me:secret@h/d", "its driver MySQLdb is not installed; pip install mysqlclient"),
        ("mysql+pymysql://me:secret@h/d", "its driver pymysql is not installed; pip install"),
        ("nosuch://x/y", "there is no such kind of database, got 'nosuch'; write sqlite:///"),
        ("postgresql+psycopg://h:port/d", "cannot be opened: "),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_told_what_to_write(url, text):
    assert text in refusal(url)


def test_a_url_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    assert refusal("postgresql+psycopg://me:secret@h/d") == (
        "--journal: postgresql+psycopg://h/d: its driver psycopg is not installed; "
        "pip install 'lstm-tuner[postgresql]'"
    )
    assert refusal("postgresql://me:secret@h/d") == (
        "--journal: postgresql://h/d: names no driver that is installed; "
        "write postgresql+psycopg://..., and pip install 'lstm-tuner[postgresql]'"
    )


def test_a_wrong_password_and_an_unknown_database_are_said(postgresql):
    wrong = postgresql.url.replace("tuner@", "locked:secret@")
    assert 'password authentication failed for user "locked"' in refusal(wrong)
    unknown = postgresql.url.replace("/postgres", "/nosuch")
    assert 'database "nosuch" does not exist' in refusal(unknown)


def test_reading_a_database_without_studies_creates_nothing(postgresql_url):
    for _ in range(2):
        with pytest.raises(JournalError, match="holds no studies; check the URL"):
            read_journal(postgresql_url)


def test_partial_tables_are_no_journal_and_stay_unchanged(postgresql_url):
    engine = sqlalchemy.create_engine(postgresql_url)
    BaseModel.metadata.create_all(engine)  # as a search does first, which is killed then
    before = sqlalchemy.inspect(engine).get_table_names()
    with pytest.raises(JournalError, match="holds no studies; check the URL"):
        read_journal(postgresql_url)
    assert not journal_exists(postgresql_url)
    assert sqlalchemy.inspect(engine).get_table_names() == before
    assert "alembic_version" not in before
    with write_journal(postgresql_url, "a") as storage:
        storage.create_new_study([1], "a")
    assert study_names(read_journal(postgresql_url)) == ["a"]
    engine.dispose()
