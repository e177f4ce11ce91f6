"""A file with a column for each series is read as the long file that it stands for."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.model_folders import make_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.cli.app import run
from tuner.data.prepared import check_data
from tuner.data.series_table import read_series
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.prediction import load_model
from tuner.prediction.pipeline import Pipeline
from tuner.tables.table import stem_of_series

DAYS = pd.date_range("2024-01-01", periods=60)


pytestmark = pytest.mark.usefixtures("empty_folder")


def stores(n=3, rows=60):
    rng = np.random.default_rng(0)
    days = pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d")
    sales = {f"store_{i + 1}": (10 * i + rng.normal(size=rows)).round(2) for i in range(n)}
    return pd.DataFrame({"day": days, "price": rng.normal(size=rows).round(2), **sales})


WIDE = {"id": "store", "value": "sales", "columns": "store_*"}


def experiment(path="wide.csv", **data):
    keys = {"path": str(Path(path).resolve()), "time": "day", "wide": WIDE} | data
    return Experiment.model_validate({"name": "x", "data": keys, "task": {"window": 5}})


def test_a_wide_file_is_the_long_file_that_it_stands_for():
    frame = stores()
    frame.to_csv("wide.csv", index=False)
    frame.melt(["day", "price"], var_name="store", value_name="sales").to_csv(
        "long.csv", index=False
    )
    wide = read_series(experiment().data)
    long = read_series(experiment("long.csv", wide=None, id="store", target="sales").data)
    pd.testing.assert_frame_equal(wide.frame, long.frame)
    assert (wide.names, wide.frequency) == (long.names, long.frequency)
    assert wide.times.equals(long.times)
    assert wide.features == ["price", "sales"]
    assert wide.rows == 60
    assert wide.sha256 != long.sha256
    assert "line 3 (2024-01-02) of series 'store_2'" in wide.place(61)


@settings(max_examples=examples(30), suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(
        st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=3, max_size=3),
        min_size=4,
        max_size=12,
    ),
    later=st.integers(0, 3),
)
def test_every_value_keeps_its_series_and_its_line(values, later):
    table = np.array(values)
    frame = pd.DataFrame(table, columns=["store_1", "store_2", "store_3"])
    frame.insert(0, "day", DAYS[: len(frame)].strftime("%Y-%m-%d"))
    frame.loc[: later - 1, "store_2"] = np.nan
    frame.to_csv("wide.csv", index=False)
    series = read_series(experiment().data)
    assert np.diff(series.bounds)[:, 0].tolist() == [len(frame), len(frame) - later, len(frame)]
    of = np.repeat([0, 1, 2], np.diff(series.bounds)[:, 0])
    np.testing.assert_array_equal(series.frame["sales"], table[series.lines, of])


def test_id_and_target_are_those_of_the_block():
    data = experiment().data
    assert (data.id, data.targets) == ("store", ["sales"])
    assert experiment(id="store", target="sales").data == data
    assert experiment(target=["sales"]).data.targets == ["sales"]
    assert Experiment.model_validate(experiment().model_dump()).data == data


@pytest.mark.parametrize(
    ("wide", "text"),
    [
        ({"columns": "shop_*"}, "columns: no column of the file matches 'shop_*', got day, price"),
        ({"columns": ["store_1", "stor_2"]}, "columns: no column 'stor_2' in the file; did you"),
        ({"columns": "*"}, "columns: must not name the time column, got 'day'; write a narrower"),
        ({"id": "price"}, "id: must be a new name, got 'price', which is a column of the file"),
        ({"value": "price"}, "value: must be a new name, got 'price', which is a column"),
        ({"columns": ["day2"]}, "column 'day2' must hold numbers, got '2024-01-01' in line 2"),
        ({"columns": ["none", "store_1"]}, "column 'none' must hold numbers, got none; leave"),
    ],
)
def test_columns_that_cannot_be_series_are_refused_in_a_line(wide, text):
    frame = stores()
    frame.assign(day2=frame["day"], none=np.nan).to_csv("wide.csv", index=False)
    with pytest.raises(DataError) as error:
        read_series(experiment(wide=WIDE | wide, time="day").data)
    assert f"wide.csv: data.wide.{'columns: ' if text.startswith('column ') else ''}{text}" in str(
        error.value
    )


def test_a_gap_is_refused_with_its_line_and_its_series():
    frame = stores()
    frame.loc[20, "store_2"] = np.nan
    frame.to_csv("wide.csv", index=False)
    with pytest.raises(DataError, match=r"got nan in line 22 \(2024-01-21\) of series 'store_2'"):
        read_series(experiment().data)
    assert check_data(experiment(missing="ffill")).facts.rows == 60


def test_a_model_predicts_from_files_as_wide_as_in_training():
    frame = stores()
    long = frame.melt(["day", "price"], var_name="store", value_name="sales")
    task = {"window": 5, "horizon": 2}
    of = {"wide": {"wide": WIDE}, "long": {"id": "store", "target": "sales"}}
    for name, rows in (("wide", frame), ("long", long)):
        Path(name).mkdir()
        raw = {"data": {"time": "day"} | of[name], "task": task}
        make_model(raw, Path(name).resolve(), rows)
    of_wide, of_long = load_model("wide/model"), load_model("long/model")
    predicted = of_wide.predict("wide/data.csv")
    assert list(predicted) == ["store", "day", "step", "sales"]
    assert len(predicted) == 6
    pd.testing.assert_frame_equal(predicted, of_long.predict("long/data.csv"))
    pd.testing.assert_frame_equal(predicted, of_wide.predict(frame))
    with pytest.raises(DataError, match="no column of the file matches"):
        of_wide.predict("long/data.csv")
    record = json.loads(Path("wide/model/pipeline.json").read_text())
    assert record.pop("wide") == WIDE
    assert Pipeline.of(record, Path("pipeline.json")).columns.wide is None


def test_init_offers_its_guesses_and_writes_them_on_request(capsys):
    stores(5).to_csv("s.csv", index=False)
    assert run(["init", "s.csv"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    offer = "5 columns are called store_*: if they are series of one quantity, init with --wide"
    assert f"{offer} 'store_*'" in told
    assert run(["init", "s.csv", "--wide", "store_*", "--target", "sales", "--force"]) == 0
    assert "forecasts sales one row ahead" in capsys.readouterr().out
    data = Experiment.load("s.yaml").data
    assert (data.id, data.targets, data.time) == ("store", ["sales"], "day")
    assert data.scale_by == "series"
    assert run(["check", "s.yaml"]) == 0
    assert re.search(r"series +5\b", capsys.readouterr().out)
    assert run(["init", "s.csv", "--wide", "store_1, store_3", "--force"]) == 0
    wide = Experiment.load("s.yaml").data.wide
    assert (wide.id, wide.value, wide.columns) == ("series", "value", ["store_1", "store_3"])
    assert run(["init", "s.csv", "--wide", "shop_*", "--force"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["store_0", "store_1", "store_2"], "store_*"),
        (["x", "store_0", "store_1", "store_2"], "store_*"),
        (["MT001", "MT002", "MT003"], "MT*"),
        (["sales Berlin", "sales Paris", "sales Rome"], "sales *"),
        (["umsatz-1", "umsatz-2", "umsatz 3"], "umsatz*"),
        (["store_1", "store_2"], None),
        (["a", "b", "c", "d", "s_1", "s_2", "s_3"], None),
        (["open", "high", "low", "close"], None),
        (["q[1", "q[2", "q[3"], None),
    ],
)
def test_names_tell_columns_that_may_be_series(names, pattern):
    found = stem_of_series(names)
    assert (None if found is None else found[0]) == pattern
