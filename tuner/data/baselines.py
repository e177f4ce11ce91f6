"""Plain predictions that a tuned model has to beat.

Some need nothing but the past (the last value); others are fitted on the training rows of the
data that they are given (a linear model, exponential smoothing). What the validation rows decide
about these is a `Choices`, found once with the search's data and kept for the test part, also
where they are fitted again on training and validation rows.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tuner.data.classical import CLASSICAL, Classical, fit_kind, kinds_left_out
from tuner.data.linear_models import (
    LinearForecast,
    LinearOfSequences,
    SequenceChoice,
    WindowChoice,
    choose_linear,
    cost_of,
    fit_linear,
    of_quantiles,
    of_values,
    why_no_linear,
)  # fmt: skip
from tuner.data.metrics import score
from tuner.data.reference import DataRef, SeriesRef
from tuner.metrics import METRICS

if TYPE_CHECKING:
    from tuner.experiment import Experiment

_STEPS_PER_CYCLE = {
    "s": 86_400, "min": 1_440, "h": 24,  # a day
    "D": 7, "B": 5,  # a week
    "W": 52, "MS": 12, "ME": 12, "BMS": 12, "BME": 12, "WOM": 12, "LWOM": 12,  # a year
    "QS": 4, "QE": 4, "BQS": 4, "BQE": 4,
}  # fmt: skip


def last_value(truth: np.ndarray, starts: np.ndarray, horizon: int) -> np.ndarray:
    """Forecast the last known value for every step: (windows, horizon, targets)."""
    return np.repeat(truth[starts - 1][:, None, :], horizon, axis=1)


def seasonal_naive(truth: np.ndarray, starts: np.ndarray, horizon: int, season: int) -> np.ndarray:
    """Forecast the value of the same step in the last known season: (windows, horizon, targets).

    Raises:
        ValueError: a window begins less than a season after the first row.
    """
    if len(starts) and starts.min() < season:
        raise ValueError(f"a season of {season} rows needs as many before row {starts.min()}")
    rows = starts[:, None] - season + np.arange(horizon) % season  # (windows, horizon), < starts
    return np.asarray(truth[rows])


@dataclass(frozen=True)
class Choices:
    """What the search's data decides about plain predictions; none of it is fitted."""

    linear: WindowChoice | SequenceChoice | None  # None where there is no linear model
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a prediction is not made of any part, by its name: what is made of one is of all."""
    preparations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """How the data of a prediction is prepared, by its name, where not as the experiment's is."""


# From a preparation, as `Prepared.of` takes it, to the data that is prepared so.
RefOf = Callable[[Mapping[str, str]], DataRef]
_MOST_PREPARATIONS = 12  # that are tried


def preparations_of(experiment: Experiment) -> list[dict[str, str]]:
    """Return the preparations that a trial can have, the experiment's own first.

    Of very many only those that differ from it in one thing.
    """
    own = experiment.preparation({})
    options = [dict.fromkeys([own[n], *map(str, experiment.search_space[n].bounds())]) for n in own]
    found = [dict(zip(own, texts, strict=True)) for texts in itertools.product(*options)]
    if len(found) > _MOST_PREPARATIONS:
        found = [f for f in found if sum(f[n] != own[n] for n in own) <= 1][:_MOST_PREPARATIONS]
    return found


def choose(
    metric: str,
    ref: DataRef,
    season: int | None,
    others: Iterable[tuple[Mapping[str, str], DataRef]] = (),
) -> Choices:
    """Choose how the linear model reads and how much it is penalized, by the validation rows.

    And how the data of every prediction that is fitted is prepared, where the search has others
    than the experiment's own; and which predictions are left out, by how many rows and series
    there are.

    Args:
        ref: of the search, which evaluates the validation part; with rolling origins the last
            fold's.
        season: of a forecast, rows in a season; None without one.
    """
    every = [({}, ref), *others]
    left_out = kinds_left_out(ref, season) if of_values(ref) else {}
    preparations: dict[str, Mapping[str, str]] = {}
    linear, least = None, math.inf
    for preparation, prepared in every:
        if reason := why_no_linear(prepared):
            if prepared is ref:
                left_out = {"linear": reason} | left_out
            continue
        found = choose_linear(metric, prepared)
        cost = 0.0
        if len(every) > 1:
            samples = prepared.evaluate_samples()
            predicted = fit_linear(prepared, found).predict(samples, np.empty(0))
            cost = cost_of(metric, prepared, samples, predicted)
        if linear is None or cost < least:
            linear, least, preparations["linear"] = found, cost, preparation
    if linear is not None:
        left_out.pop("linear", None)
    levels = {  # all that the preparation is to the others
        prepared.transform.pointwise: (preparation, prepared)
        for preparation, prepared in reversed(every)
        if of_values(prepared)
    }
    for name in CLASSICAL if len(levels) > 1 else ():
        if name in left_out:
            continue
        least = math.inf
        for preparation, prepared in reversed(levels.values()):
            samples, models = prepared.evaluate_samples(), fit_kind(name, prepared, season)
            last = last_value(np.asarray(prepared.load("truth")), samples, ref.shape.horizon)
            cost = cost_of(metric, prepared, samples, models.predict(prepared, samples, last))
            if len(models) and cost < least:
                least, preparations[name] = cost, preparation
    return Choices(linear, left_out, {name: of for name, of in preparations.items() if of})


