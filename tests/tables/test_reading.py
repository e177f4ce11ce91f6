import gzip
import io
import re
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import assert_read_refuses as assert_refused
from helpers.series_files import dated, read, written

from tuner.data.resampling import even_rows
from tuner.experiment.data import Data
from tuner.tables.frequencies import season_of


def test_named_numeric_columns_are_features_by_default(tmp_path):
    text = ",day,note,y,x,holiday\n0,2020-01-01,a,1,2,True\n1,2020-01-02,b,3,4,False\n"
    series = read(written(tmp_path, text), time="day")
    assert series.features == ["y", "x", "holiday"]
    assert series.frame["holiday"].tolist() == [1.0, 0.0]
    assert set(series.frame.dtypes) == {np.dtype(np.float64)}


def test_named_features_keep_their_order(tmp_path):
    series = read(written(tmp_path, "a,y,b\n1,2,3\n4,5,6\n"), features=["b", "a"])
    assert series.features == ["b", "a"]
    assert sorted(series.frame.columns) == ["a", "b", "y"]


def test_numbers_are_read_to_the_last_bit(tmp_path):
    values = [0.1, 1 / 3, 2.675e-7, 123456.789012345]
    series = read(written(tmp_path, "y\n" + "\n".join(map(repr, values))))
    assert series.frame["y"].tolist() == values


def test_a_byte_order_mark_and_outer_spaces_are_stripped(tmp_path):
    assert read(written(tmp_path, "\ufeffy , x\r\n1, 2\r\n3, 4\r\n")).features == ["y", "x"]


def test_a_parquet_file_is_read_like_a_csv_file(tmp_path):
    path = tmp_path / "series.parquet"
    times = pd.date_range("2020-01-01", periods=5, freq="D", name="t")
    pd.DataFrame({"y": np.arange(5)}, index=times).to_parquet(path)
    assert read(path, time="t").frequency == "D"
    pd.DataFrame({"y": ["1", "2", "x"]}).to_parquet(path)
    assert_refused(path, "data.target", "'x' in row 3")
    path.write_text("y\n1\n")
    assert_refused(path, "data.path", "is no Parquet file")


def test_the_names_in_a_parquet_file_are_texts_and_differ(tmp_path):
    path = tmp_path / "series.parquet"
    pd.DataFrame({0: [1, 2], 1: [2020, 2021]}).to_parquet(path)
    assert read(path, target="0", time="1").features == ["0"]
    frame = pd.DataFrame({"y": [1, 2], "t": [2020, 2021]})
    frame.set_index(pd.Index([4, 5], name="t")).to_parquet(path)
    assert_refused(path, "data.path", "must differ, got 't' twice among columns and index",
                   "rename one")  # fmt: skip
    rows = pd.MultiIndex.from_tuples([("a", 1, 7), ("b", 2, 8)], names=["s", None, "x"])
    frame.set_index(rows).to_parquet(path)
    series = read(path, id="s")
    assert (series.names, series.features) == (("a", "b"), ["x", "y", "t"])


_PACKED = io.BytesIO()
with zipfile.ZipFile(_PACKED, "w") as _archive:
    _archive.writestr("a.csv", "x,y\n1,2\n")
