"""A whole search on a Ray cluster of two nodes, one of which goes away, ends like a local one."""

import os

import pytest
import ray
from helpers.waves import EXPERIMENT, start, trials, tuner, write_series
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def folders(tmp_path):
    made = tmp_path / "local", tmp_path / "ray"
    for folder in made:
        folder.mkdir()
        write_series(folder)
        (folder / "waves.yaml").write_text(EXPERIMENT)
    return made


@pytest.fixture
def cluster(monkeypatch):
    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    made.second = made.add_node(**NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def finish(process):
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err


def test_a_search_that_loses_one_of_two_nodes_equals_a_local_one(folders, cluster):
    local, on_ray = folders
    assert os.environ["RAY_ADDRESS"] == cluster.address
    arguments = ["--executor", "ray", "--workers", "2", "--no-tracking"]
    process = start(on_ray, "run", "waves.yaml", *arguments)
    for _ in ("searching", "a result"):
        process.stdout.readline()
    cluster.remove_node(cluster.second)
    finish(process)
    tuner(local, "run", "waves.yaml", "--no-tracking")
    assert trials(on_ray) == trials(local)
