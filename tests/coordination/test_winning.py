"""Which configuration wins: the default among them, and ties."""

import dataclasses
import itertools
import math
import statistics

import optuna
import pytest
from helpers.examples import examples
from helpers.records import study_record, trial_record
from helpers.search_bench import PRUNER_OPTIONS, SPACE, make_experiment, run_killed, told
from helpers.simulated_executor import SimulatedExecutor
from helpers.simulated_progress import taken_up
from helpers.simulated_study import PretendExecutor
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from tuner.api import Study
from tuner.coordination.finalists import default_of, find_winner, rank_finalists
from tuner.coordination.history import TrialHistory
from tuner.coordination.pruning import (
    Evidence,
    _ToldTrials,
    breaks_ties,
    make_pruner,
    should_prune,
    with_losses,
)
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState, intermediate_losses
from tuner.journal.records import Status, TestScore
from tuner.journal.storage import Role, read_journal
from tuner.progress.display import show_result
from tuner.progress.progress import Progress
from tuner.report.page import report
from tuner.report.trials import curves_figure
from tuner.results.export import exported
from tuner.results.summary import summarize
from tuner.winner import training_name


def good(workers=2, **keys):
    """The default, which no trial is, has the best of all curves."""
    return PretendExecutor(workers, default_off=0.0, **keys)


@pytest.fixture
def record(case):
    return case.run(executor=good())


def test_a_default_that_no_trial_is_wins_and_is_what_is_tested(record):
    winner, default = find_winner(record), default_of(record)
    assert (winner.number, winner.name, winner.is_default) == (None, "default LSTM", True)
    assert winner.runs == list(default.repeats)
    assert winner.params == {"hidden_size": 32, "dropout": 0.0}
    assert winner.search_score is None
    test = record.test.raw
    assert (test["configuration"], test["repeats"]) == (None, 3)
    assert test["default"]["is_winner"]
    assert test["scores"] == test["default"]["scores"] == pytest.approx(default.scores)
    best, worst = default.mean, max(t.value for t in record.trained)
    assert best < worst


def test_everything_that_shows_the_best_shows_the_default(record, tmp_path, capsys):
    summary = summarize(record).to_json()
    best = summary["best"]
    assert (best["trial"], best["name"], best["search_score"]) == (None, "default LSTM", None)
    assert best["is_default"]
    assert best["tested"]
    assert best["hyperparameters"]["hidden_size"] == 32
    first = summary["finalists"][0]
    assert (first["name"], first["trial"], first["gap"]) == ("default LSTM", None, None)
    assert summary["first_and_second"]
    assert summary["test"]["name"] == "default LSTM"
    assert "no longer wins" not in summary["verdict"]
    assert summary["worth"] in ("unpaid", "useless")

    show_result(record)
    shown = " ".join(capsys.readouterr().out.split())
    assert "Best configuration (default LSTM) hidden_size=32 dropout=0" in shown
    assert "in the search" not in shown
    assert "The winner is the default LSTM." in shown
    page = report(record)
    assert "Best configuration: default LSTM" in page
    assert "the winner (default LSTM)" in page
    assert "Black lines are the trainings of the untuned default, which won." in page
    (axes,) = curves_figure(record).axes
    drawn = [line for line in axes.lines if line.get_color() == "black"]
    assert [len(line.get_xdata()) for line in drawn] == [3, 3, 3]
    assert "The configuration of default LSTM was evaluated on the test set once" in page
    assert "(3 models" in page
    assert "None" not in page
    assert training_name(record).startswith("default LSTM seed ")

    study = Study(record)
    assert (study.best.trial, study.best.name, study.best.search_score) == (
        None, "default LSTM", None
    )  # fmt: skip
    assert study.finalists.index.isna().tolist() == [True, False, False]
    assert study.finalists["mean"].iloc[0] == study.best.mean
    assert "best default LSTM, rmse " in repr(study)
    assert "None" not in study._repr_html_()


def test_the_default_is_what_is_exported(record, tmp_path):
    written = exported(record, tmp_path, "best.yaml")
    experiment, default = Experiment.model_validate(written), default_of(record)
    assert experiment.hyperparameters.hidden_size == 32
    known = experiment.recorded
    assert (known.seed, known.score) == (default.repeats[0].seed, default.scores[0])
    assert known.mean == default.mean
    assert known.test == record.test.mean
    assert known.search is None


