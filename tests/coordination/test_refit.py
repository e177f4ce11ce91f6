"""The winner trained again on training and validation set: when, for how long, and what of it.

The whole of a search runs, but for the training: what a model comes to is a function of its job.
"""

import dataclasses
import io
import json
import re
import statistics
from pathlib import Path

import pytest
from helpers.simulated_executor import Killed
from helpers.simulated_study import PretendExecutor, Winners, everything
from rich.console import Console

from tuner.coordination import finalists
from tuner.coordination.finalists import default_of, find_winner
from tuner.data import baselines
from tuner.executors.base import Finished
from tuner.experiment import Experiment
from tuner.journal.records import TestScore
from tuner.progress import display
from tuner.progress.display import number, show_result
from tuner.results import verdict
from tuner.results.export import exported
from tuner.results.retraining import best_epochs, epochs_of
from tuner.results.summary import summarize
from tuner.results.verdict import verdict_of

REFIT = {"finalists": {"refit": None}}  # as by default
N_REFITS = 3 + 3  # of the winner and of the default


class Slowing(PretendExecutor):
    """Models of different seeds are best after different epochs."""

    def poll(self, timeout_s):
        return [self._sooner(e) if isinstance(e, Finished) else e for e in super().poll(timeout_s)]

    def _sooner(self, event):
        if not event.outcome.history:
            return event
        best = self._jobs[event.key].seed % len(event.outcome.history)
        return Finished(event.key, dataclasses.replace(event.outcome, best_epoch=best))


def refits(case):
    return [job for key, job in case.executor._jobs.items() if key.startswith("refit ")]


def test_a_refit_trains_for_the_median_best_epoch(case):
    record = case.run(executor=Slowing(2), budget={"epochs": 7, "trial_timeout": 60}, **REFIT)
    winner, default = find_winner(record), default_of(record)
    jobs = refits(case)
    assert len(jobs) == N_REFITS
    for runs, of in ((winner.runs, jobs[:3]), (default.repeats, jobs[3:])):
        best = [best_epochs(run.outcome) for run in runs]
        assert len(set(best)) > 1, "else a median is no other than a mean"
        assert {job.epochs for job in of} == {statistics.median(best)}
        assert [job.seed for job in of] == [run.seed for run in runs]
        for job in of:
            assert not job.validates
            assert job.keep_weights
            assert job.timeout_s is None, "the number of epochs is its limit"
            assert job.schedule_epochs == 7
    assert record.test.refit.epochs == jobs[0].epochs
    assert record.test.refit.default.epochs == jobs[3].epochs


@pytest.mark.parametrize(
    ("best", "epochs"), [([3], 3), ([2, 9, 4], 4), ([2, 3], 3), ([1, 2, 5, 7], 4), ([], None)]
)
def test_a_half_of_a_median_is_rounded_up(case, best, epochs):
    run = case.run(1, finalists={"top": 0}, stages={"open_test": False}).trials[0]
    history = tuple(dataclasses.replace(run.outcome.history[0], epoch=i) for i in range(9))
    runs = [
        dataclasses.replace(
            run, outcome=dataclasses.replace(run.outcome, history=history, best_epoch=b - 1)
        )
        for b in best
    ]
    assert epochs_of(runs) == epochs


def test_all_of_it_is_trained_before_the_test_part_is_opened(case, openings):
    seen = []

    class Looking(PretendExecutor):
        def submit(self, job):
            if not hasattr(job, "keep_weights"):  # it predicts
                seen.append(("test" in job.key, len(openings)))
            elif job.key.startswith("refit"):
                assert openings == []
                assert not [p for p in Path(job.folds[0].folder).parents if p.name == "test"]
            super().submit(job)

    case.run(executor=Looking(2), task={"window": 6, "season": 5, "intervals": [0.5]}, **REFIT)
    assert len(refits(case)) == N_REFITS
    assert [opened for of_test, opened in seen if not of_test] == [0, 0]  # the intervals'
    assert all(opened for of_test, opened in seen if of_test)


def test_the_refit_score_stands_beside_the_training_score(case):
    record = case.run(executor=Slowing(2), budget={"epochs": 7, "trial_timeout": 60}, **REFIT)
    test, refit = record.test.raw, record.test.raw["refit"]
    jobs = refits(case)
    # A pretended model is off by the best of its curve: what is trained for less is worse.
    off = [min(case.executor.curve(job)) for job in jobs]
    assert {job.epochs for job in jobs[:3]} == {refit["epochs"]}
    assert {job.epochs for job in jobs[3:]} == {refit["default"]["epochs"]}
    assert max(job.epochs for job in jobs) < 7
    assert refit["scores"] == pytest.approx(off[:3])
    assert refit["default"]["scores"] == pytest.approx(off[3:])
    for of in (test, refit, test["default"], refit["default"]):
        assert len(of["scores"]) == 3
    assert all(a != b for a, b in zip(test["scores"], refit["scores"], strict=True))
    assert refit["mean"] == pytest.approx(statistics.fmean(refit["scores"]))
    # A pretended ensemble is off by the mean of what its models are off by.
    assert test["ensemble"] == pytest.approx(test["mean"])
    assert refit["ensemble"] == pytest.approx(refit["mean"])
    assert set(refit["baselines"]) == set(test["baselines"])
    assert refit["baselines"]["last_value"] == test["baselines"]["last_value"]
    assert refit["baselines"]["training_mean"] != test["baselines"]["training_mean"]
    assert refit["left_out"] == test["left_out"] == record.left_out
    assert not refit["default"]["is_winner"]
    for own, again in zip(test["default"]["scores"], refit["default"]["scores"], strict=True):
        assert own != again


