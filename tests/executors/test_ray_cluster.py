"""A Ray cluster of two nodes, and one of them taken away."""

import time

import pytest
import ray
from ray.cluster_utils import Cluster

from tuner.errors import InputError
from tuner.executors import Finished, LocalExecutor, Lost, Reported, choose_executor
from tuner.executors.ray_executor import RayExecutor
from tuner.experiment.schema import Resources
from tuner.jobs import TrainJob

pytestmark = pytest.mark.slow

N_JOBS = 6
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster():
    made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    made.add_node(**NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def jobs(data):
    hyperparameters = {"hidden_size": 8, "batch_size": 16}
    return [
        TrainJob(str(n), hyperparameters, n, 40, 1000, "rmse", (data,), can_be_pruned=True)
        for n in range(N_JOBS)
    ]


def run(executor, todo, n_together=1, then=lambda: None):
    """Do all jobs, those that are lost again; return outcomes in the order of ends, and losses.

    Once `n_together` jobs are in progress, all waiting for an answer, `then` is called.
    """
    by_key = {job.key: job for job in todo}
    for job in todo:
        executor.submit(job)
    waiting, is_done = set(), False
    ends, lost, deadline = [], [], time.monotonic() + 120
    while len(ends) < len(todo):
        assert time.monotonic() < deadline, (ends, lost)
        for event in executor.poll(0.2):
            match event:
                case Reported():
                    waiting.add(event.key)
                case Finished():
                    ends.append((event.key, event.outcome))
                case Lost():
                    lost.append(event)
                    executor.submit(by_key[event.key])
        if len(waiting) == n_together and not is_done:
            then()
            is_done = True
        while is_done and waiting:
            executor.answer(waiting.pop(), True)
    assert executor.poll(0.2) == []
    executor.close()
    return ends, lost


def scores(ends):
    return {key: [e.metric for e in outcome.history] for key, outcome in ends}


def test_a_node_that_goes_away_changes_no_outcome(cluster, data):
    (node,) = cluster.worker_nodes
    ends, lost = run(
        RayExecutor(2), jobs(data), 2, lambda: cluster.remove_node(node, allow_graceful=False)
    )
    assert len(lost) == 1
    assert lost[0].reason.startswith("its worker died")
    assert "\n" not in lost[0].reason
    assert sorted(key for key, _ in ends) == [str(n) for n in range(N_JOBS)]  # each once
    expected, _ = run(LocalExecutor(2), jobs(data))
    assert scores(ends) == scores(expected)


def test_jobs_wait_for_a_cluster_that_grows(data, monkeypatch):
    monkeypatch.setattr("tuner.executors.ray_executor._STRANDED_S", 0.1)
    head = NODE | {"num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    try:
        monkeypatch.setenv("RAY_ADDRESS", made.address)
        with pytest.raises(InputError, match="no node of the cluster has a CPU"):
            choose_executor("ray", Resources())
        executor = choose_executor("ray", Resources(wait=60.0)).make(1)
        executor.submit(jobs(data)[0])
        begun = time.monotonic()
        while time.monotonic() - begun < 3:  # longer than without `wait`
            assert executor.poll(0.5) == []
        made.add_node(**NODE)
        ends = []
        while not ends:
            for event in executor.poll(1.0):
                if isinstance(event, Reported):
                    executor.answer(event.key, True)
                ends += [event] if isinstance(event, Finished) else []
        assert ends[0].outcome.objective is not None
        executor.close()
    finally:
        ray.shutdown()
        made.shutdown()


def test_surplus_workers_start_when_a_node_joins(cluster, data):
    executor, all_jobs = RayExecutor(3), jobs(data)
    run(executor, all_jobs, 2, lambda: cluster.add_node(**NODE))
    ends, lost = run(RayExecutor(3), all_jobs, 3)
    assert (len(ends), lost) == (N_JOBS, [])
