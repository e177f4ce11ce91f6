"""The untuned default is a candidate: what is best is never worse in validation than it."""

import dataclasses
import itertools
import statistics

import pytest
from helpers.search_bench import make_experiment
from helpers.simulated_executor import Killed
from helpers.simulated_study import PretendExecutor
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.api import Study
from tuner.coordination.finalists import default_of, rank_finalists
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.journal.storage import Role
from tuner.progress.display import show_result
from tuner.report.history import curves_figure
from tuner.report.page import report
from tuner.results.export import exported
from tuner.results.summary import summarize
from tuner.results.winner import find_winner
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
    test = record.test
    assert (test["configuration"], test["repeats"]) == (None, 3)
    assert test["default"]["is_winner"]
    assert test["scores"] == test["default"]["scores"] == pytest.approx(default.scores)
    best, worst = default.mean, max(t.value for t in record.trained)
    assert best < worst


def test_everything_that_shows_the_best_shows_the_default(record, tmp_path, capsys):
    summary = summarize(record)
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
    assert "for the configuration of default LSTM (3 models" in page
    assert "None" not in page
    assert training_name(record).startswith("default LSTM seed ")

    study = Study(record, "nowhere")
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
    assert known.test == record.test["mean"]
    assert known.search is None


@pytest.mark.slow
def test_a_winning_default_is_reproducible_after_a_kill(make_case):
    reference = make_case("calm").run(executor=good(1)).test
    for at in (8, 12, 16):
        case = make_case(f"killed{at}")
        with pytest.raises(Killed):
            case.run(executor=good(3, chaos=at, die_after=at))
        test = case.run(executor=good(3, chaos=1)).test
        assert test | {"opened_at": ""} == reference | {"opened_at": ""}


def test_without_finalists_one_training_decides_the_default(make_case):
    keys = {"finalists": {"top": 0}}
    won = make_case("won").run(executor=good(), **keys)
    winner = find_winner(won)
    assert winner.name == "default LSTM"
    assert len(winner.runs) == 1
    assert summarize(won)["best"]["mean"] == default_of(won).mean < won.best.value
    assert summarize(won)["finalists"] == []
    assert "the winner (default LSTM)" in report(won)
    lost = find_winner(make_case("lost").run(**keys))
    assert lost.trial is not None
    assert lost.finalist is None


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
    summary = summarize(later)
    assert summary["best"]["tested"]
    assert "no longer wins" not in summary["verdict"]
    assert "the same configuration won: its score stands" in summary["opened"][1]


def test_a_study_that_tested_another_says_the_default_is_better(record):
    """As studies do that are older than the rule."""
    other = rank_finalists(record)[1]
    default = record.test["default"] | {"is_winner": False}
    old = record.test | {"configuration": other.number, "default": default}
    del old["repeats"], old["finalists"]
    summary = summarize(dataclasses.replace(record, test=old, format=1))
    assert summary["best"]["name"] == "default LSTM"
    assert not summary["best"]["tested"]
    assert summary["verdict"].startswith(f"of trial {other.number}, which no longer wins: ")
    assert summary["opened"][1] == (
        "The untuned default counts as a finalist since, and the default LSTM won, which was "
        "tested beside another configuration: tuner run with --reopen-test has it judged."
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
        status = Status.COMPLETE if complete else Status.FAILED
        return TrialRecord(number, role, keys.pop("params", params), 0, status, None, outcome,
                           **keys)  # fmt: skip

    searched = draw(st.lists(st.tuples(score, score), min_size=1, max_size=5))
    trials = [of(Role.TRIAL, i, *s) for i, s in enumerate(searched)]
    record = StudyRecord("id", "s", experiment, {}, {}, {}, "", tuple(trials), (), None)
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


@settings(max_examples=300)
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
            r,
            status=Status.FAILED,
            outcome=Outcome(OutcomeState.FAILED, reason="it diverged"),
        )
        if r.role is Role.BASELINE and r.repeat == 1
        else r
        for r in record.finalists
    ]
    failed = dataclasses.replace(record, finalists=tuple(finalists))
    assert default_of(failed).failed == 1
    assert find_winner(failed).is_default


@settings(max_examples=300)
@given(studies())
def test_of_equal_means_the_smaller_validation_loss_wins(record):
    ranked = rank_finalists(record)
    winner = find_winner(record)
    assert not ranked or winner.finalist == ranked[0]

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
