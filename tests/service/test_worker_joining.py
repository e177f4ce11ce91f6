"""Who joins as a pull worker: which tokens, which versions, and each worker once."""

import threading
from types import SimpleNamespace

import pytest
import requests
from helpers.pulled import served

from tuner import __version__
from tuner.client.connection import Connection
from tuner.errors import InputError, RunError
from tuner.executors import LocalExecutor
from tuner.service.access import Access, Owner, TokenFile, new_token
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem
from tuner.service.pull_worker import PullAgent
from tuner.service.workers import LEASE_S, PullWorkers

ANA, BEN = Owner("ana", "write"), Owner("ben", "write")
CLUSTER = Owner("cluster", "worker")


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def service(clock):
    """A pool without workers of its own, and its pull workers, on a clock."""
    pool = SharedPool(LocalExecutor, 0)
    workers = PullWorkers(pool, lambda: clock[0])
    yield SimpleNamespace(pool=pool, workers=workers)
    workers.close()
    pool.close()


@pytest.fixture
def url(service, tmp_path):
    with served(service, Access(), tmp_path) as url:
        yield url


@pytest.fixture
def guarded(service, tmp_path):
    """A service with tokens: its URL, and tokens by owner and role."""
    path = tmp_path / "tokens.yaml"
    roles = [("ana", "read"), ("ana", "write"), ("cluster", "worker")]
    given = {(owner, role): new_token(path, owner, role) for owner, role in roles}
    with served(service, Access(TokenFile(path)), tmp_path / "root") as url:
        yield url, given


def test_a_request_to_join_that_is_sent_again_adds_no_worker(service, clock):
    workers = service.workers
    first = workers.join(CLUSTER, "w", __version__, 2, "key")
    clock[0] += LEASE_S - 1
    assert workers.join(CLUSTER, "w", __version__, 2, "key") is first
    clock[0] += LEASE_S - 1
    workers.expire()  # it was heard from
    assert (service.pool.n_workers, workers.of(CLUSTER)) == (2, [first])
    others = [workers.join(owner, "w", __version__, 2, "key") for owner in (ANA, BEN)]
    others += [workers.join(CLUSTER, "w", __version__, 2, key) for key in ("other", None, None)]
    assert len({worker.id for worker in [first, *others]}) == 6
    workers.leave(first)
    assert workers.join(CLUSTER, "w", __version__, 2, "key") is not first


def test_another_version_of_tuner_is_refused(service):
    with pytest.raises(Problem) as caught:
        service.workers.join(CLUSTER, "w", "0.0.1", 1)
    assert caught.value.status == 409
    assert caught.value.detail == (
        f"the service has lstm-tuner {__version__} and the worker 0.0.1; install the same"
    )


def test_a_worker_whose_joining_was_not_answered_leaves_no_ghost(service, url, monkeypatch):
    """The service has taken the request, and the connection broke before its answer."""
    monkeypatch.setattr("tuner.service.pull_worker._AGAIN_S", 0.0)
    answered, stop = Connection.json, threading.Event()
    n_joined = 0

    def cut(self, method, path, **how):
        nonlocal n_joined
        answer = answered(self, method, path, **how)
        if path == "/v1/workers":
            n_joined += 1
            if n_joined < 3:
                raise RunError("the connection was cut")
            stop.set()
        return answer

    monkeypatch.setattr(Connection, "json", cut)
    joined_ = service.workers.join
    known = []
    monkeypatch.setattr(service.workers, "join", lambda *a: known.append(joined_(*a)) or known[-1])
    agent = PullAgent(url, None, 2, lambda text: None)
    agent.run(stop)
    assert n_joined == 3
    assert len({worker.id for worker in known}) == 1
    assert service.workers.of(Owner("local")) == []
    stop.clear()
    agent.run(stop)  # it joins once more
    assert len({worker.key for worker in known}) == 2


def test_tokens_of_workers_open_nothing_else(guarded):
    url, tokens = guarded

    def status(method, path, who, body=None):
        headers = {"Authorization": f"Bearer {tokens[who]}"}
        return requests.request(method, url + path, json=body, headers=headers).status_code

    joining = {"name": "w", "version": __version__, "slots": 1}
    assert status("POST", "/v1/workers", ("ana", "read"), joining) == 403
    assert status("POST", "/v1/workers", ("cluster", "worker"), joining) == 201
    assert status("GET", "/page/view", ("cluster", "worker")) == 403
    assert status("GET", "/page/view", ("ana", "read")) != 403
    assert requests.post(f"{url}/v1/workers", json=joining).status_code == 401


def test_a_refused_worker_ends_in_one_line(guarded, monkeypatch):
    url, tokens = guarded
    with pytest.raises(InputError, match="the token is unknown; tuner token makes one"):
        PullAgent(url, "wrong", 1, print).run(threading.Event())
    monkeypatch.setattr("tuner.service.pull_worker.__version__", "0.0.1")
    with pytest.raises(InputError, match="and the worker 0.0.1; install the same"):
        PullAgent(url, tokens["cluster", "worker"], 1, print).run(threading.Event())
