"""Deleting a study: all of it goes, nothing comes back, and nothing is written any more."""

import contextlib
import hashlib
import threading
import time

import pytest
from helpers.external_service import X
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.journal.storage import journal_exists, read_journal, study_names
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.service import Service
from tuner.service.settings import Settings

SOON_S = 60
pytestmark = pytest.mark.usefixtures("quick_baselines")


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def settings(request, tmp_path):
    journal = None
    if request.param == "postgresql":
        journal = str(request.getfixturevalue("postgresql_url"))
    elif request.param == "sqlite":
        journal = f"sqlite:///{tmp_path}/service.db"
    return Settings(root=tmp_path / "root", journal=journal)


@pytest.fixture
def in_files(tmp_path):
    return Settings(root=tmp_path / "root")


@contextlib.contextmanager
def running(settings, epoch_s=0.0):
    service = Service(settings, lambda n_workers: ThreadPool(n_workers, epoch_s))
    assert service.start()
    try:
        app = make_app(service, Access(), settings)
        with TestClient(app, base_url="http://127.0.0.1:8080") as client:
            client.service = service
            yield client
    finally:
        service.stop()


def submit(client, **changes):
    content = WAVES.encode()
    dataset = hashlib.sha256(content).hexdigest()
    client.put(f"/v1/datasets/{dataset}?name=waves.csv", content=content)
    raw = waves_experiment(f"dataset:{dataset}", **SHORT | changes)
    body = {"experiment": raw, "name": "a", "tracking": False}
    return client.post("/v1/studies", json=body)


def state(client):
    return client.get("/v1/studies/a").json()["state"]


def until(true):
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended_search(client):
    assert submit(client).status_code == 201
    until(lambda: state(client) == "done")


def create(client, **changes):
    """Create an external study, and ask for trials of it."""
    body = {"name": "a", "space": X, "direction": "minimize", "trials": 9} | changes
    created = client.post("/v1/external-studies", json=body)
    return ask(client) if created.status_code == 201 else created


def ask(client):
    return client.post("/v1/external-studies/a/ask", json={"client": "c", "n": 3})


def left_of(settings):
    """What the disk and the database have of studies."""
    files = [p.name for p in settings.root.rglob("a.*")]
    if settings.journal is None or not journal_exists(settings.journal):
        return files
    return files + study_names(read_journal(settings.journal))


def test_a_deleted_search_leaves_nothing(settings):
    with running(settings) as client:
        ended_search(client)
        assert left_of(settings)
        assert client.delete("/v1/studies/a").status_code == 204
        assert client.get("/v1/studies/a").status_code == 404
        assert left_of(settings) == []
        other = {"strategy": {"name": "random", "batch": 2}}
        assert submit(client, **other).status_code == 201  # the name is free again
        until(lambda: state(client) == "done")
        assert client.get("/v1/studies/a/record").json()["record"]["experiment"]


def test_a_deleted_external_study_leaves_nothing(settings):
    with running(settings) as client:
        create(client)
        client.post("/v1/studies/a/cancel")
        assert client.delete("/v1/studies/a").status_code == 204
        assert left_of(settings) == []
        assert ask(client).status_code == 404
        trials = create(client, seed=7).json()["trials"]
        assert [trial["number"] for trial in trials] == [0, 1, 2]


@pytest.mark.parametrize("part", ["results.forget", "events.remove", "studies.remove", "records"])
def test_an_interrupted_deletion_goes_on(settings, part, monkeypatch):
    with running(settings) as client:
        create(client)
        client.post("/v1/studies/a/cancel")
        records, put = client.service.records, client.service.records.put

        def killed(*args):
            raise RuntimeError("killed")

        def put_one(key, value):
            put(key, value)
            if value is None:
                killed()

        with monkeypatch.context() as patched:
            if part == "records":
                patched.setattr(records, "put", put_one)
            else:
                owner, method = part.split(".")
                patched.setattr(getattr(client.service, owner), method, killed)
            assert client.delete("/v1/studies/a").status_code == 500
        assert client.post("/v1/studies/a/resume").status_code == 409
    with running(settings) as client:
        assert client.get("/v1/studies").json()["items"] == []
        assert left_of(settings) == []
        assert [trial["number"] for trial in create(client).json()["trials"]] == [0, 1, 2]


def test_a_deletion_can_be_asked_for_again(in_files, monkeypatch):
    with running(in_files) as client:
        ended_search(client)
        with monkeypatch.context() as patched:
            patched.setattr(client.service.events, "remove", lambda *args: 1 / 0)
            assert client.delete("/v1/studies/a").status_code == 500
        assert client.delete("/v1/studies/a").status_code == 204
        assert client.delete("/v1/studies/a").status_code == 404
        assert left_of(in_files) == []


def test_nothing_changes_a_study_that_is_being_deleted(in_files, monkeypatch):
    with running(in_files) as client:
        ended_search(client)
        reached, free, answers = threading.Event(), threading.Event(), []
        forget = client.service.results.forget

        def slow(study):
            reached.set()
            assert free.wait(SOON_S)
            forget(study)

        monkeypatch.setattr(client.service.results, "forget", slow)
        deletes = threading.Thread(
            target=lambda: answers.append(client.delete("/v1/studies/a").status_code)
        )
        deletes.start()
        try:
            assert reached.wait(SOON_S)
            for refused in (
                client.post("/v1/studies/a/extend", json={"trials": 9}),
                submit(client),
                submit(client, strategy={"name": "random", "batch": 2}),
            ):
                assert refused.status_code == 409
                assert "being deleted" in refused.json()["detail"]
        finally:
            free.set()
            deletes.join(SOON_S)
        assert answers == [204]
        assert submit(client).status_code == 201


def test_nobody_opens_a_study_that_is_being_deleted(in_files, monkeypatch):
    with running(in_files) as client:
        create(client)
        client.post("/v1/studies/a/cancel")
        answers, forget = [], client.service.results.forget

        def asked_meanwhile(study):
            answers.append(ask(client))
            forget(study)

        monkeypatch.setattr(client.service.results, "forget", asked_meanwhile)
        # Asked for as the deletion began, when the study was not cancelled yet.
        study = client.service.studies.get("local", "a")
        monkeypatch.setattr(client.service.external, "_check_state", lambda study: None)
        assert client.delete("/v1/studies/a").status_code == 204
        assert [answer.status_code for answer in answers] == [404]
        assert study not in client.service.external._open
        assert left_of(in_files) == []


def test_a_search_that_still_ends_writes_nothing_later(in_files):
    with running(in_files, epoch_s=0.05) as client:
        submit(client)
        until(lambda: client.get("/v1/studies/a").json()["trained"])
        assert client.post("/v1/studies/a/cancel").status_code == 202
        assert client.delete("/v1/studies/a").status_code == 204
        assert left_of(in_files) == []
    assert left_of(in_files) == []


def test_a_search_that_does_not_stop_is_not_deleted_yet(in_files, monkeypatch):
    monkeypatch.setattr("tuner.service.searches._CLOSE_S", 0.05)
    with running(in_files) as client:
        ended_search(client)
        searches = client.service.searches
        until(lambda: not searches._running)
        monkeypatch.setitem(searches._running, ("local", "a"), object())
        refused = client.delete("/v1/studies/a")
        assert (refused.status_code, "Retry-After" in refused.headers) == (409, True)
        assert left_of(in_files)
        monkeypatch.undo()
        assert client.delete("/v1/studies/a").status_code == 204
