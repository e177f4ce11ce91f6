"""Files that hold tables: formats, size limits and encodings.

Libraries that detect encodings go by whole sentences. A table has letters in names and classes
alone, perhaps five words, so candidates are judged here by whether their letters go together.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import datetime as dt
import io
import json
import re
import unicodedata
import zipfile
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.errors import Setting, one_line, refusal

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE_MARKS = tuple(bom for bom, marked in _BOMS if marked != "utf-8-sig")
_FEWEST_ZEROS = 0.05  # share of the pairs of bytes in UTF-16 with a 0: digits, commas, line ends
_ONE_SIDED = 9  # times as many pairs have it on the same side
# What programs of today still write, the likelier first, and the script that it is for.
_LEGACY = {
    "cp1252": "LATIN",
    "cp1250": "LATIN",
    "cp1251": "CYRILLIC",
    "gb18030": "gb2312",
    "cp949": "euc_kr",
    "cp932": "shift_jis",
    "big5": "big5",
    "cp1253": "GREEK",
    "cp1255": "HEBREW",
    "cp1256": "ARABIC",
}
# First bytes of the characters that are in daily use, in the standards of the encodings.
_COMMON = {
    "gb2312": (0xB0, 0xD7),
    "euc_kr": (0xB0, 0xC8),
    "big5": (0xA4, 0xC6),
    "shift_jis": (0x88, 0x97),
}
_SYMBOLS = frozenset("°€£µ²³·–—’‘“”…№½±×§™®© ")
_PLAUSIBLE = 0.9
_HANGUL_ALONE = 8  # characters; fewer that are Korean may as well be Chinese


def decoded(path: Path, raw: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """Return a file's text without byte order mark, and its encoding where that is not UTF-8.

    Raises:
        DataError: it is not in the encoding that is given, or in none that is certain.
    """
    try:
        return _decoded(path, raw, encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{raw[error.start]:02x} in line {line}"
        if encoding is not None:
            rule = f"the file is not in {encoding}"
            raise refusal(path, "data.read.encoding", rule, got, "correct it") from None
        rule, remedy = "must be UTF-8 text", "save the file as UTF-8"
        other = Setting("data.read.encoding", "latin-1", " (cp1252, gbk, ...)")
        raise refusal(path, "data.path", rule, got, remedy, other) from None


def _decoded(path: Path, raw: bytes, encoding: str | None) -> tuple[str, str | None]:
    if encoding is not None:
        if not raw.isascii() and _is_utf8(raw):  # no other encoding makes such bytes by chance
            encoding = "utf-8"
        return raw.decode(encoding).removeprefix("\ufeff"), encoding
    for bom, marked in _BOMS:
        if raw.startswith(bom):
            return raw.decode(marked), None if marked == "utf-8-sig" else marked
    if (wide := _without_mark(raw)) is not None:
        return raw.decode(wide), wide
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        if (name := _legacy(path, raw)) is None:
            raise
        return raw.decode(name), name


def _legacy(path: Path, raw: bytes) -> str | None:
    """Return the encoding of bytes that are no UTF-8; None where none is plausible."""
    lines = [line for line in raw.splitlines() if not line.isascii()]
    if b"\0" in raw or any(map(_is_utf8, lines)):  # UTF-8 with a broken character
        return None
    sample = b"\n".join(lines[:200])
    readings: dict[str, str] = {}
    for name, script in _LEGACY.items():
        try:
            text = sample.decode(name)
            raw.decode(name)
        except UnicodeDecodeError:
            continue
        if _share_of_common(text, script) >= _PLAUSIBLE:
            readings[name] = text
    if {"gb18030", "cp949"} <= readings.keys():  # the Korean syllables lie among the Chinese
        letters = sum(not c.isascii() for c in readings["cp949"])
        if letters >= _HANGUL_ALONE:
            return "cp949"
        words = {name: " ".join(readings[name].split())[:30] for name in ("gb18030", "cp949")}
        key, rule = "data.read.encoding", "is no UTF-8 text, and its encoding is not certain"
        change = [Setting(key, name, f", which reads {text!r}") for name, text in words.items()]
        raise refusal(path, key, rule, change=change)
    return next(iter(readings), None)


def _is_utf8(line: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        line.decode("utf-8")
        return True
    return False


def _share_of_common(text: str, script: str) -> float:
    """Return the share of the characters beyond ASCII that are plausible where they stand."""
    good = n = 0
    for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
        others = [c for c in word if not c.isascii()]
        n += len(others)
        if script in _COMMON:
            good += sum(_is_common(c, script) for c in others)
        elif len(word) == 1 and word in _SYMBOLS:
            good += 1
        elif all(_in_script(c, script) for c in others) and _is_word(word, script):
            good += len(others)
    return good / n if n else 0.0


def _is_common(char: str, standard: str) -> bool:
    """Return whether a character is in daily use, by its place in a standard."""
    if standard == "shift_jis" and "\u3040" <= char <= "\u30ff":  # kana
        return True
    try:
        first = char.encode(standard)
    except UnicodeEncodeError:
        return False
    least, most = _COMMON[standard]
    return len(first) == 2 and least <= first[0] <= most


def _in_script(char: str, script: str) -> bool:
    return char.isalpha() and unicodedata.name(char, "").startswith(script)


def _is_word(word: str, script: str) -> bool:
    """Return whether letters make a word: of one script, and in capitals alone only if Latin."""
    if len(word) < 2:
        return False
    if script == "LATIN":
        capitals = word.isupper() and not re.search(r"[^\x00-\x7f]{2}", word)
        cased = word[1:] == word[1:].lower() or capitals
        return cased and re.search(r"[^\x00-\x7f]{3}", word) is None
    one_script = all(not c.isascii() for c in word)
    caseless = script in ("HEBREW", "ARABIC")
    return one_script and (caseless or word[1:] == word[1:].lower())


_WORKBOOK = (".xlsx", ".xlsm")
_PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar")
_OTHER = {".xls": "xlsx", ".ods": "xlsx", ".feather": "Parquet", ".h5": "Parquet",
          ".pkl": "Parquet", ".pickle": "Parquet", ".json": "JSON lines (.jsonl)"}  # fmt: skip


_MOST_COLUMNS = 100_000
_MOST_UNPACKED = 4 << 30  # bytes
_MOST_CELLS = 100_000_000  # of a table whose cells are mostly empty
_UPLOAD = re.compile(r"dataset:[0-9a-f]{64}")
_FIRST = 16 << 20  # bytes in which the names of columns must end


def is_typed(path: Path) -> bool:
    """Return whether a file's values have types of their own."""
    return path.suffix.lower() in TYPED