def test_a_plain_prediction_that_the_refit_alone_lacks_is_told(case, monkeypatch):
    fit = baselines.fit_kind

    def fails(name, ref, season):
        found = fit(name, ref, season)
        return type(found)(1) if "refit" in Path(ref.folder).parts else found

    monkeypatch.setattr(baselines, "fit_kind", fails)
    record = case.run(**REFIT)
    name = "exponential_smoothing"
    assert name in record.test.baselines
    assert name not in record.test.refit.baselines
    why = record.test.refit.left_out[name]
    assert why == "no series has training rows that it can be fitted to"
    assert summarize(record).left_out[name] == why


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_killed_during_a_refit_ends_the_same(make_case, workers):
    calm = make_case("calm")
    reference = everything(calm.run(executor=PretendExecutor(1), **REFIT))
    n_before = len(calm.executor.begun) - N_REFITS
    for at in range(n_before, n_before + N_REFITS):
        killed = make_case(f"killed{at}")
        with pytest.raises(Killed):
            killed.run(executor=PretendExecutor(workers, chaos=at, die_after=at), **REFIT)
        assert killed.read().test is None
        again = killed.run(executor=PretendExecutor(workers, chaos=at + 7), **REFIT)
        assert everything(again) == reference


def test_what_is_trained_is_said(case):
    record = case.run(**REFIT)
    epochs = record.test.refit.epochs, record.test.refit.default.epochs
    first, *rest = [
        text for text in case.notes.said if "trained on both" in text or "training the" in text
    ]
    assert first == (
        f"training the winner and the default again, on training and validation set together: "
        f"6 models, {epochs[0]} and {epochs[1]} epochs"
    )
    winner = find_winner(record).trial.number
    names = [f"finalist {winner} repeat {i}" for i in range(3)]
    names += [f"default repeat {i}" for i in range(3)]
    assert sorted(text.split("] ")[1] for text in rest) == sorted(
        f"{name} trained on both sets" for name in names
    )


def test_without_refit_nothing_of_it_is_trained_or_recorded(case, tmp_path):
    record = case.run(finalists={"refit": False})
    assert refits(case) == []
    assert record.test.refit is None
    recorded = exported(record, tmp_path, "best.yaml")["recorded"]
    assert "refit" not in recorded
    assert "refit_epochs" not in recorded


@pytest.mark.parametrize(("kind", "given", "refits"), [
    ("forecast", None, True), ("forecast", False, False),
    ("classify", None, False), ("classify", True, True),
])  # fmt: skip
def test_forecasts_are_refitted_by_default_and_nothing_else(kind, given, refits):
    data = {"path": "/nowhere/a.csv", "target": "y"} | ({} if kind == "forecast" else {"id": "i"})
    raw = {"name": "a", "data": data, "task": {"kind": kind}, "finalists": {"refit": given}}
    assert Experiment.model_validate(raw).refits is refits


def test_a_failed_refit_keeps_the_training_scores(case, tmp_path, capsys):
    def fails(job):
        return job.key.startswith("refit finalist")

    record = case.run(executor=PretendExecutor(2, fails=fails), **REFIT)
    assert record.test.refit is None
    assert record.test.refit_failed.startswith("failed: ")
    assert record.test.judged is record.test
    assert "refit_epochs" not in exported(record, tmp_path, "best.yaml")["recorded"]
    show_result(record)
    shown = capsys.readouterr().out
    assert f"  refit: {record.test.refit_failed}\n" in shown
    assert re.search(r"rmse +validation +test *\n", shown)


def test_a_failed_default_does_not_disqualify_the_winner(case):
    def fails(job):
        return job.key == refit_of_default

    calm = case.run(**REFIT)
    refit_of_default = refits(case)[-1].key
    assert refit_of_default.startswith("refit baseline")
    case.location += "again"
    record = case.run(executor=PretendExecutor(2, fails=fails), **REFIT)
    assert record.test.refit.scores == calm.test.refit.scores
    assert record.test.refit.default.mean is None
    assert record.test.refit.default.failed.startswith("failed: ")


