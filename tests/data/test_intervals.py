"""Conformal intervals: their radii, what they cover, and when there are none."""

import math

import numpy as np
import pytest
from helpers.series_files import days, text
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.metrics import Intervals, calibrated, fewest_residuals, radii_of
from tuner.data.prepared import check_data, prepare
from tuner.data.preprocessing import Transform
from tuner.errors import DataError

LEVELS = st.integers(1, 99).map(lambda percent: percent / 100)


@given(level=LEVELS, more=st.integers(0, 30))
def test_a_radius_is_the_smallest_that_covers_enough(level, more):
    n = fewest_residuals(level) + more
    residuals = np.random.default_rng(n).permutation(n) + 1.0  # 1 to n
    (radius,) = radii_of(residuals, [level])
    percent = round(100 * level)
    assert 100 * radius >= percent * (n + 1) > 100 * (radius - 1)


@given(level=LEVELS)
def test_fewer_residuals_than_needed_have_no_radius(level):
    fewest = fewest_residuals(level)
    percent = round(100 * level)
    assert fewest * (100 - percent) >= percent > (fewest - 1) * (100 - percent)
    radii_of(np.ones(fewest), [level])
    if fewest > 1:
        with pytest.raises(ValueError, match="too few"):
            radii_of(np.ones(fewest - 1), [level])


@pytest.mark.parametrize(("level", "n", "rank"), [(0.55, 19, 11), (0.95, 19, 19), (0.8, 9, 8)])
def test_a_level_is_taken_as_it_is_written(level, n, rank):
    assert radii_of(np.arange(1.0, n + 1), [level]) == [rank]  # 0.55 * 20 is above 11 in floats


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("n", [19, 60])
def test_intervals_cover_exchangeable_residuals_as_promised(level, n):
    rng = np.random.default_rng(n)
    residuals = np.abs(rng.standard_cauchy((n + 1, 20_000)))  # of no moment at all
    radii = radii_of(residuals[:-1], [level])[0]
    covered = float((residuals[-1] <= radii).mean())
    error = 3 * math.sqrt(level * (1 - level) / 20_000)
    assert level - error <= covered <= level + 1 / (n + 1) + error


@pytest.fixture
def series(tmp_path, experiment_on):
    def make(**data):
        split = {"validation": 20, "test": 10}
        task = {"intervals": [0.5, 0.8]}
        rows = text(days(80))
        return experiment_on(rows, horizon=2, task=task, split=split, time="t", **data)

    return make


def test_every_step_and_target_has_a_radius_of_its_own(series, tmp_path):
    (ref,) = prepare(series(), tmp_path / "arrays").folds
    truth = ref.truth_of(ref.evaluate_samples())
    n = len(truth)
    off = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, n + 1), (2, 1)), axis=1).T
    points = truth + np.stack([off[:, 0], -10 * off[:, 1]], axis=1)[:, :, None]
    found = calibrated([0.5, 0.8], ref, points)
    ranks = [math.ceil(level * (n + 1)) for level in (0.5, 0.8)]
    np.testing.assert_allclose(found.radii[:, :, 0], [[r, 10 * r] for r in ranks])
    almost = truth + 0.9999 * (points - truth)  # none lies on an end, where rounding decides
    shares = found.coverage(almost, truth, Transform())
    assert [s["coverage"] for s in shares] == pytest.approx([r / n for r in ranks])
    assert [s["width"] for s in shares] == pytest.approx([11 * r for r in ranks])


@given(level=st.floats(1, 1e6), radius=st.floats(0, 3))
def test_of_logarithms_a_radius_is_a_factor(level, radius):
    intervals = Intervals((0.8,), np.full((1, 1, 1), radius))
    (lower,), (upper,) = (
        end.reshape(-1) for end in intervals.around(np.full((1, 1, 1), level), Transform("log"))
    )
    assert lower == pytest.approx(level / math.exp(radius))
    assert upper == pytest.approx(level * math.exp(radius))
    assert lower > 0


def test_residuals_of_logarithms_are_those_of_the_factors(series, tmp_path):
    (ref,) = prepare(series(transform="log"), tmp_path / "arrays").folds
    truth = ref.truth_of(ref.evaluate_samples())
    found = calibrated([0.5, 0.8], ref, truth * 1.25)
    np.testing.assert_allclose(found.radii, math.log(1.25))
    for share in found.coverage(truth * 1.25, truth * 1.0000001, Transform("log")):
        assert share["coverage"] == 1


def test_a_series_scale_stretches_its_radius():
    intervals = Intervals((0.5, 0.9), np.array([1.0, 2.0]).reshape(2, 1, 1))
    scale = np.array([[1.0], [10.0]])
    lower, upper = intervals.around(np.zeros((2, 1, 1)), Transform(), scale)
    np.testing.assert_allclose(upper[:, 0, 0], [[1, 2], [10, 20]])
    np.testing.assert_allclose(lower, -upper)


@pytest.mark.parametrize(
    ("size", "level", "fewest"), [(4, 0.8, 4), (20, 0.95, 19), (10, 0.9, 9), (3, 0.5, 1)]
)
def test_too_few_validation_windows_for_a_level_are_refused(size, level, fewest, experiment_on):
    def check(n):
        split = {"validation": n, "test": 10}
        task = {"intervals": [level]}
        check_data(experiment_on(text(days(90)), task=task, split=split, time="t"))

    check(max(size, fewest))
    if fewest > 1:
        with pytest.raises(DataError) as error:
            check(fewest - 1)
        assert (
            f": task.intervals: {level:g} needs the residuals of {fewest} validation windows, got "
            f"{fewest - 1}; make data.split.validation larger, or the share smaller"
        ) in str(error.value)
