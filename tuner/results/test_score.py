"""Evaluation on the test set: scores in total and by part."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from tuner.results.predictions import Calibration, coverage_of, points_of, predictions_record
from tuner.results.retraining import Models, Refit
from tuner.results.verdict import verdict_of
from tuner.results.winner import Winner

MOST_SERIES = 1000  # that have a score each in the record; of more, the first


@dataclass(frozen=True)
class EvaluatedModels:
    """What is evaluated on the test set."""

    winner: Models
    default: Models = ()  # of the untuned default; () if that is the winner
    refit: Refit | None = None  # the same configurations, trained on training and validation set
    calibration: Calibration | None = None  # intervals from the validation set
    choices: Choices | None = None  # of baselines; without them, those that need one are left out


@dataclass(frozen=True)
class _Predictions:
    """Predictions of the test set, each (samples, ...) in the data's units."""

    winner: list[np.ndarray]
    ensemble: np.ndarray | None  # of the winner's models, if there are several
    default: list[np.ndarray]


def score_on_test(
    record: StudyRecord, winner: Winner, models: EvaluatedModels, executor: Executor, folder: Path
) -> dict[str, Any]:
    """Evaluate trained models and baselines on the test set.

    The only function that reads the test set: once for a study, and again only on request.

    Args:
        record: the study, with its search and finalists done.
        winner: the configuration of `models.winner`.
        models: with one model for each training.
        executor: runs the predictions.
        folder: an empty folder for the arrays with the test rows.

    Returns:
        The record for the journal; see `TestScore`. Its breakdown and predictions are those of
        refitted models if there are any.
    """
    experiment, sha256 = record.experiment, record.data["sha256"]
    metric, refit = experiment.objective.metric, models.refit
    data = open_test_part(experiment, folder / "search", sha256=sha256)
    test = _Evaluation(record, winner, models, data)
    predicted = test.predict(executor, "test", models.winner, models.default)
    of_winner = test.scores_of(predicted)
    shown, drawn = test, predicted
    again = {"failed": refit.winner.failed} if refit and refit.winner.failed else None
    if refit and not refit.winner.failed:
        whole = open_test_part(experiment, folder / "refit", sha256=sha256, all_data=True)
        shown = _Evaluation(record, winner, models, whole, test.ref)
        own = refit.default.models if refit.default else ()
        drawn = shown.predict(executor, "refit test", refit.winner.models, own)
        again = _refit_record(shown, test.ref, refit, drawn)
    facts, ref = test.data.facts, test.ref
    of_shown = shown.data.of(winner.params)
    evaluation = {
        "opened_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "after_trials": len(record.trained),
        "configuration": winner.number,
        "repeats": len(models.winner),
        "finalists": [experiment.finalists.top, experiment.finalists.repeats],
        "metric": metric,
        **of_winner,
        "rows": ref.count_of(ref.evaluate_samples()),
        "from": facts.test.first,
        "to": facts.test.last,
        "season": facts.season,
        "baselines": test.baselines.scores(metric),
        "left_out": test.baselines.left_out,
        "default": test.scores_of_default(of_winner, predicted.default),
        "refit": again,
        "parts": [dataclasses.asdict(p) for p in facts.parts],
        "by": breakdown(metric, of_shown, test.truth, drawn.winner),
        "predictions": predictions_record(
            of_shown, test.truth, drawn.winner, shown.baselines, drawn.ensemble, models.calibration
        ),
    }
    verdict = verdict_of(dataclasses.replace(record, test=TestScore.from_json(evaluation)))
    assert verdict is not None
    return evaluation | {"verdict": verdict.sentence}


