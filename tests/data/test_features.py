import numpy as np
import pandas as pd
import pytest
from helpers.refusals import assert_refused

from tuner.data.features import check_features, make_table
from tuner.data.resampling import even_rows
from tuner.data.series_table import read_series
from tuner.experiment.data import Data


def make(tmp_path, frame, **keys):
    path = tmp_path / "series.csv"
    frame.to_csv(path, index=False)
    data = Data(**{"path": str(path), "target": "y", **keys})
    series = even_rows(read_series(data), data)
    check_features(series, data)
    return make_table(series, data)


def hours(n_rows=48, frequency="h"):
    times = pd.date_range("2020-01-01", periods=n_rows, freq=frequency)
    return pd.DataFrame(
        {"t": times, "y": np.arange(1.0, n_rows + 1), "x": np.arange(n_rows) ** 2.0}
    )


def test_the_columns_stand_in_order_features_calendar_lags(tmp_path):
    table = make(tmp_path, hours(), time="t", calendar=["hour", "weekday"], lags={"x": [1, 24]})
    assert table.names == (
        "y", "x", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "x_lag_1", "x_lag_24",
    )  # fmt: skip
    assert table.inputs.shape == (48, 8)
    assert table.first.tolist() == [24]


def test_the_calendar_goes_round(tmp_path):
    table = make(tmp_path, hours(60 * 24), time="t", calendar=["hour", "weekday", "month"])
    named = dict(zip(table.names, table.inputs.T, strict=True))
    assert named["hour_sin"][[0, 6, 12, 18]] == pytest.approx([0, 1, 0, -1], abs=1e-12)
    assert named["hour_cos"][[0, 6, 12, 18]] == pytest.approx([1, 0, -1, 0], abs=1e-12)
    np.testing.assert_array_equal(named["hour_sin"][:24], named["hour_sin"][24:48])
    wednesday = 2 * np.pi * 2 / 7  # the first of January 2020
    assert named["weekday_sin"][[0, 23]] == pytest.approx([np.sin(wednesday)] * 2)
    february = 2 * np.pi / 12
    assert named["month_cos"][[0, 31 * 24]] == pytest.approx([1, np.cos(february)])


def test_minutes_count_in_the_hour(tmp_path):
    table = make(tmp_path, hours(96, "15min"), time="t", calendar=["hour"])
    assert len(np.unique(table.inputs[:, 2:].round(9), axis=0)) == 96


def test_a_lag_is_an_earlier_value_of_the_same_series(tmp_path):
    frame = pd.DataFrame({"s": list("aaabb"), "y": [1.0, 2, 3, 4, 5], "x": [10.0, 20, 30, 40, 50]})
    table = make(tmp_path, frame, id="s", features=["y"], lags={"x": [1, 2]})
    assert table.names == ("y", "x_lag_1", "x_lag_2")  # x itself is none
    nan = np.nan
    np.testing.assert_array_equal(table.inputs[:, 1], [nan, 10, 20, nan, 40])
    np.testing.assert_array_equal(table.inputs[:, 2], [nan, nan, 10, nan, nan])
    assert table.first.tolist() == [2, 2]  # of the second series, nothing can be read


def test_lags_of_a_target_are_transformed_as_it_is(tmp_path):
    table = make(tmp_path, hours(), transform="log", features=["y"], lags={"y": [3]})
    np.testing.assert_array_equal(table.inputs[3:, 1], table.inputs[:-3, 0])
    table = make(tmp_path, hours(), transform="difference", features=["y"], lags={"y": [3]})
    assert table.first.tolist() == [4]
    np.testing.assert_array_equal(table.inputs[4:, 1], 1.0)


def test_rows_before_every_column_is_known_are_not_read(tmp_path):
    frame = hours(12)
    frame.loc[:2, "x"] = np.nan
    frame.loc[6, "y"] = np.nan
    table = make(tmp_path, frame, missing="ffill")
    assert table.first.tolist() == [3]
    assert table.known[:, 0].tolist() == [i != 6 for i in range(12)]
    assert table.truth[6, 0] == 6.0  # the value of the row before


def test_differences_do_not_cross_series(tmp_path):
    frame = pd.DataFrame({"s": list("aabb"), "y": [1.0, 4, 100, 101]})
    table = make(tmp_path, frame, id="s", transform="difference")
    np.testing.assert_array_equal(table.targets[:, 0], [np.nan, 3, np.nan, 1])
    assert table.first.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("frame", "keys", "parts"),
    [
        (hours(40, "D"), {"calendar": ["hour"]},
         ["data.calendar", "the hour is the same in every row at frequency D", "got 'hour'"]),
        (hours(24), {"calendar": ["weekday"]}, ["the weekday is the same in every row"]),
        (hours(48), {"calendar": ["hour", "month"]}, ["the month is the same", "remove it"]),
        (hours(40, "W"), {"calendar": ["weekday"]}, ["at frequency W-SUN"]),
        (hours().rename(columns={"x": "hour_sin"}), {"calendar": ["hour"]},
         ["data.calendar", "makes a column 'hour_sin'", "rename that one or remove it here"]),
        (hours().assign(x_lag_2=1), {"lags": {"x": [2]}}, ["data.lags", "'x_lag_2'", "already"]),
        (hours(), {"lags": {"x": [2, 2]}}, ["data.lags", "'x_lag_2'", "already"]),
        (hours(), {"lags": {"x": [1, 48]}},
         ["data.lags", "no series reaches back so far, got 48 for 'x' and at most 48 rows",
          "a shorter lag"]),
        (hours().assign(x=np.nan), {"missing": "ffill"},
         ["data.features", "'x' holds no value", "leave it out"]),
    ],
)  # fmt: skip
def test_useless_and_duplicate_features_are_refused(tmp_path, frame, keys, parts):
    assert_refused(lambda: make(tmp_path, frame, time="t", **keys), *parts)


def test_log_locates_a_filled_value_without_a_logarithm(tmp_path):
    frame = hours(6).assign(y=[9.0, 5, np.nan, np.nan, 4, 4])
    keys = {"time": "t", "transform": "log", "missing": "interpolate"}
    assert_refused(
        lambda: make(tmp_path, frame.assign(y=[9.0, 4, np.nan, 4, 4, 4]), **keys),
        "log needs values above 0, got -1.0 filled into column 'y', line 4",
        "write data.missing: ffill, or transform: none",
    )
    make(tmp_path, frame, **keys)
