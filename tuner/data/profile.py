"""Profile of a file's values: suspicious ones, trend, season, growth, columns that help."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.data.series_table import Series

SUSPECTS = ("sentinel", "outlier", "stands still", "unit", "suspect")  # the names of such notes
_CODE = re.compile(r"-?(9{2,}(\.9+)?|9+\.(25|99*)|32768|32767|65535|2147483647)|-1e[23]\d|1e[23]\d")
_CODE_APART, _APART, _ALONE_APART = 0.5, 3.0, 10.0  # ranges of the rest that lie in between:
# of a repeated value that is written as people write a missing one, of another, of a single value
_FEWEST_OTHERS = 10  # different values, for their range to be known
_MOST_SHARE = 0.5  # of the rows may be no measurements
_STILL = 0.5  # of the rows of a series, one after another, that are the same
_FEWEST_STILL = 20  # rows
_UNIT, _ABOUT = 1000.0, 1.6  # a change of unit, and the factor by which it may be missed
_FEWEST_AROUND = 8  # rows before and after such a change
_MOST_ROUNDS = 3  # different sentinels of a column
_SHOWN = 3  # lines
_MOST_NOTES = 8


def suspects_of(series: Series) -> Iterator[tuple[str, str]]:
    """Yield notes on values that are probably no measurements: what, and where.

    All rows count, those of the test part too, as a person corrects a file as a whole; nothing is
    learned from them.

    Args:
        series: as read, before they are imputed or resampled.
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
    """Yield notes on values of columns that lie far outside the rest of their column.

    A repeated one is a sentinel for a missing value, such as -999; a single one is an outlier.

    Args:
        columns: (rows,) each, nan where there is no value.
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
    """Return values far outside the rest with their counts, and the ends of the rest."""
    found, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    far: list[tuple[float, int]] = []
    while len(far) < _MOST_ROUNDS and (at := _outside(found, counts)) is not None:
        far.append((float(found[at]), int(counts[at])))
        found, counts = np.delete(found, at), np.delete(counts, at)
    return far, (found[0], found[-1]) if len(found) else (0.0, 0.0)


def _of_column(series: Series, name: str, values: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield notes on where a target stands still, and where the unit of a column changes."""
    for i, (start, end) in enumerate(series.bounds.tolist()):
        rows = start + np.flatnonzero(~np.isnan(values[start:end]))
        own = values[rows]
        whose = series.whose(i)
        if name in series.targets and (still := _longest_run(own)) is not None:
            first, last = rows[still[0]], rows[still[1] - 1]
            span = f"{series.place(int(first))} to {series.place(int(last))}".replace(whose, "")
            text = f"{name!r}{whose} is {own[still[0]]:.10g} in {still[1] - still[0]} of "
            text += f"{len(own)} rows without a break, {span}"
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
        found: different values, rising, (n,), with their counts.
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
    """Return the rows [start, end) of the longest run of equal values if it is half of all.

    None of a constant column, which has another note.
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
    """Return the row from which values stay about 1000 times larger (True) or smaller.

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


_OUTSIDE = 0.25  # of the range of training levels: farther beyond it is outside
_CLEAR = 0.9  # a correlation of level and time, without a sign, above which a trend is clear
_FEWEST = 3  # stretches without a common row before a trend can be clear
_STRETCH = 10  # rows that a level is the mean of where there is no season


@dataclass(frozen=True)
class Trend:
    """A target whose level, the mean over some rows, moves before the test part."""

    target: str
    series: str  # the first one in which it moves; "" of a single series
    others: int  # in which it does as well
    rows: int  # that a level is the mean of
    level: float  # of the last rows before the test part
    low: float  # the least of the training part
    high: float

    @property
    def outside(self) -> bool:
        """Whether the last level lies outside of all training levels."""
        return not self.low <= self.level <= self.high


def trend_of(
    target: str, season: int | None, series: Iterable[tuple[str, np.ndarray, np.ndarray]]
) -> Trend | None:
    """Return the trend of a target; None where its level stays.

    The level moves if the mean of the last rows before the test part lies well outside of all such
    means of the training part, or if these means follow time nearly in a line.

    Args:
        season: rows in one; a level is the mean of these, so that a season is no trend.
        series: of each the name, and the values of the training part and of all rows before the
            test part.
    """
    found: list[Trend] = []
    for name, train, before_test in series:
        rows = season if season is not None and 2 * season <= len(train) else _STRETCH
        if len(train) < 2 * rows or len(before_test) < _FEWEST * rows:
            continue
        known, levels = _levels(train, rows), _levels(before_test, rows)
        low, high, last = float(known.min()), float(known.max()), float(levels[-1])
        room = _OUTSIDE * (high - low)
        outside = not low - room <= last <= high + room
        if outside or abs(_correlation(levels)) > _CLEAR:
            found.append(Trend(target, name, 0, rows, last, low, high))
    if not found:
        return None
    return replace(found[0], others=len(found) - 1)


