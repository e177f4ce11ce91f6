"""The service's records: by key, durable, written by one service at a time."""

import os
import signal
import threading

import pytest

from tuner.errors import JournalInUse
from tuner.experiment.schema import SERVICE_STUDY
from tuner.journal.storage import write_journal
from tuner.service.records import hold_records


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    return None if request.param == "file" else f"sqlite:///{tmp_path}/service.db"


def hold(tmp_path, url, **keys):
    return hold_records(tmp_path, url, print, **keys)


def test_records_are_there_again(tmp_path, url):
    with hold(tmp_path, url) as records:
        records.put("study ana/a", {"n": 1})
        records.put("study ana/b", {"n": 2})
        records.put("state ana/a", "x")
        records.put("study ana/b", None)
        now = records.under("study ")
    with hold(tmp_path, url) as records:
        assert records.under("study ") == now == {"ana/a": {"n": 1}}
        assert records.under("state ana/") == {"a": "x"}


def test_records_survive_the_death_of_the_service(tmp_path, url):
    if (pid := os.fork()) == 0:
        with hold(tmp_path, url) as records:
            records.put("key", [1, 2])
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with hold(tmp_path, url) as records:
        assert records.under("") == {"key": [1, 2]}


def test_a_record_of_a_file_waits_for_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    with hold(tmp_path, None) as records:
        before = len(synced)
        records.put("key", 1)
        assert len(synced) == before + 1


def test_a_second_service_is_refused(tmp_path, url):
    with hold(tmp_path, url), pytest.raises(JournalInUse), hold(tmp_path, url):
        pass


def test_a_second_service_takes_over(tmp_path, url):
    waits, held, values = threading.Event(), threading.Event(), []

    def second():
        with hold(tmp_path, url, stand_by=lambda why: waits.set()) as records:
            values.append(records.under(""))
            held.set()

    with hold(tmp_path, url) as records:
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        records.put("key", 7)
        assert not held.is_set()
    assert held.wait(10)
    thread.join()
    assert values == [{"key": 7}]


def test_a_wait_can_be_ended(tmp_path, url):
    stop = threading.Event()
    with (
        hold(tmp_path, url),
        hold(tmp_path, url, stand_by=lambda why: stop.set(), stop=stop) as records,
    ):
        assert records is None


def test_studies_of_a_database_share_its_connection(tmp_path):
    url = f"sqlite:///{tmp_path}/service.db"
    with hold(tmp_path, url) as records:
        own, other = records.place_of("local", "a"), records.place_of("ana", "a")
        with own.open(print) as storage, other.open(print) as same:
            assert storage is same
        assert (own.study, other.study) == ("a", "ana:a")


def test_studies_in_files_have_one_each(tmp_path):
    with hold(tmp_path, None) as records:
        place = records.place_of("ana", "a")
        with place.open(print), write_journal(str(tmp_path / "other.journal"), SERVICE_STUDY):
            assert (tmp_path / "studies" / "ana" / "a.journal").exists()
