import numpy as np
import pandas as pd
import pytest
from helpers.refusals import assert_refused
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tuner.data.prepared import check_data
from tuner.data.resampling import even_rows, fill
from tuner.data.series_table import read_series
from tuner.experiment.data import Data

NAN = np.nan
ONE = np.array([[0, 9]])


def column(*values, policy, bounds=None):
    rows = np.array(values, float)[:, None]
    return fill(rows, np.array(bounds or [[0, len(rows)]]), policy)[:, 0].tolist()


def even(tmp_path, text, **keys):
    path = tmp_path / "series.csv"
    path.write_text(text)
    data = Data(**{"path": str(path), "time": "t", "target": "y", **keys})
    return even_rows(read_series(data), data)


def dated(*rows):
    return "t,y\n" + "".join(f"{t},{y}\n" for t, y in rows)


def refused(tmp_path, text, *parts, **keys):
    assert_refused(lambda: even(tmp_path, text, **keys), *parts)


def test_the_last_known_value_stays():
    assert column(1, NAN, NAN, 4, NAN, policy="ffill") == [1, 1, 1, 4, 4]


def test_the_line_of_two_values_extends_by_their_distance():
    assert column(1, 2, NAN, NAN, NAN, 9, policy="interpolate") == [1, 2, 3, 3, 3, 9]
    got = column(0, NAN, NAN, 6, NAN, NAN, NAN, NAN, 5, policy="interpolate")
    assert got == [0, 0, 0, 6, 8, 10, 12, 12, 5]  # one known value stays level
    assert column(4, 2, NAN, NAN, 8, NAN, policy="interpolate") == [4, 2, 0, 0, 8, 10]


@pytest.mark.parametrize("policy", ["ffill", "interpolate"])
def test_values_are_unknown_before_the_first_and_across_series(policy):
    got = column(NAN, 1, 2, NAN, NAN, 7, NAN, policy=policy, bounds=[[0, 3], [3, 7]])
    np.testing.assert_array_equal(got, [NAN, 1, 2, NAN, NAN, 7, 7])


def test_nothing_is_filled_where_that_is_not_asked_for():
    np.testing.assert_array_equal(column(1, NAN, policy="refuse"), [1, NAN])


@given(
    values=arrays(
        float, st.tuples(st.integers(2, 30), st.integers(1, 3)),
        elements=st.one_of(st.floats(-1e6, 1e6), st.just(NAN)),
    ),
    policy=st.sampled_from(["ffill", "interpolate"]),
    at=st.integers(1, 29),
)  # fmt: skip
def test_a_filled_value_follows_from_earlier_rows_alone(values, policy, at):
    bounds = np.array([[0, len(values)]])
    filled = fill(values, bounds, policy)
    later = values.copy()
    later[at:] = 12345.0
    np.testing.assert_array_equal(fill(later, bounds, policy)[:at], filled[:at])
    later[at:] = NAN
    np.testing.assert_array_equal(fill(later, bounds, policy)[:at], filled[:at])
    np.testing.assert_array_equal(filled[~np.isnan(values)], values[~np.isnan(values)])
    first = [np.flatnonzero(~np.isnan(c))[:1] for c in values.T]
    for i, known in enumerate(first):
        expected = len(values) - known[0] if len(known) else 0
        assert (~np.isnan(filled[:, i])).sum() == expected


def test_missing_rows_are_put_in_at_the_frequency(tmp_path):
    rows = [(f"2020-02-{d:02}", d) for d in (1, 2, 3, 6, 7, 8, 9)]
    series = even(tmp_path, dated(*rows), missing="ffill")
    np.testing.assert_array_equal(series.frame["y"], [1, 2, 3, NAN, NAN, 6, 7, 8, 9])
    assert series.lines.tolist() == [0, 1, 2, -1, -1, 3, 4, 5, 6]
    assert series.times.tolist() == pd.date_range("2020-02-01", periods=9).tolist()
    assert series.place(3) == "a row that is in no line (2020-02-04)"
    assert series.rows == 7


def test_missing_rows_are_put_in_in_each_series(tmp_path):
    rows = [(d, s) for s, days in (("a", (1, 2, 3, 5)), ("b", (3, 5, 6))) for d in days]
    text = "t,s,y\n" + "".join(f"2020-01-{d:02},{s},{d}\n" for d, s in rows)
    series = even(tmp_path, text, id="s", missing="interpolate")
    assert series.bounds.tolist() == [[0, 5], [5, 9]]
    np.testing.assert_array_equal(series.frame["y"], [1, 2, 3, NAN, 5, 3, NAN, 5, 6])


