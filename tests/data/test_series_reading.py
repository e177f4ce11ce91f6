import numpy as np
import pandas as pd
import pytest
from helpers.series_files import assert_read_refuses as assert_refused
from helpers.series_files import dated, read, written

from tuner.errors import DataError

LONG = "t,shop,y\n" + "".join(
    f"2020-01-{day:02},{shop},{day}{shop}\n" for day in range(1, 8) for shop in (7, 3)
)


def test_series_in_long_form_are_told_apart_by_their_id(tmp_path):
    series = read(written(tmp_path, LONG), time="t", id="shop")
    assert series.names == ("7", "3")  # as they come
    assert series.bounds.tolist() == [[0, 7], [7, 14]]
    assert series.features == ["y"]  # the id is none
    assert series.frame["y"].tolist() == [d * 10 + s for s in (7, 3) for d in range(1, 8)]
    assert series.frequency == "D"
    assert series.lines.tolist() == [*range(0, 14, 2), *range(1, 14, 2)]
    assert series.place(8) == "line 5 (2020-01-02) of series '3'"
    assert_refused(tmp_path / "series.csv", "may appear twice", "data.id", time="t")


def test_ids_are_taken_as_they_are_written(tmp_path):
    path = written(tmp_path, "land,y\nNA,1\n01,2\n1,3\nNA,4\n")
    series = read(path, id="land")
    assert series.names == ("NA", "01", "1")
    assert series.frame["y"].tolist() == [1, 4, 2, 3]


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n  \n\n"])
def test_white_space_around_an_id_is_no_part_of_it(tmp_path, end):
    text = "y, shop\n1, Rome \n2,Paris  \n3,Rome\n4,Paris "
    series = read(written(tmp_path, text + end), id="shop")
    assert series.names == ("Rome", "Paris")
    assert series.frame["y"].tolist() == [1, 3, 2, 4]
    path = written(tmp_path, "shop,y\n  Rome,1\nRome\t,2\n")
    assert read(path, id="shop").names == ("Rome",)
    path = written(tmp_path, "y,shop\n1,Rome\n2,  \n3,Rome\n")
    assert_refused(path, "data.id", "got none in line 3", id="shop")
    parquet = tmp_path / "series.parquet"
    pd.DataFrame({"shop": ["Rome ", " Rome"], "y": [1, 2]}).to_parquet(parquet)
    assert read(parquet, id="shop").names == ("Rome",)


def test_blanks_alone_are_missing_and_around_numbers_ignored(tmp_path):
    path = written(tmp_path, "y,x, z\n 1, 2 , 5\n3,  , 6 \n ,4,7")
    series = read(path, missing="ffill")
    assert series.features == ["y", "x", "z"]
    np.testing.assert_array_equal(series.frame, [[1, 2, 5], [3, np.nan, 6], [np.nan, 4, 7]])


def test_series_in_long_form_are_checked_each_by_itself(tmp_path):
    def refused(old, new, *parts, **keys):
        assert old in LONG
        path = written(tmp_path, LONG.replace(old, new))
        assert_refused(path, *parts, **{"time": "t", "id": "shop", **keys})

    refused("2020-01-02,3", "2020-01-02,", "data.id", "'shop'", "got none in line 5", "fill it in")
    refused("2020-01-04,3", "2020-01-02,3", "must rise", "2020-01-02 in line 9 of series '3'")
    refused("2020-01-02,3", "2020-01-01,3", "twice", "line 3 and in line 5 of series '3'")
    refused("2020-01-04,3,43\n", "", "no gaps", "1 missing at frequency D", "before line 10 of")
    refused("2020-01-04,3,43", "2020-01-04,3,", "nan in line 9 (2020-01-04) of series '3'")
    refused("shop", "store", "no column 'shop'", "data.id", "choose from: t, store, y")
    hourly = "".join(f"2020-01-01 {hour:02}:30,5,1\n" for hour in range(4))
    refused("t,shop,y\n", "t,shop,y\n" + hourly, "one frequency", "h in '5' and D in '7'",
            "data.resample")  # fmt: skip
    odd = "2020-01-01 00:00,5,1\n2020-01-01 08:00,5,1\n"
    refused("t,shop,y\n", f"t,shop,y\n{odd}", "one frequency", "D in '7' and another in '5'")
    refused("2020-01-04,3", "2020-01-03 12:00,3", "evenly spaced", "line 9 (2020-01-03 12:00:00)")


