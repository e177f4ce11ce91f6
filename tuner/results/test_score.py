"""An opening of the test part: the winner, the default and plain predictions on the same rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.coordination.finalists import default_of
from tuner.coordination.records import StudyRecord
from tuner.coordination.work import run_jobs
from tuner.data.baselines import Baselines, Choices
from tuner.data.metrics import score
from tuner.data.test_part import open_test_part
from tuner.executors.base import Executor
from tuner.jobs import PredictJob, TrainJob, Weights
from tuner.results.test_predictions import predictions_record
from tuner.results.verdict import verdict_of
from tuner.results.winner import Winner

__all__ = ["Models", "score_on_test"]

Models = Sequence[tuple[TrainJob, Weights]]
"""Trained models: of each the job that trained it, and its weights."""


def score_on_test(
    record: StudyRecord,
    winner: Winner,
    models: Models,
    executor: Executor,
    folder: Path,
    default_models: Models = (),
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
        choices: what the validation part has decided about plain predictions; without them those
            are left out that need it.

    Returns:
        The record of the opening: when, of which configuration, the scores in the data's units
        with mean and standard deviation, the rows, the scores of the default and of plain
        predictions, the verdict, what every part of the data was, and the predictions (see
        `predictions_record`).
    """
    experiment = record.experiment
    test = open_test_part(experiment, folder, sha256=record.data["sha256"])
    (ref,) = test.folds
    default = default_of(record)
    prepared = [test.of(winner.params)] * len(models)
    prepared += [test.of(default.params if default else {})] * len(default_models)
    jobs = [
        PredictJob(f"test {i}", job.hyperparameters, weights, data.folds[0], device=job.device)
        for i, ((job, weights), data) in enumerate(
            zip([*models, *default_models], prepared, strict=True)
        )
    ]
    outcomes = run_jobs(executor, jobs)
    truth = ref.truth_of(ref.evaluate_samples())
    metric = experiment.objective.metric
    predicted = [outcome.predictions for outcome in outcomes if outcome.predictions is not None]
    scores = [score(metric, truth, p, ref) for p in predicted]
    of_winner, of_default = scores[: len(models)], scores[len(models) :]
    part, baselines = test.facts.test, Baselines(ref, test.facts.season, choices)
    opened = {
        "opened_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "after_trials": len(record.trained),
        "configuration": winner.number,
        "repeats": len(models),
        "finalists": [experiment.finalists.top, experiment.finalists.repeats],
        "metric": metric,
        **_of_several(of_winner),
        "rows": ref.count_of(ref.evaluate_samples()),
        "from": part.first,
        "to": part.last,
        "season": test.facts.season,
        "baselines": baselines.scores(metric),
        "left_out": baselines.left_out,
        "default": _default(record, winner, of_winner, of_default),
        "parts": [dataclasses.asdict(p) for p in test.facts.parts],
        "predictions": predictions_record(test, truth, predicted[: len(models)], baselines),
    }
    verdict = verdict_of(dataclasses.replace(record, test=opened))
    assert verdict is not None
    return opened | {"verdict": verdict.sentence}


def _default(
    record: StudyRecord, winner: Winner, of_winner: list[float], scores: list[float]
) -> dict[str, Any] | None:
    default = default_of(record)
    if default is None:
        return None
    own = _of_several(of_winner if winner.is_default else scores)
    known = {"name": default.name, "params": default.params, "is_winner": winner.is_default}
    return known | own


def _of_several(scores: list[float]) -> dict[str, Any]:
    """Return scores with mean and deviation; none where a forecast is beyond all bounds."""
    if not all(map(math.isfinite, scores)):
        scores = []
    return {
        "scores": scores,
        "mean": statistics.fmean(scores) if scores else None,
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
    }