MINUTES = dated(
    ("2020-01-01 00:10", 1), ("2020-01-01 00:59:59", 4), ("2020-01-01 01:00", 2),
    ("2020-01-01 01:00", 8), ("2020-01-01 03:30", 7),
)  # fmt: skip


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [("mean", [2.5, 5, NAN, 7]), ("sum", [5, 10, NAN, 7]), ("last", [4, 8, NAN, 7]),
     ("min", [1, 2, NAN, 7]), ("max", [4, 8, NAN, 7])],
)  # fmt: skip
def test_the_rows_of_a_step_become_one_that_bears_its_beginning(tmp_path, aggregate, expected):
    series = even(tmp_path, MINUTES, resample="1h", aggregate=aggregate, missing="ffill")
    np.testing.assert_array_equal(series.frame["y"], expected)
    assert series.frequency == "h"
    assert series.times.tolist() == pd.date_range("2020-01-01", periods=4, freq="h").tolist()
    assert series.rows == 5


def test_a_value_that_is_missing_has_no_part_in_its_step(tmp_path):
    text = MINUTES.replace("00:10,1", "00:10,").replace("03:30,7", "03:30,")
    for aggregate in ("mean", "sum", "last", "min", "max"):
        series = even(tmp_path, text, resample="1h", aggregate=aggregate, missing="ffill")
        assert series.frame["y"].isna().tolist() == [False, False, True, True]
        assert series.frame["y"][0] == 4


def test_a_step_without_rows_is_refused_by_default(tmp_path):
    refused(
        tmp_path, MINUTES, "data.resample", "got 1 such steps of 1h", "first 2020-01-01 02:00:00",
        "a longer step, or data.missing: ffill (or interpolate)", resample="1h",
    )  # fmt: skip
    assert len(even(tmp_path, MINUTES, resample="2h").frame) == 2


def test_a_finer_frequency_makes_rows_that_are_missing(tmp_path):
    text = dated(("2020-01-01", 1), ("2020-01-02", 2))
    series = even(tmp_path, text, resample="12h", missing="ffill")
    np.testing.assert_array_equal(series.frame["y"], [1, NAN, 2])
    refused(tmp_path, text, "data.resample", "first 2020-01-01 12:00:00", resample="12h")


def hourly(n_rows, *without, start="2020-01-01", name=""):
    times = pd.date_range(start, periods=n_rows, freq="h").delete(list(without))
    return "".join(f"{t},{name},1\n" for t in times)


def daily(tmp_path, *rows, **keys):
    return even(tmp_path, "t,s,y\n" + "".join(rows), id="s", resample="1D", **keys)


def test_a_step_that_lacks_some_of_its_rows_is_missing(tmp_path):
    rows = hourly(6 * 24, 30, *range(70, 80), name="a")
    for aggregate in ("mean", "sum", "last", "min", "max"):
        series = daily(tmp_path, rows, missing="ffill", aggregate=aggregate)
        whole = 24 if aggregate == "sum" else 1
        np.testing.assert_array_equal(series.frame["y"], [whole, *[NAN] * 3, whole, whole])
    refused(
        tmp_path, "t,s,y\n" + rows, "data.resample: no step may lack rows, got 3 such steps of 1D",
        "first 2020-01-02;", "data.missing: ffill (or interpolate)", resample="1D",
    )  # fmt: skip
    two = "t,s,y\n" + hourly(24, name="b") + rows
    refused(tmp_path, two, "the first 2020-01-02 of series 'a'", id="s", resample="1D")


def test_incomplete_steps_at_the_ends_of_a_series_are_left_out(tmp_path):
    rows = hourly(60, name="a"), hourly(80, 25, start="2020-01-01 07:00", name="b")
    series = daily(tmp_path, *rows, aggregate="sum")
    assert series.bounds.tolist() == [[0, 2], [2, 3]]
    assert series.times.day.tolist() == [1, 2, 3]  # of the second series, a day and 10 hours lack
    assert series.frame["y"].tolist() == [24, 24, 24]
    assert (series.rows, series.lines.tolist()) == (139, [-1] * 3)
    short = "t,s,y\n" + rows[0] + hourly(30, start="2020-01-01 12:00", name="c")
    refused(tmp_path, short, "no step of 1D has all its rows at frequency h of series 'c'",
                   "or write a shorter step", id="s", resample="1D")  # fmt: skip


