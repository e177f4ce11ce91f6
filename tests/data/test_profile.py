"""What a series is like is read off its rows: season, wandering level, growth, steps like noise."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.data.profile import gain_of_columns, profile_of

DATA = Path(__file__).parents[2] / "experiments/data"
RNG = np.random.default_rng
PASSENGERS = pd.read_csv(DATA / "air_passengers.csv")["passengers"].to_numpy(float)
SUNSPOTS = pd.read_csv(DATA / "sunspots.csv")["sunspots"].to_numpy(float)


def wave(rows, season, noise=0.1, seed=0):
    return np.sin(2 * np.pi * np.arange(rows) / season) + RNG(seed).normal(0, noise, rows)


def test_the_passengers_have_a_season_a_trend_and_growth():
    for usual in (12, None):  # from the times, and from the rows alone
        profile = profile_of([PASSENGERS[:93]], usual, positive=True)
        assert (profile.season, profile.trending, profile.growing) == (12, True, True)
        assert not profile.walking


def test_the_sunspots_get_a_cycle_and_a_level():
    profile = profile_of([SUNSPOTS[:201]], None, positive=False)
    assert (profile.season, profile.trending, profile.growing) == (11, False, False)


@pytest.mark.parametrize("season", [7, 12, 24])
def test_a_season_of_the_frequency_is_one_only_where_it_shows(season):
    assert profile_of([wave(300, season)], season, positive=False).season == season
    noise = RNG(1).normal(size=300)
    assert profile_of([noise], season, positive=False).season is None
    assert profile_of([noise], None, positive=False).season is None


def test_a_random_walk_is_told_from_a_trend():
    walk = np.cumsum(RNG(3).normal(size=500)) + 100
    assert profile_of([walk], 5, positive=True).walking
    line = np.arange(500.0) + RNG(3).normal(size=500)
    profile = profile_of([line], 5, positive=True)
    assert profile.trending
    assert not profile.walking


def test_growth_needs_a_spread_that_grows_and_values_above_zero():
    growing = np.exp(np.arange(200) / 50) * (10 + wave(200, 12))
    assert profile_of([growing], 12, positive=True).growing
    assert not profile_of([growing], 12, positive=False).growing
    assert not profile_of([growing.max() + 10 + wave(200, 12)], 12, positive=True).growing


def test_most_of_several_series_decide():
    walks = [np.cumsum(RNG(i).normal(size=200)) for i in range(3)]
    assert profile_of([*walks, wave(200, 12)], None, positive=False).season is None
    assert profile_of(
        [walks[0], *[wave(200, 12, seed=i) for i in range(3)]], None, positive=False
    ).season


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("value", [0.0, 5.0, 1e20])
def test_short_and_constant_series_have_nothing(rows, value):
    for usual in (None, 12):
        profile = profile_of([np.full(rows, value)], usual, positive=value > 0)
        assert (profile.season, profile.growing, profile.walking) == (None, False, False)


def test_a_column_that_leads_the_target_helps_and_noise_does_not():
    leader = RNG(0).normal(size=400)
    target = np.r_[0.0, leader[:-1]] + RNG(1).normal(0, 0.1, 400)
    assert gain_of_columns(np.column_stack([target, leader]), [0], 4, 1) > 0.5
    noise = RNG(2).normal(size=400)
    assert gain_of_columns(np.column_stack([target, noise]), [0], 4, 1) < 0.02
    assert gain_of_columns(np.column_stack([target, noise])[:10], [0], 4, 1) < 0