class Baselines:
    """The plain predictions of one split, fitted on the training rows of a reference.

    A forecast of row t follows from the training rows and from rows before t.
    """

    left_out: dict[str, str]
    """Why a prediction that there might be is not there, by its name."""

    def __init__(
        self,
        ref: DataRef,
        season: int | None,
        choices: Choices | None = None,
        prepared: RefOf | None = None,
    ) -> None:
        """Fit them.

        Args:
            ref: the prepared data: what it trains on is fitted on. That may be more than the
                choices were made with: the validation rows too.
            season: of a forecast, rows in a season; None without one.
            choices: see `choose`; None for those alone that need no fitting.
            prepared: gives the same data in the preparations that are chosen, where they are
                others than that of `ref`.
        """
        self._ref, self._season = ref, season
        self._linear: LinearForecast | LinearOfSequences | None = None
        self._classical: dict[str, tuple[SeriesRef, Classical]] = {}
        self.left_out = {}
        if choices is None:
            return

        def of(name: str) -> DataRef:
            chosen = choices.preparations.get(name)
            return prepared(chosen) if chosen and prepared is not None else ref

        self.left_out |= choices.left_out
        if choices.linear is not None:
            self._linear = fit_linear(of("linear"), choices.linear)
        for name in CLASSICAL if of_values(ref) else ():
            if name in choices.left_out:
                continue
            own = of(name)
            assert isinstance(own, SeriesRef)
            if len(models := fit_kind(name, own, season)):
                self._classical[name] = own, models
            else:
                self.left_out[name] = "no series has training rows that it can be fitted to"

    def predict(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Predict samples without a model of ours.

        Args:
            samples: (n,), as `DataRef.evaluate_samples` has them.

        Returns:
            The predictions by name, in the data's units. Of a forecast `last_value`,
            `seasonal_naive` where there is a season (a window without a season before it gets
            the last value), `training_mean`, of each series its own, `linear`,
            `exponential_smoothing` and `seasonal_arima`, where series without a model get the
            last value; of values of sequences `training_mean` and `linear`; each (n, horizon,
            targets), or of their steps (steps, 1, targets). Of classes `class_frequencies`, which
            gives every class the share that it has in the training part, and `linear`, (n,
            classes) or (steps, classes); of the class of a coming row also `last_class`, that of
            the row before. Of texts, (n, longest) tokens, the `most_frequent` one of the training
            part, and a `copy` of what is read.
        """
        ref = self._ref
        plain = {}
        for name, baseline in BASELINES.items():
            if _predicts(ref) in baseline.of:
                predicted = baseline.predict(ref, samples, self._season)
                if predicted is not None:
                    plain[name] = predicted
        if self._linear is not None:
            plain["linear"] = self._linear.predict(samples, next(iter(plain.values())))
        for name, (own, models) in self._classical.items():
            plain[name] = models.predict(own, samples, plain["last_value"])
        return plain

    def scores(self, metric: str, by: DataRef | None = None) -> dict[str, float]:
        """Score the predictions of what the reference evaluates, in the data's units.

        Args:
            by: the reference by whose measure they are scored, of the same rows; by default their
                own. MASE's errors, say, are relative to what is trained on.
        """
        ref = by or self._ref
        samples = ref.evaluate_samples()
        truth, plain = ref.truth_of(samples), self.predict(samples)
        return {
            name: score(metric, truth, of_quantiles(ref, predicted), ref)
            for name, predicted in plain.items()
        }


def baselines_record(
    metric: str,
    folds: Sequence[DataRef],
    season: int | None,
    others: Sequence[tuple[Mapping[str, str], Sequence[DataRef]]] = (),
) -> dict[str, Any]:
    """Return what a journal keeps of the plain predictions of the validation part.

    Args:
        season: of a forecast, rows in a season; None without one.

    Returns:
        `baselines`, each one's mean score over the folds, where every fold has it; `left_out`,
        why others are not there, by name.
    """
    choices = choose(metric, folds[-1], season, [(of, refs[-1]) for of, refs in others])

    def fitted(i: int) -> Baselines:
        def prepared(chosen: Mapping[str, str]) -> DataRef:
            return next(refs[i] for of, refs in others if of == chosen)

        return Baselines(folds[i], season, choices, prepared)

    every = [fitted(i) for i in range(len(folds))]
    scores = [of_fold.scores(metric) for of_fold in every]
    names = [name for name in scores[0] if all(name in fold for fold in scores)]
    left_out = {name: why for of_fold in every for name, why in of_fold.left_out.items()}
    return {
        "baselines": {name: statistics.fmean(fold[name] for fold in scores) for name in names},
        "left_out": left_out,
    }


def _mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    if weights is None or not weights.any():
        return np.asarray(values.mean(axis=0))
    return np.asarray(np.average(values, axis=0, weights=weights / weights.max()))


def _last_value(ref: DataRef, starts: np.ndarray, season: int | None) -> np.ndarray:
    return last_value(np.asarray(ref.load("truth")), starts, ref.shape.horizon)


def _seasonal_naive(ref: DataRef, starts: np.ndarray, season: int | None) -> np.ndarray | None:
    assert of_values(ref)
    if season is None:
        return None
    values = np.asarray(ref.load("truth"))
    reaches = starts - season >= ref.load("reach")[ref.series_of(starts), 0]  # (windows,)
    if not reaches.any():
        return None
    found = _last_value(ref, starts, season).copy()  # of a series that begins late
    found[reaches] = seasonal_naive(values, starts[reaches], ref.shape.horizon, season)
    return found


def _training_mean(ref: DataRef, samples: np.ndarray, season: int | None) -> np.ndarray:
    if of_values(ref):
        means = _training_means(ref, np.asarray(ref.load("truth")))[ref.series_of(samples)]
        return np.repeat(means[:, None, :], ref.shape.horizon, axis=1)
    trained = ref.train_samples()
    known = ref.truth_of(trained)
    shape = (len(ref.truth_of(samples)), *known.shape[1:])
    return np.broadcast_to(_mean(known, ref.weights_of(trained)), shape)


def _class_frequencies(ref: DataRef, samples: np.ndarray, season: int | None) -> np.ndarray:
    trained = ref.train_samples()
    known, weights = ref.truth_of(trained), ref.weights_of(trained)
    counts = np.bincount(known, weights, minlength=ref.shape.classes)
    shares = counts / (len(known) if weights is None else counts.sum())
    return np.tile(shares, (len(ref.truth_of(samples)), 1))


def _last_class(ref: DataRef, samples: np.ndarray, season: int | None) -> np.ndarray | None:
    if not isinstance(ref, SeriesRef):
        return None
    return np.asarray(np.eye(ref.shape.classes)[ref.truth_of(samples - 1)])


def _most_frequent(ref: DataRef, samples: np.ndarray, season: int | None) -> np.ndarray:
    return np.tile(np.asarray(ref.load("most_frequent")), (len(samples), 1))


def _copy(ref: DataRef, samples: np.ndarray, season: int | None) -> np.ndarray:
    return np.asarray(ref.load("copied")[samples])


@dataclass(frozen=True)
class Baseline:
    """A plain prediction that needs no choice by the validation rows."""

    of: tuple[Literal["forecasts", "values", "classes", "texts"], ...]
    """What it predicts: values of series, values of sequences, classes, texts."""
    predict: Callable[[DataRef, np.ndarray, int | None], np.ndarray | None]
    """From prepared data, samples and the rows in a season to the predictions; see
    `Baselines.predict`. None where it cannot be made."""
    best_class: str | None = None
    """Its title where a metric counts the most probable class alone."""


BASELINES = {
    "last_value": Baseline(("forecasts",), _last_value),
    "seasonal_naive": Baseline(("forecasts",), _seasonal_naive),
    "training_mean": Baseline(("forecasts", "values"), _training_mean),
    "class_frequencies": Baseline(("classes",), _class_frequencies, "majority class"),
    "last_class": Baseline(("classes",), _last_class),
    "most_frequent": Baseline(("texts",), _most_frequent),
    "copy": Baseline(("texts",), _copy),
}
"""The plain predictions by name; `CLASSICAL` and the linear model are beside them."""


def baseline_name(name: str, metric: str) -> str:
    """Return the title of a plain prediction for a metric, without an article."""
    kind = METRICS.get(metric)
    if name == "linear":
        return "logistic regression" if kind and kind.of == "classes" else "linear regression"
    if name in CLASSICAL:
        return CLASSICAL[name].title
    best = BASELINES[name].best_class if name in BASELINES else None
    return best if best and kind and kind.best_class else name.replace("_", " ")


def _predicts(ref: DataRef) -> str:
    if ref.shape.task == "translate":
        return "texts"
    return "classes" if ref.shape.classes else "forecasts" if of_values(ref) else "values"


def _training_means(ref: SeriesRef, values: np.ndarray) -> np.ndarray:
    """Return the mean of each series' training rows, of what was in the file: (series, targets).

    A series without any gets the mean of the other series' rows.
    """
    known = np.asarray(ref.load("known"))
    weights = ref.load("weights") if ref.weighted else None
    rows = [np.arange(*part)[known[slice(*part)]] for part in ref.load("train")]

    def mean(of: np.ndarray) -> np.ndarray:
        return _mean(values[of], None if weights is None else weights[of])

    overall = mean(np.concatenate(rows))
    return np.stack([mean(of) if len(of) else overall for of in rows])


def season_of(frequency: str | None) -> int | None:
    """Return the rows in a season at a pandas frequency; None where there is no usual one.

    Hours and less repeat daily, days weekly, weeks, months and quarters yearly.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", frequency or "")
    if match is None:
        return None
    if match[2] == "C":
        return (match[3] or "").count("-")  # days of a week that are open
    steps, multiple = _STEPS_PER_CYCLE.get(match[2], 0), int(match[1] or 1)
    return steps // multiple if steps > multiple and steps % multiple == 0 else None
