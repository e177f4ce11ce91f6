"""Pull workers: real ones over HTTP, and the rules of their leases on a clock."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from helpers.executor_events import events, go_on, n_finished, outcomes
from helpers.ports import free_port
from helpers.prepared import write_series
from helpers.pulled import agents, served

from tuner import __version__
from tuner.data import Shape
from tuner.executors import Finished, LocalExecutor, Lost, Reported
from tuner.jobs import Epoch, ExportJob, GroupJob, Outcome, OutcomeState, PredictJob, TrainJob
from tuner.service.access import Access, Owner, TokenFile, new_token
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem
from tuner.service.workers import LEASE_S, PullWorkers

ANA = Owner("ana", "write")
BEN = Owner("ben", "write")
CLUSTER = Owner("cluster", "worker")
SOON_S = 60
HYPERPARAMETERS = {"hidden_size": 6, "batch_size": 16, "dropout": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    return write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)


@pytest.fixture
def job(data):
    def make(key="a", epochs=3, seed=1, **fields):
        return TrainJob(key, HYPERPARAMETERS, seed, epochs, 1000, "rmse", (data,), **fields)

    return make


# The rules, without HTTP.


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def pool():
    made = SharedPool(LocalExecutor, 0)
    yield made
    made.close()


@pytest.fixture
def workers(pool, clock):
    made = PullWorkers(pool, lambda: clock[0])
    yield made
    made.close()


def joined(workers, owner=CLUSTER, slots=1, name="w"):
    return workers.join(owner, name, __version__, slots)


def keys(workers, worker, number=0, kind="job"):
    return [m["key"] for m in workers.messages(worker, number) if kind in m]


def reported(key, n):
    epoch = {"epoch": n, "train_loss": 1.0, "val_loss": 1.0, "metric": float(n), "time": 1.0,
             "fold": 0, "fold_score": None}  # fmt: skip
    return {"key": key, "epoch": epoch, "trained_s": 0.5}


def finished(key):
    outcome = Outcome(OutcomeState.COMPLETE, 1.0, 0, (Epoch(0, 1.0, 1.0, 1.0, 1.0),))
    return {"key": key, "outcome": outcome.to_json()}


def test_a_free_slot_gets_a_job_and_its_search_the_outcome(pool, workers, job):
    study = pool.executor("ana", "s")
    for key in "abc":
        study.submit(job(key))
    worker = joined(workers, slots=2)
    first, second = keys(workers, worker)
    assert (pool.n_workers, pool.busy, workers.of(CLUSTER)) == (2, 2, [worker])
    assert workers.receive(worker, 0, [reported(first, 0), finished(first)]) == 2
    report, end = study.poll(0)
    assert isinstance(report, Reported)
    assert isinstance(end, Finished)
    assert report.key == end.key == "a"
    assert len(keys(workers, worker)) == 2  # that of the job which has ended has no content
    assert keys(workers, worker, 2)[0] not in (first, second)


def test_messages_are_kept_until_they_have_arrived(pool, workers, job):
    worker = joined(workers)
    pool.executor("ana", "s").submit(job())
    assert keys(workers, worker) == keys(workers, worker)
    assert workers.messages(worker, 1) == []
    assert workers.messages(worker, 0) == []  # it has arrived


def group_of(job, keys, **fields):
    return GroupJob(f"group of {keys[0]}", tuple(job(key, **fields) for key in keys))


def member_keys(workers, worker):
    (record,) = [m["job"] for m in workers.messages(worker, 0) if "job" in m]
    assert record["kind"] == "group"
    return [each["key"] for each in record["jobs"]]


def test_a_group_takes_one_slot_until_all_members_have_ended(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    study.submit(group_of(job, "abc", can_be_pruned=True))
    study.submit(job("d"))
    a, b, c = member_keys(workers, worker)
    workers.receive(worker, 0, [reported(key, 0) for key in (a, b, c)])
    assert [event.key for event in study.poll(0)] == ["a", "b", "c"]
    for key in "bca":
        study.answer(key, True)
    answers = [m for m in workers.messages(worker, 1) if "answer" in m]
    assert [m["key"] for m in answers] == [b, c, a]
    workers.receive(worker, 3, [finished(a), finished(c)])
    assert [event.key for event in study.poll(0)] == ["a", "c"]
    assert pool.busy == 1
    assert keys(workers, worker, 4) == []
    workers.receive(worker, 5, [finished(b)])
    assert [event.key for event in study.poll(0)] == ["b"]
    assert len(keys(workers, worker, 4)) == 1  # the next job


def test_a_worker_that_vanishes_loses_what_is_left_of_a_group(pool, workers, job, clock):
    study, worker = pool.executor("ana", "s"), joined(workers, name="node7:12")
    study.submit(group_of(job, "abc"))
    a, _, _ = member_keys(workers, worker)
    workers.receive(worker, 0, [finished(a)])
    clock[0] += LEASE_S + 1
    workers.expire()
    end, *lost = study.poll(0)
    assert isinstance(end, Finished)
    assert [type(event) for event in lost] == [Lost, Lost]
    assert [event.key for event in lost] == ["b", "c"]
    assert pool.busy == 0
    study.submit(group_of(job, "abc"))  # its keys are free again


def test_data_that_does_not_arrive_loses_the_whole_group(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    study.submit(group_of(job, "abc"))
    (key,) = keys(workers, worker)  # of the group
    workers.receive(worker, 0, [{"key": key, "lost": "no data"}])
    assert [(type(e), e.key) for e in study.poll(0)] == [(Lost, key) for key in "abc"]
    assert pool.busy == 0


def test_a_group_that_is_handed_back_begins_again_unseen(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    study.submit(group_of(job, "ab", can_be_pruned=True))
    a, b = member_keys(workers, worker)
    workers.receive(worker, 0, [reported(a, 0), reported(b, 0)])
    study.poll(0)
    study.answer("a", False)
    study.answer("b", True)
    workers.receive(worker, 2, [finished(a)])
    assert [event.key for event in study.poll(0)] == ["a"]
    workers.leave(worker)
    other = joined(workers, name="other")
    assert member_keys(workers, other) == [a, b]
    workers.receive(other, 0, [reported(a, 0), reported(b, 0)])
    assert study.poll(0) == []  # they are known
    answers = [m for m in workers.messages(other, 1) if "answer" in m]
    assert [(m["key"], m["answer"]) for m in answers] == [(a, False), (b, True)]
    workers.receive(other, 2, [reported(b, 1), finished(b), finished(a)])
    assert [event.key for event in study.poll(0)] == ["b", "b"]
    assert pool.busy == 0


def test_events_that_arrive_twice_count_once(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    study.submit(job())
    (key,) = keys(workers, worker)
    sent = [reported(key, 0), reported(key, 1)]
    assert workers.receive(worker, 0, sent) == 2
    assert workers.receive(worker, 0, [*sent, reported(key, 2)]) == 3
    assert [event.epoch.epoch for event in study.poll(0)] == [0, 1, 2]
    with pytest.raises(Problem, match="event 3 is missing; begin with it"):
        workers.receive(worker, 4, [finished(key)])


def test_a_worker_that_vanishes_loses_its_jobs(pool, workers, job, clock):
    study, worker = pool.executor("ana", "s"), joined(workers, name="node7:12")
    study.submit(job())
    clock[0] += LEASE_S
    workers.expire()
    assert study.poll(0) == []
    clock[0] += 0.1
    workers.expire()
    (lost,) = study.poll(0)
    assert lost == Lost("a", "its worker node7:12 has not been heard from for 15 s")
    assert (pool.n_workers, pool.busy) == (0, 0)
    with pytest.raises(Problem, match="no such worker"):
        workers.get(CLUSTER, worker.id)
    study.submit(job())
    assert len(keys(workers, joined(workers))) == 1  # it is given out again


def test_an_aborted_job_of_a_vanished_worker_counts_no_more(pool, workers, job, clock):
    study, _ = pool.executor("ana", "s"), joined(workers)
    study.submit(job())
    study.abort(RuntimeError("cancelled"))
    clock[0] += LEASE_S + 1
    workers.expire()
    assert pool.usage.running_by_study == {("ana", "s"): 0}


def test_a_request_renews_the_lease(pool, workers, job, clock):
    worker = joined(workers)
    for _ in range(5):
        clock[0] += LEASE_S - 1
        assert workers.get(CLUSTER, worker.id) is worker
        workers.expire()
    assert workers.of(CLUSTER) == [worker]


def test_no_job_goes_to_a_worker_that_may_have_vanished(pool, workers, job, clock):
    silent, alive = joined(workers), joined(workers)
    clock[0] += 6
    workers.get(CLUSTER, alive.id)
    study = pool.executor("ana", "s")
    for key in "ab":
        study.submit(job(key))
    assert (len(silent.jobs), len(alive.jobs)) == (0, 1)
    workers.get(CLUSTER, silent.id)  # it is heard from
    assert (len(silent.jobs), len(alive.jobs)) == (1, 1)


def test_a_job_handed_back_goes_on_where_its_search_was(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    study.submit(job(can_be_pruned=True))
    (key,) = keys(workers, worker)
    for n in (0, 1):
        workers.receive(worker, n, [reported(key, n)])
        study.answer("a", True)
    workers.receive(worker, 2, [reported(key, 2)])  # the third waits for its answer
    assert [event.epoch.epoch for event in study.poll(0)] == [0, 1, 2]
    workers.leave(worker)
    assert study.poll(0) == []
    other = joined(workers)
    assert keys(workers, other) == [key]
    workers.receive(other, 0, [reported(key, 0)])
    workers.receive(other, 1, [reported(key, 1)])
    assert [m["answer"] for m in workers.messages(other, 0) if "answer" in m] == [True, True]
    study.answer("a", False)  # to the third, which is not there yet
    assert [m["answer"] for m in workers.messages(other, 0) if "answer" in m] == [True, True]
    workers.receive(other, 2, [reported(key, 2)])
    answers = [m["answer"] for m in workers.messages(other, 0) if "answer" in m]
    assert answers == [True, True, False]
    assert study.poll(0) == []  # nothing that it had not had
    workers.receive(other, 3, [finished(key)])
    assert len(study.poll(0)) == 1


def test_a_returned_job_is_the_next_of_its_study(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    for key in "ab":
        study.submit(job(key))
    (key,) = keys(workers, worker)
    workers.receive(worker, 0, [{"key": key, "returned": True}])
    assert keys(workers, worker, 1) == [key]


def test_an_aborted_job_holds_its_slot_until_it_has_ended(pool, workers, job):
    study, worker = pool.executor("ana", "s"), joined(workers)
    other = pool.executor("ana", "t")
    study.submit(job())
    (key,) = keys(workers, worker)
    study.abort(RuntimeError("cancelled"))
    other.submit(job("b"))
    assert keys(workers, worker, 1, "end") == [key]
    assert keys(workers, worker, 1) == []
    workers.receive(worker, 0, [{"key": key, "ended": True}])
    assert len(keys(workers, worker, 2)) == 1


def test_an_outcome_that_crosses_an_abort_frees_the_slot(pool, workers, job):
    study, worker = pool.executor("ana", "s", max_workers=1), joined(workers)
    study.submit(job())
    (key,) = keys(workers, worker)
    study.abort(RuntimeError("cancelled"))
    workers.receive(worker, 0, [finished(key)])
    assert pool.usage.running_by_study == {("ana", "s"): 0}
    pool.executor("ana", "t").submit(job())
    assert len(keys(workers, worker, 2)) == 1


def test_a_writers_worker_runs_jobs_of_its_owner_alone(pool, workers, job):
    for owner in ("ana", "ben"):
        pool.executor(owner, "s").submit(job())
    worker = joined(workers, BEN, slots=5)
    assert [worker.jobs[key].key for key in worker.jobs] == ["1:a"]
    of_all = joined(workers, CLUSTER)
    assert list(of_all.jobs) == ["0:a"]
    with pytest.raises(Problem, match="no such worker"):
        workers.get(ANA, worker.id)


@pytest.fixture
def slow_hashes(monkeypatch):
    """Large arrays are hashed before a worker gets the job that needs them."""
    hashing, go = threading.Event(), threading.Event()

    def hashed(path):
        hashing.set()
        assert go.wait(SOON_S)
        return "0" * 64

    monkeypatch.setattr("tuner.service.workers.sha256_of_file", hashed)
    yield hashing, go
    go.set()


def test_a_worker_waits_for_the_data_of_no_other(pool, workers, job, slow_hashes):
    hashing, go = slow_hashes
    worker, other = joined(workers), joined(workers)
    pool.executor("ana", "s").submit(job())
    found = []
    thread = threading.Thread(target=lambda: found.extend(keys(workers, worker)))
    thread.start()
    assert hashing.wait(SOON_S)
    pool.executor("ana", "t").submit(ExportJob("e", {}, {}, Shape("forecast", 1, window=8), 8))
    assert len(keys(workers, other)) == 1
    go.set()
    thread.join()
    assert found == ["0:a"]


def test_a_worker_that_is_answered_has_not_vanished(workers, clock):
    worker = joined(workers)
    with workers.answering(worker):
        clock[0] += LEASE_S + 1
        workers.expire()
        assert workers.of(CLUSTER) == [worker]
    workers.expire()
    assert workers.of(CLUSTER) == [worker]  # it was heard from as it was answered
    clock[0] += LEASE_S + 1
    workers.expire()
    assert workers.of(CLUSTER) == []


def test_a_job_whose_data_is_gone_is_lost(pool, workers, data, job, tmp_path):
    study, worker = pool.executor("ana", "s"), joined(workers)
    moved = TrainJob(**vars(job()) | {"folds": (type(data)(**vars(data) | {"folder": "/gone"}),)})
    study.submit(moved)
    assert keys(workers, worker) == []
    (lost,) = study.poll(0)
    assert lost.reason.startswith("its data cannot be read")
    assert pool.busy == 0


@pytest.mark.parametrize(
    "record",
    [{"epoch": {"epoch": "x"}}, {"outcome": {}}, {"outcome": {"history": [[]], "state": "x"}}],
    ids=str,
)
def test_an_event_that_cannot_be_read_is_refused(pool, workers, job, record):
    worker = joined(workers)
    pool.executor("ana", "s").submit(job())
    (key,) = keys(workers, worker)
    with pytest.raises(Problem, match="cannot be read") as caught:
        workers.receive(worker, 0, [{"key": key, **record}])
    assert caught.value.status == 422
    assert workers.receive(worker, 0, [finished(key)]) == 1


# Over HTTP.


@pytest.fixture
def service():
    """A pool without workers of its own, and its pull workers."""
    pool = SharedPool(LocalExecutor, 0)
    workers = PullWorkers(pool)
    yield SimpleNamespace(pool=pool, workers=workers)
    workers.close()
    pool.close()


@pytest.fixture
def url(service, tmp_path):
    with served(service, Access(), tmp_path) as url:
        yield url


@pytest.fixture
def agent(url):
    """Runs workers in threads, and stops them."""
    with agents(url) as begin:
        yield begin


def timeless(outcome):
    """What is the same however fast a job was done."""
    weights = {name: array.tobytes() for name, array in (outcome.weights or {}).items()}
    numbers = [(e.epoch, e.train_loss, e.val_loss, e.metric) for e in outcome.history]
    predictions = None if outcome.predictions is None else outcome.predictions.tobytes()
    exported = outcome.exported and outcome.exported.file
    return outcome.state, outcome.objective, numbers, list(weights.items()), predictions, exported


def run_all(executor, job, data):
    for n in range(4):
        executor.submit(job(f"trial {n}", seed=n, keep_weights=True, can_be_pruned=n % 2))
    found = outcomes(events(executor, n_finished(4), go_on))
    weights = found["trial 0"].weights
    executor.submit(PredictJob("p", HYPERPARAMETERS, weights, data, others=(weights,)))
    shape = Shape("forecast", 1, window=8)
    executor.submit(ExportJob("e", HYPERPARAMETERS, weights, shape, steps=8))
    found |= outcomes(events(executor, n_finished(2)))
    return {key: timeless(outcome) for key, outcome in sorted(found.items())}


@pytest.mark.slow
def test_a_pull_worker_trains_bit_for_bit_as_a_local_one(service, url, agent, job, data):
    agent(2)
    pulled = run_all(service.pool.executor("local", "s"), job, data)
    own = LocalExecutor(2)
    try:
        assert pulled == run_all(own, job, data)
    finally:
        own.close()


def test_data_that_is_hashed_for_long_costs_no_lease(service, url, job, slow_hashes, monkeypatch):
    hashing, go = slow_hashes
    worker = service.workers.join(Owner("local"), "w", __version__, 1)
    service.pool.executor("local", "s").submit(job())
    answers, asked = [], {"after": 0}
    path = f"{url}/v1/workers/{worker.id}/lease"
    thread = threading.Thread(target=lambda: answers.append(requests.post(path, json=asked)))
    thread.start()
    assert hashing.wait(SOON_S)
    with monkeypatch.context() as patch:
        patch.setattr("tuner.service.workers.LEASE_S", -1.0)  # of who is not answered now
        service.workers.expire()
        assert service.workers.of(Owner("local")) == [worker]
        patch.setattr("tuner.service.workers.LEASE_S", 3600.0)
        go.set()
        thread.join()
    assert [message["key"] for message in answers[0].json()["messages"]] == ["0:a"]


def test_a_stopped_worker_hands_its_job_to_another(service, url, agent, job):
    study = service.pool.executor("local", "s")
    study.submit(job("long", epochs=1_000_000, can_be_pruned=True))
    stop = agent()
    (first,) = events(study, bool)
    assert first.epoch.epoch == 0
    study.answer("long", True)
    assert events(study, bool)[0].epoch.epoch == 1
    begun = time.monotonic()
    stop.set()
    while service.workers.of(Owner("local")):
        time.sleep(0.01)
    assert time.monotonic() - begun < 5
    assert study.poll(0) == []  # it waits for an answer still
    agent()
    study.answer("long", False)
    (end,) = events(study, bool)
    assert end.outcome.state is OutcomeState.PRUNED
    assert [epoch.epoch for epoch in end.outcome.history] == [0, 1]


def test_an_aborted_job_frees_its_worker(service, url, agent, job):
    study, other = (service.pool.executor("local", name) for name in "st")
    agent()
    study.submit(job(epochs=1_000_000))
    events(study, bool)
    begun = time.monotonic()
    study.abort(RuntimeError("cancelled"))
    while service.pool.usage.running_by_study["local", "s"]:
        time.sleep(0.01)
    assert time.monotonic() - begun < 5
    other.submit(job())
    assert events(other, n_finished(1))


@pytest.fixture
def start_worker():
    """Starts `tuner worker`, and kills what is left of it."""
    started = []

    def start(*options, **environment):
        command = [sys.executable, "-m", "tuner", "worker", "--workers", "1", *options]
        started.append(
            subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env=os.environ | environment
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.slow
def test_a_killed_worker_loses_its_job_to_another(
    service, url, start_worker, agent, job, monkeypatch
):
    monkeypatch.setattr("tuner.service.workers.LEASE_S", 6.0)
    study = service.pool.executor("local", "s")
    process = start_worker(TUNER_SERVER=url)
    study.submit(job(epochs=1_000_000, can_be_pruned=True))
    events(study, bool)
    process.send_signal(signal.SIGKILL)
    (lost,) = events(study, bool)
    assert "has not been heard from" in lost.reason
    agent()
    study.submit(job())
    assert events(study, n_finished(1))


@pytest.mark.slow
@pytest.mark.real_processes
def test_sigterm_ends_the_command_and_hands_back(service, url, start_worker, job):
    study = service.pool.executor("local", "s")
    process = start_worker("--server", url)
    study.submit(job(epochs=1_000_000, can_be_pruned=True))
    events(study, bool)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert service.workers.of(Owner("local")) == []
    assert study.poll(0) == []
    assert service.pool.usage.waiting == 1
    assert "runs 1 job at a time for http://127.0.0.1" in process.stderr.read()


def test_a_worker_outlives_a_service_that_restarts(service, agent, job, monkeypatch):
    monkeypatch.setattr("tuner.service.pull_worker._AGAIN_S", 0.2)
    study = service.pool.executor("local", "s")
    agent()
    study.submit(job())
    assert events(study, n_finished(1))
    (worker,) = service.workers.of(Owner("local"))
    service.workers.leave(worker)  # as a service that has restarted knows nobody
    study.submit(job("b"))
    assert isinstance(events(study, n_finished(1))[0], Reported)


@pytest.mark.slow
def test_a_connection_that_is_cut_for_seconds_loses_nothing(service, tmp_path, job):
    port, study = free_port(), service.pool.executor("local", "s")
    with ExitStack() as stack:
        with served(service, Access(), tmp_path, port) as url:
            stack.enter_context(agents(url))(1)
            study.submit(job(epochs=1_000_000, can_be_pruned=True))
            seen = events(study, bool)
            (before,) = service.workers.of(Owner("local"))
            study.answer("a", True)  # it may arrive, or be on its way
        with served(service, Access(), tmp_path, port):
            while len(seen) < 5:
                for event in study.poll(SOON_S):
                    seen.append(event)
                    study.answer("a", True)
            assert [event.epoch.epoch for event in seen] == list(range(len(seen)))
            assert service.workers.of(Owner("local")) == [before]
            stack.close()


@pytest.fixture
def guarded(service, tmp_path):
    """A service with tokens: its URL, and tokens by owner and role."""
    path = tmp_path / "tokens.yaml"
    roles = [("ana", "read"), ("ana", "write"), ("ben", "write"), ("cluster", "worker")]
    given = {(owner, role): new_token(path, owner, role) for owner, role in roles}
    with served(service, Access(TokenFile(path)), tmp_path / "root") as url:
        yield url, given


def test_a_worker_of_an_owner_sees_no_blob_of_another(service, guarded, job):
    url, tokens = guarded
    mine = service.workers.join(ANA, "w", __version__, 1)
    service.pool.executor("ana", "s").submit(job())
    (message,) = service.workers.messages(mine, 0)
    (files,) = message["data"].values()
    path = f"{url}/v1/workers/{mine.id}/blobs/{files['inputs']}"

    def status(who, path=path):
        return requests.get(path, headers={"Authorization": f"Bearer {tokens[who]}"}).status_code

    assert status(("ana", "write")) == 200
    assert status(("ben", "write")) == status(("cluster", "worker")) == 404
    other = service.workers.join(BEN, "w", __version__, 1)
    assert status(("ben", "write"), path.replace(mine.id, other.id)) == 404
