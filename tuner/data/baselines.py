"""Baselines: predictions that a tuned model has to beat.

Some need only the past (the last value). Others are fitted on the training rows of the data that
they are given: a linear model, and for each series exponential smoothing and a seasonal ARIMA.
What the validation rows decide about these is a `Choices`, made once with the data of the search.
It holds for the test set too, also where the baselines are fitted on training and validation rows.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

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
)
from tuner.data.metrics import score
from tuner.data.reference import DataRef, SeriesRef
from tuner.metrics import METRICS
from tuner.one_thread import one_thread

if TYPE_CHECKING:
    from tuner.experiment import Experiment


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


def _predicts(ref: DataRef) -> str:
    if ref.shape.task == "translate":
        return "texts"
    return "classes" if ref.shape.classes else "forecasts" if of_values(ref) else "values"


def _mean(
    values: np.ndarray, weights: np.ndarray | None, rows: np.ndarray | slice = slice(None)
) -> np.ndarray:
    if weights is None or not weights[rows].any():
        return np.asarray(values[rows].mean(axis=0))
    of_rows = weights[rows]
    return np.asarray(np.average(values[rows], axis=0, weights=of_rows / of_rows.max()))


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
    if of_values(ref):  # the mean of each series
        values, known = np.asarray(ref.load("truth")), np.asarray(ref.load("known"))
        weights = ref.load("weights") if ref.weighted else None
        rows = [np.arange(*part)[known[slice(*part)]] for part in ref.load("train")]
        every = np.concatenate(rows)  # for a series without training rows
        means = np.stack([_mean(values, weights, of if len(of) else every) for of in rows])
        return np.repeat(means[ref.series_of(samples)][:, None, :], ref.shape.horizon, axis=1)
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
    """A baseline that needs no choice by the validation rows."""

    of: tuple[Literal["forecasts", "values", "classes", "texts"], ...]
    """What it predicts: values of series, values of sequences, classes, texts."""
    predict: Callable[[DataRef, np.ndarray, int | None], np.ndarray | None]
    """From prepared data, samples and the rows in a season to predictions; None without any."""
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
"""By name; there are also `CLASSICAL` and the linear model."""


INSTALL = "statsmodels is not installed (pip install 'lstm-tuner[classical]')"
_MOST_MODELS = 30  # series times targets
_MOST_EXPECTED = 10.0  # seconds that all models of one kind are expected to take
_MOST_STEPS = {"maxiter": 50, "maxfun": 250}  # of the search for a model's parameters


# From rows of the series, which are forecast first, and the horizon to (rows, horizon).
_Forecast = Callable[[np.ndarray, int], np.ndarray]


@dataclass
class Classical:
    """One kind of classical model, fitted to every series and target with enough rows.

    Parameters are fitted on training rows. The state is then brought forward row by row, so that a
    forecast follows from every row before it, as that of a model does, and from none after.
    """

    horizon: int
    models: dict[tuple[int, int], tuple[int, _Forecast]] = field(default_factory=dict)
    """By series and target: the first row of the series that it reads, and the forecast."""

    def __len__(self) -> int:
        return len(self.models)

    def predict(self, ref: SeriesRef, samples: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return the forecasts of samples, (samples,), in the data's units.

        Shape: (samples, horizon, targets). A series without a model gets what is in `otherwise`.
        """
        with np.errstate(all="ignore"):
            forecasts = np.array(ref.transform.to_level(otherwise))
        of = ref.series_of(samples)
        for (series, target), (first, forecast) in self.models.items():
            at = np.flatnonzero(of == series)
            if len(at):
                forecasts[at, :, target] = forecast(samples[at] - first, self.horizon)
        return ref.transform.from_level(forecasts)


def kinds_left_out(ref: SeriesRef, season: int | None) -> dict[str, str]:
    """Return which kinds are left out, and why: by the season and the numbers of series and rows.

    No clock decides, so the answer is the same on every machine. It is asked once, of the data of
    the search, and holds for whatever the kinds are fitted on afterwards.

    Args:
        season: rows in a season; None without one.
    """
    if importlib.util.find_spec("statsmodels") is None:
        return dict.fromkeys(CLASSICAL, INSTALL)
    found = {name: _why_not(name, ref, season) for name in CLASSICAL}
    return {name: why for name, why in found.items() if why is not None}


