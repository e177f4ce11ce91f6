from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.metrics import score

TRUTH = np.array([[[1.0, 10.0], [2.0, 20.0]], [[4.0, 40.0], [8.0, 80.0]]])  # 2 windows, 2 steps
FORECAST = TRUTH + np.array([1.0, 2.0])


def test_scores_are_means_over_targets_in_their_own_units() -> None:
    assert score("rmse", TRUTH, FORECAST) == pytest.approx(1.5)
    assert score("mae", TRUTH, FORECAST) == pytest.approx(1.5)
    mape = np.mean([1 / np.array([1, 2, 4, 8]), 2 / np.array([10, 20, 40, 80])])
    assert score("mape", TRUTH, FORECAST) == pytest.approx(mape)
    flat = TRUTH.reshape(-1, 2)
    rest = 1 - 4 * np.array([1.0, 4.0]) / ((flat - flat.mean(axis=0)) ** 2).sum(axis=0)
    assert score("r2", TRUTH, FORECAST) == pytest.approx(rest.mean())


def test_a_perfect_forecast_has_the_best_score() -> None:
    assert [score(m, TRUTH, TRUTH) for m in ("rmse", "mae", "mape", "r2")] == [0, 0, 0, 1]


@given(
    metric=st.sampled_from(["rmse", "mae", "mape", "r2"]),
    bad=st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e308]),
    at=st.integers(0, 7),
)
def test_a_forecast_beyond_all_bounds_scores_nan_or_a_number_and_never_raises(
    metric: str, bad: float, at: int
) -> None:
    forecast = TRUTH.copy()
    forecast.flat[at] = bad
    value = score(metric, TRUTH, forecast)
    assert not math.isinf(value)
    if not math.isfinite(bad):
        assert math.isnan(value)


def test_r2_of_a_single_value_is_nan() -> None:
    assert math.isnan(score("r2", TRUTH[:1, :1], TRUTH[:1, :1]))