def _levels(values: np.ndarray, rows: int) -> np.ndarray:
    centre = values.mean()  # sums of numbers far from 0 lose digits
    sums = np.concatenate([[0.0], np.cumsum(values - centre)])
    return np.asarray((sums[rows:] - sums[:-rows]) / rows + centre)


def _correlation(levels: np.ndarray) -> float:  # with time
    place, off = np.arange(len(levels)) - (len(levels) - 1) / 2, levels - levels.mean()
    size = float(np.sqrt((place**2).sum() * (off**2).sum()))
    return float((place * off).sum()) / size if size > 0 and np.isfinite(size) else 0.0


_SHOWS = 0.25  # share of the variance without a trend that a season explains, to be one,
_SHOWS_OFTEN = 0.1  # and where it is seen so many times that chance is ruled out:
_OFTEN = 40
_REPEATS = 0.3  # autocorrelation at the length of a cycle, to be one
_CYCLES = 4  # that must be there, to see one
_TRENDS = 1.0  # standard deviations between the first third and the last
_UNIT_ROOT = 14.0  # n (1 - r): Dickey and Fuller's 5 % for a series about a level
_GROWS = 0.5  # least power of the level that the spread follows, and correlation of the two
_LEVELS = 0.3  # of the logarithms of levels: below, a logarithm changes little
_UNEVEN = 3.0  # times the spread of the series in the middle, for the largest one to decide
_WHITE = 3.0  # standard errors that the autocorrelation of noise keeps within,
_HARDLY = 0.1  # and what no forecast can use, however sure it is


@dataclass(frozen=True)
class Profile:
    """The properties of most of the series in a file."""

    rows: int  # of the median series
    series: int
    season: int | None  # rows that a season takes, where one shows
    strength: float  # share of the variance without a trend that the season explains, 0 to 1
    trending: bool  # the level does not come back: there is no level to learn
    growing: bool  # all is above 0, and the spread grows with the level
    walking: bool  # the steps are noise: beyond the last value nothing is seen to repeat
    uneven: bool = False  # the largest of several series would decide an error in their unit

    @property
    def described(self) -> str:
        """The properties in words."""
        season = "no season" if self.season is None else f"a season of {self.season} rows"
        level = "a level that wanders" if self.trending else "a level that it comes back to"
        grows = ", a spread that grows with the level" if self.growing else ""
        steps = ", steps like noise" if self.walking else ""
        return f"{season}, {level}{grows}{steps}"