def test_a_partly_empty_column_is_missing_in_that_step(tmp_path):
    rows = [f"{t},{'' if t.hour == 5 and t.day == 2 else 1},2" for t in
            pd.date_range("2020-01-01", periods=72, freq="h")]  # fmt: skip
    text = "t,y,x\n" + "\n".join(rows)
    series = even(tmp_path, text, resample="1D", aggregate="sum", missing="ffill")
    np.testing.assert_array_equal(series.frame, [[24, 48], [NAN, 48], [24, 48]])


def test_rows_are_counted_by_the_frequency_that_they_keep(tmp_path):
    months = pd.date_range("2019-02-01", periods=24, freq="MS").delete(7)
    text = dated(*[(str(t.date()), t.month) for t in months])
    series = even(tmp_path, text, resample="QS", missing="ffill", aggregate="sum")
    np.testing.assert_array_equal(series.frame["y"], [15, NAN, 33, 6, 15, 24, 33])
    twice = hourly(48, name="a").replace(
        "2020-01-01 05:00:00,a,1\n", "2020-01-01 05:00:00,a,1\n" * 2
    )
    assert daily(tmp_path, twice, aggregate="sum").frame["y"].tolist() == [25, 24]
    twice = twice.replace("2020-01-01 06:00:00,a,1\n", "")  # 24 rows, and not all of the day's
    assert daily(tmp_path, twice, aggregate="sum").frame["y"].tolist() == [24]


def test_rows_without_a_frequency_are_taken_as_they_are(tmp_path):
    series = even(tmp_path, MINUTES.replace("03:30", "02:30"), resample="1h", aggregate="sum")
    assert series.frame["y"].tolist() == [5, 10, 7]


@pytest.mark.parametrize(
    ("step", "labels"),
    [
        ("1D", ["2020-02-27", "2020-03-03"]), ("W", ["2020-02-23", "2020-03-01"]),
        ("MS", ["2020-02-01", "2020-03-01"]), ("2MS", ["2020-01-01", "2020-03-01"]),
        ("7h", ["2020-02-27 14:00", "2020-03-03 06:00"]), ("YS", ["2020-01-01"]),
    ],
)  # fmt: skip
def test_steps_begin_at_the_same_times_in_every_file(tmp_path, step, labels):
    text = dated(("2020-02-27 18:00", 1), ("2020-03-03 10:00", 2))
    series = even(tmp_path, text, resample=step, missing="ffill")
    assert [series.times[0], series.times[-1]] == [
        pd.Timestamp(labels[0]),
        pd.Timestamp(labels[-1]),
    ]
    later = dated(("2020-03-03 10:00", 2), ("2020-03-12", 3))
    other = even(tmp_path, later, resample=step, missing="ffill")
    assert other.times[0] == series.times[-1]


def test_times_before_1970_and_with_a_zone_are_resampled(tmp_path):
    text = dated(("1901-05-03T00:00+02:00", 1), ("1901-05-04T03:00+02:00", 2))
    series = even(tmp_path, text, resample="1D", missing="ffill")
    assert series.times[0].isoformat() == "1901-05-03T00:00:00+02:00"
    assert series.frame["y"].tolist() == [1, 2]


def test_each_series_is_resampled_by_itself_on_common_steps(tmp_path):
    text = "t,s,y\n2020-01-01 00:20,a,1\n2020-01-01 01:10,b,5\n2020-01-01 01:40,a,3\n"
    series = even(tmp_path, text + "2020-01-01 01:50,b,6\n", id="s", resample="1h")
    assert series.bounds.tolist() == [[0, 2], [2, 3]]
    assert series.frame["y"].tolist() == [1, 3, 5.5]


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        ("xyz", ["pandas knows, got 'xyz'", "write 15min, 1h or 1D, say"]),
        ("H", ["got 'H'", "write h"]),
        ("2H", ["got '2H'", "write 2h"]),
        ("d", ["got 'd'", "write D"]),
        ("99999999999999999999h", ["pandas knows, got '99999999999999999999h'"]),
        ("99999999999h", ["a step that a calendar holds, got '99999999999h'"]),
        ("M", ["got 'M'", "write MS"]),
        ("Q-DEC", ["got 'Q-DEC'", "write QS-JAN"]),
        ("A", ["got 'A'", "write YS"]),
        ("ME", ["the time at which a step begins, got 'ME', the end of one; write MS"]),
        ("2QE", ["begins, got '2QE'", "write 2QS"]),
        ("YE-JUN", ["begins, got 'YE-JUN'", "write YS-JUL"]),
        ("SME", ["begins, got 'SME'", "write SMS"]),
        ("BME", ["begins, got 'BME'", "write BMS"]),
        ("CBME", ["begins, got 'CBME'", "write CBMS"]),
        ("0h", ["a step forward in time, got '0h'"]),
        ("1ns", ["fewer than 20,000,000 steps", "a longer one"]),
    ],
)
def test_bad_frequencies_are_refused(tmp_path, step, parts):
    refused(tmp_path, MINUTES, "data.resample: ", *parts, resample=step)


