"""The test part's one opening: the winner's models and the baselines on the same rows."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from pathlib import Path
from typing import Any

from tuner.data.baselines import baseline_scores
from tuner.data.metrics import score
from tuner.data.test_part import open_test_part
from tuner.executors.base import Executor
from tuner.jobs import PredictJob, TrainJob, Weights
from tuner.results.test_predictions import predictions_record
from tuner.results.winner import Winner
from tuner.search.records import StudyRecord
from tuner.search.work import run_jobs

__all__ = ["score_on_test"]


def score_on_test(
    record: StudyRecord,
    winner: Winner,
    models: list[tuple[TrainJob, Weights]],
    executor: Executor,
    folder: Path,
) -> dict[str, Any]:
    """Score the winner's trained models on the test part, and plain forecasts beside them.

    To be called once for a study; the caller records what is returned in the journal.

    Args:
        record: the study, with its search and finalists done.
        winner: the configuration that is tested.
        models: the job and the weights of each of the winner's trainings.
        executor: runs the forecasts.
        folder: an empty folder for the arrays with the test rows.

    Returns:
        The record of the opening: when, of which configuration, the scores in the data's units
        with mean and standard deviation, the rows, the baselines' scores, what every part of
        the data was, and the predictions (see `predictions_record`).
    """
    experiment = record.experiment
    test = open_test_part(experiment, folder, sha256=record.data["sha256"])
    (ref,) = test.folds
    jobs = [
        PredictJob(f"test {i}", job.hyperparameters, weights, ref, device=job.device)
        for i, (job, weights) in enumerate(models)
    ]
    outcomes = run_jobs(executor, jobs)
    truth = ref.truth_of(ref.evaluate_samples())
    metric = experiment.objective.metric
    predicted = [outcome.predictions for outcome in outcomes if outcome.predictions is not None]
    scores = [score(metric, truth, p, ref) for p in predicted]

    if not all(map(math.isfinite, scores)):  # a forecast beyond all bounds: the model is no good
        scores = []
    part = test.facts.test
    return {
        "opened_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "after_trials": len(record.trained),
        "configuration": winner.trial.number,
        "metric": metric,
        "scores": scores,
        "mean": statistics.fmean(scores) if scores else None,
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "rows": ref.count_of(ref.evaluate_samples()),
        "from": part.first,
        "to": part.last,
        "season": test.facts.season,
        "baselines": baseline_scores(metric, ref, test.facts.season),
        "parts": [dataclasses.asdict(p) for p in test.facts.parts],
        "predictions": predictions_record(test, truth, predicted),
    }