BINARY = {
    "zip": (_PACKED.getvalue(), "Excel workbook or a packed file; rename it to .xlsx, or unpack"),
    "xls": (b"\xd0\xcf\x11\xe0" + bytes(60), "an old Excel workbook; save it as .xlsx or CSV"),
    "parquet": (b"PAR1" + bytes(60), "a Parquet file; rename it to .parquet"),
    "gzip": (gzip.compress(b"x,y\n1,2\n"), "packed (gzip); unpack it first"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture; give its table as CSV"),
    "other": (bytes(range(256)) * 4, "bytes of value 0; save the table as CSV, .xlsx or Parquet"),
    "text and zeros": (b"x,y\n" + bytes(99), "bytes of value 0; save the table as CSV"),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("encoding", [None, "latin-1"])
def test_a_file_that_is_no_text_is_called_so(tmp_path, kind, encoding):
    content, text = BINARY[kind]
    read = {} if encoding is None else {"read": {"encoding": encoding}}
    assert_refused(written(tmp_path, content), "data.path", "is no text", text, **read)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["data.path", "is empty", "give a CSV file"]),
        (" \n\n", ["data.path", "is empty", "give a CSV file"]),
        ("x,y\n", ["data.path", "has column names but no rows", "give a file with rows"]),
        ("\ny\n1\n", ["data.path", "line 1 must name the columns", "remove it"]),
        (b"x,y\n1,2\n\xff,3\n", ["data.path", "UTF-8", "0xff in line 3", "save the file as UTF-8"]),
        ("x,y\n1,2\n1,2,3\n", ["line 3 has 3 values, line 1 names 2 columns; correct that line"]),
        ('x,y\n1,"2\n', ["is not a CSV file: the quote that line 2 opens is never", "correct"]),
        (
            "x,y\n1,2,3\n4,5,6\n",
            ["data.path", "line 2 has 3 values, line 1 names 2", "name every column in line 1"],
        ),
        ("2020-01-01,5\n2020-01-02,6\n", ["line 1 must name", "got the values 2020-01-01, 5"]),
        ("store A,2020-01-01,5.5\nstore A,2020-01-02,6\n", ["line 1 must name", "got the values"]),
        ("5,5\n6,6\n", ["data.path", "line 1 must name the columns", "got the values 5, 5"]),
        ("y,x,y\n1,2,3\n", ["data.path", "must differ", "'y' twice in line 1", "rename one"]),
        ("yield,x\n1,2\n", ["data.target", "no column 'y'", "choose from: yield, x"]),
        ("x,y\n1,a\n2,b\n", ["data.target", "'y' must hold numbers", "'a' in line 2", "1234.5"]),
        ("x,y\n1,2\n1,n/b\n", ["data.target", "'y'", "'n/b' in line 3", "choose another column"]),
        ("y\n1\n2O\n", ["data.target", "'2O' in line 3"]),
        ("x,y\na,b\nc,d\n", ["data.target", "no numeric column", "'b' in line 2", "give numbers"]),
        ("x,y\n1,2\n1,\n", ["data.target", "'y'", "finite", "nan in line 3", "fill it in"]),
        ("x,y\n1,2\n1,\n", ["write data.missing: ffill (or interpolate)"]),
        ("x,y\n1,2\n1,-inf\n", ["data.target", "finite", "-inf in line 3", "correct it"]),
        ("x,y\n1,2\n1,1e31\n", ["data.target", "below 1e30", "1e+31 in line 3"]),
        (f"x,y\n1,2\n1,-{'1' * 400}\n", ["data.target", "-inf in line 3", "correct it"]),
        ("x,y\n1,2\n,3\n", ["data.features", "'x'", "nan in line 3", "choose another column"]),
        ("y\n1\n\n2\n", ["data.target", "nan in line 3"]),
    ],
)
def test_a_bad_file_is_refused(tmp_path, content, parts):
    assert_refused(written(tmp_path, content), *parts)


def test_a_path_to_nothing_or_to_a_folder_is_refused(tmp_path):
    assert_refused(tmp_path / "no.csv", "data.path", "no such file", "check the path")
    assert_refused(tmp_path, "data.path", "is a folder", "give the CSV file in it")


def test_missing_columns_are_refused_with_the_nearest_name(tmp_path):
    path = written(tmp_path, "month,passengers\n2020-01,1\n")
    assert_refused(path, "data.target", "'passenger'", "'passengers'?", target="passenger")
    assert_refused(path, "data.time", "'mnth'", "mean 'month'?", time="mnth", target="passengers")
    keys = {"target": "passengers", "features": ["passengers", "temp"]}
    assert_refused(path, "data.features", "'temp'", "choose from: month, passengers", **keys)