def test_several_series_are_not_to_be_read_without_their_times(tmp_path):
    """Each would be cut by its own rows: one trained on what is later than another's test."""
    for broken in (
        LONG.replace("2020-01-04,3,43\n", ""),
        LONG.replace("2020-01-04,3", "2020-01-03 12:00,3"),
        LONG.replace("2020-01-04,3", "soon,3"),
        LONG + "".join(f"2020-01-01 {hour:02}:30,5,1\n" for hour in range(4)),
    ):
        path = written(tmp_path, broken)
        with pytest.raises(DataError, match=r"data\.time: .*; (write|add)") as caught:
            read(path, time="t", id="shop")
        assert "leave data.time out" not in str(caught.value)


def test_the_common_frequency_is_the_one_that_fits_every_series(tmp_path):
    days = pd.date_range("2020-01-01", periods=40, freq="D")
    rows = [f"{t},a,1\n" for t in days[::2]] + [f"{t},b,1\n" for t in days]
    path = written(tmp_path, "t,s,y\n" + "".join(rows))
    assert read(path, time="t", id="s", missing="ffill").frequency == "D"
    assert_refused(path, "19 missing at frequency D", "of series 'a'", time="t", id="s")


def test_lagged_columns_are_read_and_need_not_be_features(tmp_path):
    path = written(tmp_path, "t,a,y,s\n2020,1,2,a\n2021,3,4,a\n2022,5,6,a\n")
    series = read(path, features=["y"], lags={"a": [1]})
    assert (series.features, list(series.frame)) == (["y"], ["y", "a"])
    assert_refused(path, "data.lags", "no column 'aa'", "mean 'a'?", lags={"aa": [1]})
    assert_refused(path, "data.lags", "'t', which is the time", time="t", lags={"t": [1]})
    assert_refused(path, "data.lags", "'s' must hold numbers", "'a' in line 2", lags={"s": [1]})


def test_what_is_missing_stays_missing_where_that_is_allowed(tmp_path):
    path = written(tmp_path, "x,y\n1,2\n,3\n4,\n")
    assert read(path, missing="ffill").frame.isna().to_numpy().sum() == 2
    path = written(tmp_path, "x,y\n1,2\n,3\n-inf,1\n")
    assert_refused(path, "data.features", "-inf in line 4", "correct it", missing="ffill")


def test_resampled_times_may_repeat_but_not_fall(tmp_path):
    path = written(tmp_path, dated(["2020-01-01", "2020-01-01", "2020-01-02 07:00", "2020-03-01"]))
    assert read(path, time="t", resample="1D").frequency is None
    path = written(tmp_path, dated(["2020-01-02", "2020-01-01", "2020-01-03"]))
    assert_refused(path, "times must rise", time="t", resample="1D")


def test_only_the_first_rows_of_each_series_are_copied(tmp_path):
    series = read(written(tmp_path, LONG), time="t", id="shop").until(np.array([2, 3]))
    assert series.frame["y"].tolist() == [17, 27, 13, 23, 33]
    assert series.bounds.tolist() == [[0, 2], [2, 5]]
    assert series.times is not None
    assert series.times_of(1)[-1] == pd.Timestamp("2020-01-03")
    assert (series.lines.tolist(), len(series.inserted)) == ([0, 2, 1, 3, 5], 5)
    assert series.rows == 14  # of the file
