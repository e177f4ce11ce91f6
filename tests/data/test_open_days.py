"""A frequency is believed only if every row lies on it; else there is a way out that works."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import assert_read_refuses as assert_refused
from helpers.series_files import dated, read, written

from tuner.cli.main import run
from tuner.data.baselines import season_of
from tuner.data.quality import even_rows
from tuner.data.series import check_series
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.experiment.schema import Data
from tuner.prediction import load_model
from tuner.prediction.pipeline import Pipeline
from tuner.tables.timestamps import offset_of


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
    assert even.times is not None
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
    options = ["--set", "budget.epochs=1", "--set", "budget.patience=1"]
    assert run(["train", "s.yaml", "-o", "m", *options]) == 0
    predicted = load_model("m").predict(frame)
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
    assert even.times is not None
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
    options = ["budget.epochs=1", "budget.patience=1", f"data.missing={missing}", "task.window=5"]
    sets = [word for option in options for word in ("--set", option)]
    assert run(["train", "s.yaml", "-o", "m", *sets]) == 0
    model = load_model("m")
    assert model.pipeline.holidays is True
    around = frame[(frame["day"] > "2022-12-10") & (frame["day"] < "2023-01-20")]
    many = model.predict(frame, all_windows=True).set_index("day")["y"]
    few = model.predict(around, all_windows=True).set_index("day")["y"]
    assert len(few) == len(around) - 5 + 1
    np.testing.assert_allclose(few[:-1], many[few.index[:-1]], rtol=1e-5)
    record = json.loads(Path("m/pipeline.json").read_text())
    del record["holidays"]  # a model of before the key
    assert Pipeline.of(record, Path("m/pipeline.json")).holidays is None
