"""Rows to come: what is known of them, behind the last rows of series that a model forecasts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.data.preprocessing import Preparation
from tuner.data.series_table import Series
from tuner.data.vocabulary import merged
from tuner.errors import refusal
from tuner.tables.table import bounds_of
from tuner.tables.timestamps import following, show_time

_NAMED = 5  # columns at most


@dataclass(frozen=True, eq=False)
class Coming:
    """Series with as many rows to come as are forecast, whether anything is known of them or not.

    Nothing else of these rows than what is declared to be known can be seen: other columns lack
    their values, and a target stands at its last one.
    """

    series: Series
    ends: np.ndarray  # (series,), the first row to come of each
    complete: np.ndarray  # (series,), how many of the first rows to come lack nothing
    known: list[str]  # the columns that are known there
    horizon: int

    @property
    def lasts(self) -> np.ndarray:
        """The last row of each series that a forecast can begin with, (series,)."""
        return np.asarray(self.ends - self.horizon + self.complete)

    def refuse(self, needed: np.ndarray, path: Path) -> None:
        """Refuse series that lack what is known of rows to come.

        Args:
            needed: (series,), bool: which are forecast.
        """
        lacking = np.flatnonzero(needed & (self.complete < self.horizon))
        if not len(lacking):
            return
        i = int(lacking[0])
        end, n = int(self.ends[i]), int(self.complete[i])
        block = self.series.frame[self.known].iloc[end + n : end + self.horizon].isna()
        absent = int((block.all(axis=1) if self.known else block.index >= 0).sum())
        columns = [name for name in self.known if block[name].any()]
        shown = ", ".join(columns[:_NAMED]) or "the time"
        shown += f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
        which = f"the first {self._place(i, end + n)}"
        more = f" (and {len(lacking) - 1} other series)" if len(lacking) > 1 else ""
        lack = int(block.any(axis=1).sum()) if self.known else absent
        rule = (
            "the forecast needs what is known of the next "
            f"{self.horizon} row{'s' * (self.horizon > 1)} after "
            f"{self._place(i, end - 1)}{self.series.whose(i)}, and {lack} lack{'s' * (lack == 1)} "
            f"{shown}, {which}{more}"
        )
        remedy = (
            "add such rows, without target, behind the last one, or give a file of them as --future"
        )
        raise refusal(path, "data.known_future", rule, remedy=remedy)

    def _place(self, series: int, row: int) -> str:
        times = self.series.times
        if times is not None and not pd.isna(times[row]):
            return show_time(times[row])
        return f"row {row - self.series.bounds[series, 0] + 1}"


def with_future(series: Series, data: Preparation, future: Series, horizon: int) -> Series:
    """Put rows to come of a file of their own behind the last targets, in place of those there.

    Args:
        future: series of the same names, or one that holds for all of them, with the columns that
            are known. What is not after the end of a series, or none of its steps, is left out.
    """
    known = list(data.known_future or [])
    values, coming = series.frame.to_numpy(), future.frame[known].to_numpy(copy=True)
    levels = dict(series.levels)
    for place, name in enumerate(known):
        if name in levels:
            of_both = merged(coming[:, place], future.levels[name], levels[name])
            coming[:, place], levels[name] = of_both
    at = [list(series.frame).index(name) for name in known]
    pieces = _Pieces([], [], [])
    for name, start, end in zip(series.names, series.bounds[:, 0], series.ends, strict=True):
        rows = np.empty(0, np.int64)
        if future.names == ("",) or name in future.names:
            of = 0 if future.names == ("",) else future.names.index(name)
            rows = np.arange(*future.bounds[of])
        if series.times is not None and future.times is not None:
            last = series.times[[end - 1]]
            theirs = future.times[rows]
            if series.frequency is None:
                rows = rows[theirs > last[0]]
            else:
                rows = rows[theirs.isin(following(last, series.frequency, horizon))]
            pieces.times += [series.times[start:end], future.times[rows]]
        block = np.full((len(rows), values.shape[1]), np.nan)
        block[:, at] = coming[rows]
        pieces.blocks += [values[start:end], block]
        pieces.lines += [series.lines[start:end], np.full(len(rows), -1)]
    inserted = np.zeros(sum(map(len, pieces.blocks)), bool)
    return dataclasses.replace(pieces.joined(series), inserted=inserted, levels=levels)


@dataclass
class _Pieces:
    """The rows of series that are put together anew: two pieces of each, known and to come."""

    blocks: list[np.ndarray]
    lines: list[np.ndarray]
    times: list[pd.DatetimeIndex]

    def joined(self, series: Series) -> Series:
        lengths = np.array([len(block) for block in self.blocks])
        lines = np.concatenate(self.lines)
        times = None if series.times is None else self.times[0].append(self.times[1:])
        return dataclasses.replace(
            series,
            frame=pd.DataFrame(np.concatenate(self.blocks), columns=series.frame.columns),
            bounds=bounds_of(lengths[::2] + lengths[1::2]),
            lines=lines,
            inserted=lines < 0,
            times=None if times is None else pd.DatetimeIndex(times),
        )


def with_coming(series: Series, data: Preparation, horizon: int) -> Coming:
    """Part series from their rows to come, and put so many of these behind each.

    Args:
        series: with even rows. Those behind the last target of a series are rows to come.
    """
    ends, known = series.ends, list(data.known_future or [])
    names = list(series.frame)
    at, of_targets = [[names.index(n) for n in of] for of in (known, series.targets)]
    values = series.frame.to_numpy()
    pieces, complete = _Pieces([], [], []), []
    for i, (start, end) in enumerate(zip(series.bounds[:, 0].tolist(), ends.tolist(), strict=True)):
        there = range(end, min(end + horizon, int(series.bounds[i, 1])))
        block = np.full((horizon, values.shape[1]), np.nan)
        block[: len(there), at] = values[there][:, at]
        whole = ~np.isnan(block[:, at]).any(axis=1)
        block[:, of_targets] = _last_values(values[start:end, of_targets])
        pieces.blocks += [values[start:end], block]
        pieces.lines += [series.lines[start:end], np.full(horizon, -1)]
        pieces.lines[-1][: len(there)] = series.lines[there]
        if series.times is not None:
            ahead = series.times[there]
            if len(ahead) < horizon:
                later = following(series.times[[end - 1]], series.frequency, horizon)[len(ahead) :]
                ahead = pd.DatetimeIndex(ahead.append(later))
            pieces.times += [series.times[start:end], ahead]
            if data.calendar:
                whole &= np.asarray(ahead.notna())
        complete.append(horizon if whole.all() else int(whole.argmin()))
    extended = pieces.joined(series)
    first_to_come = extended.bounds[:, 1] - horizon
    return Coming(extended, first_to_come, np.array(complete), known, horizon)


def _last_values(column: np.ndarray) -> np.ndarray:
    known = ~np.isnan(column)
    last = len(column) - 1 - known[::-1].argmax(axis=0)
    return np.asarray(column[last, np.arange(column.shape[1])])
