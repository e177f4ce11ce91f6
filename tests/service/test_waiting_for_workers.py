"""A search whose trials nobody can run says so: at the start, and when all workers have left."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers.prepared import write_series
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from starlette.testclient import TestClient

from tuner import __version__
from tuner.cli.remote import place_in_words
from tuner.executors import LocalExecutor
from tuner.jobs import TrainJob
from tuner.service.access import Access, Owner
from tuner.service.app import make_app
from tuner.service.pool import NO_WORKERS, SharedPool
from tuner.service.service import Service
from tuner.service.workers import PullWorkers

CLUSTER, ANA, BEN = Owner("cluster", "worker"), Owner("ana"), Owner("ben")
SOON_S = 60


@pytest.fixture(autouse=True)
def at_once(monkeypatch, quick_baselines):
    monkeypatch.setattr("tuner.service.pool._ALONE_S", 0.0)


@pytest.fixture
def job(tmp_path):
    values = np.sin(np.arange(120) / 3)[:, None]
    data = write_series(tmp_path, values, train_end=80)
    return TrainJob("a", {"hidden_size": 6}, 1, 3, 9, "rmse", (data,))


@pytest.fixture
def workers():
    pool = SharedPool(LocalExecutor, 0)
    made = PullWorkers(pool)
    made.pool = pool
    yield made
    made.close()
    pool.close()


def test_a_search_hears_once_each_time_that_it_has_no_worker(workers, job):
    study, heard = workers.pool.executor("ana", "s"), []
    study.on_wait = heard.append
    study.poll(0)
    assert heard == []  # it asks for nothing
    study.submit(job)
    for _ in range(3):
        study.poll(0)
    assert heard == [NO_WORKERS]
    worker = workers.join(CLUSTER, "w", __version__, 1)
    study.poll(0)
    workers.leave(worker)  # in the middle of its job
    for _ in range(3):
        study.poll(0)
    assert heard == [NO_WORKERS] * 2


def test_a_worker_of_another_owner_is_none(workers, job):
    studies = {owner.name: workers.pool.executor(owner.name, "s") for owner in (ANA, BEN)}
    heard = []
    for name, study in studies.items():
        study.on_wait = lambda why, name=name: heard.append(name)
        study.submit(job)
    workers.join(BEN, "w", __version__, 1)
    for study in studies.values():
        study.poll(0)
    assert heard == ["ana"]


def test_workers_that_come_back_soon_are_not_missed(workers, job, monkeypatch):
    monkeypatch.setattr("tuner.service.pool._ALONE_S", 3600.0)
    study, heard = workers.pool.executor("ana", "s"), []
    study.on_wait = heard.append
    study.submit(job)
    study.poll(0)
    assert heard == []


def test_own_workers_serve_everybody():
    pool = SharedPool(LocalExecutor, 1)
    assert pool.serves("anybody")
    pool.close()


@pytest.fixture
def client(settings):
    """A client of a service without workers of its own."""
    service = Service(replace(settings, workers=0))
    assert service.start()
    app = make_app(service, Access(), settings)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        client.service = service
        yield client
    service.stop()


def test_a_study_says_that_it_waits_wherever_it_is_shown(client):
    uploaded = client.post("/v1/datasets?name=waves.csv", content=WAVES.encode())
    dataset = uploaded.json()["id"]
    raw = waves_experiment(f"dataset:{dataset}", **SHORT)
    body = {"experiment": raw, "tracking": False}
    assert client.post("/v1/studies", json=body).json()["waits"] == NO_WORKERS
    url = "/v1/studies/waves-random-0"

    def notes():
        log = client.service.events.of("local", "waves-random-0")
        events = [json.loads(line) for line in log.lines()]
        return [event["text"] for event in events if event["event"] == "note"]

    deadline = time.monotonic() + SOON_S
    while NO_WORKERS not in notes():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for path, key in (("/v1/studies", "items"), ("/v1/queue", "studies")):
        assert [study["waits"] for study in client.get(path).json()[key]] == [NO_WORKERS]
    assert "waits for workers: none is connected" in client.get("/page/view").text
    joining = {"name": "w", "version": __version__, "slots": 1}
    worker = client.post("/v1/workers", json=joining).json()["id"]
    assert client.get(url).json()["waits"] is None
    client.delete(f"/v1/workers/{worker}")
    assert client.get(url).json()["waits"] == NO_WORKERS
    client.post(f"{url}/cancel")
    assert client.get(url).json()["waits"] is None


def test_the_place_in_the_queue_names_what_is_missing():
    facts = {"position": 2, "waits": NO_WORKERS}
    assert place_in_words(facts) == f"queued, number 2 in the queue; {NO_WORKERS}"
    assert place_in_words({"position": 2}) == "queued, number 2 in the queue"