def _why_not(name: str, ref: SeriesRef, season: int | None) -> str | None:
    n_models = len(ref.load("train")) * ref.shape.targets
    if n_models > _MOST_MODELS:
        return f"{n_models:,} models (series times targets) are more than {_MOST_MODELS}"
    longest = CLASSICAL[name].longest_season
    if CLASSICAL[name].needs_season:
        if season is None:
            return "the rows have no season; task.season gives one"
        if season > longest:
            return f"a season of {season:,} rows is longer than {longest}"
    season, seconds = _season_of(name, season), 0.0
    for (begin, end), (_, last) in zip(ref.load("train"), ref.load("reach"), strict=True):
        rows = min(int(end - begin), CLASSICAL[name].most_rows)
        seconds += CLASSICAL[name].seconds(rows, int(last - begin), season or 1)
    if (seconds := seconds * ref.shape.targets) > _MOST_EXPECTED:
        what = f"{n_models:,} models on so many rows" if n_models > 1 else "so many rows"
        return f"{what} would take about {seconds:.0f} s"
    if not any(len(rows) >= _fewest_rows(season) for rows in _rows_of(name, ref)):
        return "no series has training rows enough for it"
    return None


def _season_of(name: str, season: int | None) -> int | None:
    return None if season is not None and season > CLASSICAL[name].longest_season else season


def _fewest_rows(season: int | None) -> int:
    return max(8, 2 * (season or 1) + 5)


def _rows_of(name: str, ref: SeriesRef) -> list[range]:
    """Return the training rows of each series that a kind is fitted on."""
    return [
        range(int(max(begin, first, end - CLASSICAL[name].most_rows)), int(end))
        for (begin, end), (first, _) in zip(ref.load("train"), ref.load("reach"), strict=True)
    ]


def fit_kind(name: str, ref: SeriesRef, season: int | None) -> Classical:
    """Fit the models of a kind on the training rows of `ref`.

    They read the level space of the transform: logarithms, Box and Cox's powers, or the values.
    Differences are part of these models.

    Args:
        name: of `CLASSICAL`, not one that is left out.
        season: rows in a season; None without one.

    Returns:
        The models, of the series that they can be fitted to.
    """
    season = _season_of(name, season)
    truth = ref.transform.to_level(ref.load("truth"))
    found = Classical(ref.shape.horizon)
    for series, rows in enumerate(_rows_of(name, ref)):
        if len(rows) < _fewest_rows(season):
            continue
        last = ref.load("reach")[series, 1]
        for target in range(ref.shape.targets):
            values = np.asarray(truth[rows.start : last, target], np.float64)
            if np.ptp(values[: len(rows)]) == 0:
                continue
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # that a fit has not converged, mostly
                try:
                    forecast = CLASSICAL[name].fit(values, len(rows), season)
                except (ValueError, np.linalg.LinAlgError):
                    continue
            found.models[series, target] = rows.start, forecast
    return found


def _smoothing(values: np.ndarray, n_train: int, season: int | None) -> _Forecast:
    """Fit additive exponential smoothing: trend and season by the corrected Akaike criterion.

    ETS(A, N or A or Ad, N or A) of Hyndman et al., Forecasting with Exponential Smoothing, 2008.
    """
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    def model(rows: np.ndarray, start: str, **known: Any) -> Any:
        return ETSModel(
            rows, error="add", trend=trend, damped_trend=damped, seasonal=kind,
            seasonal_periods=season if kind else None, initialization_method=start, **known,
        )  # fmt: skip

    best, least = None, np.inf
    for kind in [None] if season is None else [None, "add"]:
        for trend, damped in ((None, False), ("add", False), ("add", True)):
            fitted = model(values[:n_train], "heuristic").fit(disp=False, **_MOST_STEPS)
            if float(fitted.aicc) < least:
                best, least = (kind, trend, damped, fitted), float(fitted.aicc)
    if best is None:
        raise ValueError("no smoothing fits")
    kind, trend, damped, fitted = best
    known = {"initial_level": fitted.initial_level}
    if trend:
        known["initial_trend"] = fitted.initial_trend
    if kind:
        known["initial_seasonal"] = fitted.initial_seasonal
    states = model(values, "known", **known).smooth(fitted.params)
    level = np.asarray(states.level)
    slope = np.asarray(states.slope) if trend else np.zeros_like(level)
    damping = float(fitted.damping_trend) if damped else 1.0
    seasonal = np.asarray(states.season) if kind else None

    def forecast(rows: np.ndarray, horizon: int) -> np.ndarray:
        steps = np.arange(horizon)
        grown = np.cumsum(damping ** (steps + 1.0))
        found = level[rows - 1][:, None] + slope[rows - 1][:, None] * grown
        if seasonal is not None and season is not None:
            found += seasonal[rows[:, None] - season + steps % season]  # all before the row
        return np.asarray(found)

    return forecast