def profile_of(series: Sequence[np.ndarray], usual: int | None, *, positive: bool) -> Profile:
    """Return the properties of most of some series.

    Args:
        series: the training values of the target in each, (rows,), without gaps.
        usual: rows in a season at this frequency; None where it has none, and the values are
            searched for a cycle.
        positive: whether all values of the target are above 0, also later ones.
    """
    long = [x for x in series if len(x) >= 8] or [x for x in series if len(x)]
    if not long:
        return Profile(0, len(series), None, 0.0, False, False, False)
    rows = int(statistics.median(len(x) for x in long))
    cycles = [] if usual else sorted(c for c in map(_cycle, long) if c is not None)
    found = cycles[len(cycles) // 2] if len(cycles) * 2 > len(long) else usual or None
    strength = 0.0 if found is None else statistics.median(_strength(x, found) for x in long)
    least = _SHOWS if found is None or rows < _OFTEN * found else _SHOWS_OFTEN
    season = None if usual is not None and strength < least else found
    growing = positive and _most(_grows(x, season) for x in long)
    known = [np.log(x) if growing else x for x in long]
    trending = _most(_trends(x, season) for x in known)
    walking = season is None and trending and _most(_walks(x) for x in known)
    uneven = _uneven(series, {1, usual or season or 1})
    return Profile(rows, len(series), season, strength, trending, growing, walking, uneven)


def _uneven(series: Sequence[np.ndarray], lags: set[int]) -> bool:
    """Return whether series differ in their spread, and each has steps other than 0 at all lags."""
    if len(series) < 2 or any(
        len(x) <= lag or not np.abs(x[lag:] - x[:-lag]).any() for x in series for lag in lags
    ):
        return False
    spreads = np.array([x.std() for x in series])
    return bool(spreads.max() > _UNEVEN * np.median(spreads))


def _most(found: Iterable[bool]) -> bool:
    answers = list(found)
    return sum(answers) * 2 > len(answers)


def _strength(values: np.ndarray, season: int) -> float:
    """Return the share of the variance about a moving average that the season explains.

    Hyndman and Athanasopoulos' strength of a season, with the variance of the remainder estimated
    by its degrees of freedom, so that noise has none.
    """
    if season < 2 or len(values) < 2 * season + 2:
        return 0.0
    rest = _without_trend(values, season)
    phase = np.arange(len(rest)) % season
    over = rest - _by_phase(rest, phase, season)
    total, freedom = float(((rest - rest.mean()) ** 2).sum()), len(rest) - season
    if total <= 1e-12 * max(1.0, float((values**2).sum())) or freedom < 1:
        return 0.0
    return max(0.0, 1.0 - (float(over @ over) / freedom) / (total / (len(rest) - 1)))


def _without_trend(values: np.ndarray, season: int) -> np.ndarray:
    """Return values less the centred moving average over a season."""
    even = season % 2 == 0
    weights = np.r_[0.5, np.ones(season - 1), 0.5] if even else np.ones(season)
    trend = np.convolve(values, weights / season, "valid")
    first = len(weights) // 2
    return np.asarray(values[first : first + len(trend)] - trend)


def _by_phase(values: np.ndarray, phase: np.ndarray, season: int) -> np.ndarray:
    counts = np.maximum(np.bincount(phase, minlength=season), 1)
    return np.asarray((np.bincount(phase, values, minlength=season) / counts)[phase])


def _autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelation at 0 to `lags`: (lags + 1,); of a constant 0 but for the first."""
    centred = values - values.mean()
    size = 1 << int(2 * len(values) - 1).bit_length()
    products = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[: lags + 1]
    least = 1e-12 * max(1.0, float((values**2).sum()))
    constant = products[0] <= least
    return np.eye(1, lags + 1)[0] if constant else np.asarray(products / products[0])


def _cycle(values: np.ndarray) -> int | None:
    """Return the length of the cycle in which values repeat, or None.

    It is the first lag whose autocorrelation is a peak nearly as high as the highest one after
    the first fall below 0; of steps, where the level wanders.
    """
    seen = np.diff(values) if _distance(values) > _TRENDS else values
    lags = len(seen) // _CYCLES
    if lags < 3:
        return None
    found = _autocorrelation(seen, lags + 1)
    below = np.flatnonzero(found < 0)
    if not len(below) or below[0] >= lags:
        return None
    lag = np.arange(max(2, below[0]), lags + 1)
    peak = (found[lag] >= found[lag - 1]) & (found[lag] >= found[lag + 1])
    high = found[lag] >= max(_REPEATS, 0.8 * found[lag].max())
    peaks = lag[peak & high]
    return int(peaks[0]) if len(peaks) else None


def _distance(values: np.ndarray) -> float:
    """Return the distance of the last third from the first, in their standard deviation."""
    third = max(1, len(values) // 3)
    first, last = values[:third], values[-third:]
    spread = np.sqrt((first.var() + last.var()) / 2)
    moved = abs(float(last.mean() - first.mean()))
    return moved / spread if spread > 1e-9 * max(1.0, moved) else (np.inf if moved else 0.0)


def _trends(values: np.ndarray, season: int | None) -> bool:
    """Return whether the level moves away, or does not seem to come back."""
    if season is not None and len(values) >= 2 * season:
        values = values - _by_phase(values, np.arange(len(values)) % season, season)
    if _distance(values) > _TRENDS:
        return True
    return len(values) * (1.0 - float(_autocorrelation(values, 1)[1])) < _UNIT_ROOT


def _grows(values: np.ndarray, season: int | None) -> bool:
    """Return whether steps within a stretch are wider the higher its level is."""
    length = max(season or 0, 8)
    n = len(values) // length
    if n < 4 or values.min() <= 0:
        return False
    stretches = values[len(values) - n * length :].reshape(n, length)
    level = np.log(stretches.mean(axis=1))
    spread = np.log(np.sqrt((np.diff(stretches, axis=1) ** 2).mean(axis=1)) + 1e-12)
    if np.ptp(level) < _LEVELS or spread.std() == 0:
        return False
    power = np.polyfit(level, spread, 1)[0]
    return bool(power >= _GROWS and np.corrcoef(level, spread)[0, 1] >= _GROWS)


def _walks(values: np.ndarray) -> bool:
    """Return whether the steps from row to row are noise."""
    steps = np.diff(values)
    if len(steps) < 20 or steps.std() <= 1e-6 * np.abs(steps).max():
        return False
    found = np.abs(_autocorrelation(steps, 5)[1:]).max()
    return bool(found < max(_WHITE / np.sqrt(len(steps)), _HARDLY))


_HELPS = 0.02  # least share of the error that a column takes off
_MOST_ROWS = 3000  # the last ones
_MOST_NUMBERS = 300  # that one forecast reads: of more columns fewer rows are read
_MOST_LOOKED_AT = 60_000  # rows of all series
_MOST_TRIED = 6  # columns that are tried together, of those that help most alone
_FIRST_LOOK = (1000, 60)  # rows and numbers by which these are found
_PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # of standardized numbers
_FITTED = 0.75  # of the rows; what follows is forecast


def columns_that_help(
    parts: Sequence[np.ndarray], targets: list[int], others: list[int], window: int, horizon: int
) -> tuple[list[int], float]:
    """Choose columns one by one, each the one that reduces the error most beside the chosen.

    All of them are taken if that is better by more than one column must be: some help only
    together.

    Args:
        parts: the training part of each series, (rows, columns), without gaps.

    Returns:
        The chosen of `others`, rising, and the share of the error that they take off.
    """
    parts = _some(sorted(parts, key=len, reverse=True))
    together = len(targets) + min(len(others), _MOST_TRIED)
    one_by_one = max(1, min(window, _MOST_NUMBERS // together))  # rows, the same for all sets

    def gain(
        columns: list[int], rows: int, most: tuple[int, int] = (_MOST_ROWS, _MOST_NUMBERS)
    ) -> float:
        read, at = [*targets, *columns], list(range(len(targets)))
        gains = [gain_of_columns(p[:, read], at, rows, horizon, most) for p in parts]
        return float(np.median(gains)) if gains else -1.0

    alone = {c: gain([c], window, _FIRST_LOOK) for c in others}
    tried = sorted(alone, key=lambda c: -alone[c])[:_MOST_TRIED]
    chosen: list[int] = []
    best = 0.0
    while tried:
        gains = {c: gain([*chosen, c], one_by_one) for c in tried}
        found = max(gains, key=lambda c: gains[c])
        if 1.0 - gains[found] > (1.0 - best) * (1.0 - _HELPS):
            break
        chosen, best = [*chosen, found], gains[found]
        tried = [c for c in tried if c != found]
    if len(others) > max(1, len(chosen)):
        of_all = gain(others, window)
        if 1.0 - of_all <= (1.0 - best) * (1.0 - _HELPS):
            return sorted(others), of_all
    return sorted(chosen), best


def gain_of_columns(
    values: np.ndarray,
    targets: list[int],
    window: int,
    horizon: int,
    most: tuple[int, int] = (_MOST_ROWS, _MOST_NUMBERS),
) -> float:
    """Return how much lower the error is when all columns are read, not the targets alone.

    Args:
        values: the training part of one series, (rows, columns), without gaps.
        most: rows that are read, the last ones, and numbers that one forecast reads.

    Returns:
        The share of the root mean squared error that the other columns take off, on the last
        quarter of the rows; below 0 where they harm, and where there are too few rows to tell.
    """
    most_rows, most_numbers = most
    spread = values.std(axis=0)
    seen = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    seen = seen[-most_rows:]
    window = max(1, min(window, most_numbers // values.shape[1]))
    starts = np.arange(window, len(seen) - horizon + 1)
    fitted = int(len(starts) * _FITTED)
    if fitted < 2 * window or len(starts) - fitted < 8:
        return -1.0
    coming = np.concatenate([seen[starts + k][:, targets] for k in range(horizon)], axis=1)
    past = np.stack([seen[starts - k] for k in range(1, window + 1)], axis=1)
    reads = (read.reshape(len(starts), -1) for read in (past[:, :, targets], past))
    errors = [_error(read, coming, fitted) for read in reads]
    return 1.0 - errors[1] / errors[0] if errors[0] > 0 else -1.0


def _some(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    rows = np.cumsum([min(len(part), _MOST_ROWS) for part in parts])
    return list(parts[: int(rows.searchsorted(_MOST_LOOKED_AT)) + 1])


def _error(read: np.ndarray, coming: np.ndarray, fitted: int) -> float:
    """Return the least error, over the penalties, of a ridge regression on the rows after."""
    read = read - read[:fitted].mean(axis=0)
    level = coming[:fitted].mean(axis=0)
    products, wanted = read[:fitted].T @ read[:fitted], read[:fitted].T @ (coming[:fitted] - level)
    errors = []
    for penalty in _PENALTIES:
        weights = np.linalg.solve(products + penalty * np.eye(len(products)), wanted)
        errors.append(((read[fitted:] @ weights + level - coming[fitted:]) ** 2).mean())
    return float(np.sqrt(min(errors)))
