"""The table of independent sequences: rows gathered by sequence, drawn into parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.preprocessing import Preparation, row_weights
from tuner.data.profile import outside_of
from tuner.data.resampling import fill
from tuner.data.vocabulary import check_classes, cut, first_outside
from tuner.errors import Change, DataError, Setting, nearest, refusal
from tuner.pipeline_steps import LARGEST
from tuner.tables.frequencies import bounds_of, order_of, rows_of, where_falling
from tuner.tables.table import RawTable, as_numbers
from tuner.tables.timestamps import as_times, possible_orders, show_time, where_outside

if TYPE_CHECKING:
    from tuner.experiment.data import Split


@dataclass(frozen=True, eq=False)
class Draw:
    """The sequences of each part, by their numbers; every sequence is in one part."""

    training: np.ndarray  # (n,) int64, rising; so are the others
    validation: np.ndarray
    test: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """The sequences that a search may see, (n,), rising."""
        return np.union1d(self.training, self.validation)

    def named(self) -> dict[str, np.ndarray]:
        """Return the parts by name, in order."""
        return {"training": self.training, "validation": self.validation, "test": self.test}

    def before_test(self) -> Draw:
        """Return the parts that a search may see, counted among these; the test part is empty."""
        seen = self.seen
        training, validation = (seen.searchsorted(p) for p in (self.training, self.validation))
        return Draw(training, validation, test=np.empty(0, np.int64))

    def with_all(self) -> Draw:
        """Return the parts where the validation part is trained on as well."""
        return Draw(self.seen, self.validation, self.test)


def draw_sequences(
    names: np.ndarray,
    split: Split,
    *,
    file: Path | str,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    with_test: bool = True,
    unit: str = "sequence",
) -> Draw:
    """Draw the parts with the split's seed; with labels, each class gets its share of each.

    They are drawn from the sequences in the order of their names, so with ids the order of
    sequences in the file does not matter. The test part is drawn first: it does not depend on the
    size of the validation part.

    Args:
        names: of the sequences, (sequences,): their ids, or their numbers where they have none.
        labels: of the sequences to stratify, (sequences,), numbers of `classes`.

    Raises:
        DataError: a part is too small, or a class has too few sequences.
    """
    n, parts = len(names), ("validation", "test") if with_test else ("validation",)
    sizes = {name: rows_in(getattr(split, name), n) for name in parts}
    sizes = {"training": n - sum(sizes.values())} | sizes
    _check_sizes(sizes, n, file, unit)
    if labels is not None:
        _check_classes(sizes, np.bincount(labels, minlength=len(classes)), classes, file, unit)
    from sklearn.model_selection import train_test_split  # slow to import

    rest = np.argsort(names, kind="stable")  # (sequences,)
    # scikit-learn takes no Generator; this is the same stream, of a seed of any size.
    random = np.random.RandomState(np.random.PCG64(split.seed))
    drawn: dict[str, np.ndarray] = {}
    for part, left in reversed(list(zip(parts, (1, 2), strict=False))):  # parts of the rest
        strata = None if labels is None else labels[rest]
        rest, drawn[part] = train_test_split(
            rest, test_size=sizes[part], stratify=strata, random_state=random
        )
        if labels is None:
            continue
        for number, name in enumerate(classes):
            n_all, n_part, n_rest = (
                int((labels[of] == number).sum()) for of in (..., drawn[part], rest)
            )
            rule = f"its share of the {n_all} {unit}s of class {name!r} must "
            extent = getattr(split, part)
            if n_part < 1:
                rule, got = f"{rule}be one at least", f"none at {extent}"
                remedy = "make it larger, or give more"
            elif n_rest < left:
                rule, got = f"{rule}leave one for each other part", f"{n_rest} left at {extent}"
                remedy = "make it smaller, or give more"
            else:
                continue
            raise refusal(file, f"data.split.{part}", rule, got, remedy)
    test = drawn.get("test", np.empty(0, np.int64))
    return Draw(np.sort(rest), np.sort(drawn["validation"]), np.sort(test))


def check_labels(
    draw: Draw, bounds: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], file: Path | str
) -> None:
    """Refuse a class that no step of a training sequence has.

    `bounds` are the steps [start, end) of the sequences, (sequences, 2), `labels` the numbers of
    `classes`, (steps,).
    """
    trained = labels[rows_of(bounds[draw.training])]
    for number, name in enumerate(classes):
        if number not in trained:
            rule = "every class must occur in the training part"
            got = f"{name!r} in validation or test alone"
            remedy = "give more sequences with it, or try another data.split.seed"
            raise refusal(file, "data.target", rule, got, remedy)


def rows_in(extent: float, n: int) -> int:
    """Return the number of rows, or of sequences, that an extent is: itself, or a share of `n`."""
    if isinstance(extent, int):
        return extent
    return int((Decimal(str(extent)) * n).to_integral_value(ROUND_HALF_UP))  # a half is a half


def _check_sizes(sizes: dict[str, int], n: int, file: Path | str, unit: str) -> None:
    if sizes["training"] < 1:
        rule = (
            f"no {unit} is left to train on, validation takes {sizes['validation']} and test "
            f"{sizes.get('test', 0)} of {n} {unit}s"
        )
        raise refusal(file, "data.split", rule, remedy="make validation or test smaller")
    for name in list(sizes)[1:]:
        if sizes[name] < 1:
            rule = f"the part needs at least 1 {unit}"
            raise refusal(file, f"data.split.{name}", rule, f"0 of {n}", "make it larger")


def _check_classes(
    sizes: dict[str, int], counts: np.ndarray, classes: tuple[str, ...], file: Path | str, unit: str
) -> None:
    """Refuse parts that cannot hold a sequence of each class; `counts` are (classes,)."""
    *first, last = sizes
    for name, count in zip(classes, counts, strict=True):
        if count < len(sizes):
            rule = f"every class needs a {unit} in {', '.join(first)} and {last}"
            got = f"{count} of class {name!r}"
            raise refusal(file, "data.target", rule, got, "give more of it, or remove it")
    needs = f"needs a {unit} of each of the {len(classes)} classes"
    if len(classes) > sizes["training"]:
        rule, got = f"the training part {needs}", f"{sizes['training']} {unit}s"
        raise refusal(file, "data.split", rule, got, "make validation or test smaller")
    for name in list(sizes)[1:]:
        if sizes[name] < len(classes):
            rule = f"the part {needs}"
            raise refusal(file, f"data.split.{name}", rule, sizes[name], "make it larger")


_OTHER = "choose another column"
_ROLES = ("target", "id", "time", "features", "text", "tokens")


@dataclass(frozen=True, eq=False)
class SequenceTable:
    """The rows of a file, one sequence after another."""

    path: Path
    raw: RawTable
    data: Preparation
    frame: pd.DataFrame
    strings: dict[str, np.ndarray]  # columns as they are written: (rows,) of str, "" for none
    rows: np.ndarray  # (rows,), where each stands in the file
    bounds: np.ndarray  # (sequences, 2), the rows [start, end) of each
    names: np.ndarray  # (sequences,), their ids, or their numbers where they have none

    @classmethod
    def of(cls, raw: RawTable, data: Preparation, kind: str) -> SequenceTable:
        """Gather the rows of each sequence."""
        path, frame = raw.path, raw.frame
        _check_names(path, data, raw.names, kind)
        labels = data.targets if kind in ("classify", "label", "translate") else []
        texts = [c for c in (data.id, data.text, data.tokens, *labels) if c is not None]
        strings = raw.raw_strings(texts, data.tokens)
        names = codes = np.arange(len(frame))
        if data.id is not None:
            codes, names = pd.factorize(strings[data.id])
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
            strings={name: column[rows] for name, column in strings.items()},
            rows=rows,
            bounds=bounds,
            names=names,
        )
        for name in texts:
            role = next(role for role in _ROLES if name in _named(data, role))
            table._refuse_none(f"data.{role}", name, np.flatnonzero(table.strings[name] == ""))
        table._check_times(orders)
        return table

    def classes(self, kind: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the class of each sequence, or of each row: (n,) int64, and the classes."""
        name = self.data.targets[0]
        column = self.strings[name]
        change = f"write task.kind: {'regress' if kind == 'classify' else 'regress_steps'}"
        classes, numbers = check_classes(self.path, name, column, self._place, change)
        if kind == "label":
            return numbers, classes
        change = _of_steps("label")
        return self.one_of_each("data.target", name, numbers, column, change), classes

    def values(self, kind: str) -> np.ndarray:
        """Return the numbers that are the targets, of sequences or of rows: (n, targets)."""
        columns = []
        for name in self.data.targets:
            column = self._numbers("data.target", name)
            self._refuse_none("data.target", name, np.flatnonzero(np.isnan(column)))
            if kind == "regress":
                change = _of_steps("regress_steps")
                column = self.one_of_each("data.target", name, column, column, change)
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
        return self.one_of_each("data.weight", name, found, found)

    def features(self) -> tuple[list[str], np.ndarray, int]:
        """Return the features' names, values (rows, features), and how many were filled in."""
        data, frame = self.data, self.frame
        split = getattr(data, "split", None)  # of an experiment; a model names its features
        others = {*data.targets, data.id, data.time, data.weight, split and split.group}
        features = data.features or [
            str(c) for c in frame if c not in others and is_numeric_dtype(frame[c])
        ]
        if not features:
            rule = "no numeric column beside target, id and time in the file"
            remedy = "name the columns, or set data.tokens"
            raise refusal(self.path, "data.features", rule, remedy=remedy)
        values = np.column_stack([self._numbers("data.features", c) for c in features])
        n_missing = int(np.isnan(values).sum())
        values = fill(values, self.bounds, data.missing)
        for row, at in np.argwhere(np.isnan(values))[:1]:
            rule = f"column {features[at]!r} must hold a number in every row"
            remedy, change = "fill it in", "write data.missing: ffill"
            if data.missing != "refuse":
                remedy = "there is none before it in the sequence: fill it in, or remove the row"
                change = ""
            raise self._refusal("data.features", rule, "none", int(row), remedy, change)
        return features, values, n_missing

    def suspects(self, features: list[str]) -> Iterator[tuple[str, str]]:
        """Yield notes on numbers that lie far outside the rest of their column."""
        columns = {name: self._numbers("data.features", name) for name in features}
        yield from outside_of(columns, lambda row: self.raw.place_of(int(self.rows[row])))

    def tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens, (rows,) of str, and their bounds, (sequences, 2)."""
        if self.data.text is None:
            return self.strings[str(self.data.tokens)], self.bounds
        return self._cut(self.data.text)

    def target_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of the target, which is a text, as `tokens` does."""
        return self._cut(self.data.targets[0])

    def _cut(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        texts = [cut(text, self.data.level) for text in self.strings[name]]
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
        rule = f"token ids must lie in 0 to {size - 1}"
        change = "make it larger, or leave it out where tokens are no numbers"
        got = repr(tokens[row])
        raise self._refusal("data.vocabulary_size", rule, got, row, change=change)

    def one_of_each(
        self, key: str, name: str, values: np.ndarray, shown: np.ndarray, change: str | None = None
    ) -> np.ndarray:
        """Return the first value of each sequence; all the others must be the same."""
        first = self.bounds[:, 0].repeat(np.diff(self.bounds)[:, 0])  # (rows,)
        for row in np.flatnonzero(values != values[first])[:1]:
            got, before = (repr(v) if isinstance(v, str) else v for v in shown[[row, first[row]]])
            rule = f"column {name!r} must be the same in all rows of a sequence"
            got = f"{got} after {before}"
            raise self._refusal(key, rule, got, int(row), "write one value", change)
        return np.asarray(values[self.bounds[:, 0]])

    def _numbers(self, key: str, name: str) -> np.ndarray:
        """Return a column as numbers, (rows,) float64, nan where there is none."""
        if ambiguity := self.raw.ambiguous.get(name):
            row = int(np.flatnonzero(self.rows == ambiguity.row)[0])
            self.raw.check_certain(key, name, place=self._place(row))
        values, bad = as_numbers(self.frame[name])
        for row in bad[:1]:
            rule, got = f"column {name!r} must hold numbers", repr(self.frame[name][row])
            raise self._refusal(key, rule, got, int(row), "write a number there (1234.5)", _OTHER)
        for row in np.flatnonzero(np.abs(values) >= LARGEST)[:1]:  # False for nan
            rule = f"column {name!r} must hold finite numbers (below 1e30)"
            raise self._refusal(key, rule, values[row], int(row), "correct it", _OTHER)
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
            rule = f"column {name!r} must hold a time in every row"
            got = "none" if pd.isna(value) else repr(str(value))
            remedy, change = "write 1960-01-31, say", "leave data.time out"
            raise self._refusal("data.time", rule, got, int(bad[0]), remedy, change)
        if len(bad := where_outside(readings[0])):
            rule = f"column {name!r} must hold times of the years 1678 to 2261"
            got = f"{str(column[bad[0]])!r} (read as {show_time(readings[0][bad[0]])})"
            remedy = "write years with four digits (2010-01-31)"
            raise self._refusal("data.time", rule, got, int(bad[0]), remedy)
        # The day or the month may come first: what rises is right.
        indices = [pd.DatetimeIndex(times) for times in readings]
        falling = [where_falling(index, self.bounds) for index in indices]
        index, falls = min(zip(indices, falling, strict=True), key=lambda of: len(of[1]))
        for row in falls[:1]:
            here, before = show_time(index[row]), show_time(index[row - 1])
            rule, got = "times must rise within a sequence", f"{here} after {before}"
            ways = Setting("data.read.sort", "true", ", and keep one of each")
            raise self._refusal("data.time", rule, got, int(row), change=ways)

    def _refuse_none(self, key: str, name: str, rows: np.ndarray) -> None:
        for row in rows[:1]:
            rule = f"column {name!r} must hold a value in every row"
            raise self._refusal(key, rule, "none", int(row), "write one, or remove the row")

    def _refusal(
        self,
        key: str,
        rule: str,
        got: object,
        row: int,
        remedy: str | None = None,
        change: Change = None,
    ) -> DataError:
        return refusal(self.path, key, rule, f"{got} in {self._place(row)}", remedy, change)

    def _place(self, row: int) -> str:
        place = self.raw.place_of(int(self.rows[row]))
        if self.data.id is not None:
            sequence = np.searchsorted(self.bounds[:, 1], row, side="right")
            place += f" (sequence {self.names[sequence]!r})"
        return place


def _order_of(column: pd.Series, bounds: np.ndarray) -> bool | None:
    """Return whether the day comes first in dates that are to be sorted; None if all are alike.

    Where no date decides, and no order makes all rows rise, it is the one in which fewer fall.
    """
    order = order_of(column, bounds)
    if not order.in_doubt:
        return order.day_first
    falls = [
        len(where_falling(pd.DatetimeIndex(as_times(column, day_first)), bounds))
        for day_first in (False, True)
    ]
    return falls[1] < falls[0]


def _of_steps(kind: str) -> str:
    return f"write task.kind: {kind} where every row has its own"


def _named(data: Preparation, role: str) -> list[str]:
    names = getattr(data, "targets" if role == "target" else role) or []
    return [names] if isinstance(names, str) else list(names)


def _check_names(path: Path, data: Preparation, known: list[str], kind: str) -> None:
    for role in _ROLES:
        for name in _named(data, role):
            if name not in known:
                rule = f"no column {name!r} in the file"
                raise refusal(path, f"data.{role}", rule, remedy=nearest(name, known))
    for seen in ("features", "text", "tokens"):
        for name in _named(data, seen):
            for role in ("target", "id", "time"):
                if name in _named(data, role):
                    rule = f"must not name the {role} column"
                    got = f"{name!r} with {kind}"
                    raise refusal(path, f"data.{seen}", rule, got, "name another column")