def is_workbook(path: Path) -> bool:
    """Return whether a file is a workbook of a spreadsheet."""
    return path.suffix.lower() in _WORKBOOK


def is_upload(path: Path | str) -> bool:
    """Return whether a path stands for data that a service has, and that has no file here."""
    return _UPLOAD.fullmatch(Path(path).name) is not None


def _absence(path: Path) -> tuple[str, None, str]:
    """Return what is wrong with a path where nothing is, and the remedy."""
    if is_upload(path):
        return "is an upload to a service", None, "save the data as a file, and write its path"
    return "no such file", None, "check the path"


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        DataError: it is missing, empty, of a format that is not read, or has too many columns.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            if suffix in _PACKED:
                raise refusal(path, "data.path", "is packed", remedy="unpack it first")
            if suffix in _OTHER:
                rule = "is no CSV, Excel, JSON lines or Parquet file"
                raise refusal(path, "data.path", rule, remedy=f"save it as {_OTHER[suffix]}")
            first = file.read(_FIRST)
            if not (is_typed(path) or is_workbook(path)):
                _check_text(path, first)
                _check_columns(path, first)
            raw = first + file.read()
    except FileNotFoundError:
        raise refusal(path, "data.path", *_absence(path)) from None
    except IsADirectoryError:
        raise refusal(path, "data.path", "is a folder", remedy="give the CSV file in it") from None
    except OSError as error:
        raise refusal(path, "data.path", f"cannot be read: {error.strerror}") from None
    if not raw.strip():
        remedy = "give a CSV file: a line of column names, then rows"
        raise refusal(path, "data.path", "is empty", remedy=remedy)
    return raw


