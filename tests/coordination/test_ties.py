"""Where the metric stands still the validation loss decides, whatever is decided.

In most tests here every trial has the same metric in every epoch: the losses alone tell the
trials apart.
"""

import dataclasses
import math

import optuna
import pytest
from helpers.search_bench import SPACE, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from tuner.coordination.history import Told
from tuner.coordination.pruning import (
    Evidence,
    _Told,
    breaks_ties,
    make_pruner,
    should_prune,
    with_losses,
)
from tuner.jobs import Epoch, Outcome, OutcomeState, intermediate_losses
from tuner.journal.records import Status
from tuner.journal.storage import read_journal
from tuner.progress.watcher import Standing

PRUNERS = {
    "median": {"n_startup_trials": 4, "n_warmup_steps": 1},
    "percentile": {"n_startup_trials": 4, "n_warmup_steps": 1, "percentile": 30.0},
    "successive_halving": {"min_resource": 2, "reduction_factor": 2},
    "hyperband": {"min_resource": 2, "reduction_factor": 2},
    "patient": {
        "patience": 1,
        "wrapped": {"name": "median", "n_startup_trials": 3, "n_warmup_steps": 1},
    },
}


class StandsStill(SimulatedExecutor):
    """Accuracy on a few rows: the same for all; the loss is what the curve would have been."""

    def curve(self, job):
        return [0.5] * len(super().curve(job))

    def loss(self, job, epoch):
        worse = 0.4 * max(0, epoch % job.epochs - 4)  # so that patience has something to see
        return super().curve(job)[epoch] + worse


@pytest.mark.parametrize("name", PRUNERS)
def test_equal_metrics_are_pruned_by_the_larger_loss(name, make_bench):
    experiment = make_experiment(pruner={"name": name, **PRUNERS[name]}, epochs=9)
    _, record = make_bench("losses").run(experiment, StandsStill(2))
    pruned = [t for t in record.trials if t.status is Status.PRUNED]
    complete = [t for t in record.trials if t.status is Status.COMPLETE]
    assert len(pruned) > 3
    assert len(complete) > 3

    def last(trial, epochs):
        return trial.outcome.history[epochs - 1].val_loss

    for trial in pruned:
        n = len(trial.outcome.history)
        others = [t for t in record.trials[: trial.number] if len(t.outcome.history) >= n]
        assert last(trial, n) > min(last(other, n) for other in others)
    # As it would be if the losses were the metric.
    experiment = make_experiment(
        pruner={"name": name, **PRUNERS[name]}, epochs=9, strategy="random"
    )
    _, ties = make_bench("ties").run(experiment, StandsStill(1))

    class LossIsMetric(StandsStill):
        def curve(self, job):
            return [self.loss(job, epoch) for epoch in range(job.epochs)]

    _, plain = make_bench("plain").run(experiment, LossIsMetric(1))
    assert [t.status for t in ties.trials] == [t.status for t in plain.trials]


@pytest.mark.parametrize("name", PRUNERS)
def test_ties_break_the_same_with_any_workers_or_kill(name, make_bench):
    experiment = make_experiment(pruner={"name": name, **PRUNERS[name]}, epochs=9)
    reference = told(make_bench("one").run(experiment, StandsStill(1))[1])
    assert told(make_bench("five").run(experiment, StandsStill(5, chaos=2))[1]) == reference
    bench, lives = make_bench("killed"), 0
    while True:
        try:
            _, record = bench.run(experiment, StandsStill(3, chaos=lives, die_after=3))
            break
        except Killed:
            lives += 1
    assert lives > 3
    assert told(record) == reference


