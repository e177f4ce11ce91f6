"""Evaluation on the test set: scores in total and by part, and how often it was opened."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tuner.coordination.finalists import default_of
from tuner.data.baselines import Baselines, Choices
from tuner.data.metrics import score
from tuner.data.prepared import Prepared, open_test_part
from tuner.data.reference import DataRef, SeriesRef
from tuner.executors.base import Executor, run_jobs
from tuner.jobs import PredictJob
from tuner.journal.records import StudyRecord
from tuner.journal.test_scores import TestScore
from tuner.results.predictions import Calibration, coverage_of, predictions_record
from tuner.results.retraining import Models, Refit
from tuner.results.verdict import verdict_of
from tuner.results.winner import Winner, find_winner

REOPEN = "--reopen-test"
"""The option that opens the test part again."""


def opened_in_words(record: StudyRecord) -> list[str]:
    """Return sentences about the openings of the test part; none before the first."""
    openings, test = record.openings, record.test
    if test is None:
        return []
    after = [f"{opening.after_trials:,}" for opening in openings]
    if len(openings) == 1:
        trials = "1 trial" if after[0] == "1" else f"{after[0]} trials"
        said = [f"The test part was opened once, after {trials}."]
    else:
        said = [
            f"The test part was opened {len(openings)} times, after {', '.join(after[:-1])} and "
            f"{after[-1]} trials: the newest score is no longer of unseen rows, for an earlier "
            f"one was known when the search went on."
        ]
    if differing := test.retrained_differently:
        said.append(
            f"Trained again for it, with other scores than the journal has (another CPU or "
            f"version?): {', '.join(differing)}."
        )
    if record.best is not None and (since := _since(record)):
        winner = find_winner(record)
        if not winner.was_tested(test) and winner.is_default and test.default:
            said.append(
                f"{since}, and {_of(winner)} won, which was tested beside another configuration: "
                f"tuner run with {REOPEN} has it judged."
            )
        elif not winner.was_tested(test):
            said.append(
                f"{since}, and {_of(winner)} won, which has no test score: tuner run with {REOPEN} "
                f"opens the test part again."
            )
        elif len(winner.runs) > test.repeats:
            said.append(
                f"{since}, and the same configuration won: its score stands, of its first "
                f"{test.repeats} trainings."
            )
        else:
            said.append(f"{since}, and the same configuration won: its score stands.")
    return said


def why_not_again(record: StudyRecord) -> str | None:
    """Return why another opening would say nothing new; None where it would, or is the first."""
    test = record.test
    if test is None:
        return None
    winner = find_winner(record)
    if not winner.was_tested(test) or len(winner.runs) > test.repeats:
        return None
    if default_of(record) and not test.default:
        return None
    stays = f"{REOPEN}: the test part stays closed, for nothing would be new"
    if test.after_trials >= len(record.trained) and not record.raised:
        return f"{stays}: no trial was trained since it was opened"
    return f"{stays}: {_of(winner)}, which was tested then, still wins"


def stays_closed(record: StudyRecord) -> str:
    """Say, of a study that has been trained further, that its test part is not opened again."""
    opened = opened_in_words(record)[0]
    again = "" if why_not_again(record) else f"; {REOPEN} opens it again"
    return f"no new test score: {opened[:1].lower()}{opened[1:-1]}{again}"


def _since(record: StudyRecord) -> str | None:
    """Say what was trained since the test part was opened; None for nothing."""
    test, settings = record.test, record.experiment.finalists
    assert test is not None
    if test.after_trials < len(record.trained):
        return f"The search has gone on since, to {len(record.trained):,} trials"
    if record.raised and (test.finalists != [settings.top, settings.repeats]):
        repeats = f"{settings.repeats} seed{'s' * (settings.repeats != 1)}"
        return f"The best {settings.top} have been retrained on {repeats} since"
    if not find_winner(record).was_tested(test):
        return "The untuned default counts as a finalist since"
    return None


def _of(winner: Winner) -> str:
    return winner.name if winner.trial is not None else f"the {winner.name}"


MOST_SERIES = 1000
"""That have a score each in the record; of more, the first ones."""


def breakdown(
    metric: str, test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """Return the scores of parts of the test rows, each the mean over the models.

    Rows count what they weigh; so do steps of the horizon, but where each has its own score.

    Args:
        metric: the experiment's.
        test: the opened test part.
        truth: of its samples, as `DataRef.truth_of` has it.
        predicted: what each of the winner's models says of them.

    Returns:
        By `step` of the horizon, by `series` and by `target`, where there are several: lists of
        `{name, rows, score}`, with the score None where there is none. By `class`: `{name, rows,
        precision, recall, f1}`, from 0 to 1, of scikit-learn's.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":  # a text is right or not
        return {}
    if ref.shape.classes:
        return {"class": list(_classes(test, truth, predicted))}
    samples, horizon, n_targets = ref.evaluate_samples(), truth.shape[1], truth.shape[2]
    weights = ref.weights_of(samples)
    of_rows = weights  # for a step of its own what the steps weigh says nothing
    if isinstance(ref, SeriesRef) and ref.step_weights:
        of_rows = replace(ref, step_weights=()).weights_of(samples)

    every = slice(None)

    def of(name: Any, rows: Any, steps: slice, targets: slice) -> dict[str, Any]:
        place = rows, steps, targets
        chosen = samples[rows] if isinstance(ref, SeriesRef) else None
        counted = weights if steps == every else of_rows
        if counted is not None:
            counted = counted[rows, steps] if isinstance(ref, SeriesRef) else counted
        elif weights is not None:
            counted = np.ones(truth[place].shape[:2])
        scores = [
            _score_of(metric, truth[place], p[place], test, chosen, targets, counted)
            for p in predicted
        ]
        known = [value for value in scores if math.isfinite(value)]
        mean = statistics.fmean(known) if len(known) == len(scores) else None
        return {"name": name, "rows": int(truth[place].size), "score": mean}

    found: dict[str, list[dict[str, Any]]] = {}
    if horizon > 1:
        found["step"] = [of(k + 1, every, slice(k, k + 1), every) for k in range(horizon)]
    if isinstance(ref, SeriesRef) and len(test.facts.series) > 1:
        series = ref.series_of(samples)
        found["series"] = [
            of(test.facts.series[i], np.flatnonzero(series == i), every, every)
            for i in np.unique(series)[:MOST_SERIES].tolist()
        ]
    if n_targets > 1:
        found["target"] = [
            of(name, every, every, slice(i, i + 1)) for i, name in enumerate(test.facts.targets)
        ]
    return found


