"""What `--executor` may name, and what is refused before anything starts."""

import os
import socket
import sys
import time
from concurrent import futures

import grpc
import pytest
import ray

from tuner.errors import InputError
from tuner.executors import LocalExecutor
from tuner.executors.choice import choose_executor, n_cores, room
from tuner.executors.ray_executor import RayExecutor
from tuner.experiment.schema import Resources


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """Four cores, no GPU, no Ray cluster."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.parametrize("name", ["local", "ray"])
@pytest.mark.parametrize(
    ("cpus", "capacity"), [(1, 4), (2, 2), (3, 1), (0.5, 8), (0.1, 40), (0.3, 13), (4, 1)]
)
def test_as_many_jobs_have_room_as_cores_allow(name, cpus, capacity):
    choice = choose_executor(name, Resources(cpus=cpus))
    assert (choice.capacity, choice.unit) == (capacity, "this machine's 4 cores")


@pytest.mark.parametrize("name", ["local", "ray"])
@pytest.mark.parametrize(
    ("gpus", "capacity", "unit"),
    [
        (0.5, 4, "this machine's 4 cores"),
        (0.25, 4, "this machine's 4 cores"),
        (0.6, 2, "this machine's 2 GPUs"),  # not three: none has parts of two GPUs
        (1, 2, "this machine's 2 GPUs"),
        (2, 1, "this machine's 2 GPUs"),
    ],
)
def test_as_many_jobs_have_room_as_gpus_allow(two_gpus, name, gpus, capacity, unit):
    choice = choose_executor(name, Resources(gpus=gpus))
    assert (choice.capacity, choice.unit) == (capacity, unit)


def test_one_core_is_named_as_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert choose_executor("local", Resources()).unit == "this machine's 1 core"


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "expected"),
    [
        ({"CPU": 8.0}, 1, 0, 8),
        ({"CPU": 7.0}, 0.07, 0, 100),
        ({"CPU": 8.0}, 1, 0.5, 0),
        ({"CPU": 8.0, "GPU": 3.0}, 1, 2, 1),
        ({"CPU": 8.0, "GPU": 1.0}, 1, 0.3, 3),
        ({"CPU": 8.0, "GPU": 1.0}, 1, 0.1, 8),
        ({"memory": 1.0}, 1, 0, 0),
    ],
)
def test_a_nodes_capacity_is_its_tightest_resource(node, cpus, gpus, expected):
    assert room(node, cpus, gpus) == expected


def test_local_makes_workers_with_as_many_gpus_as_a_job_wants(two_gpus):
    made = choose_executor("local", Resources(gpus=2)).make(3)
    assert isinstance(made, LocalExecutor)
    assert (made.n_workers, made._gpus_each) == (3, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("locla", "unknown executor 'locla'; did you mean 'local'?"),
        ("Ray", "unknown executor 'Ray'; did you mean 'ray'?"),
        ("dask", "unknown executor 'dask'; choose from: local, ray, ray://HOST:PORT"),
        ("ray://", "must be ray://HOST:PORT, got 'ray://'; write ray://head-node:10001, say"),
        ("ray:h:1", "must be ray://HOST:PORT, got 'ray:h:1'; write ray://head-node:10001, say"),
        ("ray://h", "must be ray://HOST:PORT, got 'ray://h'; write ray://h:10001, say"),
        ("ray://h:x", "must be ray://HOST:PORT, got 'ray://h:x'; write ray://head-node:10001, say"),
        ("ray://h:0", "must be ray://HOST:PORT, got 'ray://h:0'; write ray://h:10001, say"),
        ("ray://h:1/a", "must be ray://HOST:PORT, got 'ray://h:1/a'; write ray://h:1, say"),
        ("ray://me@h:1", "must be ray://HOST:PORT, got 'ray://me@h:1'; write ray://h:1, say"),
        ("ray://no-such-host.invalid:1", "cannot reach ray://no-such-host.invalid:1: "),
        ("ray://127.0.0.1:1", "cannot reach ray://127.0.0.1:1: Connection refused; "),
        ("ray://[::1]:1", "cannot reach ray://[::1]:1: "),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name, message):
    error = refusal(name)
    assert error.startswith(f"--executor: {message}")


def refusal(name, **resources):
    begun = time.monotonic()
    with pytest.raises(InputError) as caught:
        choose_executor(name, Resources(**resources))
    assert time.monotonic() - begun < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["local", "ray"])
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpus": 0.25},
         "resources.gpus: must be 0 where there is no GPU, and this machine has none, got "
         "0.25; write --set resources.gpus=0, or run where there is one"),
        ({"cpus": 4.5}, "resources.cpus: must be at most 4, the cores of this machine, got 4.5; "
         "write --set resources.cpus=1"),
    ],
)  # fmt: skip
def test_what_this_machine_does_not_have_is_refused(name, resources, message):
    assert refusal(name, **resources) == message


def test_more_gpus_than_there_are_are_refused(two_gpus):
    assert refusal("local", gpus=3) == (
        "resources.gpus: must be at most 2, the GPUs of this machine, got 3; "
        "write --set resources.gpus=1"
    )


def test_ray_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    expected = "--executor: ray is not installed; pip install 'lstm-tuner[ray]'"
    assert refusal("ray") == refusal("ray://127.0.0.1:1") == expected


@pytest.fixture
def listener():
    """The address of one who accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_refused(listener):
    assert refusal(f"ray://{listener}") == (
        f"--executor: ray://{listener} answers, but is no Ray Client server "
        f"(deadline_exceeded); the port is 10001 unless `ray start --head` was given another"
    )


