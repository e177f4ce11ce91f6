"""Brings rows into the order of time: those that fall, exact copies, and hours that come twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tuner.data.tables import bounds_of
from tuner.dialect import Dialect

__all__ = ["Ordered", "falls_throughout", "in_order", "zone_of_change"]


@dataclass(frozen=True, eq=False)
class Ordered:
    """The rows of series, series by series."""

    rows: np.ndarray  # (n,), of the file
    bounds: np.ndarray  # (series, 2), the rows [start, end) of each
    times: pd.DatetimeIndex  # (n,)
    notes: tuple[str, ...] = ()  # what was done to them

    def told(self, dialect: Dialect) -> Dialect:
        """Return the dialect with what was done to the rows as keys."""
        done: dict[str, Any] = {note.partition(":")[0]: True for note in self.notes}
        return replace(dialect, **done)

    def taken(self, places: np.ndarray, note: str = "") -> Ordered:
        """Return the rows that stand at some places, which keep series together."""
        of = self.bounds[:, 1].searchsorted(places, side="right")
        return Ordered(
            self.rows[places],
            bounds_of(np.bincount(of, minlength=len(self.bounds))),
            self.times[places],
            (*self.notes, note) if note else self.notes,
        )


def in_order(
    given: Ordered,
    frame: pd.DataFrame,
    *,
    sort: bool | None,
    drop_duplicates: bool | None,
    may_repeat: bool,
) -> Ordered:
    """Return rows without exact copies, rising in time, as far as that is asked or certain.

    Args:
        given: the rows as they stand.
        frame: of the file, by which copies are told.
        sort: whether rows are sorted; None reverses them where all fall.
        drop_duplicates: None drops copies where times may not repeat, unless clocks went back.
        may_repeat: whether several rows of one time are resampled to one.
    """
    found = given
    copies = np.zeros(len(frame), bool)
    if drop_duplicates or (drop_duplicates is None and not may_repeat):
        copies = frame.duplicated().to_numpy()
    copied = copies[found.rows]
    certain = drop_duplicates or not any(
        zone_of_change(time) for time in found.times[copied].unique()[:1000]
    )
    if copied.any() and certain:
        n = int(copied.sum())
        text = "1 row is an exact copy of another" if n == 1 else f"{n} rows are exact copies"
        found = found.taken(np.flatnonzero(~copied), f"drop_duplicates: {text}, left out")
    falling = falls_throughout(found.times, found.bounds)
    if sort or (sort is None and falling):
        of = np.repeat(np.arange(len(found.bounds)), np.diff(found.bounds)[:, 0])
        places = np.arange(len(of))
        if falling:
            places = places[::-1]
        places = places[np.lexsort((found.times.asi8[places], of[places]))]
        if not np.array_equal(places, np.arange(len(of))):
            text = "times fall from row to row" if falling else "rows are not in order of time"
            found = found.taken(places, f"sort: {text}, sorted")
    return found


def falls_throughout(times: pd.DatetimeIndex, bounds: np.ndarray) -> bool:
    """Say whether no time is later than that of the row before, in any series, and some earlier."""
    steps = np.diff(times.asi8)
    inside = np.ones(len(steps), bool)
    inside[bounds[:-1, 1] - 1] = False  # from one series to the next
    steps = steps[inside]
    return bool(len(steps) and (steps <= 0).all() and (steps < 0).any())


def zone_of_change(time: pd.Timestamp) -> str:
    """Return a time zone in which clocks go back around a local time; "" where none do."""
    if time.tz is not None or time.weekday() != 6 or not 0 <= time.hour <= 3:
        return ""
    last_of_month = time.day + 7 > time.days_in_month
    if time.month == 10 and last_of_month:
        return {1: "Europe/London", 3: "Europe/Helsinki"}.get(time.hour, "Europe/Berlin")
    if time.month == 11 and time.day <= 7:
        return "America/New_York"
    return "Australia/Sydney" if time.month == 4 and time.day <= 7 else ""