_UNPACK, _AS_CSV = "unpack it first", "give its table as CSV"
_SIGNATURES = (
    (b"PK\x03\x04", "an Excel workbook or a packed file", "rename it to .xlsx, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as .xlsx or CSV"),
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"\x89HDF", "an HDF5 file", "save it as Parquet or CSV"),
    (b"SQLite format 3\0", "an SQLite database", _AS_CSV),
    (b"\x89PNG", "a picture", _AS_CSV),
    (b"\xff\xd8\xff", "a picture", _AS_CSV),
    (b"GIF8", "a picture", _AS_CSV),
    (b"%PDF-", "a PDF", _AS_CSV),
    (b"\x1f\x8b", "packed (gzip)", _UNPACK),
    (b"BZh", "packed (bzip2)", _UNPACK),
    (b"\xfd7zXZ\0", "packed (xz)", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed (zstd)", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "packed (7z)", _UNPACK),
    (b"Rar!\x1a\x07", "packed (rar)", _UNPACK),
)
"""First bytes of files of other kinds, which are called .csv by mistake; kind; remedy."""


def _check_text(path: Path, first: bytes) -> None:
    """Refuse a file that is no text, whatever it is called."""
    for signature, kind, remedy in _SIGNATURES:
        if first.startswith(signature):
            raise refusal(path, "data.path", f"is no text: it is {kind}", remedy=remedy)
    if b"\0" in first and not first.startswith(_WIDE_MARKS) and _without_mark(first) is None:
        rule = "is no text: it holds bytes of value 0"
        remedy = "save the table as CSV, .xlsx or Parquet"
        raise refusal(path, "data.path", rule, remedy=remedy)


def _without_mark(raw: bytes) -> str | None:
    """Return the encoding of UTF-16 without byte order mark; None where it is not that."""
    sample = raw[: 1 << 16]
    second, first = sample[1::2].count(0), sample[::2].count(0)
    if max(second, first) < _FEWEST_ZEROS * len(sample) / 2:
        return None
    if second > _ONE_SIDED * first:
        return "utf-16-le"
    return "utf-16-be" if first > _ONE_SIDED * second else None


def _check_columns(path: Path, first: bytes) -> None:
    line = first.split(b"\n", 1)[0].split(b"\r", 1)[0]
    if max(line.count(mark) for mark in (b",", b";", b"\t", b"|")) >= _MOST_COLUMNS:
        rule = f"has more than {_MOST_COLUMNS:,} columns"
        raise refusal(path, "data.path", rule, remedy="give a table with a row for each value")
    if len(line) == _FIRST:
        rule = "has no line end in 16 MiB"
        raise refusal(path, "data.path", rule, remedy="give a table of lines")


def parse_typed(path: Path, raw: bytes) -> pd.DataFrame:
    """Return the table in a file of a format in `TYPED`.

    Raises:
        DataError: it is none, or too large when it is unpacked.
    """
    kind, parse = TYPED[path.suffix.lower()]
    try:
        return parse(path, raw)
    except (ImportError, OSError, ValueError) as error:
        rule = f"is no {kind} file: {one_line(error)}"
        raise refusal(path, "data.path", rule, remedy="write it again, or as CSV") from None


def _parse_parquet(path: Path, raw: bytes) -> pd.DataFrame:
    import pyarrow.parquet as parquet

    about = parquet.ParquetFile(io.BytesIO(raw)).metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if size > _MOST_UNPACKED or about.num_columns > _MOST_COLUMNS:
        raise _too_large(path)
    return pd.read_parquet(io.BytesIO(raw))