def test_without_finalists_one_training_decides_the_default(make_case):
    keys = {"finalists": {"top": 0}}
    won = make_case("won").run(executor=good(), **keys)
    winner = find_winner(won)
    assert winner.name == "default LSTM"
    assert len(winner.runs) == 1
    assert summarize(won).best.mean == default_of(won).mean < won.best.value
    assert summarize(won).finalists == []
    assert "the winner (default LSTM)" in report(won)
    lost = find_winner(make_case("lost").run(**keys))
    assert lost.trial is not None
    assert lost.repeats == ()


def test_a_default_found_by_a_longer_search_stays_the_tested_one(case):
    # The start is another configuration; the default is found among the last.
    choices = {"type": "categorical", "choices": [16, 32, 64, 128]}
    keys = {"space": {"hidden_size": choices}, "hyperparameters": {"hidden_size": 128}}
    first = case.run(1, executor=good(), **keys)
    assert find_winner(first).number is None
    later = case.run(4, executor=good(), **keys)
    winner = find_winner(later)
    assert (later.trials[winner.number].params, winner.is_default) == ({"hidden_size": 32}, True)
    assert later.openings == first.openings
    summary = summarize(later).to_json()
    assert summary["best"]["tested"]
    assert "no longer wins" not in summary["verdict"]
    assert "the same configuration won: its score stands" in summary["opened"][1]


def test_a_study_that_tested_another_says_the_default_is_better(record):
    """As studies do that are older than the rule."""
    other = rank_finalists(record)[1]
    default = record.test.raw["default"] | {"is_winner": False}
    old = record.test.raw | {"configuration": other.number, "default": default}
    del old["repeats"], old["finalists"]
    older = dataclasses.replace(record, test=TestScore.from_json(old), format=1)
    summary = summarize(older).to_json()
    assert summary["best"]["name"] == "default LSTM"
    assert not summary["best"]["tested"]
    assert summary["verdict"].startswith(f"of trial {other.number}, which no longer wins: ")
    assert summary["opened"][1] == (
        "The untuned default counts as a finalist since, and the default LSTM won, which was "
        "evaluated beside another configuration: tuner run with --reopen-test judges it."
    )


def test_a_default_does_not_replace_an_unretrained_best(case):
    record = case.run(stages={"finalists": False}, executor=good())
    assert find_winner(record).trial is record.best


score = st.floats(0, 10).map(lambda v: round(v, 1))  # so that many are equal
repeats = st.lists(st.tuples(score | st.none(), score), min_size=1, max_size=4)


@st.composite
def studies(draw):
    """A study with retrainings of its best, and of a default that is none of its trials."""
    top = draw(st.integers(0, 3))
    metric = draw(st.sampled_from(["rmse", "r2"]))
    experiment = make_experiment(
        "random", finalists={"top": top, "repeats": 3}, objective={"metric": metric}
    )

    def of(role, number, value, loss, **keys):
        complete = value is not None
        outcome = Outcome(
            OutcomeState.COMPLETE if complete else OutcomeState.FAILED,
            objective=value,
            history=(Epoch(0, 1.0, loss, value or 0.0, 0.0),),
        )
        params = {"hidden_size": 8 + number, "num_layers": 1, "dropout": 0.4, "batch_size": 8}
        if role is Role.BASELINE:
            params = {"hidden_size": 32, "num_layers": 1, "dropout": 0.0, "batch_size": 32}
        return trial_record(number, outcome, role=role, **{"params": params, "seed": 0} | keys)

    searched = draw(st.lists(st.tuples(score, score), min_size=1, max_size=5))
    trials = [of(Role.TRIAL, i, *s) for i, s in enumerate(searched)]
    record = study_record(experiment, trials)
    retrained = [
        of(Role.FINALIST, i, *s, params=t.params, configuration=t.number, repeat=i)
        for t in record.ranked()[: draw(st.integers(0, top))]
        for i, s in enumerate(draw(repeats))
    ]
    retrained += [of(Role.BASELINE, i, *s, repeat=i) for i, s in enumerate(draw(repeats))]
    return dataclasses.replace(record, finalists=tuple(retrained))


def compared(record, finalist):
    """Those of its repeats that all finalists have: failed ones as well, and the complete."""
    default = default_of(record)

    def of(other):
        is_default = default is not None and other.name == default.name
        return [r for r in record.finalists if r.configuration == (
            None if is_default else other.number)]  # fmt: skip

    n = min(len(of(other)) for other in rank_finalists(record))
    return of(finalist)[:n], [r for r in of(finalist)[:n] if r.status is Status.COMPLETE]