def _score_of(
    metric: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    test: Prepared,
    samples: np.ndarray | None,
    targets: slice,
    weights: np.ndarray | None,
) -> float:
    (ref,) = test.folds
    if metric != "mase" or targets == slice(None):
        return score(metric, truth, predicted, ref, samples, weights)
    # MASE of one target: the mean absolute error over its naive one, as in `score`.
    own = ref.evaluate_samples() if samples is None else samples
    units = np.repeat(ref.naive_errors(own)[:, targets], truth.shape[1], axis=0)
    errors = np.abs(truth - _points(predicted, test)).reshape(-1, truth.shape[-1]) / units
    if not np.isfinite(errors).all() or (weights is not None and not weights.any()):
        return math.nan
    return float(np.average(errors[:, 0], weights=None if weights is None else weights.ravel()))


def _points(predicted: np.ndarray, test: Prepared) -> np.ndarray:
    quantiles = test.folds[0].shape.quantiles
    return np.asarray(predicted[..., quantiles.index(0.5)] if quantiles else predicted)


def _classes(
    test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> Iterable[dict[str, Any]]:
    from sklearn.metrics import precision_recall_fscore_support  # slow to import

    (ref,) = test.folds
    weights = ref.weights_of(ref.evaluate_samples()) if ref.has_weights else None
    names, numbers = test.facts.classes, np.arange(len(test.facts.classes))
    of_models = np.mean(
        [
            precision_recall_fscore_support(
                truth,
                p.argmax(axis=1),
                labels=numbers,
                zero_division=0.0,
                sample_weight=weights,
            )[:3]
            for p in predicted
        ],
        axis=0,
    )  # (3, classes)
    rows = np.bincount(truth, minlength=len(names))
    for number, name in enumerate(names):
        precision, recall, f1 = of_models[:, number].tolist()
        scores = {"precision": precision, "recall": recall, "f1": f1}
        yield {"name": str(name), "rows": int(rows[number]), **scores}


def score_on_test(
    record: StudyRecord,
    winner: Winner,
    models: Models,
    executor: Executor,
    folder: Path,
    default_models: Models = (),
    refit: Refit | None = None,
    calibration: Calibration | None = None,
    choices: Choices | None = None,
) -> dict[str, Any]:
    """Score the winner's trained models on the test part, and what they have to beat beside them.

    The only function that opens the test part. It is called once for a study, and again only
    where a person asks for it; the caller records what is returned in the journal.

    Args:
        record: the study, with its search and finalists done.
        winner: the configuration that is tested.
        models: of each of the winner's trainings.
        executor: runs the forecasts.
        folder: an empty folder for the arrays with the test rows.
        default_models: of each training of the untuned default, where that is not the winner.
        refit: the same configurations, trained again on training and validation part; they are
            scored on the same rows, by the same measure.
        calibration: the intervals that the validation rows gave, where some are asked for.
        choices: what the validation part has decided about plain predictions; without them those
            are left out that need it.

    Returns:
        The record of the opening: when, of which configuration, the scores in the data's units
        with mean and standard deviation, that of the models' mean (`ensemble`), the rows, the
        scores of the default and of plain predictions, the verdict, what every part of the data
        was, the scores of each step, series, target and class (`by`: see `breakdown`) and the
        predictions (see `predictions_record`), those of the refitted models where
        there are some. `refit` has the same scores of the models that were trained again, and
        of plain predictions that know the validation part, what is left out of those
        (`left_out`), or why there are none (`failed`).
        With intervals, what share of the rows they cover, and how wide they are: of the first
        model's (`intervals`) and of the ensemble's (`ensemble_intervals`), of both kinds.
    """
    experiment, sha256 = record.experiment, record.data["sha256"]
    test = open_test_part(experiment, folder / "search", sha256=sha256)
    (ref,) = test.folds
    metric, season, default = experiment.objective.metric, test.facts.season, default_of(record)
    truth = ref.truth_of(ref.evaluate_samples())
    name = default.name if default else ""

    def of_default(of_winner: dict[str, Any], own: list[np.ndarray]) -> dict[str, Any] | None:
        if default is None:
            return None
        is_winner = winner.is_default
        scores = _spread([score(metric, truth, p, ref) for p in own])
        if is_winner:
            scores = {key: of_winner[key] for key in scores}
        return {"name": name, "params": default.params, "is_winner": is_winner, **scores}

    def predict(key: str, opened: Prepared, models: Models, own: Models) -> _Said:
        (of_winner,) = opened.of(winner.params).folds
        (of_default,) = opened.of(default.params if default else {}).folds
        return _said(key, executor, of_winner, of_default, models, own)

    said = predict("test", test, models, default_models)
    of_winner = _scores(metric, truth, ref, said)
    of_winner |= _covered(calibration, truth, test.of(winner.params).folds[0], said)

    def plain_of(opened: Prepared) -> Baselines:
        return Baselines(opened.folds[0], season, choices, lambda p: opened.of(p).folds[0])

    baselines = plain_of(test)
    again: dict[str, Any] | None = None
    drawn, shown, plain = test, said, baselines
    if refit is not None and (failed := refit.winner.failed):
        again = {"failed": failed}
    elif refit is not None:
        whole = open_test_part(experiment, folder / "refit", sha256=sha256, all_data=True)
        own = refit.default.models if refit.default else ()
        refitted = predict("refit test", whole, refit.winner.models, own)
        drawn, shown, plain = whole, refitted, plain_of(whole)
        scores = _scores(metric, truth, ref, refitted)
        scores |= _covered(calibration, truth, whole.of(winner.params).folds[0], refitted)
        of_own = of_default(scores, refitted.default)
        if of_own is not None and refit.default is not None:
            of_own |= {"epochs": refit.default.epochs}
            of_own |= {"failed": refit.default.failed} if refit.default.failed else {}
        again = {
            "epochs": refit.winner.epochs,
            **scores,
            "default": of_own,
            "baselines": plain.scores(metric, ref),
            "left_out": plain.left_out,
        }
    part = test.facts.test
    opened = {
        "opened_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "after_trials": len(record.trained),
        "configuration": winner.number,
        "repeats": len(models),
        "finalists": [experiment.finalists.top, experiment.finalists.repeats],
        "metric": metric,
        **of_winner,
        "rows": ref.count_of(ref.evaluate_samples()),
        "from": part.first,
        "to": part.last,
        "season": season,
        "baselines": baselines.scores(metric),
        "left_out": baselines.left_out,
        "default": of_default(of_winner, said.default),
        "refit": again,
        "parts": [dataclasses.asdict(p) for p in test.facts.parts],
        "by": breakdown(metric, drawn.of(winner.params), truth, shown.winner),
        "predictions": predictions_record(
            drawn.of(winner.params), truth, shown.winner, plain, shown.together, calibration
        ),
    }
    verdict = verdict_of(dataclasses.replace(record, test=TestScore.from_json(opened)))
    assert verdict is not None
    return opened | {"verdict": verdict.sentence}


@dataclasses.dataclass(frozen=True)
class _Said:
    """What models predict of the test part, each (samples, ...) in the data's units."""

    winner: list[np.ndarray]
    together: np.ndarray | None  # the winner's models as an ensemble, where they are several
    default: list[np.ndarray]


def _said(
    key: str,
    executor: Executor,
    ref: DataRef,
    default_ref: DataRef,
    models: Models,
    default_models: Models,
) -> _Said:
    """Predict what the references evaluate: the same rows, each prepared as its models have it."""
    refs = [ref] * len(models) + [default_ref] * len(default_models)
    jobs = [
        PredictJob(f"{key} {i}", job.hyperparameters, weights, ref, device=job.device)
        for i, ((job, weights), ref) in enumerate(
            zip([*models, *default_models], refs, strict=True)
        )
    ]
    if len(models) > 1:
        others = tuple(weights for _, weights in models[1:])
        jobs.append(dataclasses.replace(jobs[0], key=f"{key} {len(jobs)}", others=others))
    outcomes = run_jobs(executor, jobs)
    found = [outcome.predictions for outcome in outcomes if outcome.predictions is not None]
    n_winner, n_single = len(models), len(models) + len(default_models)
    together = found[n_single] if len(models) > 1 else None
    return _Said(found[:n_winner], together, found[n_winner:n_single])


def _scores(metric: str, truth: np.ndarray, ref: DataRef, said: _Said) -> dict[str, Any]:
    """Return the scores of the winner's models, and that of their mean."""
    together = None if said.together is None else score(metric, truth, said.together, ref)
    return {
        **_spread([score(metric, truth, p, ref) for p in said.winner]),
        "ensemble": together if together is not None and math.isfinite(together) else None,
    }


def _covered(
    calibration: Calibration | None, truth: np.ndarray, ref: DataRef, said: _Said
) -> dict[str, Any]:
    """Return what the intervals cover: of the first model, and of the models' mean."""
    if calibration is None:
        return {}
    covered = {"intervals": coverage_of(calibration.single, said.winner[0], ref, truth)}
    if calibration.ensemble is not None and said.together is not None:
        together = coverage_of(calibration.ensemble, said.together, ref, truth)
        covered["ensemble_intervals"] = together
    return covered


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    """Return scores with mean and deviation; none where a forecast is beyond all bounds."""
    if not all(map(math.isfinite, scores)):
        scores = []
    return {
        "scores": list(scores),
        "mean": statistics.fmean(scores) if scores else None,
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
    }