def _arima(values: np.ndarray, n_train: int, season: int | None) -> _Forecast:
    """Fit the airline model, ARIMA(0, 1, 1)(0, 1, 1) with the season (Box and Jenkins, 1970)."""
    from statsmodels.tsa.statespace import kalman_filter as memory
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    assert season is not None
    lost = season + 1  # rows that both differences take together
    order = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1, season)}
    model = SARIMAX(values[:n_train], **order, simple_differencing=True)
    fitted = model.fit(disp=False, **_MOST_STEPS, cov_type="none")
    whole = SARIMAX(values, **order, simple_differencing=True)
    whole.ssm.set_conserve_memory(
        memory.MEMORY_NO_FORECAST_COV
        | memory.MEMORY_NO_PREDICTED_COV
        | memory.MEMORY_NO_GAIN
        | memory.MEMORY_NO_SMOOTHING
        | memory.MEMORY_NO_STD_FORECAST
    )
    filtered = whole.filter(fitted.params).filter_results
    states = np.asarray(filtered.predicted_state)  # (states, differences + 1), each before its own
    design, transition = filtered.design[0, :, 0], filtered.transition[:, :, 0]

    def forecast(rows: np.ndarray, horizon: int) -> np.ndarray:
        reads = [design]  # of each step, (states,)
        while len(reads) < horizon:
            reads.append(reads[-1] @ transition)
        differences = (np.array(reads) @ states[:, rows - lost]).T
        past = values[rows[:, None] + np.arange(-lost, 0)]  # (rows, lost)
        whole = np.concatenate([past, differences], axis=1)
        for step in range(lost, lost + horizon):
            whole[:, step] += whole[:, step - 1] + whole[:, step - season] - whole[:, step - lost]
        return whole[:, lost:]

    return forecast


@dataclass(frozen=True)
class Kind:
    """A kind of classical model, and the data that it is fitted to."""

    title: str  # in sentences
    fit: Callable[[np.ndarray, int, int | None], _Forecast]
    """From the values of a series, the number of training rows (the first) and the season."""
    most_rows: int  # of training, the newest
    longest_season: int  # rows
    seconds: Callable[[int, int, int], float]
    """Time on an idle core, as measured: of training rows, rows to the end, rows in a season."""
    needs_season: bool = False


CLASSICAL = {
    "exponential_smoothing": Kind(
        "exponential smoothing", _smoothing, 4_000, 400, lambda rows, _, season: 5e-5 * rows
    ),
    "seasonal_arima": Kind(
        "seasonal ARIMA", _arima, 1_000, 60,
        lambda rows, every, season: (1e-6 * rows + 1e-7 * every) * (season + 2) ** 2,
        needs_season=True,
    ),
}  # fmt: skip
"""The kinds by their names in the results."""


@dataclass(frozen=True)
class Choices:
    """What the validation rows decide about baselines; none of it is fitted."""

    linear: WindowChoice | SequenceChoice | None  # None where there is no linear model
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Why a baseline is left out, by its name: of the validation and of the test set alike."""
    preparations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """How the data of a baseline is prepared, by its name, where not as the experiment's is."""


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


