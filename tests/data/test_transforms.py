"""Transforms of targets, and that undoing them gives the values again."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from tuner.data.preprocessing import Transform
from tuner.data.reference import to_units
from tuner.pipeline_steps import parse_transform

ONE = np.array([[0, 400]])


def values(n_rows, n_targets, seed):
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(3, 1, (n_rows, n_targets)))


steps = st.lists(
    st.one_of(st.just("difference"), st.integers(2, 9).map(lambda n: {"seasonal_difference": n})),
    max_size=3,
)
compositions = st.tuples(st.sampled_from([[], ["log"], ["box_cox"]]), steps).map(
    lambda parts: parse_transform([*parts[0], *parts[1]])
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    transform=compositions,
    lengths=st.lists(st.integers(40, 70), min_size=1, max_size=3),
    horizon=st.integers(1, 30),
    n_targets=st.integers(1, 3),
    n_quantiles=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_transformed_comes_back(transform, lengths, horizon, n_targets, n_quantiles, seed):
    truth = values(sum(lengths), n_targets, seed)
    ends = np.cumsum(lengths)
    bounds = np.column_stack([ends - lengths, ends])
    of = Transform.of(transform).fitted(truth)
    done = of.forward(truth, bounds)
    lost = of.lost_rows
    rows = np.concatenate([np.arange(a + lost, b) for a, b in bounds])
    assert np.isfinite(done[rows]).all()
    assert np.isnan(np.delete(done, rows, axis=0)).all()

    samples = np.concatenate([np.arange(a + lost, b - horizon + 1) for a, b in bounds])
    if not len(samples):
        return
    ahead = samples[:, None] + np.arange(horizon)
    outputs, expected = done[ahead], truth[ahead]
    if n_quantiles:
        outputs, expected = (
            np.repeat(array[..., None], n_quantiles, axis=-1) for array in (outputs, expected)
        )
    history = truth[samples[:, None] + np.arange(-lost, 0)]
    found = of.inverse(outputs, history)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    scaled = to_units((outputs - 2.0) / 3.0, (2.0,) * n_targets, (3.0,) * n_targets,
                      transform=of, history=history)  # fmt: skip
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    of_samples = np.full((len(samples), n_targets), 2.0), np.full((len(samples), n_targets), 3.0)
    own = to_units((outputs - 2.0) / 3.0, *of_samples, transform=of, history=history)
    np.testing.assert_array_equal(own, scaled)


@settings(max_examples=60, deadline=None)
@given(transform=compositions, at=st.integers(1, 79), seed=st.integers(0, 2**32 - 1))
def test_no_row_follows_from_later_ones_or_from_another_series(transform, at, seed):
    truth = values(80, 2, seed)
    other = truth.copy()
    other[at:] = values(80 - at, 2, seed + 1)
    bounds = np.array([[0, 33], [33, 80]])
    of = Transform.of(transform).fitted(truth[:5])
    before, after = of.forward(truth, bounds), of.forward(other, bounds)
    np.testing.assert_array_equal(before[:at], after[:at])
    alone = of.forward(truth[33:], np.array([[0, 47]]))
    np.testing.assert_array_equal(before[33:], alone)


@pytest.mark.parametrize("name", ["log", "box_cox"])
@given(
    pair=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    power=st.sampled_from([-1.0, -0.3, 0.0, 1e-9, 0.5, 2.0]),
)
@settings(deadline=None)
def test_a_level_and_its_inverse_rise(name, pair, power):
    of = Transform(name, lambdas=(power,) * (name == "box_cox"))
    low, high = sorted(pair)
    values = of.from_level(np.array([[[low]], [[high]]]))
    assert not np.isnan(values).any()
    assert (values >= 0).all()
    assert values[0] <= values[1]
    levels = of.to_level(np.exp([[low], [high]]))
    assert levels[0] <= levels[1]


def test_a_power_is_that_of_box_and_cox():
    truth = values(400, 2, 0)
    of = Transform.of("box_cox").fitted(truth)
    for column, power, of_column in zip(truth.T, of.lambdas, of.forward(truth, ONE).T, strict=True):
        expected, fitted = stats.boxcox(column)
        assert power == pytest.approx(fitted, abs=1e-5)
        np.testing.assert_allclose(of_column, expected, rtol=1e-3)
        np.testing.assert_allclose(of_column, ((column**power) - 1) / power, rtol=1e-6)


@pytest.mark.parametrize("column", [[5.0] * 9, [5.0, 5.0, 7.0], [3.0, 3.0 + 1e-15, 3.0]])
def test_too_few_values_leave_the_shape(column):
    assert Transform.of("box_cox").fitted(np.array(column)[:, None]).lambdas == (1.0,)


@pytest.mark.parametrize("column", [[1e-30, 1.0, 1e29], [1e9 + n for n in range(9)], [1, 2, 1e29]])
def test_a_power_is_within_bounds_and_undone_whatever_the_values(column):
    truth = np.array(column)[:, None]
    of = Transform.of("box_cox").fitted(truth)
    assert -1 <= of.lambdas[0] <= 2
    found = of.from_level(of.to_level(truth))
    np.testing.assert_allclose(found, truth, rtol=1e-6)


def test_a_difference_sums_from_the_last_value():
    rng = np.random.default_rng(0)
    outputs, last = rng.normal(size=(50, 7, 2)), rng.normal(size=(50, 1, 2))
    found = Transform.of("difference").inverse(outputs, last)
    np.testing.assert_array_equal(found, last + outputs.cumsum(axis=1))


def test_a_season_longer_than_the_horizon_reads_one_before():
    history = np.arange(24.0).reshape(1, 12, 2)
    found = Transform.of({"seasonal_difference": 12}).inverse(np.zeros((1, 5, 2)), history)
    np.testing.assert_array_equal(found, history[:, :5])
    longer = Transform.of({"seasonal_difference": 12}).inverse(np.ones((1, 14, 2)), history)
    np.testing.assert_array_equal(longer[:, 12:], history[:, :2] + 2)


@pytest.mark.parametrize(
    ("written", "shortest"),
    [
        ([], "none"), (["none"], "none"), (["log"], "log"), ("log", "log"),
        ([{"seasonal_difference": 7}], {"seasonal_difference": 7}),
        (["log", "none", "difference"], ["log", "difference"]),
        (["difference", "difference"], ["difference", "difference"]),
    ],
)  # fmt: skip
def test_a_transform_has_one_shortest_form(written, shortest):
    assert parse_transform(written) == shortest


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("sqrt", "got 'sqrt'; choose from: none, log, "),
        (["log", "box_cox"], "got log and box_cox; keep one"),
        (["log", "log"], "got log and log; keep one"),
        (["difference", "log"], "got it after difference; write it first"),
        ([{"seasonal_difference": 3}, "box_cox"], "got it after seasonal_difference; write it"),
        ("seasonal_difference", "got none; write {seasonal_difference: 12}"),
        (
            {"seasonal_difference": 1},
            "from 2 to 100000, got 1; write {seasonal_difference: 12}, or",
        ),
        ({"seasonal_difference": True}, "got True"),
        ({"seasonal_difference": "12"}, "got '12'"),
        ({"lag": 12}, "got lag; write {seasonal_difference: 12}"),
        ({}, "got nothing; write"),
        (None, "got None"),
        (["difference"] * 9, "at most 8 steps, got 9; leave some out"),
    ],
)
def test_what_is_no_transform_is_refused(written, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_transform(written)
