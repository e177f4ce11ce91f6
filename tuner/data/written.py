"""Ids, classes, texts and tokens: the values of columns as a file writes them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

__all__ = ["as_written", "without_blank_end"]


def as_written(
    raw: bytes | None, frame: pd.DataFrame, names: Iterable[str], tokens: str | None = None
) -> dict[str, np.ndarray]:
    """Return columns as the file writes them, (rows,) of str; "" where there is nothing.

    What a row says then depends on no other row. A column of numbers would lose the zero of 01,
    write 1 as 1.0 if 2.5 stands below it, and take NA, null and None for nothing. White space
    around a value is no part of it: tables are padded, and "Paris " is Paris.

    Args:
        raw: the bytes of a CSV file; None of a table that has types.
        frame: the table that was read from it.
        names: of columns that it has.
        tokens: the one in which white space alone is a value: a space between two words.
    """
    wanted = set(names)
    if not wanted:
        return {}
    columns: dict[str, Iterable[str]]
    if raw is None:
        columns = {name: _of_types(frame[name]) for name in wanted}
    else:
        written = pd.read_csv(
            io.StringIO(without_blank_end(raw).decode("utf-8-sig")),
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,  # as in `frame`: a row is a row
            skipinitialspace=tokens is None,
            usecols=lambda column: column.strip() in wanted,
        )
        columns = {str(c).strip(): written[c] for c in written}
    found = {}
    for name, values in columns.items():
        codes, texts = pd.factorize(np.asarray(values, dtype=object))  # few differ: ids, classes
        bare = [v.strip() or (v if name == tokens else "") for v in texts]
        found[name] = np.array(bare, dtype=object)[codes]
    return found


def without_blank_end(raw: bytes) -> bytes:
    """Return a file without the line ends and the blank lines after its last value.

    White space behind the last value stays, as it does in every other line.
    """
    end = len(raw.rstrip())
    padding = re.match(rb"[^\r\n]*", raw[end:])
    return raw[:end] + (padding[0] if padding else b"")


def _of_types(column: pd.Series) -> list[str]:
    """Return a column that has a type as texts; a whole number has no point."""
    values = ["" if none else v for v, none in zip(column, column.isna(), strict=True)]
    return [str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values]
