"""A journal that takes nothing for a while: the service answers all the same."""

import contextlib
import threading

import pytest
from helpers.external_service import running_external
from helpers.postgresql import schema_of_its_own
from helpers.threads import in_thread, wait_until

from tuner.service import threads
from tuner.service.access import Owner
from tuner.service.external import _Request
from tuner.service.records import hold_records
from tuner.service.settings import Settings
from tuner.service.studies import Facts, Kind, State, Studies

SOON_S = 30
FACTS = Facts("sales", "tpe", 0, "rmse", "minimize", 40)


class Stalled:
    """Writes of a storage wait until they are let go."""

    def __init__(self, monkeypatch, storage):
        self.reached, self.free = threading.Event(), threading.Event()
        write = storage.set_study_user_attr

        def stalled(*args):
            self.reached.set()
            assert self.free.wait(SOON_S)
            write(*args)

        monkeypatch.setattr(storage, "set_study_user_attr", stalled)


@pytest.fixture
def impatient(monkeypatch):
    """Nobody waits long for a journal."""
    for module in ("records", "studies", "external"):
        monkeypatch.setattr(f"tuner.service.{module}.WRITE_S", 0.1)


def test_a_stalled_journal_holds_up_no_reader(tmp_path, monkeypatch, impatient):
    with running_external(tmp_path / "root") as client:
        client.create("s")
        journal = Stalled(monkeypatch, client.service.records._storage)
        answers = []
        writes = threading.Thread(target=lambda: answers.append(client.create("t")))
        writes.start()
        try:
            assert journal.reached.wait(SOON_S)
            for path in ("/health", "/ready", "/v1/studies", "/v1/studies/s", "/v1/queue"):
                assert client.http.get(path).status_code == 200
            assert len(client.trials("s")) == 1  # its journal is another one
            refused = client.create("u")
            assert refused.status_code == 503
            assert "try again" in refused.json()["detail"]
            assert "Retry-After" in refused.headers
            assert client.http.get("/v1/studies/t").status_code == 404  # not before it is written
        finally:
            journal.free.set()
            writes.join(SOON_S)
        assert answers[0].status_code == 201
        assert client.create("u").status_code == 201


def test_changes_that_wait_hold_up_no_reader(tmp_path):
    with running_external(tmp_path / "root") as client, contextlib.ExitStack() as held:
        held.enter_context(client.service.studies.changing())
        created = [in_thread(lambda name=f"s{n}": client.create(name)) for n in range(160)]
        own = threads.CHANGES._own
        wait_until(lambda: "local" in own and own["local"].statistics().tasks_waiting > 150)
        answer = in_thread(lambda: client.http.get("/v1/studies"))()
        assert (answer.status_code, answer.json()["items"]) == (200, [])
        held.close()
        assert {answer().status_code for answer in created} == {201}


def test_a_study_whose_journal_stalls_is_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("tuner.service.external._CLOSE_S", 0.1)
    reached, free = threading.Event(), threading.Event()

    def stall(open_study):
        reached.set()
        assert free.wait(SOON_S)

    with running_external(tmp_path / "root") as client:
        client.create("s")
        study = client.service.studies.get("local", "s")
        client.service.external._submit(_Request(stall), study)
        try:
            assert reached.wait(SOON_S)
            refused = client.http.post("/v1/studies/s/cancel")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        finally:
            free.set()
        assert study.state is State.RUNNING
        monkeypatch.setattr("tuner.service.external._CLOSE_S", SOON_S)
        assert client.http.post("/v1/studies/s/cancel").status_code == 202


def test_a_change_is_seen_once_it_is_written(tmp_path, monkeypatch):
    with hold_records(tmp_path, None, print) as records:
        studies = Studies(records)
        study = studies.add("ana", "a", Kind.SEARCH, {}, FACTS)
        journal = Stalled(monkeypatch, records._storage)
        thread = threading.Thread(target=studies.change, args=(study, State.RUNNING))
        thread.start()
        assert journal.reached.wait(SOON_S)
        assert studies.get("ana", "a").state is State.QUEUED
        assert studies.in_state(State.QUEUED) == studies.of("ana") == [study]
        studies.check_room(Owner("ana"))
        journal.free.set()
        thread.join(SOON_S)
        assert study.state is State.RUNNING


def test_an_outage_of_the_database_is_503_in_seconds(tmp_path, postgresql, impatient):
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(schema_of_its_own(postgresql.url))
        settings = Settings(root=tmp_path / "root", journal=url)
        client = stack.enter_context(running_external(tmp_path / "root", settings=settings))
        assert client.create("s").status_code == 201
        (trial,) = client.trials("s")
        postgresql.stop()
        assert client.ask("s").status_code == 503
        assert client.tell(trial, 0.5).status_code == 503
        refused = client.create("t")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        assert "127.0.0.1" not in refused.text
        assert client.http.get("/v1/studies/t").status_code == 404
        postgresql.start()
        assert client.create("t").status_code == 201
        assert len(client.trials("t")) == 1
        assert client.tell(trial, 0.5).status_code == 200


def test_a_service_is_not_ready_once_its_database_was_away(tmp_path):
    settings = Settings(root=tmp_path / "root", journal=f"sqlite:///{tmp_path}/service.db")
    with running_external(tmp_path / "root", settings=settings) as client:
        assert client.http.get("/ready").status_code == 200
        client.service.records._storage.close()
        answer = client.http.get("/ready")
        assert (answer.status_code, "start the service again" in answer.text) == (503, True)
