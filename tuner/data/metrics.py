"""The scores of a forecast, by scikit-learn."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["score"]


def score(metric: str, truth: np.ndarray, forecast: np.ndarray) -> float:
    """Score a forecast in the data's units; uniform mean over targets.

    Args:
        metric: rmse, mae, mape (a fraction: 0.05 is five percent) or r2.
        truth: (windows, horizon, targets).
        forecast: (windows, horizon, targets).

    Returns:
        The score; nan where a forecast is not finite, or there is no finite score of it.
    """
    if not np.isfinite(forecast).all():
        return math.nan
    from sklearn import metrics  # slow to import

    functions = {
        "rmse": metrics.root_mean_squared_error,
        "mae": metrics.mean_absolute_error,
        "mape": metrics.mean_absolute_percentage_error,
        "r2": metrics.r2_score,
    }
    n_targets = truth.shape[-1]
    flat_truth, flat_forecast = truth.reshape(-1, n_targets), forecast.reshape(-1, n_targets)
    if metric == "r2" and len(flat_truth) < 2:
        return math.nan
    with np.errstate(all="ignore"):
        value = float(functions[metric](flat_truth, flat_forecast))
    return value if math.isfinite(value) else math.nan
