"""Values that are probably no measurements: a person is told where they stand in the file.

All rows are looked at, those of the test part among them, for a person corrects a file as a whole.
Nothing here changes a value, and nothing is learned from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from tuner.data.reading import Series

__all__ = ["SUSPECTS", "outside_of", "suspects_of"]

SUSPECTS = ("sentinel", "outlier", "stands still", "unit", "suspect")
"""What such notes are called."""

_CODE = re.compile(r"-?(9{2,}(\.9+)?|9+\.(25|99*)|32768|32767|65535|2147483647)|-1e[23]\d|1e[23]\d")
_CODE_APART, _APART, _ALONE_APART = 0.5, 3.0, 10.0  # ranges of the rest that lie in between:
# of a repeated value that is written as people write nothing, of another, of a single value
_FEWEST_OTHERS = 10  # different values, to tell how far they reach
_MOST_SHARE = 0.5  # of the rows may be no measurements
_STILL = 0.5  # of the rows of a series, one after another, that are the same
_FEWEST_STILL = 20  # rows
_UNIT, _ABOUT = 1000.0, 1.6  # a change of unit, and the factor by which it may be missed
_FEWEST_AROUND = 8  # rows before and after such a change
_MOST_ROUNDS = 3  # different sentinels of a column
_SHOWN = 3  # lines
_MOST_NOTES = 8


def suspects_of(series: Series) -> Iterator[tuple[str, str]]:
    """Say which values are probably no measurements: what, and where.

    Args:
        series: as they were read, before rows are filled in or brought to steps.
    """
    columns = {str(name): values.to_numpy() for name, values in series.frame.items()}
    notes = [*outside_of(columns, series.place)]
    for name, values in columns.items():
        notes += _of_column(series, name, values)
    yield from notes[:_MOST_NOTES]
    if len(notes) > _MOST_NOTES:
        yield "suspect", f"and {len(notes) - _MOST_NOTES} more like these"


def outside_of(
    columns: Mapping[str, np.ndarray], place: Callable[[int], str]
) -> Iterator[tuple[str, str]]:
    """Say which values of columns lie far outside the rest of their column.

    One that comes again and again is a sentinel: it stands for nothing, as -999 does. One that
    comes once is an outlier.

    Args:
        columns: (rows,) each, nan where there is no value.
        place: says where a row stands.
    """
    found = {name: _far_values(values) for name, values in columns.items()}
    words = [f"{v:.10g}" for far, _ in found.values() for v, n in far if _stands_for_nothing(v, n)]
    key = f"data.read.missing_values: {json.dumps(list(dict.fromkeys(words)))}"
    for name, (far, (low, high)) in found.items():
        for value, count in far:
            text = f"{name!r} is {value:.10g} {_where(columns[name] == value, place)}, far outside "
            text += f"the rest ({low:.6g} to {high:.6g})"
            if _stands_for_nothing(value, count):
                remedy = f"if it stands for no value, write {key}, and data.missing: ffill"
                yield "sentinel", f"{text}; {remedy}"
            else:
                yield "outlier", f"{text}; correct it if it was not measured"


def _far_values(values: np.ndarray) -> tuple[list[tuple[float, int]], tuple[float, float]]:
    """Return values far outside the rest, with how often each comes, and the ends of the rest."""
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    far: list[tuple[float, int]] = []
    while len(far) < _MOST_ROUNDS and (at := _outside(found, counts)) is not None:
        far.append((float(found[at]), int(counts[at])))
        found, counts = np.delete(found, at), np.delete(counts, at)
    return far, (found[0], found[-1]) if len(found) else (0.0, 0.0)


def _of_column(series: Series, name: str, values: np.ndarray) -> Iterator[tuple[str, str]]:
    """Say where a target stands still, and where the unit of a column changes."""
    for i, (start, end) in enumerate(series.bounds.tolist()):
        rows = start + np.flatnonzero(~np.isnan(values[start:end]))
        own = values[rows]
        whose = series.whose(i)
        if name in series.targets and (still := _longest_run(own)) is not None:
            first, last = rows[still[0]], rows[still[1] - 1]
            text = f"{name!r}{whose} is {own[still[0]]:.10g} in {still[1] - still[0]} of "
            text += f"{len(own)} rows without a break, {_span(series, first, last)}"
            remedy = "if nothing was measured, empty these cells and write data.missing: ffill"
            yield "stands still", f"{text}; {remedy}"
        elif (change := _change_of_unit(own)) is not None:
            at, larger = change
            factor = "1000 times larger" if larger else "1000 times smaller"
            text = f"{name!r}{whose} is about {factor} from {series.place(int(rows[at]))} on"
            yield "unit", f"{text}; write all rows in one unit"


def _outside(found: np.ndarray, counts: np.ndarray) -> int | None:
    """Return the place of the value at either end that is far outside the rest, if one is.

    Args:
        found: different values, rising, (n,).
        counts: how often each comes.
    """
    if len(found) <= _FEWEST_OTHERS:
        return None
    ends = {
        0: (found[1] - found[0], found[-1] - found[1]),
        len(found) - 1: (found[-1] - found[-2], found[-2] - found[0]),
    }
    for at in sorted(ends, key=lambda at: -ends[at][0]):
        apart, others = ends[at]
        if counts[at] > _MOST_SHARE * counts.sum():
            continue
        needed = _ALONE_APART if counts[at] == 1 else _APART
        if _is_code(found[at]):
            needed = _CODE_APART if counts[at] > 1 else _APART
        if apart > needed * others:
            return at
    return None


def _stands_for_nothing(value: float, count: int) -> bool:
    return count > 1 or _is_code(value)


def _is_code(value: float) -> bool:
    return bool(_CODE.fullmatch(f"{value:.10g}".replace("e+", "e")))


def _longest_run(values: np.ndarray) -> tuple[int, int] | None:
    """Return the rows [start, end) of the longest run of equal values, where it is half of all.

    None of a column that is the same in all rows, of which there is another note.
    """
    if len(values) < _FEWEST_STILL:
        return None
    edges = np.flatnonzero(np.diff(values) != 0) + 1
    if not len(edges):
        return None
    bounds = np.r_[0, edges, len(values)]
    lengths = np.diff(bounds)
    at = int(lengths.argmax())
    if lengths[at] < max(_STILL * len(values), _FEWEST_STILL / 2):
        return None
    return int(bounds[at]), int(bounds[at + 1])


def _change_of_unit(values: np.ndarray) -> tuple[int, bool] | None:
    """Return the row from which on values are about 1000 times larger, or smaller, for good.

    All but a twentieth of the sizes before it must lie on one side of those after it.
    """
    sizes = np.abs(values)
    n = len(sizes)
    if n < 2 * _FEWEST_AROUND or not (sizes > 0).any():
        return None
    logs = np.log10(np.maximum(sizes, sizes[sizes > 0].min()))
    sums = np.cumsum(logs - logs.mean())
    at = int(np.abs(sums[:-1]).argmax()) + 1  # of the largest difference of means, by its sums
    before, after = sizes[:at], sizes[at:]
    if min(len(before), len(after)) < _FEWEST_AROUND:
        return None
    low, high = sorted((before, after), key=lambda part: float(np.median(part)))
    if np.median(low) == 0 or np.quantile(low, 0.95) >= np.quantile(high, 0.05):
        return None
    ratio = float(np.median(high) / np.median(low))
    if not _UNIT / _ABOUT < ratio < _UNIT * _ABOUT:
        return None
    return at, high is after


def _where(at: np.ndarray, place: Callable[[int], str]) -> str:
    rows = np.flatnonzero(at)
    shown = ", ".join(place(int(row)) for row in rows[:_SHOWN])
    if len(rows) == 1:
        return f"in {shown}"
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return f"in {len(rows)} rows ({shown}{more})"


def _span(series: Series, first: int, last: int) -> str:
    whose = series.whose(int(series.bounds[:, 1].searchsorted(first, side="right")))
    return f"{series.place(int(first))} to {series.place(int(last))}".replace(whose, "")
