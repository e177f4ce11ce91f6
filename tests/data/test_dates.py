"""Times that are written as texts: which of 01/02/2020 is the day, and what is no time."""

import re

import pandas as pd
import pytest
from helpers.series_files import assert_read_refuses as assert_refused
from helpers.series_files import dated, read, written

from tuner.data.prepared import check_data
from tuner.data.sequence_table import SequenceTable
from tuner.errors import DataError
from tuner.experiment.schema import Data
from tuner.tables.table import RawTable
from tuner.tables.timestamps import possible_orders

ONE_OF_BOTH = ["%d/%m/%Y %H:%M", "%d-%m-%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%y %H:%M"]


@pytest.mark.parametrize(
    ("layout", "orders"),
    [("%d/%m/%Y", (True,)), ("%d.%m.%Y %H:%M", (True,)), ("%m/%d/%Y", (False,)),
     ("%m.%d.%Y", (False,)), ("%H:%M %d/%m/%y", (True,)), ("%d %b %Y", ()), ("%Y-%m-%d", ()),
     ("%Y/%m/%d", ()), ("%Y.%m.%d", ()), ("%Y-%m", ()), ("%Y-%m-%d %H.%M.%S", ())],
)  # fmt: skip
def test_the_order_is_known_of_dates_that_tell(layout, orders):
    texts = pd.Series(pd.date_range("2020-01-20", periods=60).strftime(layout))
    assert possible_orders(texts) == orders
    assert possible_orders(pd.to_datetime(pd.Series(["2020-01-20"]))) == ()


def test_ambiguous_dates_are_either_and_with_points_day_first():
    texts = pd.Series(["01/02/2020", "01/03/2020"])
    assert possible_orders(texts) == (False, True)
    assert possible_orders(texts.str.replace("/", ".")) == (True,)


@pytest.mark.parametrize("layout", ONE_OF_BOTH)
@pytest.mark.parametrize("frequency", ["MS", "h", "15min"])
def test_dates_are_read_in_the_order_in_which_they_are_even(tmp_path, layout, frequency):
    times = pd.date_range("2010-02-01", periods=120, freq=frequency)
    series = read(written(tmp_path, dated(times.strftime(layout))), time="t")
    assert series.times is not None
    assert series.times.tolist() == times.tolist()
    assert series.frequency == frequency
    assert series.date_order.day_first == layout.startswith("%d")
    assert not series.date_order.in_doubt
    gaps = dated(times.delete([50, 70]).strftime(layout))  # in the other order there is no step
    assert read(written(tmp_path, gaps), time="t", missing="ffill").frequency == frequency


def test_months_written_with_points_are_months(tmp_path):
    times = pd.date_range("2010-01-01", periods=3, freq="MS")  # as even as three days
    series = read(written(tmp_path, dated(times.strftime("%d.%m.%Y"))), time="t")
    assert series.frequency == "MS"


def test_dates_are_read_in_the_order_in_which_each_series_rises(tmp_path):
    days = ["05/01/2020", "01/02/2020", "04/02/2020", "04/03/2020"]  # 5 January, 1 February, ...
    text = "t,s,y\n" + "".join(f"{d},{s},1\n" for d in days for s in "ab")
    series = read(written(tmp_path, text), time="t", id="s", resample="MS", missing="ffill")
    assert series.times is not None
    assert series.times.month.tolist() == [1, 2, 2, 3] * 2
    assert read(written(tmp_path, text), id="s").date_order.day_first is None


def test_an_ambiguous_resampled_file_is_read_month_first(experiment_on):
    times = [*pd.date_range("2010-01-01", periods=9), pd.Timestamp("2010-01-11")]
    months = [f"{t.month:02}/{t.day:02}/2010" for t in times]  # as even read as months
    text = dated(months)
    split = {"validation": 2, "test": 2}
    facts = check_data(experiment_on(text, time="t", missing="ffill", split=split)).facts
    read_as = "read as month/day/year, 01/02/2010 as 2010-01-02; write them as 2020-01-31 if that"
    assert [how[: len(read_as)] for what, how in facts.notes if what == "dates"] == [read_as]
    assert (facts.frequency, facts.parts[-1].last) == ("D", "2010-01-11")


