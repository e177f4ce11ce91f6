from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.baselines import last_value, season_of, seasonal_naive

ROWS = np.column_stack([np.arange(50.0), -np.arange(50.0)])  # every value tells its row


def test_the_last_value_stays() -> None:
    forecast = last_value(ROWS, np.array([5, 9]), 3)
    assert forecast.shape == (2, 3, 2)
    assert forecast[:, :, 0].tolist() == [[4.0] * 3, [8.0] * 3]


@given(season=st.integers(1, 12), horizon=st.integers(1, 30), start=st.integers(12, 50))
def test_the_seasonal_naive_forecast_is_the_last_known_value_of_the_same_step(
    season: int, horizon: int, start: int
) -> None:
    rows = seasonal_naive(ROWS, np.array([start]), horizon, season)[0, :, 0].astype(int)
    for step, row in enumerate(rows):
        assert start - season <= row < start  # the last season, and nothing that is not known
        assert (start + step - row) % season == 0


def test_a_season_longer_than_the_past_is_refused_rather_than_read_from_the_end() -> None:
    with pytest.raises(ValueError, match="season of 12"):
        seasonal_naive(ROWS, np.array([11, 12]), 1, 12)


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("MS", 12), ("ME", 12), ("BME", 12), ("h", 24), ("2h", 12), ("D", 7), ("B", 5),
        ("W-SUN", 52), ("QS-OCT", 4), ("QE-DEC", 4), ("15min", 96), ("30min", 48), ("min", 1440),
        ("2MS", 6), ("YS-JAN", None), ("YE-DEC", None), ("2D", None), ("12MS", None),
        ("ms", None), (None, None), ("", None),
    ],
)  # fmt: skip
def test_the_season_follows_from_the_frequency(frequency: str | None, season: int | None) -> None:
    assert season_of(frequency) == season


@pytest.mark.parametrize("alias", ["MS", "ME", "QS", "QE", "W", "D", "B", "h", "15min"])
def test_every_frequency_that_pandas_names_has_a_season(alias: str) -> None:
    assert season_of(pd.tseries.frequencies.to_offset(alias).freqstr) is not None
