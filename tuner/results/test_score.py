"""Evaluation on the test set: scores, their breakdown, predictions for plots and as a table."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tuner.coordination.finalists import Winner, default_of, find_winner
from tuner.data.baselines import Baselines, Choices
from tuner.data.metrics import score
from tuner.data.prepared import HERE, DataSource, Prepared, open_test_part
from tuner.data.reference import DataRef, PairsRef, SeriesRef
from tuner.errors import RunError
from tuner.executors.base import Executor, run_jobs
from tuner.jobs import PredictJob
from tuner.journal.records import StudyRecord, TestScore
from tuner.outputs import scratch_folder
from tuner.prediction import Model
from tuner.prediction.predictors import distinct
from tuner.results.retraining import Calibration, Models, Refit, coverage_of, points_of
from tuner.results.verdict import verdict_of
from tuner.tables.table import read_table

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
    record: StudyRecord,
    winner: Winner,
    models: EvaluatedModels,
    executor: Executor,
    folder: Path,
    source: DataSource = HERE,
) -> dict[str, Any]:
    """Evaluate trained models and baselines on the test set.

    The only function that reads the test set: once for a study, and again only on request.

    Args:
        record: the study, with its search and finalists done.
        winner: the configuration of `models.winner`.
        models: with one model for each training.
        executor: runs the predictions.
        folder: an empty folder for the arrays with the test rows.
        source: reads the data.

    Returns:
        The record for the journal; see `TestScore`. Its breakdown and predictions are those of
        refitted models if there are any.
    """
    experiment, refit = record.experiment, models.refit
    test = _Evaluation(record, winner, models, source, folder / "search")
    predicted = test.predict(executor, "test", models.winner, models.default)
    of_winner = test.scores_of(predicted)
    newest, drawn, refit_record = test, predicted, None
    if refit and refit.winner.failed:
        refit_record = {"failed": refit.winner.failed}
    elif refit:
        newest = _Evaluation(record, winner, models, source, folder / "refit", unit=test.ref)
        own = refit.default.models if refit.default else ()
        drawn = newest.predict(executor, "refit test", refit.winner.models, own)
        refit_record = _refit_record(newest, refit, drawn)
    facts, ref, metric = test.data.facts, test.ref, test.metric
    data = newest.data.of(winner.params)
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
        "refit": refit_record,
        "parts": [dataclasses.asdict(p) for p in facts.parts],
        "by": breakdown(metric, data, test.truth, drawn.winner),
        "predictions": predictions_record(
            data, test.truth, drawn.winner, newest.baselines, drawn.ensemble, models.calibration
        ),
    }
    verdict = verdict_of(dataclasses.replace(record, test=TestScore.from_json(evaluation)))
    assert verdict is not None
    return evaluation | {"verdict": verdict.sentence}


class _Evaluation:
    """The test set as models of one training set read it, and the scores on it.

    `unit` is the test set as the search's models read it. Refitted models are scored by it, so
    their MASE has the same unit: the naive error of the search's training set.
    """

    def __init__(
        self,
        record: StudyRecord,
        winner: Winner,
        models: EvaluatedModels,
        source: DataSource,
        folder: Path,
        *,
        unit: DataRef | None = None,
    ) -> None:
        sha256, all_data = record.data["sha256"], unit is not None
        data = source.test_part(record.experiment, folder, sha256=sha256, all_data=all_data)
        self.data, (self.ref,) = data, data.folds
        self.unit = unit or self.ref
        self.truth = self.ref.truth_of(self.ref.evaluate_samples())
        self.metric = record.experiment.objective.metric
        self._calibration, self._winner = models.calibration, winner
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
        outcomes, n = run_jobs(executor, jobs), len(winner)
        found = [outcome.predictions for outcome in outcomes if outcome.predictions is not None]
        ensemble = found.pop() if n > 1 else None
        return _Predictions(found[:n], ensemble, found[n:])

    def scores_of(self, predicted: _Predictions) -> dict[str, Any]:
        """Return the scores and interval coverages of the winner's models and their ensemble."""
        found = _scores(self.metric, self.truth, self.unit, predicted)
        if self._calibration is None:
            return found
        (ref,), ensemble = self.data.of(self._winner.params).folds, self._calibration.ensemble
        first = coverage_of(self._calibration.single, predicted.winner[0], ref, self.truth)
        found["intervals"] = first
        if ensemble is not None and predicted.ensemble is not None:
            coverage = coverage_of(ensemble, predicted.ensemble, ref, self.truth)
            found["ensemble_intervals"] = coverage
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