@settings(max_examples=examples(300))
@given(studies())
def test_the_winner_is_never_worse_than_the_default(record):
    winner, default = find_winner(record), default_of(record)
    ranked = rank_finalists(record)
    if winner.is_default or not default.repeats:
        return
    if not ranked:
        assert record.sign * winner.trial.value <= record.sign * default.mean
        return
    own = next(f for f in ranked if f.name == default.name)
    mine, theirs = (compared(record, f)[1] for f in (ranked[0], own))
    if theirs:
        best, least = (record.sign * statistics.fmean(r.value for r in of) for of in (mine, theirs))
        assert best <= least


def test_a_default_with_a_failed_repeat_beats_a_worse_one(record):
    finalists = [
        dataclasses.replace(
            r, status=Status.FAILED, outcome=Outcome(OutcomeState.FAILED, reason="it diverged")
        )
        if r.role is Role.BASELINE and r.repeat == 1
        else r
        for r in record.finalists
    ]
    failed = dataclasses.replace(record, finalists=tuple(finalists))
    assert default_of(failed).failed == 1
    assert find_winner(failed).is_default


@settings(max_examples=examples(300))
@given(studies())
def test_of_equal_means_the_smaller_validation_loss_wins(record):
    ranked = rank_finalists(record)
    winner = find_winner(record)
    assert not ranked or (winner.name, winner.repeats) == (ranked[0].name, ranked[0].repeats)

    def loss(runs):
        return statistics.fmean(r.outcome.val_loss(record.sign) for r in runs)

    default = default_of(record)
    own = next((f for f in ranked if default is not None and f.name == default.name), None)
    n_failed = {f.name: len(of) - len(ok) for f in ranked for of, ok in [compared(record, f)]}
    forgiven = n_failed[own.name] if own is not None and compared(record, own)[1] else 0
    for first, second in itertools.pairwise(ranked):
        (_, one), (_, other) = (compared(record, f) for f in (first, second))
        assert one or not other
        if not other:
            continue
        more = [max(0, n_failed[f.name] - forgiven) for f in (first, second)]
        assert more == sorted(more)
        if more[0] == more[1]:
            means = [record.sign * statistics.fmean(r.value for r in of) for of in (one, other)]
            assert means == sorted(means)
            if means[0] == means[1]:
                assert loss(one) <= loss(other)


class StandsStill(SimulatedExecutor):
    """Accuracy on a few rows: the same for all; the loss is what the curve would have been."""

    def curve(self, job):
        return [0.5] * len(super().curve(job))

    def loss(self, job, epoch):
        worse = 0.4 * max(0, epoch % job.epochs - 4)  # so that patience has something to see
        return super().curve(job)[epoch] + worse


@pytest.mark.parametrize("name", PRUNER_OPTIONS)
def test_equal_metrics_are_pruned_by_the_larger_loss(name, make_bench):
    experiment = make_experiment(pruner={"name": name, **PRUNER_OPTIONS[name]}, epochs=9)
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
        pruner={"name": name, **PRUNER_OPTIONS[name]}, epochs=9, strategy="random"
    )
    _, ties = make_bench("ties").run(experiment, StandsStill(1))

    class LossIsMetric(StandsStill):
        def curve(self, job):
            return [self.loss(job, epoch) for epoch in range(job.epochs)]

    _, plain = make_bench("plain").run(experiment, LossIsMetric(1))
    assert [t.status for t in ties.trials] == [t.status for t in plain.trials]


@pytest.mark.parametrize("name", PRUNER_OPTIONS)
def test_ties_break_the_same_with_any_workers_or_kill(name, make_bench):
    experiment = make_experiment(pruner={"name": name, **PRUNER_OPTIONS[name]}, epochs=9)
    reference = told(make_bench("one").run(experiment, StandsStill(1))[1])
    assert told(make_bench("five").run(experiment, StandsStill(5, chaos=2))[1]) == reference
    record, n_kills, _ = run_killed(make_bench("killed"), experiment, 3, StandsStill)
    assert n_kills > 3
    assert told(record) == reference


def test_the_journal_keeps_the_metric_itself(bench):
    experiment = make_experiment("random", pruner={"name": "median", **PRUNER_OPTIONS["median"]})
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
    assert _ToldTrials(study, trials[::-1], by_loss=False).get_best_trial(0) is trials[0]


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
    standing = taken_up(Progress(), experiment)
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


@pytest.mark.parametrize("name", [*PRUNER_OPTIONS, "none"])
def test_a_searched_loss_breaks_ties_by_number(name, make_bench):
    options = {
        "pruner": {"name": name, **PRUNER_OPTIONS.get(name, {})},
        "epochs": 9,
        "space": LOSSES,
    }
    experiment = make_experiment("random", **options)
    standing = taken_up(Progress(), experiment)
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
    seen = TrialHistory([optuna.study.StudyDirection.MINIMIZE], breaks_ties=True)
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
