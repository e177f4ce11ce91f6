"""The data of jobs at a pull worker: fetched once, beside everything else, and removed."""

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.prepared import write_series

from tuner.client.connection import RefusedError
from tuner.errors import RunError
from tuner.executors.base import Finished
from tuner.jobs import Outcome, OutcomeState, TrainJob
from tuner.service import pull_worker
from tuner.service.job_records import job_to_record
from tuner.service.pull_worker import _Data, _Session

SOON_S = 60
SIZE = 100


class Service:
    """Gives every blob, `SIZE` bytes each, when `go` is set; keeps the events that arrive."""

    def __init__(self):
        self.go, self.asked, self.sent = threading.Event(), threading.Semaphore(0), []
        self.fetched, self.refusal = [], None
        self.go.set()
        self.arrived = threading.Semaphore(0)
        self.messages, self.leases = [], threading.Semaphore(0)
        self.lease = threading.Semaphore(0)

    def send(self, method, path, body=None, **how):
        if method == "GET":
            name = path.rpartition("/")[2]
            self.fetched.append(name)
            self.asked.release()
            assert self.go.wait(SOON_S)
            if self.refusal is not None:
                raise self.refusal
            return Answer(NAMES[name])
        self.sent += body["events"]
        self.arrived.release()

    def json(self, method, path, **how):
        """Answer a request for messages; the next one waits for `lease`."""
        self.leases.release()
        assert self.lease.acquire(timeout=SOON_S)
        return {"messages": list(self.messages)}


class Answer:
    def __init__(self, content):
        self._content = content

    def iter_content(self, size):
        yield self._content

    def close(self):
        pass


def blob(text):
    content = text.encode().ljust(SIZE)
    NAMES[name := hashlib.sha256(content).hexdigest()] = content
    return name


NAMES = {}


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def data(service, tmp_path):
    return _Data(service, "/v1/workers/w", tmp_path)


def held(data, key, *texts):
    """Hold a folder for each text."""
    folders = data.hold(key, {text: {"inputs": blob(text)} for text in texts})
    return [Path(folders[text]) for text in texts]


def test_data_is_fetched_once_for_all_jobs(service, data):
    (first,) = held(data, "a", "x")
    assert (first / "inputs.npy").read_bytes() == NAMES[blob("x")]
    assert held(data, "b", "x") == [first]
    assert service.fetched == [blob("x")]


def test_jobs_that_begin_at_once_fetch_their_data_once(service, data):
    service.go.clear()
    found = []

    def hold(key):
        found.append(held(data, key, "x"))

    threads = [threading.Thread(target=hold, args=(key,)) for key in "ab"]
    for thread in threads:
        thread.start()
    assert service.asked.acquire(timeout=SOON_S)
    service.go.set()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert service.fetched == [blob("x")]


def test_a_job_ends_while_the_data_of_another_arrives(service, data):
    held(data, "a", "x")
    service.go.clear()
    thread = threading.Thread(target=held, args=(data, "b", "y"))
    thread.start()
    assert service.asked.acquire(timeout=SOON_S)  # of x
    assert service.asked.acquire(timeout=SOON_S)
    data.release("a")  # returns at once
    held(data, "c", "x")
    assert thread.is_alive()
    service.go.set()
    thread.join()


def test_idle_data_is_kept_within_a_limit(service, data, tmp_path, monkeypatch):
    monkeypatch.setattr(pull_worker, "_KEPT_BYTES", 2 * SIZE)
    folders = {}
    for text in "abcd":
        (folders[text],) = held(data, text, text)
    held(data, "b again", "b")
    for text in "abcd":
        data.release(text)
    assert folders["b"].exists()  # a job has it still
    assert [text for text in "acd" if folders[text].exists()] == ["c", "d"]
    held(data, "d again", "d")
    data.release("b again")
    assert sorted(tmp_path.iterdir()) == sorted(folders[text] for text in "bcd")


def test_data_of_a_job_that_ended_meanwhile_is_removed(service, data, tmp_path):
    service.go.clear()
    thread = threading.Thread(target=held, args=(data, "a", "x"))
    thread.start()
    assert service.asked.acquire(timeout=SOON_S)
    data.release("a")
    service.go.set()
    thread.join()
    assert list(tmp_path.iterdir()) == []
    held(data, "b", "x")  # it is fetched anew
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [RunError("cut"), RefusedError("gone")], ids=type)
def test_a_failed_download_leaves_nothing(service, data, tmp_path, error):
    service.refusal = error
    with pytest.raises(type(error)):
        held(data, "a", "x")
    assert list(tmp_path.iterdir()) == []
    service.refusal = None
    assert held(data, "b", "x")[0].exists()


def test_a_new_session_uses_what_the_last_one_fetched(service, data, tmp_path):
    (first,) = held(data, "a", "x")
    (tmp_path / "half.new").mkdir()
    again = _Data(service, "/v1/workers/w2", tmp_path)
    assert list(tmp_path.iterdir()) == [first]
    assert held(again, "a", "x") == [first]
    assert service.fetched == [blob("x")]


class Executor:
    """Ends each job as soon as it gets it."""

    def __init__(self):
        self.submitted, self._events = [], []
        self._woken = threading.Event()

    def submit(self, job):
        self.submitted.append(job.key)
        self._events.append(Finished(job.key, Outcome(OutcomeState.FAILED, reason="x")))

    def end_job(self, key):
        pass

    def wake(self):
        self._woken.set()

    def poll(self, timeout_s):
        if not self._events:
            self._woken.wait(timeout_s)
        self._woken.clear()
        events, self._events = self._events, []
        return events


@pytest.fixture
def message(tmp_path_factory):
    """Makes messages about jobs, each with data of its own."""
    values = np.sin(np.arange(120) / 3)[:, None]
    ref = write_series(tmp_path_factory.mktemp("arrays"), values, train_end=80)

    def make(number, key):
        job = TrainJob(key, {"hidden_size": 6}, 1, 3, 9, "rmse", (ref,))
        files = {ref.folder: {"inputs": blob(key)}}
        return {"number": number, "key": key, "job": job_to_record(job, None), "data": files}

    return make


def test_a_long_download_delays_neither_lease_nor_events(service, data, message):
    executor, stop = Executor(), threading.Event()
    session = _Session(service, "/v1/workers/w", executor, data)
    begin, begun = session._begin, threading.Semaphore(0)
    session._begin = lambda key, action: (begin(key, action), begun.release())
    service.messages = [message(0, "quick")]
    service.lease.release()
    thread = threading.Thread(target=session.run, args=(stop,))
    thread.start()
    assert service.arrived.acquire(timeout=SOON_S)
    service.go.clear()
    service.messages = [message(1, "long"), message(2, "ended"), {"number": 3, "key": "quick"}]
    service.lease.release()
    for _ in range(3):
        assert service.asked.acquire(timeout=SOON_S)
    service.messages = [{"number": 4, "key": "ended", "end": True}]
    service.lease.release()
    assert service.arrived.acquire(timeout=SOON_S)  # while both downloads wait
    assert service.sent[-1] == {"key": "ended", "ended": True}
    service.lease.release()  # the lease is renewed still
    for _ in range(5):
        assert service.leases.acquire(timeout=SOON_S)
    service.go.set()
    assert service.arrived.acquire(timeout=SOON_S)
    assert service.sent[-1]["key"] == "long"
    for _ in range(3):
        assert begun.acquire(timeout=SOON_S)
    assert executor.submitted == ["quick", "long"]
    stop.set()
    session.close()
    service.lease.release()
    thread.join()
