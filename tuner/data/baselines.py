"""Plain forecasts that a tuned model has to beat."""

from __future__ import annotations

import re

import numpy as np

from tuner.data.metrics import score
from tuner.data.reference import DataRef

__all__ = ["baseline_scores", "last_value", "season_of", "seasonal_naive"]

_STEPS_PER_CYCLE = {
    "s": 86_400, "min": 1_440, "h": 24,  # a day
    "D": 7, "B": 5,  # a week
    "W": 52, "MS": 12, "ME": 12, "BMS": 12, "BME": 12, "WOM": 12,  # a year
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


def baseline_scores(metric: str, ref: DataRef, season: int | None) -> dict[str, float]:
    """Score the plain forecasts on the rows that `ref` evaluates, in the data's units.

    Args:
        metric: the experiment's.
        ref: the prepared data.
        season: rows in a season; without one, or where the data does not reach back so far,
            there is no seasonal forecast.

    Returns:
        The scores by name: `last_value`, and `seasonal_naive` where there is a season.
    """
    values, starts = ref.truth(), ref.starts(ref.evaluate)
    truth = values[starts[:, None] + np.arange(ref.horizon)]  # (windows, horizon, targets)
    scores = {"last_value": score(metric, truth, last_value(values, starts, ref.horizon))}
    if season is not None and season <= starts[0]:
        forecast = seasonal_naive(values, starts, ref.horizon, season)
        scores["seasonal_naive"] = score(metric, truth, forecast)
    return scores


def season_of(frequency: str | None) -> int | None:
    """Return the rows in a season at a pandas frequency; None where there is no usual one.

    Hours and less repeat daily, days weekly, weeks, months and quarters yearly.
    """
    match = re.fullmatch(r"(\d*)([A-Za-z]+)(-.+)?", frequency or "")
    if match is None:
        return None
    steps, multiple = _STEPS_PER_CYCLE.get(match[2], 0), int(match[1] or 1)
    return steps // multiple if steps > multiple and steps % multiple == 0 else None