def test_a_named_feature_that_is_not_numeric_is_refused(tmp_path):
    path = written(tmp_path, "x,y\n1,1\ntwo,2\n")
    assert read(path).features == ["y"]
    assert_refused(path, "data.features", "'x'", "'two' in line 3", features=["x"])


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    path = written(tmp_path, 'note,y\n"a\nb",1\nc,2\nd,x\n')
    assert_refused(path, "'x' in line 5")


def test_a_missing_value_is_named_with_its_time(tmp_path):
    path = written(tmp_path, "t,y\n2020-01-01,1\n2020-01-02,\n2020-01-03,3\n")
    assert_refused(path, "data.target", "nan in line 3 (2020-01-02)", time="t")


@pytest.mark.parametrize(
    "frequency",
    ["MS", "ME", "h", "D", "QS-JAN", "QE-DEC", "W-SUN", "YS-JAN", "YE-DEC", "15min", "30min",
     "2h", "s", "BMS"],
)  # fmt: skip
def test_a_frequency_is_found_with_and_without_gaps(tmp_path, frequency):
    times = pd.date_range("2001-01-01", periods=60, freq=frequency)
    assert read(written(tmp_path, dated(times)), time="t").frequency == frequency
    missing = [20, 21, 33, 47]
    path = written(tmp_path, dated(times.delete(missing)))
    first = times[20]
    shown = str(first.date()) if first == first.normalize() else str(first)
    told = [f"4 missing at frequency {frequency}, the first {shown} before line 22", "add the rows"]
    told += ["data.missing: ffill", "leave data.time out"]
    assert_refused(path, "data.time", *told, time="t")
    assert read(path, time="t", missing="ffill").frequency == frequency


def test_years_written_as_numbers_are_times(tmp_path):
    series = read(written(tmp_path, dated(range(1700, 2009))), time="t")
    assert (series.times[0].year, series.times[-1].year) == (1700, 2008)
    assert series.frequency == "YS-JAN"
    assert read(written(tmp_path, dated(f"{y}.0" for y in range(1700, 2009))), time="t").rows == 309
    path = written(tmp_path, dated([1700, 1701, 1703, 1704, 1705]))
    assert_refused(path, "1 missing at frequency YS-JAN, the first 1702-01-01", time="t")


@pytest.mark.parametrize(
    ("texts", "first", "frequency"),
    [
        (["194911", "194912", "195001"], "1949-11-01", "MS"),
        (["20200101", "20200102", "20200103"], "2020-01-01", "D"),
        (["11/30/2020", "12/1/2020", "12/2/2020"], "2020-11-30", "D"),
        (["30/11/2020", "01/12/2020", "02/12/2020"], "2020-11-30", "D"),
        (["2020-01-01", "2020-01-01 00:00:30", "2020-01-01 00:01"], "2020-01-01", "30s"),
        (["2020-03-29T00:00+01:00", "2020-03-29T01:00+01:00", "2020-03-29T03:00+02:00"],
         "2020-03-28T23:00Z", "h"),
        (["2020-01-01 00:00 GMT+8", "2020-01-01 01:00 GMT+8", "2020-01-01 02:00 GMT+8"],
         "2020-01-01T00:00+08:00", "h"),
        (["2020-01-01 00:00 UTC-03:30", "2020-01-01 01:00 UTC-03:30", "2020-01-01 02:00 UTC-03:30"],
         "2020-01-01T00:00-03:30", "h"),
        (["Sun Mar 29 2020 01:00:00 GMT+0100 (CET)", "Sun Mar 29 2020 03:00:00 GMT+0200 (CEST)",
          "Sun Mar 29 2020 04:00:00 GMT+0200 (CEST)"], "2020-03-29T00:00Z", "h"),
        (['"Sun, 29 Mar 2020 01:00:00 +0100"', '"Sun, 29 Mar 2020 03:00:00 +0200"',
          '"Sun, 29 Mar 2020 04:00:00 +0200"'], "2020-03-29T00:00Z", "h"),
    ],
)  # fmt: skip
def test_times_are_understood(tmp_path, texts, first, frequency):
    series = read(written(tmp_path, dated(texts)), time="t")
    assert series.times[0] == pd.Timestamp(first)
    assert series.frequency == frequency