def test_the_verdict_is_about_the_refitted_models(case):
    record = case.run(**REFIT)
    test = json.loads(json.dumps(record.test.raw))

    def of(test):
        return verdict.evidence_of(record, TestScore.from_json(test))[0]

    def judge(test):
        return verdict_of(dataclasses.replace(record, test=TestScore.from_json(test)))

    test["refit"] |= {"scores": [1e-3] * 3, "mean": 1e-3, "std": 0.0}
    test |= {"scores": [1e3] * 3, "mean": 1e3, "std": 0.0}
    assert of(test).scores == [1e-3] * 3
    assert of(test).default == test["refit"]["default"]["scores"]
    said = judge(test).sentence
    test["refit"], refit = None, test["refit"]
    assert of(test).scores == [1e3] * 3
    other = judge(test)
    assert (other.worth, other.sentence != said) == ("useless", True)
    test["refit"] = refit | {"baselines": {"last_value": 1e-9}}
    assert of(test).baseline == ("last value", 1e-9)
    assert judge(test).worth == "useless"


def test_an_export_says_how_refitted_models_are_retrained(case, tmp_path):
    record = case.run(**REFIT)
    recorded = exported(record, tmp_path, "best.yaml")["recorded"]
    assert recorded["refit_epochs"] == record.test.refit.epochs
    assert recorded["refit"] == record.test.refit.mean
    assert recorded["test"] == record.test.mean
    untested = dataclasses.replace(record, test=None)
    recorded = exported(untested, tmp_path, "best.yaml")["recorded"]
    assert recorded["refit_epochs"] == epochs_of(find_winner(record).runs)
    assert "refit" not in recorded
    # A study that was tested before there were refits is exported as it was tested.
    older = dataclasses.replace(record, test=TestScore.from_json(record.test.raw | {"refit": None}))
    assert "refit_epochs" not in exported(older, tmp_path, "best.yaml")["recorded"]


def test_the_terminal_and_json_tell_which_model_is_which(case, capsys):
    record = case.run(**REFIT)
    show_result(record)
    shown = " ".join(capsys.readouterr().out.split())
    epochs = record.test.refit.epochs
    assert (
        f"trained on validation rows too, for {epochs} epochs: the model that is exported" in shown
    )
    test = summarize(record).to_json()["test"]
    both = f"{number(test['ensemble'])} {number(test['refit']['ensemble'])}"
    assert f"ensemble: the mean of the 3 models {both}" in shown
    assert test["refit"]["mean"] == record.test.refit.mean
    assert test["refit"]["ensemble"] == record.test.refit.ensemble


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_every_score(case, monkeypatch, width):
    record = case.run(**REFIT)
    narrow = Console(width=width, file=io.StringIO(), highlight=False)
    monkeypatch.setattr(display, "console", narrow)
    show_result(record)
    shown = narrow.file.getvalue()
    summary = summarize(record)
    for part in (summary.best, summary.test, summary.test.refit):
        assert f"{number(part.mean)} ± {number(part.std, 2)}" in shown
    for part in (summary.test, summary.test.refit):
        for score in (part.ensemble, *part.baselines.values()):
            assert number(score) in shown
    assert "…" not in shown.partition("Finalists")[0]


def test_scores_of_the_tested_model_are_not_another_winners(case, capsys):
    record = case.run(**REFIT)
    summary = summarize(record)
    best = dataclasses.replace(summary.best, tested=False, name="trial 99")
    other = dataclasses.replace(summary, best=best)
    table = display._scores(other, "row")
    capsys.readouterr()
    display.console.print(table)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    test = number(summary.test.mean)
    (own,) = [line for line in lines if "fresh seeds, gap" in line]
    assert own.count("±") == 1
    name = finalists.tested_name(summary.test)
    (tested,) = [line for line in lines if line.startswith(name)]
    assert tested.startswith(f"{name} {test}")


def test_who_keeps_the_winners_model_gets_the_refitted_one(case):
    winners = Winners(lambda model: model.training())
    record = case.run(observers=[winners], **REFIT)
    (training,) = winners.found
    assert training.outcome.objective == find_winner(record).reproducible.value
    assert training.refit is not None
    assert training.model is training.refit
    assert training.refit.outcome.objective is None
    assert training.refit.outcome.best_epoch == record.test.refit.epochs - 1
    (parts, *_) = training.refit.data.facts.parts
    assert parts.count > training.data.facts.parts[0].count


def test_rolling_origins_are_refitted_on_rows_before_the_test(case):
    folds = {"validation": {"folds": 2, "size": 10}, "test": 12}
    path = str(case.folder / "waves.csv")
    data = {"path": path, "target": "y", "split": folds}
    case.run(data=data, **REFIT)
    for job in refits(case):
        (ref,) = job.folds
        assert ref.train_samples().max() >= 90 - 12 - 1


def test_changed_data_is_refused_before_training(case):
    case.run(stages={"open_test": False}, **REFIT)
    path = case.folder / "waves.csv"

    class Changes(PretendExecutor):
        def poll(self, timeout_s):
            events = super().poll(timeout_s)
            path.write_text(path.read_text() + "3.0\n")
            return events

    from tuner.errors import DataError

    with pytest.raises(DataError, match="must be the file that was searched on"):
        case.run(executor=Changes(2), **REFIT)
    assert refits(case) == []
    assert case.read().test is None