def test_the_journal_keeps_the_metric_itself(bench):
    experiment = make_experiment("random", pruner={"name": "median", **PRUNERS["median"]})
    bench.run(experiment, StandsStill(2))
    study = optuna.load_study(study_name="s", storage=read_journal(bench.location))
    values = {v for t in study.trials for v in t.intermediate_values.values()}
    assert values == {0.5}


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
@pytest.mark.parametrize("loss", [1.0, 1.1])
def test_successive_halving_keeps_the_better_of_two_equals(metric, loss):
    keys = {"task": {"kind": "classify"}, "data": {"id": "i"}}
    pruner = {"name": "successive_halving", "min_resource": 1, "reduction_factor": 2}
    experiment = make_experiment("random", objective={"metric": metric}, pruner=pruner, **keys)
    asks = make_pruner(experiment.pruner, 9)
    study = optuna.create_study(direction=experiment.objective.direction)
    earlier = []
    for number, other in enumerate([1.05, 1.07, 1.02]):
        rungs = {}
        epochs = [Epoch(0, 1.0, other, 0.5, 0.0), Epoch(1, 1.0, other, 0.5, 0.0)]
        evidence = Evidence(study, 0, [], [])
        should_prune(asks, evidence, number, {}, {}, epochs, rungs)
        earlier.append(create_trial(state=TrialState.COMPLETE, value=0.5, system_attrs=rungs))
    now = [Epoch(0, 1.0, loss, 0.5, 0.0), Epoch(1, 1.0, loss, 0.5, 0.0)]
    pruned = should_prune(asks, Evidence(study, 3, earlier, earlier), 3, {}, {}, now, {})
    assert pruned is (loss == 1.1)


def test_wilcoxon_breaks_equal_scores_by_the_smallest_loss():
    study, history = optuna.create_study(), lambda loss: (Epoch(0, 1.0, loss, 0.5, 0.0),)
    trials = [
        create_trial(
            state=TrialState.COMPLETE,
            value=0.5,
            user_attrs={
                "outcome": Outcome(OutcomeState.COMPLETE, 0.5, history=history(loss)).to_json()
            },
        )
        for loss in (2.0, 1.0, 3.0)
    ]
    evidence = Evidence(study, 3, trials, trials)
    assert evidence._storage.get_best_trial(0) is trials[1]
    for number, trial in enumerate(trials):
        trial.number = number
    assert _Told(study, trials[::-1], by_loss=False).get_best_trial(0) is trials[0]


def test_trials_rank_by_score_then_by_loss_then_by_number(bench):
    class ByLoss(StandsStill):
        def loss(self, job, epoch):
            return float(int(job.key.split()[1]) % 3)

    _, record = bench.run(make_experiment("random", trials=7, pruner={"name": "none"}), ByLoss(2))
    assert [t.number for t in record.ranked()] == [0, 3, 6, 1, 4, 2, 5]
    assert record.best.number == 0


def test_a_study_of_the_first_format_ranks_ties_by_number(bench):
    _, record = bench.run(make_experiment("random", trials=7), StandsStill(2))
    old = dataclasses.replace(record, format=1)
    numbers = [t.number for t in old.ranked()]
    assert numbers == sorted(numbers)
    assert [t.number for t in record.ranked()] != numbers


def test_the_best_while_it_runs_is_the_best_when_it_is_done(bench):
    experiment = make_experiment("random", trials=9, pruner={"name": "none"})
    standing = Standing(experiment)
    _, record = bench.run(experiment, StandsStill(3, chaos=5), observer=standing)
    assert standing.best == (0.5, record.best.number)


LOSSES = {"loss": {"type": "categorical", "choices": ["mse", "huber"]}, **SPACE}


@pytest.mark.parametrize(
    ("space", "compare"),
    [
        (SPACE, True),
        (LOSSES, False),
        (SPACE | {"loss": {"type": "categorical", "choices": ["auto"]}}, True),
        (SPACE | {"loss": {"type": "categorical", "choices": ["mae"]}}, False),  # default: auto
        (SPACE | {"transform": {"type": "categorical", "choices": ["none", "log"]}}, False),
        (SPACE | {"scale": {"type": "categorical", "choices": ["standard", "minmax"]}}, False),
    ],
)
def test_losses_are_compared_where_they_are_one_quantity(space, compare):
    assert make_experiment("random", space=space).losses_compare is compare


def test_searched_class_weights_make_losses_incomparable():
    keys = {"task": {"kind": "classify"}, "data": {"id": "i"}, "objective": {"metric": "accuracy"}}
    for choices in (["none"], ["none", "balanced"]):
        weights = {"class_weights": {"type": "categorical", "choices": choices}}
        experiment = make_experiment("random", space=SPACE | weights, **keys)
        assert experiment.losses_compare is (len(choices) == 1)


