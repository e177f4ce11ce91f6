"""The best score of a study over its trials, as the geometry of a drawing of a few kilobytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tuner.report.plotting import good_range, number

WIDTH, HEIGHT = 1000, 300  # of the drawing, which is stretched to the size that it gets
_MOST_DOTS = 400
_STEPS = (1, 2, 2.5, 5, 10)
_FEWEST_LINES, _MOST_LINES = 3, 6


@dataclass(frozen=True)
class Curve:
    """The scores of a study, drawn from 0, 0 at the top left to `WIDTH`, `HEIGHT`."""

    best: str  # path of the best score so far
    dots: str  # path of a dot for each trial, or for some of them
    grid: str  # path of the lines at `scores`
    scores: Sequence[str]  # labels of the vertical axis from the top to the bottom, equally far
    trials: Sequence[str]  # labels of the horizontal axis: first, middle, last
    words: str  # the same for people who do not see it


def improvements(scores: Iterable[float | None], direction: str) -> list[tuple[int, float]]:
    """Return the trials that were better than all before: their numbers and scores.

    Args:
        scores: by trial number; None, or not finite, for a trial without a score.
        direction: minimize or maximize.
    """
    values = np.array([math.nan if s is None else s for s in scores], np.float64)
    if not len(values):
        return []
    costs = values if direction == "minimize" else -values
    costs = np.where(np.isfinite(costs), costs, np.inf)
    best = np.minimum.accumulate(costs)
    before = np.concatenate([[np.inf], best[:-1]])
    return [(int(i), float(values[i])) for i in np.flatnonzero(best < before)]


def make_curve(
    scores: Sequence[float | None], direction: str, metric: str, budget: int | None
) -> Curve | None:
    """Return the curve of a study; None without a score.

    Args:
        scores: by trial number; None for a trial without a score.
        direction: minimize or maximize.
        metric: its name.
        budget: the number of trials; None for an unlimited study.
    """
    steps = improvements(scores, direction)
    if not steps:
        return None
    known = [(i, s) for i, s in enumerate(scores) if s is not None and math.isfinite(s)]
    sign = 1.0 if direction == "minimize" else -1.0
    low, high, step = _round_range(*good_range((s for _, s in known), sign))
    last = max(len(scores), budget or 0, 2) - 1

    def x(trial: int) -> int:
        return round(WIDTH * trial / last)

    def y(score: float) -> int:
        share = (min(max(score, low), high) - low) / (high - low)
        return round(HEIGHT * (1 - share))

    path = _staircase([(x(trial), y(score)) for trial, score in steps], x(len(scores) - 1))
    few = known[:: math.ceil(len(known) / _MOST_DOTS)]
    lines = round((high - low) / step)
    labels = [number(high - i * step) for i in range(lines + 1)]
    (begin, first), (trial, best) = steps[0], steps[-1]
    return Curve(
        best=path,
        dots="".join(f"M{x(i)} {y(s)}h0" for i, s in few),
        grid="".join(f"M0 {round(HEIGHT * i / lines)}H{WIDTH}" for i in range(lines + 1)),
        scores=labels,
        trials=[f"{t:,}" for t in (0, last // 2, last)] if last > 2 else ["0", f"{last:,}"],
        words=f"{metric} from {number(first)} in trial {begin:,} to {number(best)}"
        f" in trial {trial:,}, after {len(scores):,} trials.",
    )


def spark_line(steps: Sequence[tuple[int, float]], n: int, budget: int | None) -> str:
    """Return the path of the best score so far, from 0, 0 to 100, 24; empty without a score.

    Args:
        steps: what `improvements` returns.
        n: the number of trials so far.
        budget: the number of trials; None for an unlimited study.
    """
    if not steps:
        return ""
    low, high = sorted((steps[0][1], steps[-1][1]))
    last = max(n, budget or 0, 2) - 1

    def y(score: float) -> float:
        return 12 if low == high else round(22 - 20 * (score - low) / (high - low), 1)

    def x(trial: int) -> float:
        return round(100 * trial / last, 1)

    places = [(x(trial), y(score)) for trial, score in steps]
    return _staircase(places, x(max(n - 1, steps[-1][0])))


def _staircase(places: Sequence[tuple[float, float]], end: float) -> str:
    """Return a path through places from the left to the right, without steps too small to see."""
    (left, height), *others = places
    path = f"M{left:g} {height:g}"
    for x, y in others:
        if y != height:
            path, height = f"{path}H{x:g}V{y:g}", y
    return f"{path}H{end:g}"


def _round_range(low: float, high: float) -> tuple[float, float, float]:
    """Return round limits around two values, and the distance of lines between them."""
    if not high > low:
        low, high = low - 1, high + 1
    rough = (high - low) / (_MOST_LINES - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in _STEPS if power * k >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + _FEWEST_LINES - 1)
    return first * step, last * step, step
