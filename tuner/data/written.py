"""Ids, classes, texts and tokens: the values of columns as a file writes them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from tuner.data.dialects import header_of

__all__ = ["as_written", "without_blank_end"]


def as_written(
    body: str | None,
    separator: str,
    frame: pd.DataFrame,
    names: Iterable[str],
    tokens: str | None = None,
) -> dict[str, np.ndarray]:
    """Return columns as the file writes them, (rows,) of str; "" where there is nothing.

    What a row says then depends on no other row. A column of numbers would lose the zero of 01,
    write 1 as 1.0 if 2.5 stands below it, and take NA, null and None for nothing. White space
    around a value is no part of it: tables are padded, and "Paris " is Paris.

    Args:
        body: the line of names and the rows of a text file; None of a table that has types.
        separator: the character between its columns.
        frame: the table that was read from it.
        names: of columns that it has.
        tokens: the one in which white space alone is a value: a space between two words.
    """
    wanted = set(names)
    if not wanted:
        return {}
    columns: dict[str, Iterable[str]] = {}
    if body is not None:
        first = next(csv.reader(io.StringIO(body), delimiter=separator, skipinitialspace=True))
        header = header_of(first)
        in_file = [name for name in header if name in wanted]
        table = pd.read_csv(
            io.StringIO(body),
            sep=separator,
            names=header,
            header=0,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,  # as in `frame`: a row is a row
            skipinitialspace=tokens is None,
            usecols=in_file,
        )
        columns = {name: table[name] for name in in_file}
    columns |= {name: _of_types(frame[name]) for name in wanted - columns.keys()}
    found = {}
    for name, values in columns.items():
        codes, texts = pd.factorize(np.asarray(values, dtype=object))  # few differ: ids, classes
        bare = [v.strip() or (v if name == tokens else "") for v in texts]
        found[name] = np.array(bare, dtype=object)[codes]
    return found


def without_blank_end(text: str) -> str:
    """Return a text without the line ends and the blank lines after its last value.

    White space behind the last value stays, as it does in every other line.
    """
    end = len(text.rstrip())
    padding = re.match(r"[^\r\n]*", text[end:])
    return text[:end] + (padding[0] if padding else "")


def _of_types(column: pd.Series) -> list[str]:
    """Return a column that has a type as texts; a whole number has no point."""
    values = ["" if none else v for v, none in zip(column, column.isna(), strict=True)]
    return [str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in values]
