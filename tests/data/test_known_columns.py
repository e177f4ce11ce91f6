"""Columns that are known ahead: what is read of them, and what is refused or noted."""

import numpy as np
import pytest
from helpers.series_files import assert_check_refuses, days, text

from tuner.data.prepared import check_data
from tuner.data.reference import SeriesRef
from tuner.errors import ExperimentError
from tuner.experiment import Experiment, dump_yaml


def coming(n=6, n_rows=60, **columns):
    """Days of which the last ones have no target yet."""
    frame = days(n_rows, **columns)
    frame.loc[n_rows - n :, "y"] = np.nan
    return frame


def test_rows_behind_the_last_target_are_no_part_of_any_part(experiment_on):
    keys = {"time": "t", "known_future": ["x"], "features": ["y", "x"]}
    short = check_data(experiment_on(text(coming().iloc[:-6]), **keys))
    long = check_data(experiment_on(text(coming()), name="long.csv", **keys))
    assert long.facts.parts == short.facts.parts
    assert dict(long.facts.notes)["known ahead"] == "x; 6 rows without target, which predict reads"
    assert dict(short.facts.notes)["known ahead"] == "x"


def test_values_after_the_last_target_reach_no_array(experiment_on, tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i, frame in enumerate((coming(), coming())):
        frame.loc[54:, "x"] = rng.uniform(1, 1e9, 6) if i else np.nan
        keys = {"known_future": ["x"], "name": f"{i}.csv", "time": "t"}
        prepared = check_data(experiment_on(text(frame), horizon=3, **keys))
        made.append(prepared.write_test(tmp_path / str(i)).folds[0])
    for name in ("inputs", "targets", "truth", "known", "train", "evaluate", "reach"):
        np.testing.assert_array_equal(made[0].load(name), made[1].load(name))


def test_a_target_that_is_missing_within_is_refused_as_before(experiment_on):
    frame = coming()
    frame.loc[20, "y"] = np.nan
    experiment = experiment_on(text(frame), time="t", known_future=["x"])
    assert_check_refuses(experiment, "data.target: column 'y' must hold a finite number")


def test_calendar_and_lags_of_known_columns_are_known(experiment_on, tmp_path):
    experiment = experiment_on(
        text(days()), time="t", known_future=["x"], calendar=["weekday"],
        lags={"x": [1], "y": [7]},
    )  # fmt: skip
    prepared = check_data(experiment).write(tmp_path)
    (ref,) = prepared.folds
    assert isinstance(ref, SeriesRef)
    names = [prepared.facts.features[i] for i in ref.shape.known_columns]
    assert names == ["x", "weekday_sin", "weekday_cos", "x_lag_1"]


def test_the_calendar_is_not_known_ahead_unless_that_is_said(experiment_on, tmp_path):
    experiment = experiment_on(text(days()), time="t", calendar=["weekday"])
    (ref,) = check_data(experiment).write(tmp_path).folds
    assert ref.shape.known_columns == ()
    assert ref.shape.ahead == 0


def test_booleans_are_numbers_and_texts_are_refused(experiment_on):
    flags = days(60, open=[i % 3 > 0 for i in range(60)])
    check_data(experiment_on(text(flags), time="t", known_future=["open"]))
    words = days(60, day=["Easter" if i == 9 else "no" for i in range(60)])
    experiment = experiment_on(text(words), name="words.csv", time="t", known_future=["day"])
    assert_check_refuses(experiment, "data.known_future: column 'day' must hold numbers, got 'no'")
    experiment = experiment_on(text(words), name="words.csv", time="t", known_future=["dya"])
    assert_check_refuses(experiment, "data.known_future: no column 'dya' in the file; did you mean")


@pytest.mark.parametrize(("after", "words"), [(0, "of the same row"), (2, "of the row 2 before")])
def test_a_known_column_that_is_the_target_in_disguise_is_noted(after, words, experiment_on):
    frame = days()
    frame["x"] = 3 * frame["y"].shift(after).bfill() - 7
    keys = {"time": "t", "known_future": ["x"], "horizon": 3}
    notes = dict(check_data(experiment_on(text(frame), **keys)).facts.notes)
    assert f"'x' tells 'y' {words} exactly" in notes["suspect"]
    frame["x"] += np.random.default_rng(0).normal(size=60)
    assert "suspect" not in dict(check_data(experiment_on(text(frame), **keys)).facts.notes)


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ({"known_future": ["y"]}, "data.known_future: must not name what is forecast, got"),
        ({"known_future": ["t"]}, "data.known_future: must not name the time column, got 't'"),
        ({"known_future": ["x", "x"]}, "data.known_future: names must differ, got 'x' twice"),
        (
            {"known_future": ["price"], "features": ["y", "prise"]},
            "data.known_future: must be among data.features ('prise'?), got 'price'; add it there",
        ),
        ({"known_future": []}, "data.known_future: must name columns, or be [] beside"),
        (
            {"lags": {"x": [-1]}},
            "data.lags.x.0: a lag looks back, 1 or more rows, got -1; name a column whose coming "
            "values are known in data.known_future instead",
        ),
    ],
)
def test_what_cannot_be_known_ahead_is_refused(data, parts, tmp_path):
    path = tmp_path / "a.yaml"
    raw = {"name": "a", "data": {"path": "a.csv", "time": "t", "target": "y"} | data}
    path.write_text(dump_yaml(raw))
    with pytest.raises(ExperimentError) as caught:
        Experiment.load(path)
    assert parts in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
