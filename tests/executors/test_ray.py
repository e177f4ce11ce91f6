"""Workers on Ray: what is special about them."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray
from helpers import executor_events
from helpers.executor_events import n_finished, outcomes
from helpers.prepared import write_series

from tuner.data import SeriesRef, Shape
from tuner.data.reference import hold_arrays
from tuner.errors import RunError
from tuner.executors import Finished, Lost, Reported
from tuner.executors.ray_executor import RayExecutor, RayWorker
from tuner.jobs import OutcomeState, PredictJob, TrainJob

HYPERPARAMETERS = {"hidden_size": 4, "batch_size": 16}


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # for `helpers`
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=1,  # nobody looks whether it is there
            object_store_memory=200 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield
    ray.shutdown()


@pytest.fixture
def executor(cluster):
    executors = []

    def make(n_workers, **options):
        executors.append(RayExecutor(n_workers, **options))
        return executors[-1]

    yield make
    for each in executors:
        each.close()


def job(data, key="a", epochs=2, **fields):
    folds = fields.pop("folds", (data,))
    return TrainJob(key, HYPERPARAMETERS, 1, epochs, 1000, "rmse", folds, **fields)


events = functools.partial(executor_events.events, answer=executor_events.go_on)


def name_of(process):
    try:
        return process.name()
    except psutil.Error:  # it has just ended
        return ""


def actors():
    """The processes of this file's workers."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if name_of(p).startswith("ray::RayWorker")]


@pytest.mark.slow
def test_a_killed_worker_loses_its_job_alone_and_is_replaced(executor, data):
    workers = executor(2)
    for key in "ab":
        workers.submit(job(data, key, epochs=1_000_000, can_be_pruned=True))
    events(workers, lambda seen: {e.key for e in seen} == {"a", "b"})
    before = actors()
    assert len(before) == 2
    before[0].kill()
    seen = events(workers, lambda seen: any(isinstance(e, Lost) for e in seen))
    (lost,) = [e for e in seen if isinstance(e, Lost)]
    assert lost.reason.startswith("its worker died (SYSTEM_ERROR: Worker unexpectedly exits")
    assert "\n" not in lost.reason
    workers.submit(job(data, "c"))
    seen = events(workers, n_finished(1))
    assert outcomes(seen)["c"].state is OutcomeState.COMPLETE
    assert ({"a", "b"} - {lost.key}) & {e.key for e in seen}  # the other one trains on


@pytest.mark.slow
def test_a_worker_that_dies_while_it_has_no_job_costs_no_job(executor, data):
    workers = executor(1)
    workers.submit(job(data))
    events(workers, n_finished(1))
    actors()[0].kill()
    deadline = time.monotonic() + 180
    while workers._workers:
        assert time.monotonic() < deadline
        assert workers.poll(0.2) == []
    workers.submit(job(data))
    assert {type(e) for e in events(workers, n_finished(1))} == {Reported, Finished}


@pytest.mark.slow
def test_data_is_put_into_the_object_store_once(executor, data, tmp_path, monkeypatch):
    other = write_series(tmp_path, np.cos(np.arange(120) / 3)[:, None], train_end=80)
    put, n_puts = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: n_puts.append(sorted(value)) or put(value))
    workers = executor(2)
    for key in "abcd":
        workers.submit(job(data, key, folds=(data, other, data)))
    seen = events(workers, n_finished(4))
    assert len(n_puts) == 2  # one for each folder
    assert n_puts[0] == sorted(p.stem for p in Path(data.folder).glob("*.npy"))
    assert {end.state for end in outcomes(seen).values()} == {OutcomeState.COMPLETE}


@pytest.mark.slow
def test_workers_need_no_files(executor, tmp_path):
    gone = write_series(tmp_path, np.sin(np.arange(120) / 3)[:, None], train_end=80)
    workers = executor(1)
    workers.submit(job(gone, epochs=1_000_000, can_be_pruned=True))
    workers.submit(job(gone, "b", keep_weights=True))
    events(workers, bool)
    for file in tmp_path.iterdir():
        file.unlink()
    while not workers.poll(0.2):
        pass
    workers.answer("a", False)
    ended = outcomes(events(workers, n_finished(2)))
    assert ended["a"].state is OutcomeState.PRUNED
    assert ended["b"].state is OutcomeState.COMPLETE
    workers.submit(PredictJob("p", HYPERPARAMETERS, ended["b"].weights, gone))
    found = outcomes(events(workers, n_finished(1)))["p"].predictions
    assert found.shape == (40, 1, 1)


