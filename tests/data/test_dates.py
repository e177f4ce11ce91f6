"""Dates, open days and missing rows."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.model_folders import make_model
from helpers.series_files import assert_read_refuses as assert_refused
from helpers.series_files import dated, read, written
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.cli.app import run
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.data.resampling import even_rows
from tuner.data.sequence_table import SequenceTable
from tuner.data.series import check_series
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.experiment.data import Data
from tuner.prediction import load_model
from tuner.prediction.pipeline import Pipeline
from tuner.tables.frequencies import offset_of, season_of
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
        "that is wrong, or write data.resample: QS, say", time="t",
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


def test_holidays_of_open_days_are_no_gaps_and_no_rows(tmp_path):
    times = pd.date_range("2020-01-01", periods=300, freq="B")
    series = read(written(tmp_path, dated(times.delete([50, 120, 121, 250]))), time="t")
    assert series.frequency == "B"
    even = even_rows(series, Data(path="x", target="y"))
    assert len(even.frame) == 296
    assert not even.inserted.any()


@pytest.mark.parametrize(
    "without", [range(100, 111), range(0, 299, 9)], ids=["a long break", "every ninth day"]
)
def test_a_long_break_and_many_days_without_rows_are_gaps(tmp_path, without):
    times = pd.date_range("2020-01-01", periods=300, freq="B")
    few = times.delete(without[1:11])
    assert read(written(tmp_path, dated(few)), time="t").frequency == "B"
    path = written(tmp_path, dated(times.delete(without)))
    assert_refused(path, "missing at frequency B", time="t")


@pytest.mark.parametrize(
    ("mask", "frequency"),
    [
        ("Sun Mon Tue Wed Thu", "C-Mon-Tue-Wed-Thu-Sun"),
        ("Mon Tue Wed Thu Fri Sat", "C-Mon-Tue-Wed-Thu-Fri-Sat"),
        ("Tue Thu", "C-Tue-Thu"),
        ("Mon Tue Wed Thu Fri", "B"),
    ],
)
@pytest.mark.parametrize("hour", ["", " 18:30"])
def test_closed_weekdays_are_not_missing(tmp_path, mask, frequency, hour):
    times = pd.bdate_range("2020-01-01", periods=80, freq="C", weekmask=mask).delete([30])
    path = written(tmp_path, dated([f"{t:%Y-%m-%d}{hour}" for t in times]))
    series = read(path, time="t")
    assert series.frequency == frequency
    assert season_of(series.frequency) == len(mask.split())
    even = even_rows(series, Data(path="x", target="y"))
    assert [str(t)[:10] for t in even.times] == [str(t.date()) for t in times]


@pytest.mark.parametrize(
    ("times", "step"),
    [
        ([f"20{15 + i // 12}-{i % 12 + 1:02}-10" for i in range(40)], "MS"),
        ([f"20{15 + i // 24}-{i // 2 % 12 + 1:02}-{1 + 14 * (i % 2):02}" for i in range(60)], "MS"),
        (
            pd.date_range("2020", periods=60, freq="6h").insert(
                9, pd.Timestamp("2020-01-03 00:07")
            ),
            "6h",
        ),
        (pd.to_datetime([f"{y}-0{y % 7 + 1}-17" for y in range(1990, 2020)]), "YS"),
        (pd.Timestamp("2020") + pd.to_timedelta(np.arange(40) ** 3, "D"), "YS"),
    ],
)
def test_uneven_times_are_refused_with_a_step_that_works(tmp_path, times, step):
    path = written(tmp_path, dated([str(t) for t in times]))
    assert_refused(path, "times must be evenly spaced", time="t")
    with pytest.raises(DataError) as error:
        read(path, time="t")
    told = re.search(
        r"write data.resample: (\w+), say(, and data.missing: ffill)?", str(error.value)
    )
    assert told
    assert told[1] == step
    keys = {"time": "t", "resample": step, "missing": "ffill" if told[2] else "refuse"}
    even = even_rows(read(path, **keys), Data(path="x", target="y", **keys))
    assert bool(told[2]) == even.inserted.any()


def test_a_name_of_no_days_is_no_frequency():
    assert offset_of("C-Sun-Mon").is_on_offset(pd.Timestamp("2024-01-07"))
    assert offset_of("2h") == pd.offsets.Hour(2)
    with pytest.raises(ValueError, match="C-Sunday"):
        offset_of("C-Sunday")


def test_forecasts_fall_on_open_days_and_check_lists_holidays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    times = pd.bdate_range("2024-01-01", periods=90, freq="C", weekmask="Sun Mon Tue Wed Thu")
    frame = pd.DataFrame({"day": times.delete([20, 41]), "y": np.arange(88) % 5 + 1.0})
    frame.to_csv("s.csv", index=False)
    assert run(["init", "s.csv", "--horizon", "3"]) == 0
    assert "missing" not in capsys.readouterr().out
    assert Experiment.load("s.yaml").data.missing == "refuse"
    assert run(["check", "s.yaml"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"holidays +2 open days without a row: none is filled in", printed)
    assert "88 rows, frequency C-Mon-Tue-Wed-Thu-Sun" in printed
    make_model(Experiment.load("s.yaml").to_dict(), tmp_path)
    predicted = load_model("model").predict(frame)
    last = times[-1]  # a Thursday or earlier: Fridays and Saturdays are closed
    expected = pd.bdate_range(last, periods=4, freq="C", weekmask="Sun Mon Tue Wed Thu")[1:]
    assert predicted["day"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "frequency",
    ["BME", "BMS", "WOM-2TUE", "WOM-4FRI", "LWOM-FRI", "2W-MON", "BQE-MAR", "2MS", "4W-SAT", "bh",
     "W-THU", "YE-JUN", "B", "3D", "2h"],
)  # fmt: skip
@pytest.mark.parametrize("begin", [0, 1, 7])
def test_every_row_of_a_regular_series_stays_and_none_is_made_up(tmp_path, frequency, begin):
    times = pd.date_range("2015-01-02", periods=67, freq=frequency)[begin:]
    series = read(written(tmp_path, dated([str(t) for t in times])), time="t", missing="ffill")
    even = even_rows(series, Data(path="x", target="y", missing="ffill"))
    assert even.times.equals(pd.DatetimeIndex(times)) or list(even.times) == list(times)


def _searched(folder, times, **data):
    """Return what a search trains on, and the pipeline of a model."""
    folder.mkdir()
    text = dated([f"{t:%Y-%m-%d}" for t in times])
    experiment = Experiment.model_validate(
        {
            "name": "days",
            "task": {"kind": "forecast", "window": 5, "horizon": 1},
            "data": {
                "path": str(written(folder, text)), "target": "y", "time": "t",
                "split": {"validation": "2021-01-04", "test": "2021-06-01"}, **data,
            },
            "budget": {"trials": 1, "epochs": 1},
        }
    )  # fmt: skip
    prepared = check_series(experiment).write(folder / "arrays")
    fold = prepared.folds[0]
    return fold.load("inputs")[slice(*fold.load("train")[0])], prepared.pipeline


@pytest.mark.parametrize("missing", ["ffill", "interpolate", "skip"])
@pytest.mark.parametrize("holidays", [True, False])
def test_missing_test_days_make_no_holiday_or_gap_in_training(tmp_path, missing, holidays):
    times = pd.date_range("2019-10-01", "2021-12-31", freq="B")
    kept = times.delete([60, 120, 121, 250]) if holidays else times.delete(range(9, 300, 9))
    begin = int(kept.searchsorted(pd.Timestamp("2021-07-01")))
    rows, pipeline = _searched(tmp_path / "whole", kept, missing=missing)
    assert pipeline["holidays"] is holidays
    n_training = int(times.searchsorted(pd.Timestamp("2021-01-04")))
    assert len(rows) == n_training - 4 * holidays
    for i, without in enumerate([range(begin, begin + 30), range(begin, begin + 90, 9), [begin]]):
        fewer, same = _searched(tmp_path / str(i), kept.delete(list(without)), missing=missing)
        np.testing.assert_array_equal(fewer, rows)
        assert same["holidays"] is holidays


@pytest.mark.parametrize("missing", ["refuse", "ffill"])
def test_a_model_reads_few_rows_with_holidays_like_many(tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    times = pd.date_range("2022-01-03", periods=330, freq="B")
    closed = times[(times.month == 12) & (times.day > 23) | (times.day == 1) & (times.month < 6)]
    frame = pd.DataFrame({"day": times.difference(closed)})
    frame["y"] = np.arange(len(frame)) % 7 + 1.0
    frame.to_csv("s.csv", index=False)
    assert run(["init", "s.csv", "--horizon", "1"]) == 0
    own = {"data.missing": missing, "task.window": 5}
    make_model(Experiment.load("s.yaml").changed(own).to_dict(), tmp_path)
    model = load_model("model")
    assert model.pipeline.holidays is True
    around = frame[(frame["day"] > "2022-12-10") & (frame["day"] < "2023-01-20")]
    many = model.predict(frame, all_windows=True).set_index("day")["y"]
    few = model.predict(around, all_windows=True).set_index("day")["y"]
    assert len(few) == len(around) - 5 + 1
    np.testing.assert_allclose(few[:-1], many[few.index[:-1]], rtol=1e-5)
    record = json.loads(Path("model/pipeline.json").read_text())
    del record["holidays"]  # a model of before the key
    assert Pipeline.of(record, Path("model/pipeline.json")).holidays is None


def experiment(folder, frame, *, task=None, **data):
    frame.to_csv(folder / "data.csv", index=False)
    values = {
        "name": "gaps",
        "data": {
            "path": str(folder / "data.csv"), "time": "t", "target": "y", "features": ["y", "x"],
            "missing": "skip", "split": {"validation": 14, "test": 12}, **data,
        },
        "task": {"window": 3, "horizon": 2} if task is None else task,
    }  # fmt: skip
    return Experiment.from_dict(values)


def table(n, y_missing=(), x_missing=(), rows_missing=()):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "t": pd.date_range("2020-01-01", periods=n, freq="h").astype(str),
            "y": 50 + rng.normal(size=n).cumsum(),
            "x": rng.normal(size=n),
        }
    )
    frame.loc[[*y_missing], "y"] = np.nan
    frame.loc[[*x_missing], "x"] = np.nan
    return frame.drop(index=[*rows_missing])


places = st.sets(st.integers(1, 58), max_size=4)


@settings(max_examples=examples(30))
@given(y=places, x=places, rows=places, lag=st.sampled_from([None, 1, 4]), diff=st.booleans())
def test_windows_are_those_that_a_loop_over_the_file_finds(y, x, rows, lag, diff, tmp_path_factory):
    folder, n, window, horizon = tmp_path_factory.mktemp("gaps"), 60, 3, 2
    rows = rows - {0, n - 1}
    more = {} if lag is None else {"lags": {"x": [lag]}}
    transform = "difference" if diff else "none"
    asked = experiment(folder, table(n, y, x, rows), transform=transform, **more)
    try:
        (ref,) = prepare(asked, folder / "search").folds
    except DataError:
        return  # nothing is left of a part
    no_y, no_x = y | rows, x | rows
    no_y = no_y | ({t + 1 for t in no_y} if diff else set())
    read = no_y | no_x | ({t + lag for t in no_x} if lag is not None else set())
    first = max(int(diff), lag or 0)

    def fits(t, begin, end):
        inside = begin <= t and t + horizon <= end and t - window >= first
        known = not any(k in no_y for k in range(t, t + horizon))
        return inside and known and not any(k in read for k in range(t - window, t))

    for samples, begin, end in ((ref.train_samples(), 0, 34), (ref.evaluate_samples(), 34, 48)):
        assert samples.tolist() == [t for t in range(n) if fits(t, begin, end)]
    (opened,) = open_test_part(asked, folder / "test").folds
    assert opened.evaluate_samples().tolist() == [t for t in range(n) if fits(t, 48, 60)]


def test_check_reports_missing_values_and_few_scored_rows(tmp_path):
    notes = dict(
        check_data(experiment(tmp_path, table(60, y_missing=[40], rows_missing=[20]))).facts.notes
    )
    assert notes["missing"] == "1 value and 1 row; windows that cross them are left out"
    assert "in validation" in notes["scored"]


def test_a_model_forecasts_from_no_window_that_crosses_a_gap(tmp_path):
    asked = experiment(tmp_path, table(90, y_missing=[30], rows_missing=[40]))
    make_model(asked.to_dict(), tmp_path)
    model = load_model(tmp_path / "model")
    found = model.predict(table(20, y_missing=[7]), all_windows=True)
    begins = found[found.step == 1]["t"]
    expected = [t for t in range(3, 21) if t not in (8, 9, 10)]
    assert begins.tolist() == [pd.Timestamp("2020-01-01") + pd.Timedelta(hours=t) for t in expected]
    whole = model.predict(table(20), all_windows=True)  # nothing else has changed
    pd.testing.assert_series_equal(found.y[-10:], whole.y[-10:], check_index=False)
    with pytest.raises(DataError, match=r"needs values in each of the 3 rows .*none in row 19"):
        model.predict(table(20, x_missing=[18]))
