"""A search that finds nothing better for some generations ends, whoever runs it."""

from __future__ import annotations

import pytest
from search_bench import SMALL_SPACE, make_experiment, told
from simulated import Killed, SimulatedExecutor

from tuner.search.records import Status


def searched(bench, strategy, **budget):
    experiment = make_experiment(strategy, trials=200, epochs=3)
    budget = {"budget": experiment.budget.model_dump() | budget}
    experiment = type(experiment).model_validate(experiment.to_dict() | budget)
    return experiment, bench


@pytest.mark.parametrize(("strategy", "size"), [("woa", 6), ("tpe", 3), ("random", 3)])
@pytest.mark.parametrize("stagnation", [1, 3])
def test_a_search_ends_after_so_many_generations_without_a_better_score(
    strategy, size, stagnation, make_bench
):
    experiment, bench = searched(make_bench("one"), strategy, stagnation=stagnation)
    _, record = bench.run(experiment, SimulatedExecutor(1))
    assert len(record.trials) < 200
    complete = [t for t in record.trials if t.status is Status.COMPLETE]
    best = min(complete, key=lambda t: (t.value, t.number))
    assert len(record.trials) // size == best.number // size + stagnation + 1
    _, other = make_bench("several").run(experiment, SimulatedExecutor(5, chaos=3))
    assert told(other) == told(record)
    killed = make_bench("killed")
    with pytest.raises(Killed):
        killed.run(experiment, SimulatedExecutor(3, chaos=1, die_after=5))
    _, again = killed.run(experiment, SimulatedExecutor(2, chaos=2))
    assert told(again) == told(record)
    executor = SimulatedExecutor(2)
    _, resumed = bench.run(experiment, executor)
    assert told(resumed) == told(record)
    assert executor.begun == []


def test_without_it_the_budget_alone_ends_a_search(bench):
    experiment = make_experiment("random", trials=40, epochs=2)
    _, record = bench.run(experiment, SimulatedExecutor(2))
    assert len(record.trained) == 40


def test_without_a_budget_of_trials_the_other_limits_end_a_search(make_bench):
    budget = {"trials": None, "epochs": 2}
    experiment = make_experiment("woa", budget=budget | {"stagnation": 3})
    _, stagnant = make_bench("stagnant").run(experiment, SimulatedExecutor(2))
    assert len(stagnant.trained) > 18
    experiment = make_experiment("pso", space=SMALL_SPACE, budget=budget)
    _, whole = make_bench("whole").run(experiment, SimulatedExecutor(2))
    assert len(whole.trained) == experiment.n_trials == 12
    experiment = make_experiment("tpe", budget=budget | {"timeout": 60})
    assert experiment.n_trials is None
    executor = SimulatedExecutor(2)
    _, timed = make_bench("timed").run(
        experiment, executor, out_of_time=lambda: executor.finished >= 20
    )
    assert 20 <= len(timed.trained) <= 24