def test_held_arrays_take_the_place_of_files():
    array = np.arange(3)
    ref = SeriesRef("/nowhere", Shape("forecast", features=1))
    hold_arrays({"/nowhere": {"inputs": array}})
    assert ref.load("inputs") is array
    hold_arrays({})
    with pytest.raises(FileNotFoundError):
        ref.load("inputs")


@pytest.mark.slow
def test_workers_without_room_hold_no_job_back(executor, data):
    workers = executor(5, cpus=2.0)  # there is room for one
    for key in "abc":
        workers.submit(job(data, key))
    seen = events(workers, n_finished(3))
    assert {end.state for end in outcomes(seen).values()} == {OutcomeState.COMPLETE}
    assert len(actors()) == 1


@pytest.mark.slow
def test_a_worker_without_a_gpu_sees_none(executor, monkeypatch):
    assert _visible_gpus(executor, gpus=0.0) == ""
    assert _visible_gpus(executor, gpus=0.5) == "0"


def _visible_gpus(executor, gpus):
    workers = executor(1, gpus=gpus, training="helpers.workers.environment")
    workers.submit(job(SeriesRef("/nowhere", Shape("forecast", features=1)), folds=()))
    found = outcomes(events(workers, n_finished(1)))["a"].reason
    workers.close()
    return found


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused(executor, data, monkeypatch):
    monkeypatch.setattr("tuner.executors.ray_executor.__version__", "9.9")
    workers = executor(1)
    workers.submit(job(data))
    with pytest.raises(RunError, match=r"has lstm-tuner 0\.\d.* and this machine 9\.9"):
        events(workers, n_finished(1))


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_search(executor, data):
    workers = executor(1, training="no_such_module")
    workers.submit(job(data))
    expected = "no worker can be started: ModuleNotFoundError: No module named 'no_such_module'"
    with pytest.raises(RunError, match=expected):
        events(workers, n_finished(1))


@pytest.mark.slow
def test_a_cluster_without_room_for_a_worker_ends_the_search(executor, data, monkeypatch):
    monkeypatch.setattr("tuner.executors.ray_executor._STRANDED_S", 0.5)
    workers = executor(1, cpus=3.0)
    workers.submit(job(data))
    with pytest.raises(RunError, match="no node of the cluster has 3 CPUs and 0 GPUs"):
        events(workers, n_finished(1))


@pytest.fixture
def clock(monkeypatch):
    """The executor's seconds; a test moves them on."""
    now = [1000.0]
    stand_in = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr("tuner.executors.ray_executor.time", stand_in)
    return now


@pytest.mark.slow
def test_a_moment_without_a_node_ends_no_search_that_was_paused(executor, data, clock):
    workers = executor(1, cpus=3.0)
    clock[0] += 3600
    workers.submit(job(data))
    clock[0] += 3600  # nobody looked
    assert workers.poll(0.0) == []
    clock[0] += 59
    assert workers.poll(0.0) == []
    workers._connection = SimpleNamespace(  # a node, for a moment
        nodes=lambda: [{"CPU": 3.0}], is_lost=False, release=workers._connection.release
    )
    clock[0] += 59
    assert workers.poll(0.0) == []
    workers._connection.nodes = lambda: []
    workers._connection.free = lambda: "none"
    clock[0] += 59
    assert workers.poll(0.0) == []
    clock[0] += 59
    assert workers.poll(0.0) == []
    clock[0] += 2
    with pytest.raises(RunError, match="no node of the cluster has 3 CPUs and 0 GPUs"):
        workers.poll(0.0)