def test_a_server_of_another_kind_is_refused():
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert "is no Ray Client server (unimplemented)" in refusal(f"ray://127.0.0.1:{port}")
    finally:
        server.stop(None).wait()


def test_the_cluster_that_the_environment_names_is_used(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert refusal("ray").startswith("--executor: cannot reach 127.0.0.1:1: Connection refused")
    monkeypatch.setenv("RAY_ADDRESS", "ray://h")
    assert "must be ray://HOST:PORT" in refusal("ray")


class Cluster:
    """Stands for a running cluster, of nodes with these resources."""

    def __init__(self, *nodes):
        self.nodes_ = nodes

    def connect(self):
        pass

    def nodes(self):
        return list(self.nodes_)


@pytest.fixture
def cluster(monkeypatch):
    def stand_in(*nodes):
        monkeypatch.setattr(
            "tuner.executors.ray_executor.connection_to", lambda address: Cluster(*nodes)
        )

    return stand_in


def test_a_cluster_executor_passes_its_notes_on(monkeypatch):
    made = []
    monkeypatch.setattr(
        "tuner.executors.ray_executor.RayExecutor", lambda *_, **options: made.append(options)
    )
    choose_executor("ray", Resources(), note=print).make(2)
    assert made[0]["note"] is print


NODES = [{"CPU": 2.0}, {"CPU": 6.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("resources", "capacity", "unit"),
    [
        ({}, 8, "the cluster's 8 CPUs"),
        ({"cpus": 4}, 1, "the cluster's 8 CPUs"),
        ({"gpus": 0.25}, 4, "the cluster's 1 GPU"),
    ],
)
def test_what_a_cluster_has_room_for(cluster, resources, capacity, unit):
    cluster(*NODES)
    choice = choose_executor("ray://h:1", Resources(**resources))
    assert (choice.capacity, choice.unit) == (capacity, unit)


@pytest.mark.parametrize(
    ("nodes", "resources", "message"),
    [
        (NODES, {"cpus": 7},
         "resources.cpus: must be at most 6, the CPUs that a node of the cluster has, got 7; "
         "write --set resources.cpus=1"),
        (NODES, {"gpus": 2},
         "resources.gpus: must be at most 1, the GPUs that a node of the cluster has, got 2; "
         "write --set resources.gpus=1"),
        (NODES[:1], {"gpus": 0.5},
         "resources.gpus: must be 0 where there is no GPU, and the cluster has none, got 0.5; "
         "write --set resources.gpus=0, or run where there is one"),
        ([{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}], {"cpus": 2, "gpus": 0.5},
         "resources: no node of the cluster has both the CPUs and the GPUs, got cpus=2, "
         "gpus=0.5; write --set resources.cpus=1"),
        ([{"memory": 1.0}], {}, "--executor: no node of the cluster has a CPU; start one that has"),
    ],
)  # fmt: skip
def test_what_no_node_of_a_cluster_has_is_refused(cluster, nodes, resources, message):
    cluster(*nodes)
    assert refusal("ray://h:1", **resources) == message


@pytest.mark.slow
def test_a_local_cluster_ends_with_its_last_executor(monkeypatch):
    monkeypatch.undo()
    choice = choose_executor("ray", Resources())
    assert not ray.is_initialized()
    first, second = choice.make(1), choice.make(2)
    assert isinstance(second, RayExecutor)
    assert ray.cluster_resources()["CPU"] == n_cores()
    first.close()
    first.close()
    assert ray.is_initialized()
    second.close()
    assert not ray.is_initialized()


FARM = """
from tuner.executors import LocalExecutor
from tuner.executors.choice import Machines

def open_farm(name, resources, note):
    return Machines([{"CPU": 3}], is_cluster=True), LocalExecutor
"""


def test_an_installed_executor_is_chosen_by_name(tmp_path, monkeypatch):
    info = tmp_path / "farm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: farm\nVersion: 1\n")
    offered = "[tuner.executors]\nfarm = farm_of_tests:open_farm\nbarn = farm_of_tests:barn\n"
    (info / "entry_points.txt").write_text(offered)
    (tmp_path / "farm_of_tests.py").write_text(FARM)
    monkeypatch.syspath_prepend(str(tmp_path))
    choice = choose_executor("farm", Resources())
    assert (choice.capacity, choice.unit) == (3, "the cluster's 3 CPUs")
    assert isinstance(choice.make(2), LocalExecutor)
    assert refusal("frm").endswith("unknown executor 'frm'; did you mean 'farm'?")
    assert "cannot be imported, got 'barn' of farm_of_tests:barn: " in refusal("barn")