@one_thread
def choose(
    metric: str,
    ref: DataRef,
    season: int | None,
    others: Iterable[tuple[Mapping[str, str], DataRef]] = (),
) -> Choices:
    """Choose the linear model's window and penalty, the preparations, and what is left out.

    The validation rows decide between windows, penalties and preparations; the numbers of rows and
    series decide what is left out.

    Args:
        ref: of the search, which evaluates the validation part; with rolling origins the last
            fold's.
        season: of a forecast, rows in a season; None without one.
        others: the same data in other preparations than the experiment's.
    """
    every = [({}, ref), *others]
    left_out = kinds_left_out(ref, season) if of_values(ref) else {}
    why_not = [why_no_linear(prepared) for _, prepared in every]
    preparations: dict[str, Mapping[str, str]] = {}
    linear, least = None, math.inf
    for (preparation, prepared), reason in zip(every, why_not, strict=True):
        if reason:
            continue
        found, cost = choose_linear(metric, prepared), 0.0
        if len(every) > 1:
            samples = prepared.evaluate_samples()
            predicted = fit_linear(prepared, found).predict(samples, np.empty(0))
            cost = cost_of(metric, prepared, samples, predicted)
        if linear is None or cost < least:
            linear, least, preparations["linear"] = found, cost, preparation
    if linear is None and why_not[0]:
        left_out = {"linear": why_not[0]} | left_out
    levels = {  # the classical models read nothing else of a preparation
        prepared.transform.pointwise: (preparation, prepared)
        for preparation, prepared in reversed(every)
        if of_values(prepared)
    }
    for name in CLASSICAL if len(levels) > 1 else ():
        least = math.inf
        for preparation, prepared in () if name in left_out else reversed(levels.values()):
            samples, models = prepared.evaluate_samples(), fit_kind(name, prepared, season)
            last = _last_value(prepared, samples, season)
            cost = cost_of(metric, prepared, samples, models.predict(prepared, samples, last))
            if len(models) and cost < least:
                least, preparations[name] = cost, preparation
    return Choices(linear, left_out, {name: of for name, of in preparations.items() if of})


class Baselines:
    """The baselines of one split, fitted on the training rows of a reference.

    A forecast of row t follows from the training rows and from rows before t.
    """

    left_out: dict[str, str]
    """Why a baseline is left out, by its name."""

    @one_thread
    def __init__(
        self,
        ref: DataRef,
        season: int | None,
        choices: Choices | None = None,
        prepared: Callable[[Mapping[str, str]], DataRef] | None = None,
    ) -> None:
        """Fit them.

        Args:
            ref: the prepared data; its training rows may include the validation rows, which the
                choices were made with.
            season: of a forecast, rows in a season; None without one.
            choices: see `choose`; None for those that need no fitting alone.
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

    @one_thread
    def predict(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Predict samples, (n,), as `DataRef.evaluate_samples` has them.

        Returns:
            The predictions by name, in the data's units.
            Forecasts: `last_value`, `seasonal_naive` where there is a season (a window without a
            season before it gets the last value), `training_mean` of each series, `linear`,
            `exponential_smoothing` and `seasonal_arima` (a series without a model gets the last
            value). Values of sequences: `training_mean` and `linear`. Each is (n, horizon,
            targets), or (steps, 1, targets) where every step has its own value.
            Classes: `class_frequencies` of the training part, `linear`, and of a coming row
            `last_class`, that of the row before; (n, classes) or (steps, classes).
            Texts: the `most_frequent` one of the training part, and a `copy` of the input; (n,
            longest) tokens.
        """
        plain = {}
        for name, baseline in BASELINES.items():
            if _predicts(self._ref) in baseline.of:
                predicted = baseline.predict(self._ref, samples, self._season)
                if predicted is not None:
                    plain[name] = predicted
        if self._linear is not None:
            plain["linear"] = self._linear.predict(samples, next(iter(plain.values())))
        for name, (own, models) in self._classical.items():
            plain[name] = models.predict(own, samples, plain["last_value"])
        return plain

    def scores(self, metric: str, by: DataRef | None = None) -> dict[str, float]:
        """Score the predictions of the samples to evaluate, in the data's units.

        Args:
            by: the reference of the same rows whose units of error count, such as those of MASE;
                by default their own.
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
    """Return what a journal keeps of the baselines of the validation part.

    Args:
        season: of a forecast, rows in a season; None without one.
        others: the folds in other preparations; see `choose`.

    Returns:
        `baselines`, the mean score of each over the folds, where every fold has it; `left_out`,
        why others are left out, by name.
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


def baseline_name(name: str, metric: str) -> str:
    """Return the title of a baseline for a metric, without an article."""
    kind = METRICS.get(metric)
    if name == "linear":
        return "logistic regression" if kind and kind.of == "classes" else "linear regression"
    if name in CLASSICAL:
        return CLASSICAL[name].title
    best = BASELINES[name].best_class if name in BASELINES else None
    return best if best and kind and kind.best_class else name.replace("_", " ")