@pytest.mark.slow
def test_a_search_that_waits_for_others_says_so_once(executor, data, clock):
    others = executor(1, cpus=1.5)
    others.submit(job(data))
    events(others, n_finished(1))
    notes = []
    workers = executor(1, cpus=1.5, gpus=0.5, note=notes.append)
    workers.submit(job(data, "b"))
    assert workers.poll(0.0) == []
    clock[0] += 19
    assert workers.poll(0.0) == []
    assert notes == []
    for _ in range(3):
        clock[0] += 2
        assert workers.poll(0.0) == []
    assert notes == [
        "waiting for room on the cluster: a worker takes 1.5 CPUs and 0.5 GPUs, and 0.5 of 2 CPUs "
        "and 1 of 1 GPUs are free"
    ]
    others.close()
    assert outcomes(events(workers, n_finished(1)))["b"].state is OutcomeState.COMPLETE


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ObjectStoreFullError", "OutOfDiskError"])
def test_a_store_that_is_full_ends_the_search_in_one_line(executor, data, monkeypatch, kind):
    def refuse(value):
        raise getattr(ray.exceptions, kind)("Failed to put object.\nThe disk\nis full. ")

    workers = executor(1)
    workers.submit(job(data))
    monkeypatch.setattr(ray, "put", refuse)
    with pytest.raises(RunError) as caught:
        events(workers, n_finished(1))
    text = str(caught.value)
    assert text.startswith(f"Ray failed: {kind}: Failed to put object. The disk is full")
    assert text.endswith("; the same command resumes")
    assert "\n" not in text


@pytest.mark.slow
def test_a_cluster_failure_does_not_block_closing(executor, data, monkeypatch):
    workers = executor(1)
    workers.submit(job(data))
    events(workers, n_finished(1))

    def refuse(handle):
        raise ray.exceptions.RaySystemError("no raylet")

    with monkeypatch.context() as broken:
        broken.setattr(ray, "kill", refuse)
        workers.close()
    assert ray.is_initialized()


@pytest.mark.slow
def test_closing_leaves_a_connection_that_was_there(executor):
    executor(1).close()
    assert ray.is_initialized()


def test_the_actor_serves_what_it_is_asked(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # it is put back
    worker = RayWorker("helpers.workers.environment", gpus=0)
    (ready,) = worker.next_messages()
    worker.hear(True)
    worker.train(job(SeriesRef("/nowhere", Shape("forecast", features=1)), folds=()), [])
    started, finished = worker.next_messages()
    assert started.key == finished.key == "a"


# A search's process: it starts a cluster of its own, and says what becomes of its job.
COORDINATOR = """
    import pathlib, pickle, signal, sys
    job = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
    interrupted = []
    signal.signal(signal.SIGINT, lambda *_: interrupted.append("interrupted"))
    signal.signal(signal.SIGTERM, lambda *_: interrupted.append("terminated"))
    from tuner.executors.ray_executor import RayExecutor
    executor = RayExecutor(1)
    executor.submit(job)
    n_seen = 0
    while True:
        for event in executor.poll(0.2):
            n_seen += 1
            if n_seen == 1:
                print(type(event).__name__, "torch" in sys.modules, flush=True)
            if type(event).__name__ in ("Finished", "Lost"):
                print(type(event).__name__, *interrupted, flush=True)
                executor.close()
                sys.exit()
"""


@pytest.fixture
def coordinator(tmp_path, data):
    import pickle

    script = tmp_path / "coordinator.py"
    script.write_text(textwrap.dedent(COORDINATOR))
    (tmp_path / "job").write_bytes(pickle.dumps(job(data, epochs=1500)))
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script), str(tmp_path / "job")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_ctrl_c_and_sigterm_reach_the_search_and_not_the_workers(coordinator):
    assert coordinator.stdout.readline() == "Reported False\n"  # and torch is not imported here
    os.killpg(coordinator.pid, signal.SIGINT)
    coordinator.terminate()
    out, errors = coordinator.communicate(timeout=180)
    assert sorted(out.split()) == ["Finished", "interrupted", "terminated"]
    assert errors == ""
    assert coordinator.returncode == 0


@pytest.mark.slow
def test_a_started_cluster_ends_with_a_killed_search(coordinator):
    coordinator.stdout.readline()
    begun = psutil.Process(coordinator.pid).children(recursive=True)
    begun = [p for p in begun if "Agent" not in name_of(p)]  # those look up seldom
    assert any(name_of(p).startswith("ray::RayWorker") for p in begun)
    coordinator.kill()
    assert psutil.wait_procs(begun, timeout=60)[1] == []


@pytest.mark.slow
def test_a_killed_worker_leaves_no_trace_on_the_terminal(coordinator):
    coordinator.stdout.readline()
    begun = psutil.Process(coordinator.pid).children(recursive=True)
    next(p for p in begun if name_of(p).startswith("ray::RayWorker")).kill()
    out, errors = coordinator.communicate(timeout=180)
    assert (out, errors) == ("Lost\n", "")