def _refit_record(test: _Evaluation, refit: Refit, predicted: _Predictions) -> dict[str, Any]:
    """Return the scores of refitted models, and of baselines that know the validation set.

    Args:
        test: the test set as the refitted models read it.
        refit: the refitted models.
        predicted: their predictions.
    """
    scores = test.scores_of(predicted)
    default = test.scores_of_default(scores, predicted.default)
    if default is not None and refit.default is not None:
        default["epochs"] = refit.default.epochs
        if refit.default.failed:
            default["failed"] = refit.default.failed
    return {
        "epochs": refit.winner.epochs,
        **scores,
        "default": default,
        "baselines": test.baselines.scores(test.metric, test.unit),
        "left_out": test.baselines.left_out,
    }


def _scores(
    metric: str, truth: np.ndarray, ref: DataRef, predicted: _Predictions
) -> dict[str, Any]:
    """Return the scores of the winner's models, and of their ensemble."""
    ensemble = predicted.ensemble
    together = None if ensemble is None else score(metric, truth, ensemble, ref)
    return {
        **_spread([score(metric, truth, p, ref) for p in predicted.winner]),
        "ensemble": together if together is not None and math.isfinite(together) else None,
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
    """Return the scores of parts of the test set, each the mean over the models.

    Rows count with their weights. The score of a single step ignores the weights of steps.

    Args:
        metric: the experiment's metric.
        test: the test set.
        truth: its targets, as `DataRef.truth_of` returns them.
        predicted: the predictions of each of the winner's models.

    Returns:
        By `step` of the horizon, by `series` and by `target`, if there are several: lists of
        `{name, rows, score}`; the score may be None. By `class`: `{name, rows, precision, recall,
        f1}`, from 0 to 1, of scikit-learn.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":  # a text is right or not
        return {}
    if ref.shape.classes:
        return {"class": list(_class_scores(test, truth, predicted))}
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
        truth = self._truth[place]
        scores = [
            score(self._metric, truth, p[place], self._ref, samples, weights, targets)
            for p in self._predicted
        ]
        mean = statistics.fmean(scores) if all(map(math.isfinite, scores)) else None
        return {"name": name, "rows": int(truth.size), "score": mean}


def _class_scores(
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


_MOST_POINTS = 2000  # in the record: journals are read often
_CLOSE_ROWS, _CLOSE_SERIES = 240, 4  # in a legible plot
_MOST_CLASSES = 60  # of a legible confusion matrix


def predictions_record(
    test: Prepared,
    truth: np.ndarray,
    predicted: list[np.ndarray],
    baselines: Baselines,
    together: np.ndarray | None = None,
    calibration: Calibration | None = None,
) -> dict[str, Any] | None:
    """Return the predictions of the test set for plots, as JSON.

    Args:
        test: the test set.
        truth: its targets, as `DataRef.truth_of` returns them.
        predicted: the predictions of each of the winner's models.
        baselines: the baselines of the test set.
        together: the predictions of the ensemble, if there is one.
        calibration: intervals, if there are any.

    Returns:
        For values, of the first step of the first target, of every `every`-th of `total` samples:
        names (`at`), `truth`, `predicted` (mean of the models, or middle of intervals), `lower` and
        `upper` of a `band` (the widest interval; `bands` are the others), `baselines`, and the
        `series` of each. `close` has all steps of the last rows of a few series, each row once.
        For classes, `confusion`: counts by true class (row) and predicted class (column) over all
        models. None without predictions, for texts, and for more than 60 classes.
    """
    (ref,) = test.folds
    if not predicted or ref.shape.task == "translate":
        return None
    if ref.shape.classes:
        return _confusion(test, truth, predicted)
    models = _Drawn(ref, truth, predicted, together, calibration)
    samples = ref.evaluate_samples()
    names = _names(test, ref, samples)
    every = max(1, math.ceil(len(names) / _MOST_POINTS))
    kept = slice(None, None, every)
    plain = baselines.predict(samples if ref.shape.each_step else samples[kept])
    if ref.shape.each_step:
        plain = {name: values[kept] for name, values in plain.items()}
    record: dict[str, Any] = {
        "kind": "values",
        "target": test.facts.targets[0],
        "horizon": ref.shape.horizon,
        "models": len(predicted),
        "total": len(names),
        "every": every,
        "at": names[kept],
        **models.record(
            lambda values: values[kept, 0, 0],
            {name: values[:, 0, 0] for name, values in plain.items()},
        ),
    }
    if isinstance(ref, SeriesRef):
        series = ref.series_of(samples)
        if len(set(series.tolist())) > 1:
            record["series"] = series[kept].tolist()
        if len(begins := _close_up(samples, series, ref.shape.horizon)):
            record["close"] = _close_record(test, ref, models, baselines, begins)
    return record


def _close_record(
    test: Prepared, ref: SeriesRef, models: _Drawn, baselines: Baselines, begins: np.ndarray
) -> dict[str, Any]:
    """Return all steps of some forecasts; `begins` are their places among the samples."""
    samples, steps = ref.evaluate_samples(), np.arange(ref.shape.horizon)
    rows = (samples[begins][:, None] + steps).ravel()
    near = baselines.predict(samples[begins])
    return {
        "at": [test.name_of(row) for row in rows.tolist()],
        "series": np.repeat(ref.series_of(samples)[begins], len(steps)).tolist(),
        **models.record(
            lambda values: values[begins, :, 0].reshape(-1, *values.shape[3:]),
            {name: values[:, :, 0].ravel() for name, values in near.items()},
        ),
    }


_Pick = Callable[[np.ndarray], np.ndarray]  # (samples, horizon, targets, ...) -> (n, ...)


def _close_up(samples: np.ndarray, of: np.ndarray, horizon: int) -> np.ndarray:
    """Return the places of the last forecasts of the first series, without overlap, (n,).

    Empty if all forecasts are of one step, and few.
    """
    series = list(dict.fromkeys(of.tolist()))[:_CLOSE_SERIES]
    if horizon == 1 and len(samples) <= _CLOSE_ROWS * len(series):
        return np.empty(0, np.int64)
    found: list[int] = []
    for number in series:
        own: list[int] = []
        for place in np.flatnonzero(of == number)[::-1].tolist():
            if not own or samples[place] + horizon <= samples[own[-1]]:
                own.append(place)
            if len(own) * horizon >= _CLOSE_ROWS:
                break
        found += own[::-1]
    return np.array(found, np.int64)


@dataclass(frozen=True)
class _Drawn:
    """Truth and predictions, from which a plot shows a part."""

    ref: DataRef
    truth: np.ndarray
    predicted: list[np.ndarray]  # by each model
    together: np.ndarray | None  # by the ensemble
    calibration: Calibration | None

    def record(self, pick: _Pick, plain: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the picked part: the truth, the models' mean, a band and the baselines."""
        picked = [pick(p) for p in self.predicted]
        models = np.stack([points_of(p, self.ref) for p in picked])  # (models, n)
        if isinstance(self.ref, SeriesRef):
            plain = {name: values for name, values in plain.items() if name != "training_mean"}
        with np.errstate(over="ignore", invalid="ignore"):  # forecasts may overflow
            mean = models.mean(axis=0)
        record: dict[str, Any] = {
            "truth": _numbers(pick(self.truth)),
            "predicted": _numbers(mean),
            "baselines": {name: _numbers(values) for name, values in plain.items()},
        }
        if self.calibration is not None:
            record |= self._intervals(self.calibration, pick)
        elif quantiles := self.ref.shape.quantiles:
            low, high = (np.mean([p[:, i] for p in picked], axis=0) for i in (0, -1))
            record |= _band(f"quantiles {quantiles[0]:g} to {quantiles[-1]:g}", low, high)
        elif len(models) > 1:
            text = f"range of {len(models)} models"
            record |= _band(text, models.min(axis=0), models.max(axis=0))
        return record

    def _intervals(self, calibration: Calibration, pick: _Pick) -> dict[str, Any]:
        assert isinstance(self.ref, SeriesRef)
        intervals = calibration.ensemble or calibration.single
        predicted = self.predicted[0] if self.together is None else self.together
        points = points_of(predicted, self.ref)
        scale = intervals.scale_of(self.ref, self.ref.evaluate_samples())
        lower, upper = map(pick, intervals.around(points, self.ref.transform, scale))  # (n, levels)
        *others, widest = [
            _band(f"{level:g} interval", lower[:, i], upper[:, i])
            for i, level in enumerate(intervals.levels)
        ]
        inner = [{"name": band.pop("band"), **band} for band in reversed(others)]
        return {"predicted": _numbers(pick(points)), **widest, "bands": inner}


def _band(name: str, lower: np.ndarray, upper: np.ndarray) -> dict[str, Any]:
    return {"lower": _numbers(lower), "upper": _numbers(upper), "band": name}


def _names(test: Prepared, ref: DataRef, samples: np.ndarray) -> list[str]:
    """Return the names of the samples, or of their steps if each step has a value."""
    names = [test.name_of(sample) for sample in samples.tolist()]
    if not ref.shape.each_step:
        return names
    lengths = np.diff(ref.load("bounds")[samples])[:, 0].tolist()
    return [f"{name} {i + 1}" for name, n in zip(names, lengths, strict=True) for i in range(n)]


def _confusion(
    test: Prepared, truth: np.ndarray, predicted: list[np.ndarray]
) -> dict[str, Any] | None:
    names = [str(name) for name in test.facts.classes]
    if len(names) > _MOST_CLASSES:
        return None
    counts = np.zeros((len(names), len(names)), np.int64)
    for probabilities in predicted:
        np.add.at(counts, (truth, probabilities.argmax(axis=1)), 1)
    return {
        "kind": "classes",
        "models": len(predicted),
        "total": len(truth),
        "classes": names,
        "confusion": counts.tolist(),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return the values with seven digits; None for infinite ones, which JSON lacks."""
    return [float(f"{v:.7g}") if math.isfinite(v) else None for v in values.tolist()]


def test_predictions(record: StudyRecord, get_model: Callable[[], Model]) -> pd.DataFrame:
    """Return the winner's predictions of the test set beside the truth.

    Args:
        record: the study.
        get_model: returns the winner's model.

    Returns:
        A table as of `Model.predict`: `horizon` rows for each scored window of a forecast, a row
        for each scored sequence. The truth is in columns whose names end with `_true`.

    Raises:
        DataError: the data cannot be read, or has changed.
        RunError: the winner was not evaluated on the test set.
    """
    test = record.test
    if test is None or not find_winner(record).was_tested(test):
        whose = "yet" if test is None else "for the configuration that wins now"
        reopen = "open_test=True" if test is None else "reopen_test=True"
        rule = f"study {record.name!r} was not evaluated on the test set {whose}"
        raise RunError(rule, remedy=f"search with {reopen}")
    model = get_model()
    params, table = find_winner(record).params, read_table(record.experiment.data)
    with scratch_folder() as folder:
        opened = open_test_part(
            record.experiment, folder, sha256=record.data["sha256"], all_data=test.refit is not None
        ).of(params)
        ref = opened.folds[-1].with_window(params.get("window"))
        samples = ref.evaluate_samples()
        truth = ref.truth_of(samples)
        if isinstance(ref, SeriesRef):
            found = model.predict_at(table, samples)
        else:
            found = _of_part(model.predict_at(table), opened, samples, record)
        if opened.facts.classes:
            columns = [np.array(opened.facts.classes, object)[truth]]
        elif isinstance(ref, PairsRef):
            texts = table.raw_strings(model.pipeline.targets)
            columns = [column[samples] for column in texts.values()]
        else:  # (samples, horizon, targets), or (samples, 1, targets) of sequences
            columns = list(truth.reshape(-1, truth.shape[-1]).T)
    return _beside(found, model, columns)


def _of_part(
    predicted: pd.DataFrame, opened: Prepared, samples: np.ndarray, record: StudyRecord
) -> pd.DataFrame:
    """Return the predictions of some sequences, in their order, with the rows of all steps."""
    if not record.experiment.task.each_step:
        return predicted.iloc[samples].reset_index(drop=True)
    names = [opened.name_of(sample) for sample in samples.tolist()]
    ids = pd.Index(predicted[record.experiment.data.id].astype(str))
    at = pd.Index(names).get_indexer(ids)
    rows = np.argsort(np.where(at < 0, len(names), at), kind="stable")[: (at >= 0).sum()]
    return predicted.iloc[rows].reset_index(drop=True)


def _beside(predicted: pd.DataFrame, model: Model, truth: list[np.ndarray]) -> pd.DataFrame:
    """Insert the truth of each target before its predictions."""
    pipeline, targets = model.pipeline, model.pipeline.targets
    first = len(predicted.columns) - len(targets) - len(pipeline.classes)
    if pipeline.task == "forecast":
        first = 2 + (pipeline.columns.id is not None)  # series, time, step
    width = (len(predicted.columns) - first) // len(targets)  # columns of a target
    for i, (target, values) in enumerate(zip(targets, truth, strict=True)):
        *_, name = distinct([*predicted.columns, f"{target}_true"])
        predicted.insert(first + i * (width + 1), name, values)
    return predicted
