"""Text tables: their dialect (separator, lines above and below the rows), and parsing."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_integer_dtype

from tuner.errors import DataError, Setting, one_line, refusal
from tuner.pipeline_steps import Dialect
from tuner.tables.numbers import (
    MISSING_WORDS,
    is_unit,
    looks_like_number,
    may_be_grouped,
    with_numbers,
)

# The separator of columns that any number of blanks and tabs stand between.
WHITESPACE = "whitespace"
_SEPARATORS = ",;\t|"
_COMMENTS = ("#", "//", "%")
_HEAD, _TAIL = 1 << 17, 1 << 14  # characters that are looked at
_LINES = 300
_FOOTERS = 5  # lines at most
_MOST = 0.9  # of the values of a column are of its kind
_DATE = re.compile(
    r"\d{1,4}\s*[-/.年년:]\s*(\d{1,2}|[A-Za-z]{3,9})(\s*[-/.月월:]\s*\d{0,4}\s*[日일]?)?"
    r"([ T]*\d{1,2}[:時时시h]\d{0,2}.*)?|[A-Za-z]{3}-\d\d|\d{1,2} [A-Za-z]{3,9}\.? \d{4}.*"
)
_VALUE = re.compile(r"[-+.]?\d[-+.:/\d TZe]*")  # a number or a time, no name of a column
_ROW_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d\d.*)?")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_PLAIN = re.compile(r"[-+]?\d+(\.\d+)?")
_WORD = re.compile(r"[^\W\d][^\d]*")
_FRACTION = re.compile(r"[-+]?\d+\.\d+")  # above 1, or it may name a quantile: 0.9


class LooksLikeRow(ValueError):
    """The line that should name the columns holds values."""


@dataclass(frozen=True)
class _Layout:
    """The first lines as one separator divides them."""

    separator: str
    records: list[list[str]]
    width: int  # columns of the most records
    share: float  # of the records that have as many
    typed: float  # share of the values that are numbers or times


def found_dialect(text: str, declared: Dialect) -> Dialect:
    """Return the dialect of a text; declared keys are kept.

    Keys that are as in a plain CSV file stay None, but the separator.
    """
    head = list(itertools.islice(io.StringIO(text[:_HEAD], newline=""), _LINES + 1))
    head = head if len(text) <= _HEAD or len(head) < 2 else head[:-1]
    found = declared
    hint = re.match(r"sep=(.)\s*\Z", head[0], re.IGNORECASE) if head else None
    if hint is not None and declared.skip_rows is None:
        found = replace(found, separator=declared.separator or hint[1])
    above = int(hint is not None) if declared.skip_rows is None else declared.skip_rows
    lines = head[above:]
    first = next((line.lstrip() for line in lines if line.strip()), "")
    mark = found.comment or next((m for m in _COMMENTS if first.startswith(m)), None)
    if mark and found.comment is None and _is_commented_header(lines, mark, found.separator):
        mark = None
    kept = [line for line in lines if not _is_comment(line, mark)]
    separators = [found.separator] if found.separator is not None else [*_SEPARATORS]
    layouts = [_layout(kept, separator) for separator in separators]
    best = max(layouts, key=lambda of: (of.width > 1) * (of.share + of.typed))
    if found.separator is None and best.width < 2:
        best = _layout(kept, WHITESPACE)
        if best.width < 2 or best.share < 1 or best.typed < 0.3:
            best = layouts[0]
    found = replace(found, separator=best.separator)
    if mark is not None and found.comment is None and _are_remarks(lines, mark, best):
        found = replace(found, comment=mark)
    if declared.skip_rows is None:
        above += _lines_above(lines, found, best)
        found = replace(found, skip_rows=above or None)
    below = [record for _, record in records_of("".join(head), found)]
    kinds = _kinds(below[2:], best.width)
    if found.unit_row is None and _is_unit_row(below, kinds):
        found = replace(found, unit_row=True)
    if found.skip_footer is None and (n := _lines_below(text, found, kinds)):
        found = replace(found, skip_footer=n)
    return found


def body_of(text: str, dialect: Dialect) -> str:
    """Return the line of names and the rows of a text, without everything that is not read."""
    start = _offset(text, dialect.skip_rows or 0)
    body = text[start:] if start else text
    if dialect.comment is not None:
        mark = re.escape(dialect.comment)
        body = re.sub(rf"(?m)^[ \t]*{mark}[^\n]*(\n|\Z)", "", body)
    if dialect.unit_row:
        header = _offset(body, 1)
        body = body[:header] + body[header + _offset(body[header:], 1) :]
    for _ in range(dialect.skip_footer or 0):
        body = body.rstrip()
        body = body[: max(body.rfind("\n"), body.rfind("\r")) + 1]
    if dialect.separator == WHITESPACE:
        body = re.sub(r"(?m)^[ \t]+|[ \t]+$", "", body)
        body = re.sub(r"[ \t]+", " ", body)
    return body


def header_of(record: Sequence[str]) -> list[str]:
    """Return the names of columns; one that has none is named after its place, `column_1`.

    Raises:
        LooksLikeRow: these are values.
    """
    names = [name.strip() for name in record]
    if names and names[0].startswith("#"):
        names[0] = names[0].lstrip("# ")
    given = [name for name in names if name]
    kinds = [any(kind.fullmatch(name) for name in given) for kind in (_ROW_DATE, _NUMBER)]
    measured = any(_FRACTION.fullmatch(name) and abs(float(name)) > 1 for name in given)
    if given and (all(kinds) or measured or all(_VALUE.fullmatch(name) for name in given)):
        raise LooksLikeRow(", ".join(names))
    return [name or f"column_{i}" for i, name in enumerate(names, 1)]


def is_like_rows(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Return whether names are a row of values: a day above days, or a number above numbers.

    Years and numbers that count the columns are names, of wide tables and of arrays. So are all
    numbers beside a word that stands above days: `date,0.1,0.9`.
    """

    def above(kind: re.Pattern[str]) -> list[str]:  # columns of at least three such values alone
        found = []
        for at, name in enumerate(names):
            values = [row[at].strip() for row in rows if len(row) > at and row[at].strip()]
            if len(values) >= 3 and all(map(kind.fullmatch, values)):
                found.append(name.strip())
        return found

    def counts(number: float) -> bool:
        return number.is_integer() and (0 <= number <= len(names) or 1800 <= number <= 2200)

    above_days = above(_ROW_DATE)
    words = [name for name in above_days if name.casefold() not in MISSING_WORDS]
    if any(_WORD.fullmatch(name) for name in words):
        return False
    numbers = [float(name) for name in above(_NUMBER) if _PLAIN.fullmatch(name)]
    return any(map(_ROW_DATE.fullmatch, above_days)) or not all(map(counts, numbers))