@pytest.mark.parametrize("factor", [1, 10**3, 10**6, 10**9])
def test_unix_times_are_understood(tmp_path, factor):
    path = written(tmp_path, dated((1577836800 + i * 3600) * factor for i in range(48)))
    series = read(path, time="t")
    assert series.times[0] == pd.Timestamp("2020-01-01")
    assert series.frequency == "h"


def test_ten_digit_hours_are_not_unix_times(tmp_path):
    path = written(tmp_path, dated(2020010100 + i for i in range(12)))
    assert_refused(path, "data.time", "got 2020010100 in line 2", time="t")


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["2020-01-01", "soon", "2020-01-03"], ["must hold a time", "'soon' in line 3", "write"]),
        (["1/13/2020", "1/14/2020", "soon"], ["'soon' in line 4"]),
        (["2020-01-01", "", "2020-01-03"], ["got none in line 3"]),
        (["a", "b", "c"], ["'a' in line 2", "leave data.time out"]),
        (["1", "2", "3"], ["must hold a time", "got 1 in line 2"]),
        (["00:00", "00:15", "00:30"], ["not times of day alone", "'00:00' in line 2"]),
        (["8:00 am", "9:00 am", "10:00 am"], ["not times of day alone", "2020-01-31 08:15"]),
        (["1959.04", "1959.12", "1959.21"], ["got 1959.04 in line 2"]),
        (["1959", "1960", "196"], ["got 196 in line 4"]),
        (["2020-01-02", "2020-01-01", "2020-01-03"],
         ["times must rise", "2020-01-01 in line 3 after 2020-01-02 in line 2", "data.read.sort"]),
        (["2020-01-01", "2020-01-02", "2020-01-02"],
         ["twice", "2020-01-02 in line 3 and in line 4", "keep one", "data.id"]),
        (["2020-01-01", "2020-01-02", "2020-01-09", "2020-03-01", "2020-03-20"],
         ["evenly spaced", "1 days", "7 days", "line 4 (2020-01-09)",
          "data.resample: MS, say, and data.missing: ffill"]),
    ],
)  # fmt: skip
def test_bad_times_are_refused(tmp_path, texts, parts):
    assert_refused(written(tmp_path, dated(texts)), "data.time", *parts, time="t")


@pytest.mark.parametrize("begin", range(5))
def test_the_last_friday_of_a_month_is_a_regular_frequency(tmp_path, begin):
    fridays = pd.date_range("2018-01-01", periods=60, freq="LWOM-FRI")[begin:]
    series = read(written(tmp_path, dated(fridays.date)), time="t")
    assert series.frequency == "LWOM-FRI"
    assert season_of(series.frequency) == 12
    assert len(even_rows(series, Data(path="x", target="y")).frame) == len(fridays)


def test_a_wide_irregular_series_is_refused_quickly(tmp_path):
    steps = np.random.default_rng(0).integers(1, 10_000_000, 200)
    times = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.cumsum(steps), unit="s")
    times = times.insert(3, times[2] + pd.Timedelta("1s")).insert(4, times[2] + pd.Timedelta("2s"))
    assert_refused(written(tmp_path, dated(times)), "evenly spaced", time="t")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("tuner.data", "pandas|torch|optuna|mlflow|sklearn|pydantic"),
        ("tuner.data.prepared, tuner.data.baselines, tuner.data.metrics",
         "torch|optuna|mlflow|sklearn"),
    ],
)  # fmt: skip
def test_preparing_data_imports_nothing_heavy(modules, heavy):
    code = f"import sys, {modules}; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert not re.search(rf"'({heavy})'".encode(), loaded)
