"""Arrays that pull workers send: whose they are, how much, and when they are gone."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from helpers.executor_events import events, n_finished
from helpers.prepared import write_series
from helpers.pulled import agents, served

from tuner import __version__
from tuner.data import Shape
from tuner.executors import Finished, LocalExecutor, Lost
from tuner.jobs import Epoch, ExportJob, Outcome, OutcomeState, PredictJob, TrainJob
from tuner.service.access import Access, Owner
from tuner.service.job_records import event_to_record
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem
from tuner.service.workers import LEASE_S, PullWorkers

LOCAL = Owner("local")
WEIGHTS = {"w": np.arange(6.0)}
MOST_BYTES = 10_000


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    return write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)


@pytest.fixture
def job(data):
    def make(key="a", keep_weights=True, epochs=3):
        size = {"hidden_size": 6, "batch_size": 16}
        return TrainJob(key, size, 1, epochs, 9, "rmse", (data,), keep_weights=keep_weights)

    return make


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def service(clock):
    pool = SharedPool(LocalExecutor, 0)
    workers = PullWorkers(pool, lambda: clock[0], most_bytes=MOST_BYTES)
    yield SimpleNamespace(pool=pool, workers=workers)
    workers.close()
    pool.close()


@pytest.fixture
def worker(service):
    return service.workers.join(LOCAL, "w", __version__, 2)


def files(service):
    return sorted(service.workers._uploads.iterdir())


def put(service, worker, key, content, name=None):
    name = name or hashlib.sha256(content).hexdigest()
    with service.workers.uploading(worker, key, name) as arriving:
        arriving.grow(len(content))
        arriving.upload.path.write_bytes(content)
    return name


def finished(service, worker, key, **arrays):
    """Send the arrays of an outcome, and return the event that refers to them."""
    epochs = (Epoch(0, 1.0, 1.0, 1.0, 1.0),)
    outcome = Outcome(OutcomeState.COMPLETE, 1.0, 0, epochs, **arrays)
    return event_to_record(
        Finished(key, outcome), lambda content: put(service, worker, key, content)
    )


def begun(service, worker, *jobs):
    """Have a worker begin the jobs of a study; return the study, and their keys in the pool."""
    study = service.pool.executor("local", "s")
    for each in jobs:
        study.submit(each)
    messages = service.workers.messages(worker, 0)
    return study, [message["key"] for message in messages if "job" in message]


def test_two_jobs_with_the_same_arrays_both_end(service, worker, job):
    study, keys = begun(service, worker, job("a"), job("b"))
    records = [finished(service, worker, key, weights=WEIGHTS) for key in keys]
    assert records[0]["outcome"]["weights"] == records[1]["outcome"]["weights"]
    assert service.workers.receive(worker, 0, records) == 2
    ends = study.poll(0)
    assert [end.key for end in ends] == ["a", "b"]
    for end in ends:
        np.testing.assert_array_equal(end.outcome.weights["w"], WEIGHTS["w"])
    assert files(service) == []


def test_arrays_that_are_sent_twice_are_kept_once(service, worker, data):
    study, (key,) = begun(service, worker, PredictJob("p", {}, WEIGHTS, data))
    arrays = {"predictions": np.ones(3), "attention": np.ones((3, 2))}
    for _ in range(2):  # again after a lost answer
        record = finished(service, worker, key, **arrays)
    assert len(files(service)) == 2
    assert service.workers.receive(worker, 0, [record]) == 1
    assert study.poll(0)[0].outcome.predictions.tolist() == [1, 1, 1]
    assert files(service) == []


@pytest.mark.parametrize("way", ["ended", "lost", "returned", "left", "vanished", "unread"])
def test_arrays_are_gone_however_their_job_ends(service, worker, job, clock, way):
    study, (key,) = begun(service, worker, job())
    put(service, worker, key, b"weights")
    if way == "ended":
        study.abort(RuntimeError("cancelled"))
        service.workers.receive(worker, 0, [{"key": key, "ended": True}])
    elif way == "lost":
        service.workers.receive(worker, 0, [{"key": key, "lost": "it died"}])
    elif way == "returned":
        service.workers.receive(worker, 0, [{"key": key, "returned": True}])
    elif way == "left":
        service.workers.leave(worker)
    elif way == "vanished":
        clock[0] += LEASE_S + 1
        service.workers.expire()
    else:  # the outcome refers to none of them
        service.workers.receive(worker, 0, [finished(service, worker, key)])
    assert files(service) == []


def test_an_upload_whose_job_ends_meanwhile_is_dropped(service, worker, job):
    _, (key,) = begun(service, worker, job())

    def upload():
        with service.workers.uploading(worker, key, "0" * 64) as arriving:
            service.workers.receive(worker, 0, [{"key": key, "lost": "it died"}])
            arriving.upload.path.write_bytes(b"late")

    with pytest.raises(Problem, match="the job has ended") as caught:
        upload()
    assert caught.value.status == 409
    assert files(service) == []


def test_an_upload_for_no_job_of_the_worker_is_refused(service, worker, job):
    other = service.workers.join(LOCAL, "other", __version__, 1)
    _, (key,) = begun(service, worker, job())
    for who, which in ((other, key), (worker, "nothing")):
        with pytest.raises(Problem, match="no such job") as caught:
            put(service, who, which, b"x")
        assert caught.value.status == 409
    assert files(service) == []


def test_an_array_that_has_not_arrived_whole_is_not_read(service, worker, job):
    _, (key,) = begun(service, worker, job())
    record = finished(service, worker, key, weights=WEIGHTS)
    name = record["outcome"]["weights"]["sha256"]
    with (
        service.workers.uploading(worker, key, name),  # once more; it is on its way
        pytest.raises(Problem, match="cannot be read: KeyError"),
    ):
        service.workers.receive(worker, 0, [record])


SHAPE = Shape("forecast", 1, window=8)
MOST = {
    "a trial": (lambda job, data: job(keep_weights=False), 1, 3 * 256),
    "a winner": (lambda job, data: job(), 2, MOST_BYTES),
    "a prediction": (lambda job, data: PredictJob("p", {}, WEIGHTS, data), 2, MOST_BYTES),
    "an export": (lambda job, data: ExportJob("e", {}, WEIGHTS, SHAPE, steps=8), 1, MOST_BYTES),
}


@pytest.mark.parametrize("kind", MOST)
def test_a_job_gives_no_more_than_it_may_produce(service, worker, job, data, kind):
    make, n_files, n_bytes = MOST[kind]
    _, (key,) = begun(service, worker, make(job, data))
    with pytest.raises(Problem, match=f"at most {n_bytes} bytes") as caught:
        put(service, worker, key, bytes(n_bytes + 1))
    assert caught.value.status == 413
    assert files(service) == []
    for n in range(n_files):
        put(service, worker, key, b"%d" % n)
    with pytest.raises(Problem, match=f"at most {n_files} files") as caught:
        put(service, worker, key, b"more")
    assert caught.value.status == 413
    if n_files == 2:  # together
        with pytest.raises(Problem, match=f"at most {n_bytes} bytes"):
            put(service, worker, key, bytes(n_bytes), name=hashlib.sha256(b"0").hexdigest())


def test_an_upload_over_http(service, worker, job, tmp_path):
    _, (key,) = begun(service, worker, job())
    content = b"arrays"
    with served(service, Access(), tmp_path) as url:

        def status(name, job=key):
            path = f"{url}/v1/workers/{worker.id}/blobs/{name}"
            return requests.put(path, params={"job": job}, data=content)

        wrong = status("0" * 64)
        assert wrong.status_code == 422
        assert "another SHA-256" in wrong.json()["detail"]
        assert files(service) == []
        assert status(hashlib.sha256(content).hexdigest(), "none").status_code == 409
        assert status(hashlib.sha256(content).hexdigest()).status_code == 204
    assert [path.read_bytes() for path in files(service)] == [content]


def test_too_large_arrays_lose_their_job_not_the_worker(service, job, tmp_path):
    """The worker goes on, and the search learns why."""
    service.workers._most_bytes = 100
    with served(service, Access(), tmp_path) as url, agents(url) as begin:
        begin()
        study = service.pool.executor("local", "s")
        study.submit(job("large"))
        lost = events(study, lambda seen: any(isinstance(event, Lost) for event in seen))[-1]
        assert lost.reason.startswith("its arrays are refused: this job gives at most 100")
        study.submit(job("small", keep_weights=False))
        assert events(study, n_finished(1))
        assert len(service.workers.of(LOCAL)) == 1
