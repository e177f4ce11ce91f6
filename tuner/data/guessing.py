"""Guesses what the columns of an unknown file are, for a first experiment on it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.reading import read_frame, refusal, separator_hint
from tuner.data.times import parse_times

__all__ = ["guess_columns"]

_TIME_NAMES = ("time", "date", "year", "month", "day", "timestamp", "datetime", "ds")


def guess_columns(path: Path, target: str | None = None) -> tuple[str | None, str]:
    """Return the time column, None without one, and the column to forecast: the last of numbers.

    Args:
        path: a CSV or Parquet file.
        target: the column to forecast, if it is known.

    Raises:
        DataError: the file cannot be read, or has no column of numbers to forecast.
    """
    frame, _ = read_frame(path)
    time = next((str(c) for c in frame if c != target and _holds_times(frame[c])), None)
    if target is not None:
        return time, target
    numeric = [str(c) for c in frame if c != time and is_numeric_dtype(frame[c])]
    if not numeric:
        columns = [str(c) for c in frame]
        hint = separator_hint(columns) or "; name one with --target"
        text = f"no column of numbers to forecast, got {', '.join(columns)}"
        raise refusal(path, "data.target", text + hint)
    return time, numeric[-1]


def _holds_times(column: pd.Series) -> bool:
    if is_numeric_dtype(column) and str(column.name).lower() not in _TIME_NAMES:
        return False
    return bool(parse_times(column).notna().all())
