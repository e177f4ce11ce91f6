"""Columns that are the same in all rows of a series: checked, and repeated in empty cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuner.data.tables import refusal

if TYPE_CHECKING:
    from tuner.data.reading import Series

__all__ = ["repeated"]


def repeated(series: Series, names: Sequence[str]) -> Series:
    """Return the series with the value of its first row in every row of such columns.

    A file may say it once, in the first row of a series. Nothing comes from a later row: that
    could be one of the test part.

    Args:
        series: as they were read.
        names: of the columns.

    Raises:
        DataError: a series has another value later, or none in its first row.
    """
    if not names:
        return series
    frame = series.frame.copy()
    for name in names:
        values = frame[name].to_numpy()
        firsts = series.bounds[:, 0]
        if (lacking := np.isnan(values[firsts])).any():
            row = int(firsts[lacking.argmax()])
            text = f"column {name!r} must hold a value in the first row of each series, got none in"
            text += f" {series.place(row)}; fill it in"
            raise refusal(series.path, "data.static", text)
        every = np.repeat(values[firsts], np.diff(series.bounds)[:, 0])
        if len(other := np.flatnonzero(~np.isnan(values) & (values != every))):
            row = int(other[0])
            first = int(firsts[series.bounds[:, 1].searchsorted(row, side="right")])
            text = (
                f"column {name!r} must be the same in all rows of a series, got "
                f"{_shown(series, name, row)} in {series.place(row)} and "
                f"{_shown(series, name, first)} in its first row; correct it, or take it out of "
                f"data.static"
            )
            raise refusal(series.path, "data.static", text)
        frame[name] = every
    return dataclasses.replace(series, frame=frame)


def _shown(series: Series, name: str, row: int) -> str:
    value = float(series.frame[name].to_numpy()[row])
    if name in series.levels:
        return repr(series.levels[name][int(value)])
    return f"{value:.10g}"