def _parse_lines(path: Path, raw: bytes) -> pd.DataFrame:
    _check_lines(path, raw)
    frame = pd.read_json(
        io.BytesIO(raw), lines=True, dtype=False, convert_axes=False, precise_float=True
    )
    for name in frame:
        if is_numeric_dtype(frame[name]):
            continue
        nested = frame[name].map(lambda v: isinstance(v, dict | list))
        if nested.any():
            row = int(nested.to_numpy().argmax())
            rule = f"column {str(name)!r} must hold single values"
            got = f"{str(frame[name].iloc[row])[:40]} in line {row + 1}"
            raise refusal(path, "data.path", rule, got, "write a column for each")
    return frame.set_axis([str(name) for name in frame], axis=1)


def _check_lines(path: Path, raw: bytes) -> None:
    """Refuse lines that make a far larger table than they are: each may have keys of its own."""
    names: set[Any] = set()
    rows = filled = 0
    for number, line in enumerate(io.BytesIO(raw), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except RecursionError:
            raise ValueError(f"line {number} is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {one_line(error)}") from None
        keys = range(len(row)) if isinstance(row, list) else row if isinstance(row, dict) else ()
        names.update(keys)
        rows, filled = rows + 1, filled + len(keys)
        cells = rows * len(names)
        if len(names) > _MOST_COLUMNS or (cells > _MOST_CELLS and cells > 4 * filled):
            rule = f"has {len(names):,} different keys in {number:,} lines"
            remedy = "write the same keys in every line: a name and a value, say"
            raise refusal(path, "data.path", rule, remedy=remedy)


TYPED = {
    ".parquet": ("Parquet", _parse_parquet),
    ".pq": ("Parquet", _parse_parquet),
    ".jsonl": ("JSON lines", _parse_lines),
    ".ndjson": ("JSON lines", _parse_lines),
}
"""The formats whose values have types: title and parser by the suffix of the file."""


def workbook_text(path: Path, raw: bytes) -> str:
    """Return the first sheet of a workbook that holds a table, as the text of a CSV file.

    That is one with two rows of two columns; where none has these, the first that is filled.

    A formula is not calculated: it counts as the value that the spreadsheet saved with it, and as
    its text where it saved none.

    Raises:
        DataError: it is no workbook, too large when it is unpacked, or the extra is missing.
    """
    try:
        import openpyxl
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        rule = "is an Excel file, which needs openpyxl"
        raise refusal(path, "data.path", rule, remedy="pip install 'lstm-tuner[xlsx]'") from None
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MOST_UNPACKED // 4:
                raise _too_large(path)
            formulas = any(
                b"<f" in archive.read(name)
                for name in archive.namelist()
                if name.startswith("xl/worksheets/sheet")
            )
        books = [
            openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=values)
            for values in ((True, False) if formulas else (True,))
        ]
        found = ""
        for at, sheet in enumerate(books[0].worksheets):
            if not hasattr(sheet, "iter_rows"):
                continue
            others = books[-1].worksheets[at].iter_rows(values_only=True)
            rows = []
            for row, written in zip(sheet.iter_rows(values_only=True), others, strict=True):
                if len(row) > _MOST_COLUMNS:
                    raise _too_large(path)
                both = zip(row, written, strict=False)
                rows.append([_cell(w if v is None else v) for v, w in both])
            rows = _trimmed(rows)
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows(rows)
            if sum(len(row) > 1 for row in rows) > 1:
                return out.getvalue()  # a sheet of remarks has one column
            found = found or out.getvalue()
    except (
        InvalidFileException, KeyError, OSError, ParseError, ValueError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        rule = f"is no Excel file: {one_line(error)}"
        raise refusal(path, "data.path", rule, remedy="save it as .xlsx again, or as CSV") from None
    if found:
        return found
    raise refusal(path, "data.path", "has no filled sheet", remedy="give a table: names, then rows")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return value.isoformat(sep=" ")
    return str(value)


def _trimmed(rows: list[list[str]]) -> list[list[str]]:
    """Return the rows without the empty columns at the right, which sheets often have."""
    width = max((i for row in rows for i, value in enumerate(row, 1) if value), default=0)
    return [row[:width] if any(row) else [] for row in rows]


def _too_large(path: Path) -> Exception:
    rule = f"unpacks to more than 1 GiB, or {_MOST_COLUMNS:,} columns"
    return refusal(path, "data.path", rule, remedy="give a smaller table")
