"""The asynchronous coordinator: no worker waits, nothing finished is lost."""

import pytest
from helpers.search_bench import FINITE_SPACE, SMALL_SPACE, make_experiment
from helpers.simulated_executor import Killed, SimulatedExecutor

from tuner.coordination.pruning import should_prune
from tuner.errors import StudyError
from tuner.journal.records import Status
from tuner.strategies.registry import STRATEGIES

EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)


class Watched(SimulatedExecutor):
    """Notes how many jobs were begun and how many it has whenever it is asked for events."""

    def poll(self, timeout_s):
        n_jobs = len(self._queue) + len(self._running)
        self.seen = [*getattr(self, "seen", []), (len(self.begun) + len(self._queue), n_jobs)]
        return super().poll(timeout_s)


@EVERY_STRATEGY
def test_no_worker_waits_while_there_is_something_to_train(strategy, bench):
    experiment = make_experiment(strategy, asynchronous=True)
    executor = Watched(5, chaos=2)
    finished, record = bench.run(experiment, executor)
    assert finished
    assert len(record.trained) == 24
    assert record.count(Status.RUNNING) == 0
    n_begun = [begun for begun, _ in executor.seen]
    loads = [load for begun, load in executor.seen if begun < 24]
    assert n_begun[-1] == 24
    assert set(loads) == {5}


@EVERY_STRATEGY
def test_killed_again_and_again_it_trains_nothing_twice(strategy, bench):
    experiment = make_experiment(strategy, asynchronous=True)
    delivered = []
    for life in range(100):
        executor = SimulatedExecutor(3, chaos=life, die_after=1)
        try:
            _, record = bench.run(experiment, executor)
            break
        except Killed:
            continue
        finally:
            delivered += executor.delivered
    assert life > 10
    assert len(delivered) == len(set(delivered)) == len(record.trained) == 24
    assert [t.number for t in record.trials] == list(range(len(record.trials)))


@pytest.mark.parametrize("name", ["successive_halving", "hyperband", "median"])
def test_pruning_compares_with_every_trial_told_so_far(name, bench, monkeypatch):
    """In the repeatable mode a trial of one batch is compared with earlier batches alone."""
    seen = {}

    def spy(pruner, evidence, number, *rest, n_folds):
        seen.setdefault(number, set()).update(t.number for t in evidence.trials)
        return should_prune(pruner, evidence, number, *rest, n_folds=n_folds)

    monkeypatch.setattr("tuner.coordination.coordinator.should_prune", spy)
    options = {"n_startup_trials": 2, "n_warmup_steps": 0} if name == "median" else {}
    experiment = make_experiment(
        "random", pruner={"name": name} | options, asynchronous=True, trials=40
    )
    _, record = bench.run(experiment, SimulatedExecutor(3, chaos=1))
    assert record.count(Status.PRUNED) > 0
    assert any(number // 3 == other // 3 for number, told in seen.items() for other in told)


def test_a_small_space_is_exhausted_and_duplicates_are_reused(bench):
    experiment = make_experiment("pso", space=SMALL_SPACE, trials=40, asynchronous=True)
    finished, record = bench.run(experiment, SimulatedExecutor(4, chaos=3))
    assert finished
    assert len(record.trained) == 12
    for trial in record.trials:
        if trial.repeat_of is not None:
            assert trial.value == record.trials[trial.repeat_of].value


def test_a_grid_is_searched_once(bench):
    experiment = make_experiment(
        "grid", space=FINITE_SPACE | SMALL_SPACE, trials=30, asynchronous=True
    )
    _, record = bench.run(experiment, SimulatedExecutor(4, chaos=3))
    configurations = [tuple(sorted(t.params.items())) for t in record.trials]
    assert len(set(configurations)) == len(configurations)


def test_the_record_keeps_that_a_search_was_asynchronous(bench):
    experiment = make_experiment("woa", trials=6, asynchronous=True)
    _, record = bench.run(experiment, SimulatedExecutor(2))
    assert record.experiment.asynchronous
    with pytest.raises(StudyError, match="asynchronous=true, got false"):
        bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))


def test_a_search_without_a_better_score_ends_here_too(bench):
    experiment = make_experiment(
        "random", budget={"trials": 500, "epochs": 2, "stagnation": 4}, asynchronous=True
    )
    finished, record = bench.run(experiment, SimulatedExecutor(3, chaos=5))
    assert finished
    assert len(record.trained) < 500
