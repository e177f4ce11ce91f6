"""The rows of an experiment: those of its file, and of a test file after them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.data.tables import RawTable, as_numbers, refusal
from tuner.errors import DataError, nearest, show_path

if TYPE_CHECKING:
    from tuner.experiment.data import Data

__all__ = ["JoinedTable", "blamed", "read_table"]

_ROW = re.compile(r"\brow (\d+)")


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedTable(RawTable):
    """The rows of a file, and after them those of the file that is the test part."""

    first: RawTable
    test: RawTable

    def written(self, names: Iterable[str], tokens: str | None = None) -> dict[str, np.ndarray]:
        """Return columns as both files write them, (rows,) of str."""
        names = list(names)
        if not set(names) <= set(self.first.names):  # a column that was made of others
            return super().written(names, tokens)
        parts = [table.written(names, tokens) for table in (self.first, self.test)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_table(data: Data) -> RawTable:
    """Read the rows of an experiment.

    Raises:
        DataError: a file cannot be read, or the test file lacks a column that is used.
    """
    first = RawTable.read(Path(data.path), data.dialect, data.time)
    if data.split.test_file is None:
        return first
    path = Path(data.split.test_file)
    try:
        test = RawTable.read(path, first.of_the_kind, data.time)
    except DataError as error:
        raise DataError(
            str(error).replace(": data.path: ", ": data.split.test_file: ", 1)
        ) from None
    for name in _used(first, data):
        if name not in test.names:
            hint = nearest(name, test.names)
            what = f"no column {name!r} in the file, which {show_path(first.path)} has"
            raise refusal(path, "data.split.test_file", f"{what}{hint}")
        if doubt := test.doubts.get(name):
            problem = doubt.problem.format(place=test.place_of(doubt.row))
            text = f"column {name!r} {problem}"
            raise refusal(path, "data.split.test_file", f"{text}; {doubt.remedy}")
        _, bad = as_numbers(first.frame[name])
        _, bad_here = as_numbers(test.frame[name])
        if len(bad_here) and not len(bad):
            text = f"column {name!r} must hold numbers, as in {show_path(first.path)}, got "
            text += f"{test.frame[name].iloc[bad_here[0]]!r} in {test.place_of(int(bad_here[0]))}"
            raise refusal(path, "data.split.test_file", f"{text}; write a number there")
    shared = [name for name in first.names if name in test.names]
    frame = pd.concat([first.frame[shared], test.frame[shared]], ignore_index=True)
    both = hashlib.sha256(f"{first.sha256} {test.sha256}".encode()).hexdigest()
    return JoinedTable(
        first.path,
        frame,
        both,
        # A row of both files is no copy to leave out: it is in training and in test.
        dialect=replace(first.dialect, drop_duplicates=bool(first.dialect.drop_duplicates)),
        doubts=first.doubts,
        notes=first.notes,
        lasting=first.lasting,
        first=first,
        test=test,
    )


@contextmanager
def blamed(table: RawTable) -> Iterator[None]:
    """Have a refusal in the block that names a row of the test file name that file as well."""
    try:
        yield
    except DataError as error:
        if not isinstance(table, JoinedTable):
            raise
        known, text = len(table.first.frame), str(error)
        rows = [int(number) for number in _ROW.findall(text)]
        if not any(row > known for row in rows):
            raise

        def place(found: re.Match[str]) -> str:
            row = int(found[1]) - 1
            of_test = row >= known
            of = table.test if of_test else table.first
            return f"{of.place_of(row - known if of_test else row)} of {show_path(of.path)}"

        raise DataError(_ROW.sub(place, text)) from None


def _used(table: RawTable, data: Data) -> list[str]:
    """Return the columns of the first file that the experiment reads."""
    named = [data.time, data.id, *data.targets, data.text, data.tokens, data.split.group]
    named += [data.weight]
    named += [*data.lags, *(data.features or [])]
    used = [name for name in named if name is not None]
    if data.features is None and data.text is None and data.tokens is None:
        used += table.names
    return [name for name in dict.fromkeys(used) if name in table.names]
