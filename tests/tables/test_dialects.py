"""Files in the dialects that people bring are read as the table that they were made of."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.refusals import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.series_table import read_series
from tuner.errors import DataError
from tuner.experiment.data import Data
from tuner.pipeline_steps import Dialect
from tuner.tables import files
from tuner.tables.table import RawTable
from tuner.tables.timestamps import find_parts

DAYS = pd.date_range("2022-01-01", periods=40, freq="D")
SALES = (1000 + 10 * np.sin(np.arange(40)) + 0.37 * np.arange(40)).round(2)
HOUR = pd.Timedelta("1h")
TEMP = (5 + np.cos(np.arange(40))).round(2)


def write(tmp_path, text, name="file.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(row=None, header="date,sales,temp", sep=","):
    """A file of which each row is made of its day, sales and temperature."""
    row = row or (lambda d, s, t: f"{d.date()}{sep}{s}{sep}{t}")
    return "\n".join([header, *map(row, DAYS, SALES, TEMP)]) + "\n"


def series_of(path, **keys):
    data = {"path": str(path), "time": "date", "target": "sales", "missing": "ffill"}
    return read_series(Data.model_validate(data | keys))


def read(path, **keys):
    """Return the series, with its times, as a model would see it."""
    found = series_of(path, **keys)
    return found.frame.assign(date=found.times)


def assert_is_the_table(found):
    assert len(found) == len(DAYS)
    assert (pd.DatetimeIndex(found["date"]).tz_localize(None) == DAYS).all()
    np.testing.assert_allclose(found["sales"], SALES, rtol=1e-12)
    if "temp" in found:
        np.testing.assert_allclose(found["temp"], TEMP, rtol=1e-12)


def comma(value):
    return str(value).replace(".", ",")


def european(value):
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


GERMAN = ["Januar", "Februar", "März"]
FRENCH = ["janvier", "février", "mars"]


def paid(value):
    return f"({-value})" if value < 0 else str(value)


FILES = {
    "semicolons and decimal commas": lines(
        lambda d, s, t: f"{d.date()};{comma(s)};{comma(t)}", "date;sales;temp"),
    "semicolons and decimal points": lines(header="date;sales;temp", sep=";"),
    "tabs": lines(header="date\tsales\ttemp", sep="\t"),
    "bars": lines(header="date|sales|temp", sep="|"),
    "blanks": lines(header="date   sales  temp", sep="   "),
    "sep=": "sep=;\n" + lines(header="date;sales;temp", sep=";"),
    "UTF-8 with a mark": b"\xef\xbb\xbf" + lines().encode(),
    "UTF-16": lines().encode("utf-16"),
    "UTF-16 without a mark": lines().encode("utf-16-le"),
    "UTF-16 with the high byte first": lines().encode("utf-16-be"),
    "comments": "# a logger\n# kW\n" + lines(),
    "names behind a comment mark": "# exported today\n#" + lines(),
    "titles": "Sales of shop 1\n\n" + lines(),
    "a row of units": lines(header="date,sales,temp\n,EUR,°C"),
    "a row of units in brackets": lines(header="date,sales,temp\n[d],[EUR],[C]"),
    "a total": lines() + "Total,40000.5,\n",
    "a remark": lines() + "\n(40 rows)\n",
    "percent": lines(lambda d, s, t: f"{d.date()},{s} %,{t}"),
    "a currency": lines(lambda d, s, t: f'{d.date()},"${s:,.2f}",{t}'),
    "euros": lines(
        lambda d, s, t: f"{d.date()};{european(s)} €;{comma(t)}",
        "date;sales;temp"),
    "thousands": lines(lambda d, s, t: f'{d.date()},"{s:,.2f}",{t}'),
    "thousands by blanks": lines(
        lambda d, s, t: f"{d.date()};{s:,.2f};{t}".replace(",", " "),
        "date;sales;temp"),
    "thousands by apostrophes": lines(
        lambda d, s, t: f"{d.date()},{s:,.2f}".replace(",", "'").replace("'", ",", 1)
        + f",{t}"),
    "minus signs of print": lines(
        lambda d, s, t: f"{d.date()},{s},{t}".replace(",-", ",−")),
    "dates of characters": lines(lambda d, s, t: f"{d:%Y年%m月%d日},{s},{t}"),
    "dates with points": lines(lambda d, s, t: f"{d:%d.%m.%Y},{s},{t}"),
    "a counter without a name": lines(
        lambda d, s, t: f"{d.day_of_year},{d.date()},{s},{t}", ",date,sales,temp"),
    "all in quotes": lines(
        lambda d, s, t: f'"{d.date()}","{s}","{t}"', '"date","sales","temp"'),
    "a separator at the end of lines": lines(
        lambda d, s, t: f"{d.date()},{s},{t},", "date,sales,temp,"),
    "falling": "\n".join([(b := lines().splitlines())[0], *b[:0:-1]]) + "\n",
    "a copy of the last row": lines() + lines().splitlines()[-1] + "\n",
    "line ends of Windows": lines().replace("\n", "\r\n"),
    "a Windows file with titles": ("Sales\n\n" + lines()).replace("\n", "\r\n"),
    "months in German": lines(
        lambda d, s, t: f"{d.day}. {GERMAN[d.month - 1]} 2022,{s}",
        "date,sales"),
    "months in French": lines(
        lambda d, s, t: f"{d.day} {FRENCH[d.month - 1]} 2022,{s}",
        "date,sales"),
    "a known time zone": lines(
        lambda d, s, t: f"{d.date()} 00:00 UTC,{s}", "date,sales"),
    "minus in brackets": lines(lambda d, s, t: f"{d.date()},{s},{paid(t)}"),
    "an empty row": lines().replace("\n2022-01-10", "\n,,\n2022-01-10"),
    "a blank line": lines().replace("\n2022-01-10", "\n\n2022-01-10"),
    "names that are repeated": lines().replace("\n2022-01-10", "\ndate,sales,temp\n2022-01-10"),
    "a rule below the names": lines(header="date|sales|temp\n---|---|---", sep="|"),
    "decimal commas in quotes": lines(
        lambda d, s, t: f'{d.date()},"{comma(s)}","{comma(t)}"'),
    "exponents": lines(lambda d, s, t: f"{d.date()};{comma(f'{s:.7e}')};{d.day}",
                       "date;sales;n"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_table_that_it_was_made_of(tmp_path, name):
    path = write(tmp_path, FILES[name])
    first = series_of(path)
    assert_is_the_table(first.frame.assign(date=first.times))
    again = series_of(path, read=first.dialect.to_dict())
    assert_is_the_table(again.frame.assign(date=again.times))
    assert again.dialect == first.dialect
    left_out = ("sort", "drop", "empty rows", "repeated names")
    assert [note for note in again.found if not note.startswith(left_out)] == []


def test_digits_may_be_grouped_as_in_india(tmp_path):
    text = lines(lambda d, s, t: f'{d.date()},"12,34,{499 + d.day_of_year}.25"', "date,sales")
    found = read(write(tmp_path, text))
    np.testing.assert_allclose(found["sales"], 1234500.25 + np.arange(40))


@pytest.mark.parametrize(
    ("encoding", "target"),
    [("cp1252", "Größe"), ("latin-1", "café"), ("cp1250", "sprzedaż"), ("cp1251", "продажи"),
     ("gbk", "销量"), ("big5", "銷量"), ("cp932", "売上データ"), ("cp949", "판매량과기온그리고")],
)  # fmt: skip
def test_an_older_encoding_is_told_by_its_letters(tmp_path, encoding, target):
    text = lines(header=f"date,{target},temp")
    table = RawTable.read(write(tmp_path, text.encode(encoding)))
    assert table.names == ["date", target, "temp"]
    assert any(note.startswith("encoding: ") for note in table.notes)


def test_an_encoding_that_is_not_certain_is_asked_for(tmp_path):
    path = write(tmp_path, lines(header="날짜,판매,temp").encode("cp949"))
    with pytest.raises(DataError, match=r"data\.read\.encoding: .*cp949, which reads '날짜,판매"):
        RawTable.read(path)
    assert RawTable.read(path, Dialect(encoding="cp949")).names == ["날짜", "판매", "temp"]


# What a refusal holds, and the keys of data.read that settle it.
REFUSED = [
    (lines(lambda d, s, t: f'{d.date()},"1,{200 + d.day_of_year}",{d.day}'),
     'data.read.decimal: "," or "."', {"decimal": "."}),
    (lines(lambda d, s, t: f"{d.date()};1.{200 + d.day_of_year};{d.day}", "date;sales;n"),
     "data.read.decimal", {"decimal": ","}),
    (lines().replace("\n2022-01-10", "\n# maintenance\n2022-01-10"),
     'data.read.comment: "#"', {"comment": "#"}),
    (lines(lambda d, s, t: f"{d.date()},{'$€'[d.day % 2]}{s},{t}"), "of one unit", None),
    (lines(lambda d, s, t: f"{d.date()},{s} zorks,{t}"),
     'data.read.units: ["zorks"]', {"units": ["zorks"]}),
    ("\n".join([(rows := lines().splitlines())[0], *rows[5:], *rows[1:5]]),
     "data.read.sort: true", {"sort": True}),
    (lines(lambda d, s, t: f"{44561 + d.day_of_year},{s},{t}"),
     "data.read.date_format: excel", {"date_format": "excel"}),
    (lines(lambda d, s, t: f"{d:%d~%m~%Y},{s},{t}"),
     "data.read.date_format", {"date_format": "%d~%m~%Y"}),
    ("Station,Berlin\nLat,52.5\n\n" + lines(), "data.read.skip_rows: 3 if line 4 has them",
     {"skip_rows": 3}),
    (lines() + ",12345.5,\n", "data.read.skip_footer: 1 if a total", {"skip_footer": 1}),
    (lines().replace(f",{SALES[9]},", f',"{comma(SALES[9])}",'),
     "in line 11 among decimal points; correct it", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told", "keys"), REFUSED, ids=[row[1] for row in REFUSED])
def test_an_ambiguity_is_refused_with_the_key_that_settles_it(tmp_path, text, told, keys):
    path = write(tmp_path, text)
    assert_refused(lambda: read(path), told)
    if keys is not None:
        found = read(path, read=keys)
        assert (pd.DatetimeIndex(found["date"]) == DAYS).all()


def test_a_word_in_a_column_of_numbers_is_named_with_its_line(tmp_path):
    text = "# by hand\n" + lines().replace(str(SALES[4]), "broken")
    path = write(tmp_path, text)
    with pytest.raises(
        DataError, match=r"got 'broken' in line 7; .*missing_values: \[\"broken\"\]"
    ):
        read(path)
    found = read(path, read={"missing_values": ["broken"]})
    assert np.isnan(found["sales"][4])
    assert np.isfinite(found["sales"]).sum() == len(DAYS) - 1


@pytest.mark.parametrize("word", ["-", "N/A", "n.a.", "?", "null", "#DIV/0!", "--", "NaN", ""])
def test_the_usual_words_for_nothing_are_missing_values(tmp_path, word):
    found = read(write(tmp_path, lines().replace(str(SALES[4]), word)))
    assert np.flatnonzero(found["sales"].isna()).tolist() == [4]


def test_a_declared_sentinel_is_missing(tmp_path):
    path = write(tmp_path, lines().replace(str(SALES[4]), "-999"))
    assert read(path)["sales"][4] == -999
    found = read(path, read={"missing_values": ["-999"]})
    assert np.isnan(found["sales"][4])


@pytest.mark.parametrize("value", [lambda i: i % 24, lambda i: 5 + (i > 300)])
def test_a_repeated_hour_is_two_hours_in_its_time_zone(tmp_path, value):
    hours = pd.date_range("2022-10-25", periods=400, freq="h", tz="Europe/Berlin")
    rows = [f"{t:%Y-%m-%d %H:%M},{value(i)}" for i, t in enumerate(hours)]  # equal ones too
    path = write(tmp_path, "\n".join(["date,sales", *rows]))
    with pytest.raises(DataError, match=r"clocks go back.*data\.read\.timezone: Europe/Berlin"):
        read(path)
    found = read(path, read={"timezone": "Europe/Berlin"})
    assert (pd.DatetimeIndex(found["date"]) == hours).all()
    with pytest.raises(DataError, match=r"data\.read\.timezone: times must be those of"):
        read(path, read={"timezone": "America/New_York"})


@pytest.mark.parametrize(
    ("header", "row", "parts"),
    [
        ("day,hour,sales", lambda t: f"{t:%Y-%m-%d},{t.hour}", ["day", "hour"]),
        ("day,hour,sales", lambda t: f"{t:%Y-%m-%d},{t:%H:%M}", ["day", "hour"]),
        ("day,hour,sales", lambda t: f"{t:%d/%m/%Y},{t.hour}", ["day", "hour"]),
        ("day,clock,sales", lambda t: f"{t:%d.%m.%Y},{t:%I:%M %p}", ["day", "clock"]),
        ("y,m,d,h,sales", lambda t: f"{t.year},{t.month},{t.day},{t.hour}", ["y", "m", "d", "h"]),
        ("day,hour,sales", lambda t: f"{t - HOUR:%Y-%m-%d},{(t - HOUR).hour + 1}", ["day", "hour"]),
    ],
)  # fmt: skip
def test_times_in_several_columns_are_joined(tmp_path, header, row, parts):
    hours = pd.date_range("2022-01-01", periods=60, freq="h")
    text = "\n".join([header, *(f"{row(t)},{i}" for i, t in enumerate(hours))])
    found = read(write(tmp_path, text), read={"time_columns": parts})
    assert (pd.DatetimeIndex(found["date"]) == hours).all()
    assert set(parts).isdisjoint(found)


def test_a_time_column_that_is_to_be_joined_must_be_there(tmp_path):
    path = write(tmp_path, lines())
    with pytest.raises(DataError, match=r"data\.read\.time_columns: no column 'hour' in the file"):
        read(path, read={"time_columns": ["date", "hour"]})


def test_midnight_may_be_the_end_of_a_day(tmp_path):
    hours = pd.date_range("2022-01-01 01:00", periods=48, freq="h")
    shown = [
        f"{t - pd.Timedelta('1D'):%Y-%m-%d} 24:00" if t.hour == 0 else f"{t:%Y-%m-%d %H:%M}"
        for t in hours
    ]
    text = "\n".join(["date,sales", *(f"{t},{i}" for i, t in enumerate(shown))])
    assert (pd.DatetimeIndex(read(write(tmp_path, text))["date"]) == hours).all()


def test_a_total_is_no_row_and_a_damaged_date_is_no_remark(tmp_path):
    with pytest.raises(DataError, match="'2o22-02-10' in line 42"):
        read(write(tmp_path, lines() + "2o22-02-10,5,6\n"))


def test_version_numbers_addresses_and_codes_stay_texts(tmp_path):
    row = "{0},{1},1.{2}.2,10.0.0.{2},Q{3},{2}{4},2{2}x10,{2}/20"
    text = lines(
        lambda d, s, t: row.format(d.date(), s, d.day_of_year, d.day % 4, "AB"[d.day % 2]),
        "date,sales,version,address,quarter,flat,size,score",
    )
    table = RawTable.read(write(tmp_path, text))
    texts = [c for c in table.names if not pd.api.types.is_numeric_dtype(table.frame[c])]
    assert texts == ["date", "version", "address", "quarter", "flat", "size", "score"]
    assert table.ambiguous == {}


def test_ids_and_classes_are_as_written_in_every_dialect(tmp_path):
    text = "# x\nid;label;v\n" + "".join(f"0{i};1,{i};{i},5\n" for i in range(5)) + "\n"
    table = RawTable.read(write(tmp_path, text))
    assert table.raw_strings(["id"])["id"].tolist() == [f"0{i}" for i in range(5)]
    assert table.raw_strings(["label"])["label"].tolist() == [f"1,{i}" for i in range(5)]
    assert table.frame["v"].tolist() == [i + 0.5 for i in range(5)]


def test_a_column_without_a_name_is_called_after_its_place(tmp_path):
    text = lines(header=",sales,temp")
    found = read(write(tmp_path, text), time="column_1")
    assert (pd.DatetimeIndex(found["date"]) == DAYS).all()


values = st.lists(
    st.floats(-9e6, 9e6).map(lambda v: round(v, 3)) | st.integers(-(10**6), 10**6).map(float),
    min_size=8,
    max_size=25,
)


@settings(max_examples=examples(60))
@given(
    values=values,
    style=st.sampled_from([(",", "."), (";", ","), (";", "."), ("\t", "."), ("|", ",")]),
    grouped=st.booleans(),
    unit=st.sampled_from(["", " %", " €", " kWh"]),
    word=st.sampled_from(["", "-", "N/A", "?"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    above=st.sampled_from(["", "# a\n# b\n", "A title\n\n"]),
    below=st.sampled_from(["", "Total\n", "\n\n"]),
    end=st.sampled_from(["\n", "\r\n"]),
)  # fmt: skip
def test_a_table_survives_writing_in_any_dialect(
    tmp_path, values, style, grouped, unit,
    word, encoding, above, below, end,
) :  # fmt: skip
    separator, decimal = style
    values = [1234567.25, *values]  # tells what points and commas are
    other = "." if decimal == "," else ","

    def number(value):
        text = f"{value:,.3f}" if grouped else f"{value:.3f}"
        text = text.translate(str.maketrans(",.", other + decimal))
        return f'"{text}{unit}"' if separator in text else text + unit

    days = pd.date_range("2024-02-20", periods=len(values))
    rows = [f"{d:%Y-%m-%d}{separator}{number(v)}" for d, v in zip(days, values, strict=True)]
    rows[3] = f"{days[3]:%Y-%m-%d}{separator}{word}"
    text = above + "\n".join([f"date{separator}sales", *rows]) + "\n" + below
    path = write(tmp_path, text.replace("\n", end).encode(encoding))
    table = RawTable.read(path)
    assert table.names == ["date", "sales"]
    assert table.ambiguous == {}
    expected = np.array(values).round(3)
    expected[3] = np.nan
    np.testing.assert_allclose(table.frame["sales"].astype(float), expected, rtol=1e-12)
    np.testing.assert_array_equal(table.frame["date"], days.strftime("%Y-%m-%d"))
    assert table.place_of(2).startswith(("line ", "row "))
    line = int(table.place_of(2).split()[1])
    assert text.split("\n")[line - 1].startswith(f"{days[2]:%Y-%m-%d}")


def test_a_sheet_is_read_as_a_csv_file_is(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Sales of shop 1"])
    sheet.append([])
    sheet.append(["date", "sales", "temp", None])
    for day, s, t in zip(DAYS, SALES, TEMP, strict=True):
        sheet.append([day.to_pydatetime(), float(s), f"{t} °C"])
    sheet.append(["Total", "=SUM(B4:B43)"])
    book.save(tmp_path / "book.xlsx")
    path = tmp_path / "book.xlsx"
    assert_is_the_table(read(path))
    assert RawTable.read(path).place_of(0) == "row 4"


def test_a_formula_that_nobody_calculated_is_a_text(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["date", "sales"])
    for i, day in enumerate(DAYS):
        book.active.append([day.to_pydatetime(), "=1+1" if i == 3 else i])
    book.save(tmp_path / "book.xlsx")
    with pytest.raises(DataError, match="got '=1\\+1' in row 5"):
        read(tmp_path / "book.xlsx")


def test_json_lines_are_read(tmp_path):
    frame = pd.DataFrame({"date": DAYS.strftime("%Y-%m-%d"), "sales": SALES, "temp": TEMP})
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    assert_is_the_table(read(tmp_path / "rows.jsonl"))
    nested = write(tmp_path, '{"a": {"b": 1}}\n', "nested.jsonl")
    with pytest.raises(DataError, match="'a' must hold single values"):
        RawTable.read(nested)


def test_json_lines_of_ever_new_keys_are_refused_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pd, "read_json", lambda *_, **__: pytest.fail("the table was made"))
    sparse = write(tmp_path, "".join(f'{{"k{i}":1}}\n' for i in range(30_000)), "rows.jsonl")
    with pytest.raises(DataError, match=r"10,001 different keys in 10,001 lines; write the same"):
        RawTable.read(sparse)
    names = ",".join(f'"k{i}":1' for i in range(100_001))
    with pytest.raises(DataError, match="100,001 different keys in 1 lines"):
        RawTable.read(write(tmp_path, f"{{{names}}}\n", "wide.jsonl"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [("[" * 100_000, "line 3 is nested too deeply"), ('{"a": 1', "line 3 is no JSON: ")],
)
def test_a_line_that_is_no_json_is_named(line, problem, tmp_path):
    path = write(tmp_path, f'{{"a": 1}}\n\n{line}\n', "rows.jsonl")
    with pytest.raises(DataError, match=f"is no JSON lines file: {problem}"):
        RawTable.read(path)


def test_parquet_texts_of_numbers_are_numbers_and_codes_codes(tmp_path):
    frame = pd.DataFrame({"date": DAYS, "sales": [f"{v:,.2f}" for v in SALES],
                          "code": [f"{i:03}" for i in range(40)]})  # fmt: skip
    frame.to_parquet(tmp_path / "rows.parquet")
    table = RawTable.read(tmp_path / "rows.parquet")
    np.testing.assert_allclose(table.frame["sales"], SALES)
    assert table.frame["code"].tolist() == frame["code"].tolist()


def test_files_that_would_fill_the_memory_are_refused_early(tmp_path, monkeypatch):
    wide = write(tmp_path, b"a," * 300_000 + b"\n1\n")
    with pytest.raises(DataError, match="more than 100,000 columns"):
        RawTable.read(wide)
    monkeypatch.setattr(files, "_MOST_UNPACKED", 4 << 10)
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(2 << 10))
    with pytest.raises(DataError, match="unpacks to more than 1 GiB"):
        RawTable.read(tmp_path / "bomb.xlsx")


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.csv.gz", "unpack it first"), ("a.zip", "unpack it"), ("a.xls", "save it as xlsx"),
     ("a.json", "JSON lines"), ("a.feather", "save it as Parquet")],
)  # fmt: skip
def test_other_formats_are_refused_with_what_to_do(tmp_path, name, told):
    with pytest.raises(DataError, match=told):
        RawTable.read(write(tmp_path, "x,y\n1,2\n", name))


def test_cells_that_look_like_formulas_are_texts(tmp_path):
    buffer = io.StringIO()
    pd.DataFrame({"sales": [1.5, 2.5], "note": ["=cmd|'/C calc'!A0", "@SUM(1)"]}).to_csv(
        buffer, index=False
    )
    table = RawTable.read(write(tmp_path, buffer.getvalue()))
    assert table.frame["note"].tolist() == ["=cmd|'/C calc'!A0", "@SUM(1)"]


def test_the_line_of_a_row_counts_what_is_left_out_before_it(tmp_path):
    text = lines().replace("\n2022-01-10", "\ndate,sales,temp\n\n2022-01-10")
    text = text.replace(str(SALES[20]), "oops")
    with pytest.raises(DataError, match=r"got 'oops' in line 24"):
        read(write(tmp_path, text))


def test_days_of_a_spreadsheet_have_hours(tmp_path):
    hours = pd.date_range("2022-01-01", periods=60, freq="h")
    text = "\n".join(["date,sales", *(f"{44562 + i / 24:.5f},{i}" for i in range(60))])
    found = read(write(tmp_path, text), read={"date_format": "excel"})
    assert (pd.DatetimeIndex(found["date"]) == hours).all()


@pytest.mark.parametrize(
    ("above", "names"),
    [
        ("# exported by a logger, hourly\n", "label,text"),
        ("# one\n\n# two\n", "label,text"),
        ("", "#label,text"),
        ("# exported\n", "#label,text"),
    ],
)
def test_texts_that_begin_with_a_comment_mark_are_rows(tmp_path, above, names):
    rows = ["a,so it is", "b,no", "#1,who", "a,fine", "b,#love you"]
    table = RawTable.read(write(tmp_path, above + "\n".join([names, *rows]) + "\n"))
    assert table.names == ["label", "text"]
    assert table.raw_strings(["label"])["label"].tolist() == ["a", "b", "#1", "a", "b"]


def test_points_that_may_group_digits_are_ambiguous_in_texts(tmp_path):
    shown = ["950", "1.020", "1.234", "987", *(f"1.{100 + i}" for i in range(36))]
    rows = [f"{d:%Y-%m-%d}\t{v}" for d, v in zip(DAYS, shown, strict=True)]
    text = "\n".join(["date\tsales", *rows])
    path = write(tmp_path, text)
    with pytest.raises(DataError, match="data.read.decimal"):
        read(path)
    assert read(path, read={"thousands": "."})["sales"][:4].tolist() == [950, 1020, 1234, 987]
    assert read(path, read={"decimal": "."})["sales"][:4].tolist() == [950, 1.02, 1.234, 987]
    second = text.replace("sales", "sales\tall").splitlines()
    second[1:] = [f"{line}\t1.020.{i:03}" for i, line in enumerate(second[1:])]
    found = read(write(tmp_path, "\n".join(second)))
    assert found["sales"][:4].tolist() == [950, 1020, 1234, 987]


def test_seconds_are_kept_where_dates_are_joined_to_times_of_day(tmp_path):
    times = pd.date_range("2020-02-01", periods=240, freq="30s")
    text = "\n".join(["day,clock,sales", *(f"{t:%d/%m/%Y},{t:%H:%M:%S},5" for t in times)])
    found = read(write(tmp_path, text), read={"time_columns": ["day", "clock"]})
    assert len(found) == 240
    assert np.diff(pd.DatetimeIndex(found["date"]).asi8).std() == 0


@pytest.mark.parametrize("parts", [["year", "month", "hour"], ["year", "quarter"]])
def test_parts_of_the_time_with_a_hole_are_refused(tmp_path, parts):
    rows = [f"2020,{1 + i // 24},{i % 24 + 1},{1 + i // 12},{i}" for i in range(48)]
    path = write(tmp_path, "\n".join(["year,month,hour,quarter,sales", *rows]))
    with pytest.raises(DataError, match=r"time_columns: must be year, month.*in place of the"):
        read(path, read={"time_columns": parts})
    assert find_parts(RawTable.read(path).frame) == ()


def test_text_that_is_utf_8_is_no_other_encoding(tmp_path):
    path = write(tmp_path, lines(header="date,Köln,temp"))
    assert RawTable.read(path, Dialect(encoding="cp1252")).names[1] == "Köln"


def test_two_units_in_one_column_are_refused(tmp_path):
    text = lines(lambda d, s, t: f"{d.date()},{s} {('kWh', 'Wh')[d.day % 2]},{t}")
    with pytest.raises(DataError, match="of one unit"):
        read(write(tmp_path, text), read={"units": ["kWh", "Wh"]})


def test_a_model_is_told_of_lines_that_no_file_tells(tmp_path):
    path = write(tmp_path, lines() + f"{DAYS[-1] + HOUR * 24:%Y-%m-%d},1,2\n")
    data = {"path": str(path), "time": "date", "target": "sales"}
    declared = read_series(Data.model_validate(data | {"read": {"skip_footer": 1}}))
    assert declared.reusable_dialect.skip_footer == 1
    path = write(tmp_path, "Title\n\n" + lines() + "Total,40000.5,\n")
    keys = {"skip_footer": 1, "skip_rows": 2}
    reusable = read_series(Data.model_validate(data | {"read": keys})).reusable_dialect
    assert (reusable.skip_footer, reusable.skip_rows) == (None, None)


def test_the_sheet_that_holds_a_table_is_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Read me first"])
    book.active.append(["Sales are on the next sheet."])
    sheet = book.create_sheet("Data")
    sheet.append(["date", "sales"])
    for day, s in zip(DAYS, SALES, strict=True):
        sheet.append([day.to_pydatetime(), float(s)])
    book.save(tmp_path / "book.xlsx")
    assert_is_the_table(read(tmp_path / "book.xlsx"))


def test_a_text_in_row_one_is_a_value_without_dates(tmp_path):
    rows = ["s0,x,c0", *(f"s{i},2.5,c{i % 2}" for i in range(1, 10))]
    table = RawTable.read(write(tmp_path, "\n".join(["id,w,label", *rows]) + "\n"))
    assert table.raw_strings(["w"])["w"].tolist() == ["x", *["2.5"] * 9]
    units = RawTable.read(write(tmp_path, "\n".join(["id,w,label", ",kWh,", *rows[1:]]) + "\n"))
    assert len(units.frame) == 9


@pytest.mark.parametrize("first", ["2020-01-01 00:00,up", "a,950", "x,-3"])
def test_a_file_without_names_loses_no_row(tmp_path, first):
    left, right = first.split(",")
    times = left.startswith("2020")
    rows = [f"2020-01-0{i} 00:00,up" if times else f"a,{900 + i}" for i in range(2, 9)]
    with pytest.raises(DataError, match=f"line 1 must name the columns, got the values {left}"):
        RawTable.read(write(tmp_path, "\n".join([first, *rows]) + "\n"))


def test_numbers_beside_a_word_above_days_name_columns(tmp_path):
    rows = [f"2020-01-0{i},{i}.5,{i}.7" for i in range(1, 9)]
    path = write(tmp_path, "\n".join(["date,0.1,0.9", *rows]) + "\n")
    assert RawTable.read(path).names == ["date", "0.1", "0.9"]


def test_years_and_counts_name_columns(tmp_path):
    rows = [f"s{i},{i},{i + 1},{i * 900}" for i in range(9)]
    for names in ("shop,2019,2020,2021", "shop,0,1,2", "shop,2020-01-01,2020-02-01,2020-03-01"):
        path = write(tmp_path, "\n".join([names, *rows]) + "\n")
        assert RawTable.read(path).names == names.split(",")
