"""Rolling origins: a trial is pruned by its folds' scores, and by nothing in between."""

import json

import pytest
from helpers.search_bench import make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor

from tuner.jobs import Epoch, Outcome, OutcomeState, intermediate_values
from tuner.journal.records import Status

FOLDS = {"split": {"validation": {"folds": 3, "size": 0.1}}}


def test_intermediate_values_are_epochs_or_folds():
    history = [
        Epoch(0, 1.0, 1.0, 5.0, 0.0, 0),
        Epoch(1, 1.0, 1.0, 4.0, 0.0, 0, 4.0),
        Epoch(2, 1.0, 1.0, 6.0, 0.0, 1, 6.0),
    ]
    assert intermediate_values(history, 1) == {0: 5.0, 1: 4.0, 2: 6.0}
    assert intermediate_values(history, 3) == {0: 4.0, 1: 5.0}  # the mean so far


def test_folds_survive_the_journal():
    history = (Epoch(0, 1.0, 2.0, 3.0, 4.0), Epoch(1, 1.0, 2.0, 3.0, 4.0, 1, 3.0))
    outcome = Outcome(OutcomeState.COMPLETE, 3.0, 0, history)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


@pytest.mark.parametrize("strategy", ["woa", "tpe"])
def test_pruning_at_a_folds_end_is_the_same_with_any_workers(strategy, make_bench, bench):
    experiment = make_experiment(strategy, data=FOLDS)
    _, record = bench.run(experiment, SimulatedExecutor(1))
    pruned = [t for t in record.trials if t.status is Status.PRUNED and t.repeat_of is None]
    assert pruned
    epochs = experiment.budget.epochs
    assert {len(t.outcome.history) for t in pruned} <= {epochs, 2 * epochs}
    complete = [t for t in record.trained if t.status is Status.COMPLETE]
    assert {len(t.outcome.history) for t in complete} == {3 * epochs}
    for t in complete:
        scores = [e.fold_score for e in t.outcome.history if e.fold_score is not None]
        assert t.value == pytest.approx(sum(scores) / 3)
    _, other = make_bench("several").run(experiment, SimulatedExecutor(4, chaos=7))
    assert told(other) == told(record)
    killed = make_bench("killed")
    with pytest.raises(Killed):
        killed.run(experiment, SimulatedExecutor(3, chaos=2, die_after=9))
    _, again = killed.run(experiment, SimulatedExecutor(2, chaos=3))
    assert told(again) == told(record)
