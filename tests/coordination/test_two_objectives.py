"""A metric and a cost at once: NSGA-II, told in order, and the front that comes of it."""

import dataclasses

import pytest
from helpers.search_bench import make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor
from hypothesis import given
from hypothesis import strategies as st

from tuner.journal.records import Status
from tuner.results.winner import objectives, pareto_front

BOTH = {"objective": {"metrics": ["rmse", "weights"]}, "pruner": {"name": "none"}}


def both(trials=24, **keys):
    return make_experiment("nsga2", trials=trials, **BOTH | keys)


def test_any_workers_and_event_order_give_the_same_trials(make_bench):
    _, reference = make_bench("one").run(both(), SimulatedExecutor(1))
    assert len(reference.trained) == 24
    for workers, chaos in ((2, 1), (5, 2), (9, 3)):
        executor = SimulatedExecutor(workers, chaos, p_lost=0.05)
        _, record = make_bench(f"{workers}").run(both(), executor, retries=99)
        assert told(record) == told(reference)


@pytest.mark.parametrize("at", [0, 1, 5, 6, 13, 22])
def test_a_search_killed_at_any_trial_ends_like_one_that_was_not(make_bench, at):
    _, reference = make_bench("calm").run(both(), SimulatedExecutor(3))
    killed = make_bench("killed")
    with pytest.raises(Killed):
        killed.run(both(), SimulatedExecutor(3, chaos=at, die_after=at))
    _, record = killed.run(both(), SimulatedExecutor(2, chaos=at + 1))
    assert told(record) == told(reference)


def test_failed_trials_are_no_parents_and_the_search_goes_on(make_bench):
    def fails(job):
        return job.hyperparameters["num_layers"] == 3

    _, record = make_bench("a").run(both(), SimulatedExecutor(2, fails=fails))
    _, other = make_bench("b").run(both(), SimulatedExecutor(5, chaos=4, fails=fails))
    assert told(record) == told(other)
    assert record.count(Status.FAILED) > 0
    later = [t for t in record.trained if t.number >= 12]
    assert sum(t.status is Status.FAILED for t in later) < len(later) / 2


def test_the_front_grows_towards_small_models_that_are_good(make_bench):
    _, record = make_bench("a").run(both(trials=60), SimulatedExecutor(4))
    front = pareto_front(record)
    assert len(front) >= 3
    assert front[0].value == record.best.value
    sizes = [t.outcome.n_weights for t in front]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) == min(t.outcome.n_weights for t in record.trained)


def test_stagnation_looks_at_both_objectives(make_bench):
    _, record = make_bench("a").run(both(trials=None, budget={
        "trials": None, "epochs": 5, "stagnation": 2}), SimulatedExecutor(4))  # fmt: skip
    front = {t.number for t in pareto_front(record)}
    size = record.experiment.strategy.population
    last = max(t.number for t in record.trials) // size
    assert max(front) // size <= last - 2
    assert last < 100


def test_one_objective_has_no_front(make_bench):
    _, record = make_bench("a").run(make_experiment("nsga2", trials=12), SimulatedExecutor(2))
    assert pareto_front(record) == []
    assert objectives(record, record.trained[0]) is None


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    from helpers.search_bench import Bench

    bench = Bench(tmp_path_factory.mktemp("front") / "s.journal")
    return bench.run(both(trials=30), SimulatedExecutor(3))[1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=30, max_size=30))
def test_the_front_is_what_no_trial_beats(searched, values):
    trials = [
        dataclasses.replace(
            trial,
            outcome=dataclasses.replace(trial.outcome, objective=float(score), n_weights=cost),
            status=Status.COMPLETE,
        )
        for trial, (score, cost) in zip(searched.trained, values, strict=True)
    ]
    record = dataclasses.replace(searched, trials=tuple(trials))
    known = [objectives(record, t) for t in trials]

    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in known)

    found = [objectives(record, t) for t in pareto_front(record)]
    assert found == sorted({v for v in known if not beaten(v)})
