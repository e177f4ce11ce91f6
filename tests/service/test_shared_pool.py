"""One pool for many searches, on real worker processes."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.executor_events import events, n_finished, outcomes
from helpers.prepared import write_series

from tuner.errors import InputError, Interrupted, RunError
from tuner.executors import Finished, LocalExecutor, Lost, Reported
from tuner.experiment.schema import Resources
from tuner.jobs import TrainJob
from tuner.service.fair_share import FairShare
from tuner.service.pool import SharedPool

SOON_S = 60


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    return write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)


@pytest.fixture
def job(data):
    def make(key="a", epochs=2, seed=1, **fields):
        hyperparameters = {"hidden_size": 4, "batch_size": 16}
        return TrainJob(key, hyperparameters, seed, epochs, 1000, "rmse", (data,), **fields)

    return make


@pytest.fixture
def make_pool():
    """Makes pools, and closes them; `pool.made` are the executors below."""
    pools = []

    def make(n_workers, of=LocalExecutor, **options):
        made = []

        def of_pool(n):
            made.append(of(n))
            return made[-1]

        pools.append(SharedPool(of_pool, n_workers, **options))
        pools[-1].made = made
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def begins(executor, *keys):
    """Poll until these jobs have reported, and leave them waiting for an answer."""
    return events(executor, lambda seen: {e.key for e in seen} >= set(keys))


def endless(job, key="a", **fields):
    return job(key, epochs=1_000_000, can_be_pruned=True, **fields)


def wait_until(true):
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_studies_with_the_same_keys_get_their_own_outcomes(make_pool, job):
    pool = make_pool(2)
    studies = [pool.executor("me", name) for name in "ab"]
    for seed, study in enumerate(studies):
        for n in range(3):
            study.submit(job(f"trial {n}", seed=seed))
    seen = [outcomes(events(study, n_finished(3))) for study in studies]
    assert [sorted(each) for each in seen] == [["trial 0", "trial 1", "trial 2"]] * 2
    of_seed = [{end.objective for end in each.values()} for each in seen]
    assert [len(scores) for scores in of_seed] == [1, 1]
    assert of_seed[0] != of_seed[1]


def test_a_search_that_joins_the_pool_starts_the_template(make_pool, job):
    pool = make_pool(2)
    study = pool.executor("me", "s")
    wait_until(lambda: pool.made and pool.made[0]._template is not None)
    (workers,), expected = pool.made, pool.made[0]._template
    assert workers.pids == []
    pool.executor("me", "another")
    study.submit(job())
    events(study, n_finished(1))
    assert pool.made == [workers]
    assert workers._template is expected


def test_a_job_handed_back_is_withdrawn_with_its_reports(make_pool, job):
    pool = make_pool(1)
    study = pool.executor("me", "s")
    study.submit(endless(job))
    begins(study, "a")
    study.answer("a", True)
    wait_until(lambda: study._events)
    with pool.lock:
        (key,) = pool._tasks
        pool.put_back(key)
        assert study.withdraw() == ["a"]
    assert study.poll(0) == []


def test_owners_take_turns(make_pool, job):
    pool = make_pool(1)
    first = pool.executor("first", "s")
    first.submit(endless(job))
    begins(first, "a")  # the worker is taken: all others wait
    second = pool.executor("second", "s")
    for key in "bcd":
        first.submit(job(key))
        second.submit(job(key))
    order = []
    for name, study in (("first", first), ("second", second)):
        receive, study._receive = study._receive, None

        def noted(event, name=name, receive=receive):
            order.extend([name] * isinstance(event, Finished))
            receive(event)

        study._receive = noted
    first.answer("a", False)
    events(first, n_finished(4))
    events(second, n_finished(3))
    assert order[0] == "first"
    assert order[1] == "second"  # it has received nothing yet
    assert set(order[1:5]) == {"first", "second"}


def test_a_study_keeps_to_its_own_number_of_workers(make_pool, job):
    pool = make_pool(2)
    limited, free = pool.executor("me", "limited", max_workers=1), pool.executor("me", "free")
    assert (limited.n_workers, free.n_workers) == (1, 2)
    for key in "ab":
        limited.submit(endless(job, key))
    begins(limited, "a")
    free.submit(endless(job))
    begins(free, "a")
    assert pool.busy == 2
    assert pool.usage.running_by_study == {("me", "limited"): 1, ("me", "free"): 1}
    assert pool.usage.waiting_by_study == {("me", "limited"): 1, ("me", "free"): 0}
    free.answer("a", False)
    assert n_finished(1)(events(free, n_finished(1)))
    assert limited.poll(0.2) == []
    assert pool.busy == 1


def test_an_owner_keeps_to_a_number_of_workers(make_pool, job):
    pool = make_pool(2, share=FairShare(owner_limit={"me": 1}.get))
    studies = [pool.executor("me", name) for name in "ab"]
    assert [study.n_workers for study in studies] == [1, 1]
    for study in studies:
        study.submit(endless(job))
    begins(studies[0], "a")
    assert studies[1].poll(0.2) == []
    studies[0].answer("a", False)
    begins(studies[1], "a")


def test_a_killed_worker_loses_one_job_of_one_study(make_pool, job):
    pool = make_pool(2)
    studies = [pool.executor("me", name) for name in "ab"]
    for study in studies:
        study.submit(endless(job))
        begins(study, "a")
    worker = next(w for w in pool.made[0]._workers if w.job.key.startswith("0:"))
    os.kill(worker.process.pid, signal.SIGKILL)
    (lost,) = events(studies[0], bool)
    assert lost == Lost("a", lost.reason)
    assert "killed by signal 9" in lost.reason
    assert studies[1].poll(0.2) == []
    studies[1].answer("a", True)
    assert begins(studies[1], "a")
    studies[0].submit(job())
    assert events(studies[0], n_finished(1))


def test_abort_raises_its_reason_in_a_search_that_waits(make_pool, job):
    pool = make_pool(1)
    study = pool.executor("me", "s")
    raised = []

    def search():
        with pytest.raises(Cancelled):
            study.poll(SOON_S)
        raised.append(time.monotonic())

    thread = threading.Thread(target=search)
    thread.start()
    begun = time.monotonic()
    study.abort(Cancelled())
    thread.join()
    assert raised[0] - begun < 1
    for call in (lambda: study.poll(0), lambda: study.submit(job())):
        with pytest.raises(Cancelled):
            call()
    study.abort(ValueError("a second reason"))
    with pytest.raises(Cancelled):
        study.poll(0)


def test_abort_drops_the_events_that_have_arrived(make_pool, job):
    study = make_pool(1).executor("me", "s")
    study.submit(job())
    wait_until(lambda: study._events)
    study.abort(Cancelled())
    with pytest.raises(Cancelled):
        study.poll(0)


def test_abort_frees_the_workers_of_jobs_that_hang(make_pool, job, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pool = make_pool(2, lambda n: LocalExecutor(n, module="helpers.workers.hanging"))
    study, other = pool.executor("me", "s"), pool.executor("me", "other")
    study.submit(job("hangs", seed=0))
    wait_until(lambda: pool.busy == 1)
    other.submit(job("b"))
    assert events(other, n_finished(1))
    pids = pool.made[0].pids
    begun = time.monotonic()
    study.submit(job("waits", seed=0))
    study.abort(Cancelled())
    wait_until(lambda: len(pool.made[0].pids) < len(pids))
    assert time.monotonic() - begun < 5
    assert pool.busy == 0
    assert study.withdraw() == []
    study.close()
    for key in "cd":
        other.submit(job(key))
    assert events(other, n_finished(2))


def test_a_closed_study_ends_its_jobs_and_leaves_the_workers(make_pool, job):
    pool = make_pool(1)
    study = pool.executor("me", "s")
    for key in "ab":
        study.submit(endless(job, key))
    begins(study, "a")
    study.close()
    study.close()
    assert pool.usage.running_by_study == {}
    again = pool.executor("me", "s")
    again.submit(job())
    assert outcomes(events(again, n_finished(1)))["a"].objective is not None
    wait_until(lambda: pool.n_ready() == 0 and pool.busy == 0)


def test_workers_that_cannot_start_end_every_search(make_pool, job, monkeypatch):
    monkeypatch.setattr("tuner.service.pool._RETRY_S", 0.5)
    modules = ["no_such_module", "tuner.executors.worker"]
    pool = make_pool(1, lambda n: LocalExecutor(n, module=modules.pop(0)))
    studies = [pool.executor(owner, "s") for owner in ("me", "you")]
    idle = pool.executor("me", "idle")
    for study in studies:
        study.submit(job())
    for study in studies:
        with pytest.raises(RunError, match="no worker can be started: it died"):
            events(study, n_finished(1))
        with pytest.raises(RunError):
            study.submit(job())
        study.close()
    assert pool.busy == 0
    idle.submit(job())  # it had no job in progress: it waits for the next attempt
    assert events(idle, n_finished(1))


def test_a_pool_that_fails_in_the_middle_counts_no_job_for_ever(make_pool, job, monkeypatch):
    monkeypatch.setattr("tuner.service.pool._RETRY_S", 0.1)
    pool = make_pool(1, share=FairShare(owner_limit={"me": 1}.get))
    study, later = pool.executor("me", "s"), pool.executor("me", "later")
    study.submit(endless(job))
    begins(study, "a")
    with monkeypatch.context() as broken:
        broken.setattr(LocalExecutor, "_listen", lambda self, timeout_s: 1 / 0)
        study.answer("a", True)
        with pytest.raises(RunError, match="the pool of workers failed"):
            events(study, n_finished(1))
    later.submit(job())  # within the limit of the owner, whose other job has ended
    assert events(later, n_finished(1))


def test_a_pool_that_cannot_be_made_ends_every_search(make_pool, job):
    def refuse(n):
        raise InputError("cannot reach ray://head:10001", where="--executor")

    study = make_pool(1, refuse).executor("me", "s")
    study.submit(job())
    with pytest.raises(RunError, match="--executor: cannot reach ray://head:10001"):
        events(study, n_finished(1))


def test_a_bug_in_the_workers_ends_no_thread(make_pool, job, monkeypatch, caplog):
    monkeypatch.setattr("tuner.service.pool._RETRY_S", 0.1)
    pool = make_pool(1)
    study, later = pool.executor("me", "s"), pool.executor("me", "later")
    with monkeypatch.context() as broken:
        broken.setattr(LocalExecutor, "_start_worker", lambda self: 1 / 0)
        study.submit(job())
        with pytest.raises(RunError, match="the pool of workers failed: ZeroDivisionError"):
            events(study, n_finished(1))
    later.submit(job())
    assert events(later, n_finished(1))


def test_closing_the_pool_ends_workers_and_searches(make_pool, job):
    pool = make_pool(2)
    study = pool.executor("me", "s")
    study.submit(endless(job))
    begins(study, "a")
    workers = [worker.process for worker in pool.made[0]._workers]
    pool.close()
    pool.close()
    assert all(process.returncode is not None for process in workers)
    with pytest.raises(Interrupted, match="the service has stopped"):
        study.poll(0)
    with pytest.raises(Interrupted):
        pool.executor("me", "t")
    study.close()


def test_an_event_never_reaches_the_next_job_of_its_key(make_pool, job):
    """A job that was ended and submitted again under its key is another one."""
    pool = make_pool(1)
    study = pool.executor("me", "s")
    study.submit(endless(job))
    begins(study, "a")
    (task,) = pool._tasks.values()
    stale = Reported(task.job.key, None)
    with pool.lock:
        pool._end_all(study)
    study.submit(job())
    pool.deliver([stale])
    assert events(study, n_finished(1))[0].epoch is not None


def test_two_hundred_idle_studies_cost_nothing(make_pool):
    pool = make_pool(1)
    studies = [pool.executor("me", f"s{n}") for n in range(200)]
    threads = [threading.Thread(target=study.poll, args=(1.0,)) for study in studies]
    for thread in threads:
        thread.start()
    begun = time.process_time()
    for thread in threads:
        thread.join()
    assert time.process_time() - begun < 0.2


def test_a_trial_takes_little_longer_than_in_its_own_executor(make_pool, job, monkeypatch):
    """Of jobs that train nothing; alone on a machine it is a tenth of a millisecond."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))

    def seconds(executor):
        took = []
        for n in range(60):
            begun = time.perf_counter()
            executor.submit(job(f"{n}"))
            events(executor, n_finished(1))
            took.append(time.perf_counter() - begun)
        return sorted(took)[len(took) // 4]  # the machine may be busy

    def instant(n_workers):
        return LocalExecutor(n_workers, module="helpers.workers.environment")

    own = instant(1)
    try:
        alone = seconds(own)
    finally:
        own.close()
    shared = seconds(make_pool(1, instant).executor("me", "s"))
    assert shared - alone < 0.005, (shared, alone)


def test_more_resources_than_a_worker_has_are_refused(make_pool):
    pool = make_pool(1, resources=Resources(cpus=2))
    pool.check(Resources(cpus=2))
    with pytest.raises(InputError) as caught:
        pool.check(Resources(gpus=0.5))
    assert str(caught.value) == (
        "resources.gpus: must be at most 0, the GPUs of each worker of the service, got 0.5; "
        "write resources.gpus: 0"
    )