class _Evaluation:
    """The test set as models of one training set read it, and the scores on it."""

    def __init__(
        self,
        record: StudyRecord,
        winner: Winner,
        models: EvaluatedModels,
        data: Prepared,
        unit: DataRef | None = None,
    ) -> None:
        self.data, (self.ref,) = data, data.folds
        self.unit = unit or self.ref  # refitted models keep the unit of MASE: the training set's
        self.truth = self.ref.truth_of(self.ref.evaluate_samples())
        self.metric = record.experiment.objective.metric
        self._models, self._winner = models, winner
        self._default = default_of(record)
        season = data.facts.season
        self.baselines = Baselines(self.ref, season, models.choices, lambda p: data.of(p).folds[0])

    def predict(
        self, executor: Executor, key: str, winner: Models, default: Models
    ) -> _Predictions:
        """Predict the test set with the winner's models, their ensemble and the default's."""
        (of_winner,) = self.data.of(self._winner.params).folds
        (of_default,) = self.data.of(self._default.params if self._default else {}).folds
        refs = [of_winner] * len(winner) + [of_default] * len(default)
        jobs = [
            PredictJob(f"{key} {i}", job.hyperparameters, weights, ref, device=job.device)
            for i, ((job, weights), ref) in enumerate(zip([*winner, *default], refs, strict=True))
        ]
        if len(winner) > 1:
            others = tuple(weights for _, weights in winner[1:])
            jobs.append(dataclasses.replace(jobs[0], key=f"{key} {len(jobs)}", others=others))
        outcomes = run_jobs(executor, jobs)
        found = [outcome.predictions for outcome in outcomes if outcome.predictions is not None]
        single, together = found[: len(refs)], found[len(refs) :]
        n = len(winner)
        return _Predictions(single[:n], together[0] if together else None, single[n:])

    def scores_of(self, predicted: _Predictions) -> dict[str, Any]:
        """Return the scores and interval coverages of the winner's models and their ensemble."""
        found = _scores(self.metric, self.truth, self.unit, predicted)
        if (calibration := self._models.calibration) is not None:
            ref = self.data.of(self._winner.params).folds[0]
            of_first = coverage_of(calibration.single, predicted.winner[0], ref, self.truth)
            found["intervals"] = of_first
            if calibration.ensemble is not None and predicted.ensemble is not None:
                of_all = coverage_of(calibration.ensemble, predicted.ensemble, ref, self.truth)
                found["ensemble_intervals"] = of_all
        return found

    def scores_of_default(
        self, of_winner: dict[str, Any], predicted: list[np.ndarray]
    ) -> dict[str, Any] | None:
        """Return the scores of the untuned default; None without one."""
        default, is_winner = self._default, self._winner.is_default
        if default is None:
            return None
        found = _spread([score(self.metric, self.truth, p, self.unit) for p in predicted])
        if is_winner:
            found = {key: of_winner[key] for key in found}
        return {"name": default.name, "params": default.params, "is_winner": is_winner, **found}


def _refit_record(
    whole: _Evaluation, ref: DataRef, refit: Refit, predicted: _Predictions
) -> dict[str, Any]:
    """Return the scores of refitted models, and of baselines that know the validation set.

    Args:
        whole: the test set as they read it.
        ref: the test set as the search's models read it.
        refit: the models.
        predicted: by them.
    """
    scores = whole.scores_of(predicted)
    own = whole.scores_of_default(scores, predicted.default)
    if own is not None and refit.default is not None:
        own |= {"epochs": refit.default.epochs}
        own |= {"failed": refit.default.failed} if refit.default.failed else {}
    return {
        "epochs": refit.winner.epochs,
        **scores,
        "default": own,
        "baselines": whole.baselines.scores(whole.metric, ref),
        "left_out": whole.baselines.left_out,
    }


def _scores(
    metric: str, truth: np.ndarray, ref: DataRef, predicted: _Predictions
) -> dict[str, Any]:
    """Return the scores of the winner's models, and of their ensemble."""
    together = predicted.ensemble
    ensemble = None if together is None else score(metric, truth, together, ref)
    return {
        **_spread([score(metric, truth, p, ref) for p in predicted.winner]),
        "ensemble": ensemble if ensemble is not None and math.isfinite(ensemble) else None,
    }


def _spread(scores: Sequence[float]) -> dict[str, Any]:
    """Return scores with mean and standard deviation; none if one is not finite."""
    if not all(map(math.isfinite, scores)):
        scores = []
    return {
        "scores": list(scores),
        "mean": statistics.fmean(scores) if scores else None,
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
    }


