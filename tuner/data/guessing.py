"""Guesses what the columns of an unknown file are, for a first experiment on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from tuner.data.reading import check_names
from tuner.data.tables import read_frame, refusal, separator_hint
from tuner.data.times import as_times

__all__ = ["Columns", "guess_columns"]

_MOST = 0.8  # of the values make a column's kind; reading then refuses the others by their lines
_VALUES_JUDGED = 1000
_TIME_NAMES = ("time", "date", "year", "month", "day", "timestamp", "datetime", "ds", "unix")
_TARGET_NAMES = ("y", "target", "value", "sales", "load", "demand", "close", "ot")


@dataclass(frozen=True)
class Columns:
    """What the columns of a file seem to be."""

    time: str | None
    id: str | None
    target: str
    numbers: list[str]  # the target among them, unless no column holds numbers
    left_out: dict[str, str]  # every other column, and what it holds: text, times, nothing


def guess_columns(
    path: Path,
    *,
    time: str | None = None,
    id_: str | None = None,
    no_time: bool = False,
    target: str | None = None,
    features: list[str] | None = None,
) -> Columns:
    """Return what the columns of a CSV or Parquet file seem to be; what is given is kept.

    Raises:
        DataError: the file cannot be read, lacks a given column, or has none to forecast.
    """
    frame, _ = read_frame(path)
    names = [str(c) for c in frame]
    check_names(path, names, [] if target is None else [target], time, features or [], id=id_)
    kinds = {str(c): _kind(frame[c]) for c in frame if str(c) != id_}
    kinds |= {c: "numbers" for c in (target, *(features or [])) if c is not None}
    if time is None and not no_time:
        time = next((c for c, kind in kinds.items() if kind == "times"), None)
    numbers = [c for c, kind in kinds.items() if kind == "numbers" and c != time]
    return Columns(
        time=time,
        id=id_,
        target=target or _guess_target(path, frame, [c for c in features or numbers if c != time]),
        numbers=numbers,
        left_out={c: kind for c, kind in kinds.items() if c != time and c not in numbers},
    )


def _kind(column: pd.Series) -> str:
    values = column.dropna()
    values = values.iloc[:: max(1, len(values) // _VALUES_JUDGED)]
    if values.empty:
        return "nothing"
    numbers = pd.to_numeric(values.astype(object), errors="coerce")
    numeric = is_numeric_dtype(values) or numbers.notna().mean() >= _MOST
    may_be_times = not numeric or str(column.name).lower() in _TIME_NAMES
    if may_be_times and as_times(values).notna().mean() >= _MOST:
        return "times"
    return "numbers" if numeric else "text"


def _guess_target(path: Path, frame: pd.DataFrame, numbers: list[str]) -> str:
    """Choose the column with a usual name, else the last; a flag only where all are flags."""
    if numbers:
        varied = [c for c in numbers if frame[c].nunique() > 2] or numbers
        return next((c for c in varied if c.lower() in _TARGET_NAMES), varied[-1])
    columns = [str(c) for c in frame]
    texts = [c for c in columns if _kind(frame[c]) == "text"]
    hint = separator_hint(columns)
    if hint or not texts:
        text = f"no column of numbers to forecast, got {', '.join(columns)}"
        raise refusal(path, "data.target", text + (hint or "; add one"))
    return max(
        texts, key=lambda c: frame[c].astype(str).str.contains(r"\d").mean()
    )  # the likeliest
