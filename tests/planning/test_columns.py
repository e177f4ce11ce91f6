"""What `init` guesses of the columns of a file."""

import numpy as np
import pandas as pd
import pytest

from tuner.data.series_table import read_series
from tuner.errors import DataError
from tuner.experiment.data import Data
from tuner.planning.columns import guess_columns
from tuner.tables.table import RawTable

N = 60
DAYS = pd.date_range("2015-01-01", periods=N)
MONTHS = pd.date_range("2015-01-01", periods=N, freq="MS")
QUARTERS = pd.date_range("1990", periods=N, freq="QS")
WEEKS = pd.date_range("2019-01-07", periods=N, freq="W-MON")


def second(value):
    return value if isinstance(value, str) else str(pd.Index(value)[1])


def table(folder, values, name="a"):
    y = np.random.default_rng(0).normal(size=N).round(3)
    pd.DataFrame({name: values, "y": y}).to_csv(folder / "s.csv", index=False)
    return RawTable.read(folder / "s.csv")


@pytest.mark.parametrize(
    "texts",
    [
        [f"{10 + i % 5}x{12 + i % 7}" for i in range(N)],
        [f"{i % 5}:{i % 4}" for i in range(N)],
        [f"{i % 5}-{i % 4}" for i in range(N)],
        [f"1.{i // 10}.{i % 10}" for i in range(N)],
        [f"{i % 13 + 1}.{i % 12 + 1}.{i % 13}" for i in range(N)],
        [f"{i % 24}h" for i in range(N)],
        [f"{i % 30}d" for i in range(N)],
        [f"{i % 60}m" for i in range(N)],
        [("5h", "3d", "10m")[i % 3] for i in range(N)],
        [f"{1960 + i}/{(61 + i) % 100:02}" for i in range(N)],
        [f"{1960 + i}-{(61 + i) % 100:02}" for i in range(N)],
        [f"{i % 9 + 1}/{i % 12 + 1}" for i in range(N)],
        DAYS.strftime("%m-%d"),
        DAYS.strftime("%d-%b"),
        DAYS.strftime("%A"),
        MONTHS.strftime("%B"),
        ["April", "June", "August"] * 20,
        ["may", "march", "sun"] * 20,
        pd.date_range("2015", periods=N, freq="15min").strftime("%H:%M"),
        [f"10.0.{i // 10}.{i % 10}" for i in range(N)],
        [f"2020-{i:03}" for i in range(N)],
        [f"A-{i:03}" for i in range(N)],
        [f"'{60 + i % 40}" for i in range(N)],
    ],
    ids=second,
)
def test_texts_that_only_look_like_times_are_texts(tmp_path, texts):
    found = guess_columns(table(tmp_path, texts))
    assert (found.time, found.targets) == (None, ["y"])
    assert found.left_out["a"].startswith("text")  # and which unit it may have


@pytest.mark.parametrize(
    ("texts", "times", "frequency"),
    [
        (DAYS.strftime("%Y%m%d"), DAYS, "D"),
        (MONTHS.strftime("%Y%m"), MONTHS, "MS"),
        (MONTHS.strftime("%b %Y"), MONTHS, "MS"),
        (MONTHS.strftime("%b-%y"), MONTHS, "MS"),
        (MONTHS.strftime("%B %Y"), MONTHS, "MS"),
        (MONTHS.strftime("%m/%Y"), MONTHS, "MS"),
        (MONTHS.strftime("%YM%m"), MONTHS, "MS"),
        (DAYS.strftime("%d.%m.%y"), DAYS, "D"),
        (WEEKS.strftime("%G-W%V"), WEEKS, "W-MON"),
        (WEEKS.strftime("%GW%V"), WEEKS, "W-MON"),
        ([f"Q{i % 4 + 1} {1990 + i // 4}" for i in range(N)], QUARTERS, "QS-JAN"),
        ([f"{1990 + i // 4}Q{i % 4 + 1}" for i in range(N)], QUARTERS, "QS-JAN"),
    ],
    ids=second,
)
def test_dates_as_people_and_offices_write_them_are_times(tmp_path, texts, times, frequency):
    found = guess_columns(table(tmp_path, texts))
    assert (found.time, found.targets, found.numbers) == ("a", ["y"], ["y"])
    series = read_series(Data(path=str(tmp_path / "s.csv"), time="a", target="y"))
    assert list(series.times) == list(times)
    assert series.frequency == frequency


@pytest.mark.parametrize(
    "numbers",
    [
        [20200131 + 7 * i for i in range(N)],  # not all of them are dates
        [201501.5 + i for i in range(N)],
        [201501, *[201512] * (N - 1)],
        np.random.default_rng(0).permutation([int(m) for m in MONTHS.strftime("%Y%m")]),
    ],
    ids=["no dates", "fractions", "few", "falling"],
)
def test_numbers_that_may_be_none_are_no_dates(tmp_path, numbers):
    found = guess_columns(table(tmp_path, numbers))
    assert (found.time, found.numbers) == (None, ["a", "y"])


def test_a_week_that_there_is_not_is_no_time(tmp_path):
    texts = [f"2019-W{54 + i % 40}" for i in range(N)]
    assert guess_columns(table(tmp_path, texts)).left_out == {"a": "text"}


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize("name", ["ts", "Zeit", "event_time", "epoch"])
def test_unix_times_are_times_in_a_column_that_is_called_so(tmp_path, name, unit):
    times = pd.date_range("2021-03-01", periods=N, freq="h").as_unit(unit).asi8
    found = guess_columns(table(tmp_path, times, name))
    assert (found.time, found.numbers) == (name, ["y"])
    assert guess_columns(table(tmp_path, times, "amount")).time is None
    assert guess_columns(table(tmp_path, np.arange(N) + 1000, name)).time is None


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("month", [f"{1990 + i // 12}.{i % 12 + 1:02}" for i in range(N)], "'1990.01' in line 2"),
        ("Monat", [f"{1990 + i // 12}.{i % 12 + 1:02}" for i in range(N)], "'1990.01' in line 2"),
        ("quarter", [f"{1990 + i // 4}-{i % 4 + 1}" for i in range(N)], "'1990-1' in line 2"),
        ("date", [f"{1990 + i // 4}-{i % 4 + 1:02}" for i in range(N)], "seems to hold quarters"),
    ],
)
def test_unreadable_or_ambiguous_times_are_refused(tmp_path, name, values, told):
    unclear = table(tmp_path, values, name)
    with pytest.raises(DataError, match=told):
        guess_columns(unclear)
    assert guess_columns(unclear, no_time=True).targets == ["y"]
    assert guess_columns(table(tmp_path, np.arange(N) + 1950.25, "ratio")).numbers[0] == "ratio"


def test_months_of_every_season_are_no_quarters(tmp_path):
    months = [f"{1990 + i // 12}-{i % 12 + 1}" for i in range(N)]
    assert guess_columns(table(tmp_path, months, "month")).time == "month"
