"""Worker processes that are started, not forked: how they fail, and what has no room."""

import errno
import gc
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.executor_events import events
from helpers.open_files import free_files, open_files

from tuner.data import SeriesRef, Shape
from tuner.errors import RunError
from tuner.executors import Finished, LocalExecutor
from tuner.jobs import PredictJob, TrainJob

pytestmark = [pytest.mark.timeout(300), pytest.mark.real_processes]

NOWHERE = SeriesRef("/nowhere", Shape("forecast", features=1))
SOON_S = 120.0
TOO_MANY = (
    "no worker can be started: Too many open files(: .*)?; the same command resumes, with fewer "
    "--workers say"
)


@pytest.fixture
def executor(monkeypatch):
    """Makes executors that start workers, which run modules of `helpers.workers`."""
    monkeypatch.setattr("tuner.executors.local.can_fork", lambda: False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    executors = []

    def make(n_workers, module):
        executors.append(LocalExecutor(n_workers, module=module))
        return executors[-1]

    yield make
    for each in executors:
        each.close()


def job(key="a"):
    return TrainJob(key, {}, 1, 1, 1, "rmse", (NOWHERE,))


def ends(executor):
    return events(executor, bool, timeout_s=SOON_S)


def test_workers_that_cannot_start_lose_no_job(executor):
    workers = executor(2, "no_such_module")
    for key in "abc":
        workers.submit(job(key))
    with pytest.raises(RunError) as caught:
        ends(workers)
    assert str(caught.value) == (
        "no worker can be started: it died (exit status 1): ImportError: No module named "
        "no_such_module; the same command resumes when one can be"
    )
    assert workers.withdraw() == list("abc")


def test_a_worker_that_dies_at_start_is_replaced(executor, monkeypatch, tmp_path):
    monkeypatch.setenv("TEST_STARTING", f"die once: {tmp_path / 'died'}")
    workers = executor(1, "helpers.workers.starting")
    workers.submit(job())
    (end,) = ends(workers)
    assert isinstance(end, Finished)
    assert (tmp_path / "died").exists()


def test_a_worker_that_hangs_as_it_starts_is_given_up(executor, monkeypatch):
    monkeypatch.setattr("tuner.executors.local._START_S", 0.2)
    monkeypatch.setenv("TEST_STARTING", "hang")
    workers = executor(1, "helpers.workers.starting")
    workers.submit(job())
    (first,) = workers.pids
    with pytest.raises(RunError, match=r"started: it was not ready after 0\.2 s; the same"):
        ends(workers)
    assert workers.pids == []
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_starting_worker_does_not_block_large_sends(executor, monkeypatch):
    monkeypatch.setenv("TEST_STARTING", "hang")
    workers = executor(1, "helpers.workers.starting")
    weights = {"w": np.zeros(2**21)}  # 16 MB: more than a connection holds
    begun = time.monotonic()
    workers.submit(PredictJob("p", {}, weights, NOWHERE))
    assert workers.poll(0.1) == []
    assert time.monotonic() - begun < 15


def test_workers_start_side_by_side(executor, monkeypatch):
    monkeypatch.setenv("TEST_STARTING", "hang")
    workers = executor(3, "helpers.workers.starting")
    for key in "abcd":
        workers.submit(job(key))
    assert len(workers.pids) == 3


def test_a_worker_that_is_killed_may_have_run_out_of_memory(executor):
    workers = executor(1, "helpers.workers.hanging")
    workers.submit(TrainJob("a", {}, 0, 1, 1, "rmse", (NOWHERE,)))
    while workers._workers[0].job is None:
        workers.poll(0.2)
    workers._workers[0].process.kill()
    (lost,) = ends(workers)
    assert lost.reason == "its worker died (killed by signal 9; out of memory, perhaps)"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
@pytest.mark.parametrize("n_free", range(10))
def test_too_many_open_files_end_the_search_in_one_line(executor, n_free):
    gc.collect()  # or what others left behind is closed meanwhile
    before = len(open_files())
    workers = executor(1, "helpers.workers.hanging")
    _ = workers._gpus  # looked up before
    with free_files(n_free):
        try:
            workers.submit(job())
        except RunError as error:
            text = str(error)
        else:
            text = ""
        workers.close()
    assert len(open_files()) == before
    if n_free == 9:
        assert text == ""
    else:
        assert text == "" or re.fullmatch(TOO_MANY, text)
    assert text or n_free


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_machine_without_room_for_a_process_ends_the_search(executor, monkeypatch, number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(RunError, match=f"no worker can be started: {os.strerror(number)}; "):
        executor(1, "helpers.workers.hanging").submit(job())


def test_a_python_that_is_gone_is_named(executor, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match=r"No such file or directory: /nowhere/python; "):
        executor(1, "helpers.workers.hanging").submit(job())