def records_of(text: str, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Yield the line of names and the rows, each with its line in the text, counted from 1.

    A value in quotes may span lines. Nothing is left out at the end.
    """
    read: list[int] = []  # the lines of a record

    def lines() -> Iterator[str]:
        for number, line in enumerate(io.StringIO(text, newline=""), 1):
            if number > (dialect.skip_rows or 0) and not _is_comment(line, dialect.comment):
                read.append(number)
                if dialect.separator == WHITESPACE:
                    line = re.sub(r"[ \t]+", " ", line.strip(" \t"))
                yield line

    records = csv.reader(lines(), delimiter=delimiter(dialect), skipinitialspace=True)
    for number, record in enumerate(records):
        if not (number == 1 and dialect.unit_row):
            yield read[0], record
        read.clear()


def delimiter(dialect: Dialect) -> str:
    """Return the character between the columns of a body."""
    return " " if dialect.separator == WHITESPACE else dialect.separator or ","


def without_blank_end(text: str) -> str:
    """Return a text without the line ends and the blank lines after its last value.

    White space behind the last value stays, as it does in every other line.
    """
    end = len(text.rstrip())
    padding = re.match(r"[^\r\n]*", text[end:])
    return text[:end] + (padding[0] if padding else "")


def _offset(text: str, lines: int) -> int:
    """Return where so many lines end."""
    at = 0
    for _ in range(lines):
        found = re.compile(r"\r\n|\n|\r").search(text, at)
        if found is None:
            return len(text)
        at = found.end()
    return at


def _is_cut(line: str) -> bool:
    return line.count('"') % 2 > 0


def _is_comment(line: str, mark: str | None) -> bool:
    return mark is not None and line.lstrip(" \t").startswith(mark)


def _is_commented_header(lines: list[str], mark: str, separator: str | None) -> bool:
    """Return whether the last comment above the rows names their columns: `# date,sales`."""
    rows = (i for i, line in enumerate(lines) if line.strip() and not _is_comment(line, mark))
    at = next(rows, 0)
    if mark != "#" or not at:
        return False
    for each in [separator] if separator is not None else _SEPARATORS:
        names, values = (_record(line, each) for line in lines[at - 1 : at + 1])
        if len(names) == len(values) > 1 and _looks_like_row(values):
            return True
    return False


def _record(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator), [])


def _looks_like_row(record: list[str]) -> bool:
    try:
        header_of(record)
    except LooksLikeRow:
        return True
    return False


def _are_remarks(lines: list[str], mark: str, layout: _Layout) -> bool:
    """Return whether lines between the rows that begin with a mark are no rows themselves."""
    first = next((i for i, line in enumerate(lines) if not _is_comment(line, mark)), len(lines))
    separator = delimiter(Dialect(separator=layout.separator))
    marked = [_record(line, separator) for line in lines[first:] if _is_comment(line, mark)]
    return bool(marked) and layout.width not in map(len, marked)


def _layout(lines: list[str], separator: str) -> _Layout:
    dialect = Dialect(separator=separator)
    try:
        records = [r for _, r in records_of("".join(lines), dialect) if any(v.strip() for v in r)]
    except csv.Error:
        records = []
    if not records:
        return _Layout(separator, [], 0, 0.0, 0.0)
    (width, n), *_ = Counter(map(len, records)).most_common(1)
    values = [v for record in records[1:] for v in record if len(record) == width]
    typed = sum(map(_is_typed, values)) / max(1, len(values))
    return _Layout(separator, records, width, n / len(records), typed)


def _is_typed(value: str) -> bool:
    return not value.strip() or _is_date(value) or looks_like_number(value)


def _is_date(value: str) -> bool:
    return bool(_DATE.fullmatch(value.strip()))


def _kinds(records: list[list[str]], width: int) -> list[str]:
    """Return what each column holds in the first rows: date, number, or "" for anything else."""
    kinds = []
    for at in range(width):
        values = [r[at].strip() for r in records if len(r) > at]
        values = [v for v in values if v and v.casefold() not in MISSING_WORDS]
        kind = ""
        for name, test in (("number", looks_like_number), ("date", _is_date)):
            least = min(_MOST * len(values), max(3, len(values) - 1))
            if values and sum(map(test, values)) >= least:
                kind = name
                break
        kinds.append(kind)
    return kinds


def _lines_above(lines: list[str], dialect: Dialect, layout: _Layout) -> int:
    """Return how many lines stand above the names: titles, of one value each, and blank ones.

    Comments among them count, as they are skipped with them.
    """
    if layout.width < 2 or layout.share < 0.5:
        return 0
    above = 0
    names = next((i for i, line in enumerate(lines) if not line.startswith("#")), 0) - 1
    if not _is_commented_header(lines, "#", dialect.separator):
        names = -1
    for at, line in enumerate(lines):
        if _is_cut(line):
            return 0
        if _is_comment(line, dialect.comment) and at != names:
            above += 1
            continue
        whitespace = dialect.separator == WHITESPACE
        record = line.split() if whitespace else _record(line, delimiter(dialect))
        filled = [i for i, value in enumerate(record) if value.strip()]
        commented = line.startswith(_COMMENTS) and not re.match(r"#\w", line)
        # In a sheet titles have empty cells behind them.
        may_name = len(record) == layout.width and filled != [0]
        if may_name and (not commented or at == names):
            break
        if len(filled) > 1 and not commented:
            return 0  # values, so these may be the names
        above += 1
    else:
        return 0
    filled_lines = [line for line in lines[:above] if line.strip()]
    titles = [line for line in filled_lines if not line.lstrip().startswith(_COMMENTS)]
    if not titles:
        return above if filled_lines else 0
    if _looks_like_row(record):
        return 0
    kinds = _kinds(layout.records[1 + len(titles) :], layout.width)
    return above if any(kinds) and not any(map(looks_like_number, record)) else 0


def _is_unit_row(records: list[list[str]], kinds: list[str]) -> bool:
    """Return whether the line below the names holds units: a text in each column of numbers."""
    if len(records) < 5 or "number" not in kinds:
        return False
    row = [value.strip() for value in records[1]]
    if any(row) and all(re.fullmatch(r"[-=:]{2,}|", value) for value in row):
        return True  # a rule, as under the names of a printed table
    held = [(v, kind) for v, kind in zip(row, kinds, strict=False) if v and kind]
    units = [v for v, kind in held if kind == "number"]
    # Without a column of dates, any text may be a value.
    if not units or ("date" not in kinds and not all(map(is_unit, units))):
        return False
    return not any(
        v.casefold() in MISSING_WORDS or _is_typed(v) or re.search(r"\d{2}", v) for v, _ in held
    )


def _lines_below(text: str, dialect: Dialect, kinds: list[str]) -> int:
    """Return how many lines stand below the rows: totals and remarks in place of a date."""
    key = next((i for i, kind in enumerate(kinds) if kind == "date"), None)
    if key is None:  # any text may be a value
        return 0
    tail = text[-_TAIL:].rstrip()
    lines = list(io.StringIO(tail, newline=""))[1 if len(text) > _TAIL else 0 :]
    if any(map(_is_cut, lines)):
        return 0
    n = 0
    for line in reversed(lines[2:] if len(text) <= _TAIL else lines):
        if not line.strip():
            continue
        record = next(csv.reader([line], delimiter=delimiter(dialect), skipinitialspace=True), [])
        value = record[key].strip() if len(record) > key else line.strip()
        if not _is_remark(value) or n == _FOOTERS:
            break
        n += 1
    return n


def _is_remark(value: str) -> bool:
    """Return whether a value in the place of a date or number is words: `Total`, `(200 rows)`."""
    if not value or value.casefold() in MISSING_WORDS:
        return False
    letters = sum(c.isalpha() for c in value)
    wide = any(ord(c) > 0x2E80 for c in value)  # 合计
    return not value[0].isdigit() and letters >= (1 if wide else 3) and not _is_date(value)


_SAMPLE = 300  # rows that show whether points may group digits


@dataclass(frozen=True, eq=False)
class ParsedText:
    """A table as a text holds it."""

    frame: pd.DataFrame
    body: str  # the line of names and the rows
    dialect: Dialect
    points_certain: bool  # whether 1.234 is less than two


def parse_text(path: Path, text: str, declared: Dialect) -> ParsedText:
    """Return the table in a text, its part that is read, and its dialect.

    Raises:
        DataError: it is no table, has no names of columns, or two of one name.
    """
    dialect = found_dialect(text, declared)
    body = without_blank_end(body_of(text, dialect))
    header: list[str] = []
    try:
        records = records_of(text, dialect)
        line, first = next(records, (1, []))
        header = _check_header(path, first, line)
        if len(next(records, (2, []))[1]) > len(header):  # pandas would take them for row names
            raise _ragged(path, text, header, dialect)
        rows = [record for _, record in itertools.islice(records, _SAMPLE)]
        if is_like_rows(first, rows):
            raise _no_names(path, line, first)
        points_certain = dialect.separator != ";" and not may_be_grouped(rows)
        as_texts = not points_certain or dialect.decimal == "," or dialect.thousands is not None
        frame = _parse_body(body, header, dialect, as_texts=as_texts)
        if not as_texts:  # numbers that pandas read may mean something else than it took them for
            found = with_numbers(frame, dialect)[1]
            if found.decimal == "," or found.thousands == ".":
                frame = _parse_body(body, header, dialect, as_texts=True)
    except (csv.Error, ValueError) as error:  # pandas' ParserError is a ValueError
        raise _ragged(path, text, header, dialect, error) from None
    return ParsedText(_without_counter(frame), body, dialect, points_certain)


def _parse_body(body: str, header: list[str], dialect: Dialect, *, as_texts: bool) -> pd.DataFrame:
    frame = pd.read_csv(
        io.StringIO(body),
        sep=delimiter(dialect),
        low_memory=False,
        skip_blank_lines=False,
        skipinitialspace=True,  # blanks alone are no value
        dtype=str if as_texts else None,
    )
    if as_texts:  # a column that is plain in every dialect has the type that it would have
        for name in frame:
            truth = frame[name].map({"True": True, "False": False, "TRUE": True, "FALSE": False})
            if len(frame) and truth.notna().all():
                frame[name] = truth.astype(bool)
    return frame.set_axis(header, axis=1)


def _without_counter(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop columns without a name that are empty, or count the rows as `DataFrame.to_csv` does."""
    unnamed = [name for i, name in enumerate(frame, 1) if name == f"column_{i}"]
    counts = [np.arange(start, len(frame) + start) for start in (0, 1)]
    useless = [
        name
        for name in unnamed
        if frame[name].isna().all()
        or (is_integer_dtype(frame[name]) and any((frame[name] == c).all() for c in counts))
    ]
    return frame.drop(columns=useless)


def _no_names(path: Path, line: int, record: list[str]) -> DataError:
    rule = f"line {line} must name the columns"
    got = f"the values {', '.join(value.strip() for value in record)}"
    return refusal(path, "data.path", rule, got, "write a line of names before it (time,value)")


def _check_header(path: Path, record: list[str], line: int) -> list[str]:
    if not any(name.strip() for name in record):
        rule = f"line {line} must name the columns"
        raise refusal(path, "data.path", rule, "an empty line", "remove it")
    try:
        header = header_of(record)
    except LooksLikeRow:
        raise _no_names(path, line, record) from None
    check_differ(path, header, f"in line {line}")
    return header


def check_differ(path: Path, names: list[str], where: str) -> None:
    """Refuse a table with two columns of one name."""
    for name in names:
        if name and names.count(name) > 1:
            rule = "column names must differ"
            raise refusal(path, "data.path", rule, f"{name!r} twice {where}", "rename one")


def _ragged(
    path: Path, text: str, header: list[str], dialect: Dialect, error: Exception | str = ""
) -> DataError:
    """Return the refusal of the first line with more values than columns, else of `error`."""
    line = first = 0
    try:
        for line, record in records_of(text, dialect):
            first = first or line
            if header and len(record) > len(header):
                rule = f"line {line} has {len(record)} values, line {first} names "
                rule += f"{len(header)} columns"
                remedy = f"correct that line, or name every column in line {first}"
                change = None
                if names := _names_below(text, dialect, len(record)):
                    note = f" if line {names} has them"
                    change = Setting("data.read.skip_rows", str(names - 1), note)
                return refusal(path, "data.path", rule, remedy=remedy, change=change)
        if "EOF inside string" in str(error):
            error = f"the quote that line {line} opens is never closed"
    except csv.Error:
        pass
    rule = f"is not a CSV file: {one_line(error)}"
    return refusal(path, "data.path", rule, remedy="correct that line")


def _names_below(text: str, dialect: Dialect, width: int) -> int | None:
    """Return the line that may name so many columns, below others; None where none does."""
    for line, record in itertools.islice(records_of(text, dialect), 100):
        if len(record) == width:
            is_row = _looks_like_row(record) or any(map(looks_like_number, record))
            return None if is_row else line
    return None