def test_a_week_with_a_holiday_is_a_week(experiment_on):
    days = pd.bdate_range("2024-01-01", periods=200).delete([17, 63])
    text = "t,y\n" + "".join(f"{d:%Y-%m-%d},{i}\n" for i, d in enumerate(days))
    experiment = experiment_on(text, time="t", resample="W", aggregate="mean")
    assert check_data(experiment).facts.notes == (
        ("resampled", "40 rows of W, mean, frequency W-SUN"),
    )


@pytest.mark.parametrize(
    ("mask", "begin", "end", "whole"),
    [
        ("Mon Tue Wed Thu Fri", "2023-01-04", "2023-10-04", ("2023-01-08", "2023-09-24")),
        ("Mon Tue Wed Thu Fri", "2023-01-09", "2023-10-06", ("2023-01-08", "2023-10-01")),
        ("Mon Tue Wed Thu Fri Sat", "2023-01-09", "2023-10-07", ("2023-01-08", "2023-10-01")),
        ("Mon Tue Wed Thu Fri Sat", "2023-01-10", "2023-10-06", ("2023-01-15", "2023-09-24")),
        ("Tue Wed Thu Fri", "2023-01-10", "2023-01-27", ("2023-01-08", "2023-01-22")),
        ("Mon Tue Wed Fri", "2023-01-10", "2023-10-06", ("2023-01-15", "2023-10-01")),
    ],
)
@pytest.mark.parametrize("without", [(), (9,)])
def test_a_week_without_its_closed_days_is_whole(tmp_path, mask, begin, end, whole, without):
    """Weeks begin on Sundays here: of January 2023 the first is one."""
    days = pd.bdate_range(begin, end, freq="C", weekmask=mask)
    open_days = days.delete(list(without))  # a holiday
    text = dated(*[(f"{d:%Y-%m-%d}", 1) for d in open_days])
    series = even(tmp_path, text, resample="W", aggregate="sum")
    assert (str(series.times[0].date()), str(series.times[-1].date())) == whole
    full, sums = len(mask.split()), series.frame["y"].tolist()
    assert sums.count(full) == len(sums) - len(without)
    assert sum(sums) == full * len(sums) - len(without)


def test_a_week_lacks_a_value_that_a_row_of_business_days_lacks(tmp_path):
    days = pd.bdate_range("2023-01-02", periods=20)
    text = dated(*[(f"{d:%Y-%m-%d}", "" if i == 7 else 1) for i, d in enumerate(days)])
    series = even(tmp_path, text, resample="W", aggregate="sum", missing="ffill")
    np.testing.assert_array_equal(series.frame["y"], [5, NAN, 5, 5])
    assert not series.inserted.any()


def test_days_of_less_than_two_weeks_lack_what_they_lack(tmp_path):
    days = [d for d in pd.date_range("2023-01-02", "2023-01-14") if d.day_of_week < 6]
    text = dated(*[(f"{d:%Y-%m-%d}", 1) for d in days])
    refused(tmp_path, text, "no step of W has all its rows at frequency D; add the rows",
                   "or write a shorter step", resample="W")  # fmt: skip


def test_business_days_that_begin_on_a_friday_can_be_made_days(tmp_path):
    text = dated(*[(f"{d:%Y-%m-%d}", 1) for d in pd.bdate_range("2023-01-06", periods=9)])
    assert len(even(tmp_path, text, resample="1D", missing="ffill").frame) == 13


def test_a_step_finer_than_the_rows_is_refused(experiment_on):
    hours = pd.date_range("2024-01-01", periods=90, freq="10min")
    text = "t,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(hours))
    experiment = experiment_on(text, time="t", resample="5min", missing="ffill")
    text = "data.resample: must not be finer than the rows, which are"
    assert_refused(lambda: check_data(experiment), text)
