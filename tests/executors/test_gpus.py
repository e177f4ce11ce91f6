"""GPUs are found without torch, and shared out evenly; the ones here are made up."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from helpers.executor_events import events, n_finished, outcomes

from tuner.data import SeriesRef, Shape
from tuner.executors import LocalExecutor
from tuner.executors.local import find_gpus, trains_on
from tuner.jobs import TrainJob

TWO = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)
"""
ONE_IN_PARTS = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa-1)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-3)
  MIG 1g.18gb     Device  1: (UUID: MIG-dddd-4)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb-2)
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of that name first on the PATH."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def listing(text):
    return f'test "$*" = -L || exit 3\ncat <<END\n{text}END'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TWO, ("GPU-aaaa-1", "GPU-bbbb-2")),
        (ONE_IN_PARTS, ("MIG-cccc-3", "MIG-dddd-4", "GPU-bbbb-2")),
        ("No devices found.\n", ()),
    ],
)
def test_gpus_are_what_nvidia_smi_lists(nvidia_smi, text, expected):
    nvidia_smi(listing(text))
    assert find_gpus() == expected


@pytest.mark.parametrize(
    "script", ["echo broken driver >&2; exit 9", "kill -9 $$", "printf '\\377'"]
)
def test_an_nvidia_smi_that_fails_means_no_gpu(nvidia_smi, script):
    nvidia_smi(script)
    assert find_gpus() == ()


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,0", ("2", "0")),
        ("GPU-bbbb-2", ("GPU-bbbb-2",)),
        (" 1 , MIG-dddd-4", ("1", "MIG-dddd-4")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),  # as CUDA reads it
        ("NoDevFiles", ()),
    ],
)
def test_what_the_environment_allows_goes_before_what_there_is(
    nvidia_smi, monkeypatch, visible, expected
):
    nvidia_smi(listing(TWO))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_gpus() == expected


@pytest.mark.parametrize(
    ("torch_version", "listed", "expected"),
    [
        ("2.13.0", TWO, True),
        ("2.13.0+cu130", TWO, True),
        ("2.13.0+cpu", TWO, False),
        ("2.13.0", "No devices found.\n", False),
    ],
)
def test_workers_train_on_gpus_that_their_torch_can_use(
    nvidia_smi, monkeypatch, torch_version, listed, expected
):
    nvidia_smi(listing(listed))
    monkeypatch.setattr("tuner.executors.local.version", lambda package: torch_version)
    assert trains_on(find_gpus()) is expected
    with contextlib.closing(LocalExecutor(1)) as workers:
        assert workers.has_gpus is expected


@pytest.fixture
def gpus_of_workers(monkeypatch):
    """Runs a job on each of some workers, and returns what GPUs they saw."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    executors = []

    def run(n_workers, **options):
        executors.append(LocalExecutor(n_workers, module="helpers.workers.environment", **options))
        return executors[-1], gpus_seen(executors[-1], n_workers)

    yield run
    for each in executors:
        each.close()


def gpus_seen(executor, n_jobs):
    """What GPUs the workers of some jobs saw, in the order of the jobs."""
    for n in range(n_jobs):
        ref = SeriesRef("/nowhere", Shape("forecast", features=1))
        executor.submit(TrainJob(f"{time.monotonic()}-{n}", {}, 1, 1, 1, "rmse", (ref,)))
    ended = outcomes(events(executor, n_finished(n_jobs)))
    return [ended[key].reason for key in sorted(ended, key=lambda key: key.split("-")[1])]


def pinned(executor):
    """What GPUs each worker may see."""
    return [gpu for worker in executor._workers for gpu in worker.gpus]


def test_workers_are_pinned_to_the_gpus_in_turn(nvidia_smi, gpus_of_workers):
    nvidia_smi(listing(TWO))
    executor, seen = gpus_of_workers(3)
    assert pinned(executor) == ["GPU-aaaa-1", "GPU-bbbb-2", "GPU-aaaa-1"]
    assert set(seen) <= {"GPU-aaaa-1", "GPU-bbbb-2"}  # each by a worker that was ready


def test_a_worker_takes_the_place_of_another_on_its_gpu(nvidia_smi, gpus_of_workers):
    nvidia_smi(listing(TWO))
    executor, _ = gpus_of_workers(4)
    for victim in (1, 2):  # of the second GPU, then of the first
        executor._workers[victim].process.kill()
        executor._workers[victim].process.wait()
        while len(executor.pids) == 4:
            executor.poll(0.2)
        gpus_seen(executor, 4)
        assert sorted(pinned(executor)) == ["GPU-aaaa-1"] * 2 + ["GPU-bbbb-2"] * 2


def test_a_worker_may_have_several_gpus(nvidia_smi, gpus_of_workers):
    nvidia_smi(listing(TWO))
    assert gpus_of_workers(1, gpus_each=2)[1] == ["GPU-aaaa-1,GPU-bbbb-2"]


def test_without_gpus_the_environment_stays_as_it_is(gpus_of_workers, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of_workers(1)[1] == ["unset"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_of_workers(1)[1] == [""]