@pytest.mark.parametrize("name", [*PRUNERS, "none"])
def test_a_searched_loss_breaks_ties_by_number(name, make_bench):
    options = {"pruner": {"name": name, **PRUNERS.get(name, {})}, "epochs": 9, "space": LOSSES}
    experiment = make_experiment("random", **options)
    standing = Standing(experiment)
    _, record = make_bench("losses").run(experiment, StandsStill(3, chaos=5), observer=standing)
    ranked = [t.number for t in record.ranked()]
    assert ranked == sorted(ranked)
    assert standing.best == (0.5, record.best.number)

    class NoLoss(StandsStill):
        def loss(self, job, epoch):
            return 1.0

    _, other = make_bench("none").run(experiment, NoLoss(2))
    assert [t.status for t in record.trials] == [t.status for t in other.trials]


def test_a_patient_pruner_of_one_trial_sees_the_loss():
    alone, wrapping = (
        make_experiment("random", pruner={"name": "patient", "wrapped": {"name": name}}).pruner
        for name in ("none", "median")
    )
    assert breaks_ties(make_pruner(alone, 9, by_loss=False))
    assert not breaks_ties(make_pruner(wrapping, 9, by_loss=False))
    assert breaks_ties(make_pruner(wrapping, 9))


def of_folds(rows):
    """A history of (fold, metric, loss)."""
    last = {fold: i for i, (fold, *_) in enumerate(rows)}
    return [
        Epoch(i, 1.0, loss, metric, 0.0, fold, metric if last[fold] == i else None)
        for i, (fold, metric, loss) in enumerate(rows)
    ]


def test_the_loss_of_an_outcome_is_the_mean_over_best_epochs():
    rows = [(0, 0.7, 3.0), (0, 0.9, 2.0), (0, 0.9, 1.0), (0, 0.8, 0.1), (1, 0.5, 7.0), (1, 0.4, 1)]
    outcome = Outcome(OutcomeState.COMPLETE, 0.7, history=tuple(of_folds(rows)))
    assert outcome.val_loss(-1) == (1.0 + 7.0) / 2
    assert outcome.val_loss(1) == (3.0 + 1.0) / 2
    assert Outcome(OutcomeState.FAILED).val_loss(1) == math.inf
    assert intermediate_losses(outcome.history, 2, -1) == {0: 1.0, 1: 4.0}
    assert intermediate_losses(outcome.history[:5], 2, -1) == {0: 1.0}
    assert intermediate_losses(outcome.history[:3], 1, -1) == {0: 3.0, 1: 2.0, 2: 1.0}


number = st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-9)
loss = st.floats(0, 1e4).map(lambda v: round(v, 3))


@given(st.sampled_from([1, -1]), number, number, loss, loss)
def test_the_loss_never_outweighs_a_metric_that_differs(sign, a, b, loss_a, loss_b):
    epochs = [Epoch(0, 1.0, loss_a, a, 0.0), Epoch(1, 1.0, loss_b, b, 0.0)]
    seen = with_losses({0: a, 1: b}, epochs, sign, 1)
    if abs(a - b) > 3e-9 * max(abs(a), abs(b)):
        assert (seen[0] < seen[1]) is (a < b)
    elif a == b and loss_a < loss_b and not (loss_b - loss_a) < 1e-6 * loss_b:
        assert sign * seen[0] <= sign * seen[1]
        assert sign * seen[0] < sign * seen[1] or loss_a > 1e3
    assert all(abs(seen[i] - v) <= max(1.1e-9 * abs(v), 1e-300) for i, v in enumerate([a, b]))


def test_a_duplicate_or_open_trial_is_shown_as_such():
    seen = Told([optuna.study.StudyDirection.MINIMIZE], breaks_ties=True)
    trial = create_trial(state=TrialState.COMPLETE, value=1.0, intermediate_values={0: 0.5})
    seen.add(trial)
    assert seen.evidence(1)[0] == [trial]


def test_folds_break_ties_by_their_mean_loss_so_far(make_bench):
    folds = {"split": {"validation": {"folds": 3, "size": 0.1}}}
    pruner = {"name": "median", "n_startup_trials": 3}
    experiment = make_experiment("random", data=folds, epochs=3, pruner=pruner)
    _, record = make_bench("a").run(experiment, StandsStill(2))
    assert record.count(Status.PRUNED) > 3
    _, again = make_bench("b").run(experiment, StandsStill(5, chaos=3))
    assert told(record) == told(again)
