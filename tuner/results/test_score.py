"""An opening of the test part: the winner, the default and plain predictions on the same rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.coordination.finalists import default_of
from tuner.coordination.records import StudyRecord
from tuner.coordination.work import run_jobs
from tuner.data.baselines import Baselines, Choices
from tuner.data.dataset import Prepared
from tuner.data.metrics import score
from tuner.data.reference import DataRef
from tuner.data.test_part import open_test_part
from tuner.executors.base import Executor
from tuner.jobs import PredictJob
from tuner.results.breakdown import breakdown
from tuner.results.calibration import Calibration, coverage_of
from tuner.results.refit import Refit
from tuner.results.test_predictions import predictions_record
from tuner.results.trained_models import Models
from tuner.results.verdict import verdict_of
from tuner.results.winner import Winner

__all__ = ["score_on_test"]


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
    verdict = verdict_of(dataclasses.replace(record, test=opened))
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