def test_an_ambiguous_date_order_is_reported(tmp_path, experiment_on):
    times = pd.date_range("2010-01-01", periods=60, freq="MS")
    experiment = experiment_on(dated(times.strftime("%d/%m/%Y")), time="t")
    dataset = check_data(experiment)
    assert dataset.facts.notes == (
        ("dates", "read as day/month/year, 01/02/2010 as 2010-02-01; write them as 2020-01-31 if "
         "that is wrong"),
    )  # fmt: skip
    assert dataset.write(tmp_path / "data").pipeline["day_first"] is True
    uneven = ["01/02/2010", "02/03/2010", "04/07/2010", "07/07/2010", "08/08/2010"]
    assert_refused(
        written(tmp_path, dated(uneven)), "evenly spaced",
        " (dates read as month/day/year, 01/02/2010 as 2010-01-02); write them as 2020-01-31 if "
        "that is wrong, write data.resample: QS, say", time="t",
    )  # fmt: skip
    told = dated(["13/02/2010", "14/02/2010", "17/03/2010", "18/05/2010"])
    with pytest.raises(Exception, match=r"evenly spaced(?!.*dates read)"):
        read(written(tmp_path, told), time="t")


def test_a_date_in_another_order_than_the_others_is_refused(tmp_path):
    path = written(tmp_path, dated(["13/01/2010", "14/01/2010", "01/15/2010"]))
    assert_refused(path, "must hold dates in one order, here day/month/year, got '01/15/2010' in "
                   "line 4; write 1960-01-31, say", time="t")  # fmt: skip
    path = written(tmp_path, dated(["13/01/2010", "14/01/2010", "31/02/2010"]))
    assert_refused(path, "must hold a time in every row, got '31/02/2010' in line 4", time="t")


def test_months_with_years_of_two_digits_are_months(tmp_path):
    times = pd.date_range("1999-11-01", periods=30, freq="MS")
    series = read(written(tmp_path, dated(times.strftime("%b-%y"))), time="t")
    assert series.times is not None
    assert series.times.tolist() == times.tolist()
    assert_refused(written(tmp_path, dated(["Jan-10", "Feb-10", "Mai-10"])), "'Mai-10' in line 4",
                   time="t")  # fmt: skip


def test_a_year_of_no_calendar_is_refused(tmp_path):
    told = "must hold times of the years 1678 to 2261, got '10-Jan' (read as 0001-01-10) in line 2"
    text = "t,s,y\n" + "".join(f"{day}-Jan,a,1\n" for day in range(10, 22))
    path = written(tmp_path, text)
    assert_refused(path, told, "write years with four digits", time="t")
    with pytest.raises(DataError, match=re.escape(told)):
        sequences_in(path)


def test_white_space_around_times_is_no_part_of_them(tmp_path):
    for layout in ("%Y-%m-%d ", " %d/%m/%Y", "%b-%y  "):
        times = pd.date_range("2010-01-01", periods=40, freq="MS")
        text = "y,t\n" + "".join(f"{i},{t}\n" for i, t in enumerate(times.strftime(layout)))
        assert read(written(tmp_path, text), time="t").frequency == "MS"


def test_times_of_a_sequence_rise_in_one_of_both_orders(tmp_path):
    days = ["05/01/2020", "01/02/2020"]  # 5 January and 1 February
    rows = [f"{day},s{i},{i}\n" for i in range(3) for day in days]
    assert len(sequences_in(written(tmp_path, "t,s,y\n" + "".join(rows))).rows) == 6
    with pytest.raises(DataError, match="times must rise within a sequence"):
        sequences_in(written(tmp_path, "t,s,y\n" + "".join([*rows, rows[4]])))


def sequences_in(path):
    data = Data.model_validate({"path": str(path), "time": "t", "id": "s", "target": "y"})
    return SequenceTable.of(RawTable.read(path), data, "regress")
