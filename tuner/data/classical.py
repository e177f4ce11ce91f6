"""Exponential smoothing and a seasonal ARIMA, by statsmodels: a model for each series and target.

Parameters are fitted on training rows alone. The state is then brought forward row by row, so
that a forecast knows every row before it, as that of a model does, and none after.
"""

from __future__ import annotations

import importlib.util
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tuner.data.reference import SeriesRef

INSTALL = "statsmodels is not installed (pip install 'lstm-tuner[classical]')"
_MOST_MODELS = 30  # series times targets
_MOST_EXPECTED = 10.0  # seconds that all models of one kind are expected to take, see below
_MOST_STEPS = {"maxiter": 50, "maxfun": 250}  # of the search for a model's parameters


class Classical:
    """One kind of model, fitted to every series and target that has rows enough."""

    def __init__(self, horizon: int, n_targets: int) -> None:
        self._horizon, self._n_targets = horizon, n_targets
        self._models: dict[tuple[int, int], tuple[int, _Forecast]] = {}  # with the first row

    def __len__(self) -> int:
        return len(self._models)

    def add(self, series: int, target: int, first: int, forecast: _Forecast) -> None:
        """Take the model of a series, whose rows begin at `first`."""
        self._models[series, target] = first, forecast

    def predict(self, ref: SeriesRef, samples: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return the forecasts in the data's units, (samples, horizon, targets).

        Args:
            samples: (samples,).
        """
        with np.errstate(all="ignore"):
            forecasts = np.array(ref.transform.to_level(otherwise))
        of = ref.series_of(samples)
        for (series, target), (first, forecast) in self._models.items():
            at = np.flatnonzero(of == series)
            if len(at):
                forecasts[at, :, target] = forecast(samples[at] - first, self._horizon)
        return ref.transform.from_level(forecasts)


# From rows of the series, which are forecast first, and the horizon to (rows, horizon).
_Forecast = Callable[[np.ndarray, int], np.ndarray]


def kinds_left_out(ref: SeriesRef, season: int | None) -> dict[str, str]:
    """Say which kinds are left out, and why: by the season and by numbers of series and rows.

    No clock decides, so that it is the same on every machine, however busy. It is asked once,
    of the search's data, and holds for whatever the kinds are fitted on afterwards.

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
    season = _season_of(name, season)
    if (seconds := _expected_seconds(name, ref, season)) > _MOST_EXPECTED:
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


def _expected_seconds(name: str, ref: SeriesRef, season: int | None) -> float:
    """Return about how long it takes on an idle core, by what was measured; no clock decides."""
    found = 0.0
    for (begin, end), (_, last) in zip(ref.load("train"), ref.load("reach"), strict=True):
        rows = min(int(end - begin), CLASSICAL[name].most_rows)
        found += CLASSICAL[name].seconds(rows, int(last - begin), season or 1)
    return found * ref.shape.targets


def fit_kind(name: str, ref: SeriesRef, season: int | None) -> Classical:
    """Fit the models of a kind on the training rows of `ref`.

    On logarithms where its transform has log, on Box and Cox's power where it has that, else on
    the values themselves: differences are these models' own affair.

    Args:
        name: of `CLASSICAL`, not one that is left out.
        season: rows in a season; None without one.

    Returns:
        The models, of the series that they can be fitted to.
    """
    season = _season_of(name, season)
    truth = ref.transform.to_level(ref.load("truth"))
    models = Classical(ref.shape.horizon, ref.shape.targets)
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
            models.add(series, target, rows.start, forecast)
    return models


def _smoothing(values: np.ndarray, n_train: int, season: int | None) -> _Forecast:
    """Fit additive exponential smoothing: trend and season by the corrected Akaike criterion.

    ETS(A, N or A or Ad, N or A) of Hyndman et al., Forecasting with Exponential Smoothing, 2008.
    """
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    train = values[:n_train]
    seasons = [None] if season is None else [None, "add"]
    best, best_criterion = None, np.inf
    for kind, (trend, damped) in itertools.product(
        seasons, ((None, False), ("add", False), ("add", True))
    ):
        model = ETSModel(
            train, error="add", trend=trend, damped_trend=damped, seasonal=kind,
            seasonal_periods=season if kind else None, initialization_method="heuristic",
        )  # fmt: skip
        fitted = model.fit(disp=False, **_MOST_STEPS)
        criterion = float(fitted.aicc)
        if criterion < best_criterion:
            best, best_criterion = (kind, trend, damped, fitted), criterion
    if best is None:
        raise ValueError("no smoothing fits")
    kind, trend, damped, fitted = best
    known = {"initial_level": fitted.initial_level}
    if trend:
        known["initial_trend"] = fitted.initial_trend
    if kind:
        known["initial_seasonal"] = fitted.initial_seasonal
    states = ETSModel(
        values, error="add", trend=trend, damped_trend=damped, seasonal=kind,
        seasonal_periods=season if kind else None, initialization_method="known", **known,
    ).smooth(fitted.params)  # fmt: skip
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
    from statsmodels.tsa.statespace.kalman_filter import (
        MEMORY_NO_FORECAST_COV,
        MEMORY_NO_GAIN,
        MEMORY_NO_PREDICTED_COV,
        MEMORY_NO_SMOOTHING,
        MEMORY_NO_STD_FORECAST,
    )
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    assert season is not None
    lost = season + 1  # rows that both differences take together
    order = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1, season)}
    model = SARIMAX(values[:n_train], **order, simple_differencing=True)
    fitted = model.fit(disp=False, **_MOST_STEPS, cov_type="none")
    whole = SARIMAX(values, **order, simple_differencing=True)
    whole.ssm.set_conserve_memory(
        MEMORY_NO_FORECAST_COV | MEMORY_NO_PREDICTED_COV | MEMORY_NO_GAIN | MEMORY_NO_SMOOTHING
        | MEMORY_NO_STD_FORECAST
    )  # fmt: skip
    filtered = whole.filter(fitted.params).filter_results
    states = np.asarray(filtered.predicted_state)  # (states, differences + 1), each before its own
    design, transition = filtered.design[0, :, 0], filtered.transition[:, :, 0]

    def forecast(rows: np.ndarray, horizon: int) -> np.ndarray:
        reads = np.array(list(_powers(design, transition, horizon)))  # (horizon, states)
        differences = (reads @ states[:, rows - lost]).T
        past = values[rows[:, None] + np.arange(-lost, 0)]  # (rows, lost)
        whole = np.concatenate([past, differences], axis=1)
        for step in range(lost, lost + horizon):
            whole[:, step] += whole[:, step - 1] + whole[:, step - season] - whole[:, step - lost]
        return whole[:, lost:]

    return forecast


def _powers(row: np.ndarray, matrix: np.ndarray, n: int) -> Iterator[np.ndarray]:
    for _ in range(n):
        yield row
        row = row @ matrix


@dataclass(frozen=True)
class Kind:
    """A kind of classical model, and the data that it is fitted to."""

    title: str  # in sentences
    fit: Callable[[np.ndarray, int, int | None], _Forecast]
    """From the values of a series, the number of training rows (the first) and the season."""
    most_rows: int  # of training, the newest
    longest_season: int  # rows
    seconds: Callable[[int, int, int], float]
    """Measured time for a number of training rows, rows to the end, and rows in a season."""
    needs_season: bool = False


CLASSICAL = {
    "exponential_smoothing": Kind(
        "exponential smoothing", _smoothing, 4_000, 400, lambda rows, _, season: 5e-5 * rows
    ),
    "seasonal_arima": Kind(
        "seasonal ARIMA",
        _arima,
        1_000,
        60,
        lambda rows, all_rows, season: (
            1e-6 * rows * (season + 2) ** 2 + 1e-7 * all_rows * (season + 2) ** 2
        ),
        needs_season=True,
    ),
}
"""The kinds by their names in the results."""
