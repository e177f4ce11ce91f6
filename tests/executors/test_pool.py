"""The queue and the clock that executors with workers share, on made-up workers."""

import pytest

from tuner.data import SeriesRef, Shape
from tuner.errors import RunError
from tuner.executors import Finished, Lost, Reported
from tuner.executors.base import Died, JobQueue, PooledWorker, Ready, Started, WorkerPool
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob

DONE = Outcome(OutcomeState.COMPLETE, objective=1.0)
START_S = 30.0
EPOCH = Epoch(0, 1.0, 1.0, 1.0, 0.0)


class Worker(PooledWorker):
    def __init__(self, ready):
        super().__init__(START_S)
        self.ready = ready
        self.heard = []
        self.ended = False

    def send_job(self, job):
        self.heard.append(job.key)

    def send_answers(self, answers):
        self.heard += answers

    def end(self):
        self.ended = True


class Pool(WorkerPool[Worker]):
    """Its workers say what a test has them say."""

    def __init__(self, n_workers, workers_are_ready=True):
        super().__init__(n_workers)
        self.made = []
        self.said = []
        self.waited_s = None
        self._are_ready = workers_are_ready

    def _start_worker(self):
        self.made.append(Worker(self._are_ready))
        return self.made[-1]

    def _listen(self, timeout_s):
        self.waited_s = timeout_s
        said, self.said = self.said, []
        return said

    def hear(self, n, *messages):
        """Poll after the n-th worker has said these."""
        self.said = [(self.made[n], message) for message in messages]
        return self.poll(10.0)


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed; a test moves them on."""
    now = [0.0]
    monkeypatch.setattr("tuner.executors.base.time.monotonic", lambda: now[0])
    return now


def job(key="a", **fields):
    return TrainJob(
        key, {}, 1, 1, 1, "rmse", (SeriesRef("/nowhere", Shape("forecast", features=1)),), **fields
    )


def reported(trained_s, key="a"):
    return Reported(key, EPOCH, trained_s)


def test_a_limit_counts_from_the_start_on_the_worker_clock(clock):
    pool = Pool(1)
    pool.submit(job(timeout_s=10.0))
    clock[0] = 100.0
    assert pool.hear(0, Started("a")) == []
    clock[0] = 104.0
    assert len(pool.hear(0, reported(3.0))) == 1  # it took a second to get here
    clock[0] = 110.9
    assert pool.hear(0) == []
    assert pool.waited_s == pytest.approx(0.1)  # and no longer, whatever was allowed
    clock[0] = 111.0
    (end,) = pool.hear(0)
    assert (end.key, end.outcome.state) == ("a", OutcomeState.FAILED)
    assert pool.made[0].ended


def test_a_late_reading_of_messages_does_not_exceed_a_limit(clock):
    pool = Pool(1)
    pool.submit(job(timeout_s=10.0))
    pool.hear(0, Started("a"))
    clock[0] = 100.0
    assert pool.hear(0, reported(9.0)) == [reported(9.0)]
    clock[0] = 200.0
    assert pool.hear(0, Finished("a", DONE)) == [Finished("a", DONE)]


def test_a_job_that_waits_uses_up_nothing(clock):
    pool = Pool(1)
    pool.submit(job(timeout_s=10.0, can_be_pruned=True))
    pool.hear(0, Started("a"), reported(6.0))
    clock[0] = 100.0
    assert pool.hear(0) == []
    assert pool.waited_s == 10.0
    pool.answer("a", True)
    clock[0] = 103.9
    assert pool.hear(0) == []
    clock[0] = 104.0
    assert len(pool.hear(0)) == 1


def test_an_answer_goes_to_the_job_that_waits_alone(clock):
    pool = Pool(2)
    for key in "ab":
        pool.submit(job(key, can_be_pruned=True))
    pool.hear(0, Started("a"), reported(1.0))
    pool.hear(1, Started("b"))
    for key in "aabc":
        pool.answer(key, False)
    assert [worker.heard for worker in pool.made] == [["a", False], ["b"]]


def test_what_an_ended_worker_still_says_is_not_passed_on(clock):
    pool = Pool(1)
    pool.submit(job(timeout_s=1.0))
    pool.hear(0, Started("a"))
    clock[0] = 2.0
    assert len(pool.hear(0)) == 1
    assert pool.hear(0, Finished("a", DONE), Died("killed")) == []


def test_a_job_goes_to_no_worker_that_is_not_ready():
    pool = Pool(3, workers_are_ready=False)
    for key in "ab":
        pool.submit(job(key))
    assert len(pool.made) == 2  # no more than there are jobs
    pool.hear(1, Ready("1"))
    assert [worker.heard for worker in pool.made] == [[], ["a"]]
    assert pool.withdraw() == ["b"]
    pool.submit(job("b"))
    pool.hear(1, Started("a"), Finished("a", DONE))
    assert [worker.heard for worker in pool.made] == [[], ["a", "b"]]


def test_a_worker_that_dies_loses_its_own_job_alone():
    pool = Pool(2)
    for key in "abc":
        pool.submit(job(key))
    assert pool.hear(0, Died("killed")) == [Lost("a", "killed")]
    assert [worker.heard for worker in pool.made] == [["a"], ["b"], ["c"]]
    pool.hear(2, Finished("c", DONE))
    assert pool.hear(2, Died("killed")) == []  # it had no job


def test_a_slow_starting_worker_is_replaced_and_counted(clock):
    pool = Pool(1, workers_are_ready=False)
    pool.submit(job(timeout_s=1.0))
    clock[0] = 29.0
    assert pool.hear(0) == []
    assert pool.waited_s == pytest.approx(1.0)
    clock[0] = 30.0
    assert pool.hear(0) == []
    assert pool.made[0].ended
    assert len(pool.made) == 2
    clock[0] = 59.0
    assert pool.hear(1, Ready("1")) == []
    clock[0] = 100.0  # it is ready: nothing is counted before its job begins
    assert pool.hear(1) == []
    assert pool.made[1].heard == ["a"]


def test_what_a_starting_worker_has_said_counts_before_its_limit(clock):
    pool = Pool(1, workers_are_ready=False)
    pool.submit(job())
    clock[0] = 1000.0  # nobody looked meanwhile
    assert pool.hear(0, Ready("1")) == []
    assert pool.made[0].heard == ["a"]


def test_slow_starting_workers_are_given_up_after_some(clock):
    pool = Pool(1, workers_are_ready=False)
    pool.submit(job())
    for n in range(2):
        clock[0] += START_S
        pool.hear(n)
    clock[0] += START_S
    with pytest.raises(RunError, match="no worker can be started: it was not ready after 30 s; "):
        pool.hear(2)


def test_workers_that_cannot_start_are_given_up_after_some():
    pool = Pool(2, workers_are_ready=False)
    pool.submit(job())
    for n in range(4):
        pool.hear(n, Died("no such module"))
    pool.hear(4, Ready("1"))
    assert pool.hear(4, Died("killed")) == [Lost("a", "killed")]
    pool.submit(job())
    for n in range(5, 9):
        pool.hear(n, Died("no such module"))
    with pytest.raises(RunError, match="no worker can be started: no such module"):
        pool.hear(9, Died("no such module"))


class Source(JobQueue):
    """Jobs for a pool that others share; notes which have left their workers."""

    def __init__(self, *jobs):
        super().__init__(jobs)
        self.gone = []

    def left(self, key):
        self.gone.append(key)


def test_a_source_notes_every_job_that_leaves_its_worker(clock):
    source = Source(job("done"), job("dies"), job("slow", timeout_s=1.0), job("ended"))
    pool = Pool(4)
    pool.take_from(source)
    pool.poll(0)
    pool.hear(0, Finished("done", DONE))
    pool.hear(1, Died("killed"))
    pool.hear(2, Started("slow"))
    clock[0] = 2.0
    pool.hear(2)
    pool.end_job("ended")
    assert source.gone == ["done", "dies", "slow", "ended"]
    assert pool.made[3].ended
    assert pool.busy == 0


def test_ending_a_job_leaves_all_others(clock):
    pool = Pool(1)
    for key in "abc":
        pool.submit(job(key))
    pool.end_job("b")  # it has not begun
    assert pool.withdraw() == ["c"]
    pool.end_job("x")
    pool.end_job("a")
    assert pool.hear(0, Finished("a", DONE)) == []


def test_a_shared_pool_goes_on_with_the_workers_that_it_has(clock):
    pool = Pool(2)
    pool.take_from(Source(*map(job, "abc")))
    start, failures = pool._start_worker, []

    def start_one():
        if pool.made:
            failures.append(clock[0])
            raise RunError("no worker can be started: too many open files")
        return start()

    pool._start_worker = start_one
    pool.poll(0)
    assert [worker.heard for worker in pool.made] == [["a"]]
    assert len(pool.hear(0, Finished("a", DONE))) == 1
    assert failures == [0.0]
    clock[0] = 10.0
    pool.hear(0, Finished("b", DONE))
    assert pool.made[0].heard == ["a", "b", "c"]
    pool._workers.clear()
    clock[0] = 20.0
    pool._source.append(job("d"))
    with pytest.raises(RunError):  # none is left
        pool.poll(0)
