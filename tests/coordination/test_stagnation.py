"""A search that finds nothing better for some generations ends, whoever runs it."""

import itertools

import optuna
import pytest
from helpers.search_bench import SMALL_SPACE, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor

from tuner.coordination.history import tell
from tuner.journal.records import Status
from tuner.journal.storage import ASKED_AFTER_ATTR, read_journal

BAD_START = {"hidden_size": 128, "dropout": 0.5, "batch_size": 64, "num_layers": 3}


def make_stagnating(strategy, stagnation, seed=3):
    """A search that begins badly, so that it improves for a while."""
    return make_experiment(
        strategy,
        seed=seed,
        budget={"trials": 200, "epochs": 3, "stagnation": stagnation},
        hyperparameters=BAD_START,
        pruner={"name": "none"},
    )


@pytest.mark.parametrize(("strategy", "size"), [("woa", 6), ("tpe", 3), ("random", 3)])
@pytest.mark.parametrize("stagnation", [1, 3])
def test_a_search_stops_after_stagnant_generations(strategy, size, stagnation, make_bench):
    for seed in range(20):
        experiment, bench = make_stagnating(strategy, stagnation, seed), make_bench(f"one{seed}")
        _, record = bench.run(experiment, SimulatedExecutor(1))
        if max(t.number for t in record.trials if t.value == record.best.value) >= size:
            break
    assert len(record.trials) < 200
    complete = [t for t in record.trials if t.status is Status.COMPLETE]
    best = min(complete, key=lambda t: (t.value, t.number))
    assert best.number >= size, "a search that never improves would prove little"
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


def test_without_a_trial_budget_other_limits_end_a_search(make_bench):
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


def asked_after(bench):
    study = optuna.load_study(study_name="s", storage=read_journal(bench.location))
    return [t.user_attrs[ASKED_AFTER_ATTR] for t in study.trials]


@pytest.mark.parametrize(
    ("strategy", "stagnation", "seed"),
    [
        ("tpe", 1, 6),
        pytest.param("tpe", 2, 3, marks=pytest.mark.slow),
        pytest.param("random", 2, 6, marks=pytest.mark.slow),
    ],
)
def test_a_search_killed_between_tells_stagnates_the_same(
    strategy, stagnation, seed, make_bench, monkeypatch
):
    experiment, calm = make_stagnating(strategy, stagnation, seed), make_bench("calm")
    _, reference = calm.run(experiment, SimulatedExecutor(3))
    later = [k for k, n in enumerate(asked_after(calm)) if n > max(0, k - 2)]
    assert later, "no search went on because of a trial that was in progress"
    for die_at in range(1, len(reference.trials)):
        told_so_far = itertools.count(1)

        def tell_or_die(*args, n=told_so_far, die_at=die_at):
            found = tell(*args)
            if next(n) == die_at:
                raise Killed
            return found

        bench = make_bench(f"killed{die_at}")
        with monkeypatch.context() as patch:
            patch.setattr("tuner.coordination.coordinator.tell", tell_or_die)
            with pytest.raises(Killed):
                bench.run(experiment, SimulatedExecutor(3, chaos=die_at))
        _, record = bench.run(experiment, SimulatedExecutor(2, chaos=die_at))
        assert told(record) == told(reference)
        assert asked_after(bench) == asked_after(calm)
