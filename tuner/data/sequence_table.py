"""The file of sequences: its rows gathered by sequence, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.date_order import order_of
from tuner.data.filling import fill
from tuner.data.preparation import Preparation
from tuner.data.suspects import outside_of
from tuner.data.tables import RawTable, as_numbers, bounds_of, refusal
from tuner.data.times import (
    as_times,
    possible_orders,
    show_time,
    where_falling,
    where_outside,
)
from tuner.data.vocabulary import cut, first_outside, number_classes
from tuner.data.weight_column import row_weights
from tuner.errors import DataError, nearest

__all__ = ["SequenceTable"]

_LARGEST = 1e30  # a float32 still holds it, and float64 its square
_ROLES = ("target", "id", "time", "features", "text", "tokens")


@dataclass(frozen=True, eq=False)
class SequenceTable:
    """The rows of a file, one sequence after another."""

    path: Path
    raw: RawTable
    data: Preparation
    frame: pd.DataFrame
    written: dict[str, np.ndarray]  # columns as they are written: (rows,) of str, "" for none
    rows: np.ndarray  # (rows,), where each stands in the file
    bounds: np.ndarray  # (sequences, 2), the rows [start, end) of each
    names: np.ndarray  # (sequences,), their ids, or their numbers where they have none

    @classmethod
    def of(cls, raw: RawTable, data: Preparation, kind: str) -> SequenceTable:
        """Gather the rows of each sequence.

        Raises:
            DataError: naming file, key, rule, value and remedy.
        """
        path, frame = raw.path, raw.frame
        _check_names(path, data, raw.names, kind)
        labels = data.targets if kind in ("classify", "label", "translate") else []
        texts = [c for c in (data.id, data.text, data.tokens, *labels) if c is not None]
        written = raw.written(texts, data.tokens)
        names = codes = np.arange(len(frame))
        if data.id is not None:
            codes, names = pd.factorize(written[data.id])
        rows = np.argsort(codes, kind="stable")
        bounds = bounds_of(np.bincount(codes))
        orders: tuple[bool | None, ...] | None = None
        if raw.dialect.sort and data.time is not None:
            times = raw.times(data.time)
            orders = (_order_of(times.take(rows).reset_index(drop=True), bounds),)
            rows = np.lexsort((as_times(times, orders[0]).to_numpy(), codes))
        table = cls(
            path=path,
            raw=raw,
            data=data,
            frame=frame.take(rows).reset_index(drop=True),
            written={name: column[rows] for name, column in written.items()},
            rows=rows,
            bounds=bounds,
            names=names,
        )
        for name in texts:
            role = next(role for role in _ROLES if name in _named(data, role))
            table._refuse_none(f"data.{role}", name, np.flatnonzero(table.written[name] == ""))
        table._check_times(orders)
        return table

    def classes(self, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the class of each sequence, or of each row: (n,) int64, and the classes."""
        name = self.data.targets[0]
        column = self.written[name]
        try:
            classes, numbers = number_classes(column)
        except ValueError as error:
            row = int(np.flatnonzero(column == str(error))[0])
            text = f"column {name!r} must hold classes: texts or whole numbers, got {error}"
            other = "regress" if kind == "classify" else "regress_steps"
            remedy = f"write a class there, or task.kind: {other}"
            raise self._refusal("data.target", text, row, remedy) from None
        if len(classes) < 2:
            text = f"column {name!r} must hold two classes or more, got only {classes[0]!r}"
            raise refusal(self.path, "data.target", f"{text}; choose another column")
        if kind == "label":
            return numbers, classes
        remedy = _one_value("label")
        return self._of_sequences("data.target", name, numbers, column, remedy), classes

    def values(self, kind: str) -> np.ndarray:
        """Return the numbers that are the targets, of sequences or of rows: (n, targets)."""
        columns = []
        for name in self.data.targets:
            column = self._numbers("data.target", name)
            self._refuse_none("data.target", name, np.flatnonzero(np.isnan(column)))
            if kind == "regress":
                remedy = _one_value("regress_steps")
                column = self._of_sequences("data.target", name, column, column, remedy)
            columns.append(column)
        return np.column_stack(columns)

    def weights(self, *, each_step: bool) -> np.ndarray | None:
        """Return what sequences, or their rows, count: (n,); None where all count alike."""
        if (name := self.data.weight) is None:
            return None
        of_rows = row_weights(self.raw, self.data, [np.zeros(len(self.rows))])
        found = np.asarray(of_rows[self.rows])
        if each_step:
            return found
        return self._of_sequences("data.weight", name, found, found, "write one value")

    def features(self) -> tuple[list[str], np.ndarray, int]:
        """Return the features' names, values (rows, features), and how many were filled in."""
        data, frame = self.data, self.frame
        split = getattr(data, "split", None)  # of an experiment; a model names its features
        others = {*data.targets, data.id, data.time, data.weight, split and split.group}
        features = data.features or [
            str(c) for c in frame if c not in others and is_numeric_dtype(frame[c])
        ]
        if not features:
            text = "no numeric column beside target, id and time in the file; name the columns"
            raise refusal(self.path, "data.features", f"{text}, or set data.tokens")
        values = np.column_stack([self._numbers("data.features", c) for c in features])
        n_missing = int(np.isnan(values).sum())
        values = fill(values, self.bounds, data.missing)
        for row, at in np.argwhere(np.isnan(values))[:1]:
            text = f"column {features[at]!r} must hold a number in every row, got none"
            remedy = "fill it in, or write data.missing: ffill"
            if data.missing != "refuse":
                remedy = "there is none before it in the sequence: fill it in, or remove the row"
            raise self._refusal("data.features", text, int(row), remedy)
        return features, values, n_missing

    def suspects(self, features: list[str]) -> Iterator[tuple[str, str]]:
        """Say which numbers of the columns that are read lie far outside the rest."""
        columns = {name: self._numbers("data.features", name) for name in features}
        yield from outside_of(columns, lambda row: self.raw.place_of(int(self.rows[row])))

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens, (rows,) of str, and their bounds, (sequences, 2)."""
        if self.data.text is None:
            return self.written[str(self.data.tokens)], self.bounds
        return self._cut(self.data.text)

    def target_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of the target, which is a text, as `tokens` does."""
        return self._cut(self.data.targets[0])

    def _cut(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of a column of texts, (tokens,) of str, and their bounds."""
        texts = [cut(text, self.data.level) for text in self.written[name]]
        tokens = np.array([token for text in texts for token in text], dtype=object)
        return tokens, bounds_of([len(text) for text in texts])

    def shortened(self, bounds: np.ndarray) -> np.ndarray:
        """Return the bounds of sequences, (sequences, 2), cut to `max_length` steps."""
        if (most := self.data.max_length) is None:
            return bounds
        first, end = bounds.T
        if self.data.keep == "first":
            return np.column_stack([first, np.minimum(end, first + most)])
        return np.column_stack([np.maximum(first, end - most), end])

    def check_numbers(self, tokens: np.ndarray) -> None:
        """Refuse a token that is no number below `vocabulary_size`, where there is one."""
        size = self.data.vocabulary_size
        if size is None or (row := first_outside(tokens, size)) is None:
            return
        text = f"token ids must lie in 0 to {size - 1}, got {tokens[row]!r}"
        remedy = "make it larger, or leave it out where tokens are no numbers"
        raise self._refusal("data.vocabulary_size", text, row, remedy)

    def _of_sequences(
        self, key: str, name: str, values: np.ndarray, shown: np.ndarray, remedy: str
    ) -> np.ndarray:
        """Return the first value of each sequence; all the others must be the same."""
        first = self.bounds[:, 0].repeat(np.diff(self.bounds)[:, 0])  # (rows,)
        for row in np.flatnonzero(values != values[first])[:1]:
            got, before = (repr(v) if isinstance(v, str) else v for v in shown[[row, first[row]]])
            text = f"column {name!r} must be the same in all rows of a sequence, got {got} "
            text += f"after {before}"
            raise self._refusal(key, text, int(row), remedy)
        return np.asarray(values[self.bounds[:, 0]])

    def _numbers(self, key: str, name: str) -> np.ndarray:
        """Return a column as numbers, (rows,) float64, nan where there is none."""
        values, bad = as_numbers(self.frame[name])
        if doubt := self.raw.doubts.get(name):
            row = int(np.flatnonzero(self.rows == doubt.row)[0])
            problem = doubt.problem.format(place=self._place(row))
            raise refusal(self.path, key, f"column {name!r} {problem}; {doubt.remedy}")
        for row in bad[:1]:
            text = f"column {name!r} must hold numbers, got {self.frame[name][row]!r}"
            remedy = "write a number there (1234.5), or choose another column"
            raise self._refusal(key, text, int(row), remedy)
        for row in np.flatnonzero(np.abs(values) >= _LARGEST)[:1]:  # False for nan
            text = f"column {name!r} must hold finite numbers (below 1e30), got {values[row]}"
            raise self._refusal(key, text, int(row), "correct it, or choose another column")
        return values

    def _check_times(self, orders: tuple[bool | None, ...] | None) -> None:
        """Refuse times that do not rise, in the order in which dates were read to be sorted."""
        if (name := self.data.time) is None:
            return
        column = self.raw.times(name).take(self.rows).reset_index(drop=True)
        orders = orders or possible_orders(column) or (None,)
        readings = [as_times(column, order) for order in orders]
        if len(bad := np.flatnonzero(readings[0].isna())):
            value = column[bad[0]]
            text = f"column {name!r} must hold a time in every row, got "
            text += "none" if pd.isna(value) else repr(str(value))
            remedy = "write 1960-01-31, say, or leave data.time out"
            raise self._refusal("data.time", text, int(bad[0]), remedy)
        if len(bad := where_outside(readings[0])):
            text = f"column {name!r} must hold times of the years 1678 to 2261, got "
            text += f"{str(column[bad[0]])!r} (read as {show_time(readings[0][bad[0]])})"
            remedy = "write years with four digits (2010-01-31)"
            raise self._refusal("data.time", text, int(bad[0]), remedy)
        # The day or the month may come first: what rises is right.
        indices = [pd.DatetimeIndex(times) for times in readings]
        falling = [where_falling(index, self.bounds) for index in indices]
        index, falls = min(zip(indices, falling, strict=True), key=lambda of: len(of[1]))
        for row in falls[:1]:
            here, before = show_time(index[row]), show_time(index[row - 1])
            text = f"times must rise within a sequence, got {here} after {before}"
            remedy = "write data.read.sort: true, and keep one of each"
            raise self._refusal("data.time", text, int(row), remedy)

    def _refuse_none(self, key: str, name: str, rows: np.ndarray) -> None:
        for row in rows[:1]:
            text = f"column {name!r} must hold a value in every row, got none"
            raise self._refusal(key, text, int(row), "write one, or remove the row")

    def _refusal(self, key: str, text: str, row: int, remedy: str) -> DataError:
        return refusal(self.path, key, f"{text} in {self._place(row)}; {remedy}")

    def _place(self, row: int) -> str:
        place = self.raw.place_of(int(self.rows[row]))
        if self.data.id is not None:
            sequence = np.searchsorted(self.bounds[:, 1], row, side="right")
            place += f" (sequence {self.names[sequence]!r})"
        return place


def _order_of(column: pd.Series, bounds: np.ndarray) -> bool | None:
    """Return whether the day comes first in dates that are to be sorted; None where none tells.

    Where no date tells, and no order makes all rows rise, it is the one in which fewer fall.
    """
    order = order_of(column, bounds)
    if not order.in_doubt:
        return order.day_first
    falls = [
        len(where_falling(pd.DatetimeIndex(as_times(column, day_first)), bounds))
        for day_first in (False, True)
    ]
    return falls[1] < falls[0]


def _one_value(of_steps: str) -> str:
    """Say what to do where a sequence has several values: `of_steps` is the kind that has."""
    return f"write one value, or task.kind: {of_steps} where every row has its own"


def _named(data: Preparation, role: str) -> list[str]:
    """Return the columns that a key of the experiment names."""
    names = getattr(data, "targets" if role == "target" else role) or []
    return [names] if isinstance(names, str) else list(names)


def _check_names(path: Path, data: Preparation, known: list[str], kind: str) -> None:
    """Refuse a column that the file does not have, and one that tells what is to be predicted."""
    for role in _ROLES:
        for name in _named(data, role):
            if name not in known:
                text = f"no column {name!r} in the file{nearest(name, known)}"
                raise refusal(path, f"data.{role}", text)
    for seen in ("features", "text", "tokens"):
        for name in _named(data, seen):
            for role in ("target", "id", "time"):
                if name in _named(data, role):
                    text = f"must not name the {role} column, got {name!r} with {kind}; "
                    raise refusal(path, f"data.{seen}", text + "name another column")
