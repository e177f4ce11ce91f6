"""A column of classes in a series: as numbers that are forecast, and as columns that are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pandas.api.types import is_numeric_dtype

from tuner.data.reading import Series
from tuner.data.tables import RawTable, refusal
from tuner.data.vocabulary import number_classes

if TYPE_CHECKING:
    from tuner.experiment.data import Data

__all__ = ["ClassColumn", "number_class_column", "with_class_columns"]


@dataclass(frozen=True)
class ClassColumn:
    """The classes of a series, and the columns in which a model reads those of earlier rows."""

    classes: tuple[str, ...]
    columns: tuple[str, ...]  # one a class: 1 where a row is of it, else 0; () where none is read

    def without(self, series: Series) -> Series:
        """Return the series without columns of categories, and of classes, as numbers or not."""
        columns = list(series.levels)
        if self.classes:
            columns += [*series.targets, *self.columns]
        if not columns:
            return series
        targets = [] if self.classes else series.targets
        frame = series.frame.drop(columns=columns)
        return dataclasses.replace(series, frame=frame, targets=targets)

    def record(self) -> dict[str, list[str]]:
        """Return what a model's pipeline keeps of it, as JSON; nothing where there are no classes.

        `with_class_columns` makes the columns again.
        """
        if not self.classes:
            return {}
        return {"classes": list(self.classes), "class_columns": list(self.columns)}


def number_class_column(table: RawTable, data: Data) -> tuple[RawTable, Data, ClassColumn]:
    """Return a table in which the target is numbers of classes, and what is read of it.

    The model reads a column for each class in place of the target, where that is among the
    features; by default it is.

    Args:
        table: of the file.
        data: says which column, and which features.

    Returns:
        The table, `data` with its features by name, and the classes.

    Raises:
        DataError: the column holds no classes, or one alone.
    """
    (target,) = data.targets
    if target not in table.names:  # to be refused by who reads the columns
        return table, data, ClassColumn((), ())
    written = table.written([target])[target]
    try:
        classes, _ = number_classes(written[written != ""])
    except ValueError as error:
        row = int(np.flatnonzero(written == str(error))[0])
        text = f"column {target!r} must hold classes: texts or whole numbers, got {error} in "
        remedy = "write a class there, or task.kind: forecast"
        raise refusal(table.path, "data.target", f"{text}{table.place_of(row)}; {remedy}") from None
    if len(classes) < 2:
        got = f"only {classes[0]!r}" if classes else "none"
        text = f"column {target!r} must hold two classes or more, got {got}; choose another column"
        raise refusal(table.path, "data.target", text)
    features = data.features or [
        name
        for name in table.names
        if name not in (target, data.time, data.id, data.weight)
        and is_numeric_dtype(table.frame[name])
    ]
    if data.features is None:
        features = [*features, target]
    columns: tuple[str, ...] = ()
    if target in features:
        columns = _names(target, classes, [*table.names, *features])
        at = features.index(target)
        features = [*features[:at], *columns, *features[at + 1 :]]
    chosen = data.model_copy(update={"features": features})
    column = ClassColumn(classes, columns)
    return with_class_columns(table, target, column), chosen, column


def with_class_columns(table: RawTable, target: str, column: ClassColumn) -> RawTable:
    """Return a table whose target is numbers of known classes, with the columns that are read.

    Raises:
        DataError: it holds another class.
    """
    if target not in table.names:
        return table
    written = table.written([target])[target]
    labelled = np.flatnonzero(written != "")
    numbers = np.full(len(written), np.nan)
    try:
        found, of_rows = number_classes(written[labelled])
    except ValueError as error:
        raise _unknown(table, target, written, str(error), str(error)) from None
    place = {name: i for i, name in enumerate(column.classes)}
    for at, name in enumerate(found):
        if name not in place:
            raise _unknown(table, target, written, written[labelled[of_rows == at][0]], name)
    numbers[labelled] = np.array([place[name] for name in found], float)[of_rows]
    frame = table.frame.assign(**{target: numbers})
    for i, name in enumerate(column.columns):
        frame[name] = np.where(np.isnan(numbers), np.nan, numbers == i)
    return dataclasses.replace(table, frame=frame)


def _unknown(
    table: RawTable, target: str, written: np.ndarray, as_written: str, name: str
) -> Exception:
    row = int(np.flatnonzero(written == as_written)[0])
    text = f"column {target!r} must hold classes that the model knows, got {name!r} in "
    return refusal(table.path, "data.target", f"{text}{table.place_of(row)}; correct the data")


def _names(target: str, classes: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """Return names of columns, one a class, that no other column has."""
    names = [f"{target}={name}" for name in classes]
    while set(names) & set(taken):
        names = [f"{name}_" for name in names]
    return tuple(names)
