"""The best score over the trials, drawn: what is drawn where."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.service.curves import HEIGHT, WIDTH, improvements, make_curve, spark_line

score = st.none() | st.floats(-1e12, 1e12) | st.just(math.nan) | st.just(math.inf)
scores = st.lists(score, max_size=60)
directions = st.sampled_from(["minimize", "maximize"])


@given(scores, directions)
def test_improvements_are_the_records_in_order(values, direction):
    sign = 1 if direction == "minimize" else -1
    best, expected = math.inf, []
    for number, value in enumerate(values):
        if value is not None and math.isfinite(value) and sign * value < best:
            best = sign * value
            expected.append((number, value))
    assert improvements(values, direction) == expected


@given(scores, directions, st.none() | st.integers(1, 500))
def test_a_curve_is_drawn_within_its_frame(values, direction, budget):
    curve = make_curve(values, direction, "rmse", budget)
    steps = improvements(values, direction)
    assert (curve is None) == (not steps)
    assert bool(spark_line(steps, len(values), budget)) == bool(steps)
    if curve is None:
        return
    for path in (curve.best, curve.dots, curve.grid):
        xs = [float(x) for x in re.findall(r"[MH](-?[\d.]+)", path)]
        ys = [float(y) for y in re.findall(r"(?:M-?[\d.]+ |V)(-?[\d.]+)", path)]
        assert all(0 <= x <= WIDTH for x in xs)
        assert all(0 <= y <= HEIGHT for y in ys)
    spark = spark_line(steps, len(values), budget)
    assert all(0 <= float(x) <= 100 for x in re.findall(r"[MH]([\d.]+)", spark))
    assert "nan" not in curve.best + curve.dots + spark


def ends(path):
    """Return the first and the last height of a path of steps."""
    first = re.match(r"M[\d.]+ ([\d.]+)", path)
    return float(first[1]), float((re.findall(r"V([\d.]+)", path) or [first[1]])[-1])


@pytest.mark.parametrize(("direction", "falls"), [("minimize", True), ("maximize", False)])
def test_a_curve_goes_down_where_less_is_better(direction, falls):
    values = [5.0, 3.0, 4.0, 1.0] if falls else [1.0, 3.0, 2.0, 5.0]
    for path in (
        make_curve(values, direction, "m", None).best,
        spark_line(improvements(values, direction), 4, None),
    ):
        first, last = ends(path)
        assert (last > first) == falls  # heights count from the top


def test_the_labels_of_a_curve_are_round_and_enclose_the_scores():
    curve = make_curve([42.6, 37.1, 30.2, 22.7, 19.5], "minimize", "rmse", 60)
    labels = [float(label) for label in curve.scores]
    assert labels == sorted(labels, reverse=True)
    assert labels[0] >= 42.6
    assert labels[-1] <= 19.5
    assert len({round(a - b, 9) for a, b in itertools.pairwise(labels)}) == 1
    assert curve.trials == ["0", "29", "59"]
    assert curve.words == "rmse from 42.6 in trial 0 to 19.5 in trial 4, after 5 trials."


def test_a_far_worse_score_does_not_flatten_the_curve():
    values = [10.0, 9.5, 9.0, 8.5, 1e9, 8.0, 8.2, 8.1, 8.05, 7.9]
    curve = make_curve(values, "minimize", "rmse", None)
    assert float(curve.scores[0].replace(",", "")) < 20


def test_a_curve_of_many_trials_is_small():
    values = [1000 - i / 100 if i % 3 else None for i in range(100_000)]
    curve = make_curve(values, "minimize", "rmse", None)
    assert len(curve.best) + len(curve.dots) < 50_000
