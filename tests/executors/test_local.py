"""Worker processes: real ones, trained on real arrays, killed with real signals."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.executor_events import events, go_on

from tuner.executors import Finished, LocalExecutor, Lost
from tuner.jobs import TrainJob


@pytest.fixture
def executor():
    executors = []

    def make(n_workers):
        executors.append(LocalExecutor(n_workers))
        return executors[-1]

    yield make
    for each in executors:
        each.close()


def job(data, key="a", epochs=2, **fields):
    hyperparameters = {"hidden_size": 4, "batch_size": 16}
    return TrainJob(key, hyperparameters, 1, epochs, 1000, "rmse", (data,), **fields)


def test_a_killed_worker_loses_its_job_alone_and_is_replaced(executor, data):
    workers = executor(2)
    for key in "ab":
        workers.submit(job(data, key, epochs=10_000, can_be_pruned=True))
    events(workers, lambda seen: {e.key for e in seen} == {"a", "b"}, go_on)
    first = workers.pids[0]
    os.kill(first, signal.SIGKILL)
    (lost,) = [
        e
        for e in events(workers, lambda seen: any(isinstance(e, Lost) for e in seen), go_on)
        if isinstance(e, Lost)
    ]
    assert "killed by signal 9" in lost.reason
    workers.submit(job(data, "c"))
    seen = events(
        workers, lambda seen: any(e.key == "c" for e in seen if isinstance(e, Finished)), go_on
    )
    survivor = ({"a", "b"} - {lost.key}).pop()
    assert any(e.key == survivor for e in seen)
    assert first not in workers.pids
    assert len(workers.pids) == 2


def test_workers_end_when_their_coordinator_is_killed(tmp_path, data):
    script = tmp_path / "coordinator.py"
    script.write_text(
        "import pickle, sys\n"
        "from tuner.executors import LocalExecutor\n"
        "executor = LocalExecutor(2)\n"
        "for job in pickle.load(open(sys.argv[1], 'rb')): executor.submit(job)\n"
        "while executor.busy < 2: executor.poll(0.1)\n"
        "print(*executor.pids, flush=True)\n"
        "while True: executor.poll(1.0)\n"
    )
    jobs = [job(data, key, epochs=1_000_000) for key in "ab"]
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    coordinator = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "jobs")], stdout=subprocess.PIPE, text=True
    )
    pids = [int(pid) for pid in coordinator.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(_lives, pids))
    coordinator.kill()
    coordinator.wait()
    coordinator.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline, "workers outlive their coordinator"
        time.sleep(0.1)


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it is read, or meanwhile
        return False
