"""What threads share of the workers is read and changed with the lock of the pool held, always."""

import numpy as np
import pytest
import requests
from helpers.prepared import write_series
from helpers.pulled import served

from tuner import __version__
from tuner.executors import LocalExecutor
from tuner.jobs import Outcome, OutcomeState, TrainJob
from tuner.service.access import Access, Owner
from tuner.service.pool import SharedPool
from tuner.service.workers import LEASE_S, PullWorkers, to_json

LOCAL = Owner("local")


def locked(value, lock, used):
    """Return a proxy of an object that may be used under a lock alone; uses are noted."""

    def checked(name):
        def use(self, *arguments, **named):
            assert lock._is_owned(), f"{name} of a {type(value).__name__} without the lock"
            used.add(type(value).__name__)
            return getattr(value, name)(*arguments, **named)

        return use

    special = ("__len__", "__iter__", "__contains__", "__getitem__", "__setitem__", "__delitem__")
    names = [name for name in dir(value) if not name.startswith("_")]
    names += [name for name in special if hasattr(type(value), name)]
    proxy = type("Proxy", (), {name: checked(name) for name in names if _is_method(value, name)})
    return proxy()


def _is_method(value, name):
    return callable(getattr(value, name))


@pytest.fixture
def used():
    return set()


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def service(used, clock):
    """A pool and its pull workers, whose state complains of a use without the lock."""
    pool = SharedPool(LocalExecutor, 0)
    workers = PullWorkers(pool, lambda: clock[0])
    for owner, names in ((pool, ("_share", "_tasks", "_kinds", "_studies")),
                         (workers, ("_workers", "_data"))):  # fmt: skip
        for name in names:
            setattr(owner, name, locked(getattr(owner, name), pool.lock, used))
    join = workers.join

    def joined(*arguments):
        worker = join(*arguments)
        for name in ("jobs", "blobs", "uploads", "_messages", "_wakes"):
            setattr(worker, name, locked(getattr(worker, name), pool.lock, used))
        return worker

    workers.join, workers.pool = joined, pool
    yield workers
    workers.close()
    pool.close()


@pytest.fixture
def job(tmp_path):
    values = np.sin(np.arange(120) / 3)[:, None]
    data = write_series(tmp_path, values, train_end=80)

    def make(key):
        size = {"hidden_size": 6, "batch_size": 16}
        return TrainJob(key, size, 1, 3, 9, "rmse", (data,), can_be_pruned=True, keep_weights=True)

    return make


def test_the_life_of_jobs_and_workers_is_locked(service, job, clock, used):
    pool = service.pool
    study, other = pool.executor("local", "s"), pool.executor("local", "t", max_workers=1)
    first, second = (service.join(LOCAL, name, __version__, 1) for name in "ab")
    for key in "abc":
        study.submit(job(key))
    other.submit(job("d"))
    key = next(m["key"] for m in service.messages(first, 0) if "job" in m)
    epoch = {"epoch": 0, "train_loss": 1.0, "val_loss": 1.0, "metric": 1.0, "time": 1.0,
             "fold": 0, "fold_score": None}  # fmt: skip
    outcome = Outcome(OutcomeState.FAILED, reason="x").to_json()
    report = {"key": key, "epoch": epoch, "trained_s": 0.5}
    service.receive(first, 0, [report])
    study.answer("a", True)
    with service.uploading(first, key, "0" * 64) as arriving:
        arriving.grow(0)
    service.receive(first, 1, [{"key": key, "outcome": outcome}])
    assert [type(event).__name__ for event in study.poll(0)] == ["Reported", "Finished"]
    given = [m["key"] for m in service.messages(second, 0) if "job" in m]
    service.receive(second, 0, [{"key": given[0], "returned": True}])
    assert (pool.n_workers, pool.busy, pool.n_ready()) == (2, 2, 1)
    assert (study.n_workers, other.n_workers) == (2, 1)
    assert len(pool.usage.running_by_study) == 2
    assert [to_json(worker)["busy"] for worker in service.of(LOCAL)] == [1, 1]
    pool.wake_all()
    study.withdraw()
    other.abort(RuntimeError("cancelled"))
    service.leave(second)
    clock[0] += LEASE_S + 1
    service.expire()
    study.close()
    other.close()
    assert used == {"FairShare", "dict", "list", "deque"}


def test_the_routes_of_workers_are_locked(service, job, tmp_path):
    study = service.pool.executor("local", "s")
    study.submit(job("a"))
    with served(
        type("", (), {"workers": service, "pool": service.pool}), Access(), tmp_path
    ) as url:
        url += "/v1/workers"
        joining = {"name": "w", "version": __version__, "slots": 1}
        url = f"{url}/{requests.post(url, json=joining).json()['id']}"
        lease = {"after": 0, "wait_s": 0.01}
        (message,) = requests.post(f"{url}/lease", json=lease).json()["messages"]
        (files,) = message["data"].values()
        assert requests.get(f"{url}/blobs/{files['inputs']}").status_code == 200
        sent = requests.put(f"{url}/blobs/{'0' * 64}?job={message['key']}", data=b"x")
        assert sent.status_code == 422
        ended = [{"key": message["key"], "lost": "it died"}]
        assert requests.post(f"{url}/events", json={"first": 0, "events": ended}).json() == {
            "received": 1
        }
        assert requests.delete(url).status_code == 204