def breakdown(
    metric: str, test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, list[dict[str, Any]]]:
    """Return the scores of parts of the test rows, each the mean over the models.

    Weights of rows count. Weights of steps do not count for a step of its own.

    Args:
        metric: of the experiment.
        test: the test set.
        truth: of its samples, as of `DataRef.truth_of`.
        predicted: by each of the winner's models.

    Returns:
        By `step` of the horizon, by `series` and by `target`, if there are several: lists of
        `{name, rows, score}`; the score may be None. By `class`: `{name, rows, precision, recall,
        f1}`, from 0 to 1, of scikit-learn.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":  # a text is right or not
        return {}
    if ref.shape.classes:
        return {"class": list(_classes(test, truth, predicted))}
    of_part, samples = _PartScores(metric, test, truth, predicted), ref.evaluate_samples()
    found: dict[str, list[dict[str, Any]]] = {}
    if (horizon := truth.shape[1]) > 1:
        found["step"] = [of_part(k + 1, steps=slice(k, k + 1)) for k in range(horizon)]
    if isinstance(ref, SeriesRef) and len(names := test.facts.series) > 1:
        series = ref.series_of(samples)
        found["series"] = [
            of_part(names[i], rows=np.flatnonzero(series == i))
            for i in np.unique(series)[:MOST_SERIES].tolist()
        ]
    if truth.shape[2] > 1:
        found["target"] = [
            of_part(name, targets=slice(i, i + 1)) for i, name in enumerate(test.facts.targets)
        ]
    return found


_EVERY = slice(None)


class _PartScores:
    """The mean scores of models on parts of the test rows."""

    def __init__(
        self, metric: str, test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
    ) -> None:
        self._metric, (self._ref,) = metric, test.folds
        self._truth, self._predicted = truth, predicted
        self._samples = self._ref.evaluate_samples()
        self._weights = self._of_steps = self._ref.weights_of(self._samples)
        if isinstance(self._ref, SeriesRef) and self._ref.step_weights:
            unweighted = dataclasses.replace(self._ref, step_weights=())
            self._of_steps = unweighted.weights_of(self._samples)

    def __call__(
        self, name: Any, rows: Any = _EVERY, steps: slice = _EVERY, targets: slice = _EVERY
    ) -> dict[str, Any]:
        place, of_series = (rows, steps, targets), isinstance(self._ref, SeriesRef)
        weights = self._weights if steps == _EVERY else self._of_steps
        if weights is not None:
            weights = weights[rows, steps] if of_series else weights
        elif self._weights is not None:
            weights = np.ones(self._truth[place].shape[:2])
        samples = self._samples[rows] if of_series else None
        scores = [self._score(place, p[place], samples, weights) for p in self._predicted]
        finite = all(map(math.isfinite, scores))
        mean = statistics.fmean(scores) if finite else None
        return {"name": name, "rows": int(self._truth[place].size), "score": mean}

    def _score(
        self, place: tuple[Any, slice, slice], predicted: np.ndarray,
        samples: np.ndarray | None, weights: np.ndarray | None,
    ) -> float:  # fmt: skip
        truth, ref, targets = self._truth[place], self._ref, place[2]
        if self._metric != "mase" or targets == _EVERY:
            return score(self._metric, truth, predicted, ref, samples, weights)
        # MASE of one target: the mean absolute error over its naive one, as in `score`.
        own = ref.evaluate_samples() if samples is None else samples
        units = np.repeat(ref.naive_errors(own)[:, targets], truth.shape[1], axis=0)
        errors = np.abs(truth - points_of(predicted, ref)).reshape(-1, truth.shape[-1]) / units
        if not np.isfinite(errors).all() or (weights is not None and not weights.any()):
            return math.nan
        weights = None if weights is None else weights.ravel()
        return float(np.average(errors[:, 0], weights=weights))


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
                truth, p.argmax(axis=1), labels=numbers, zero_division=0.0, sample_weight=weights
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
