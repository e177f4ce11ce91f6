"""The best score so far of every strategy, against trials and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuner.comparison.comparison import Comparison, Row
from tuner.report.drawing import (
    COLOURS,
    Picture,
    good_range,
    label,
    new_figure,
    png,
    round_values,
    tidy,
    whole_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Band", "band_by_seconds", "band_by_trials", "curves_figure", "curves_picture"]

_STYLES = ("-", "--", ":")  # of as many strategies as there are colours, each


class Band:
    """A quartile below, the median and a quartile above, at each of some places.

    NaN where it is infinite: too few searches have a complete trial by then.
    """

    def __init__(self, places: np.ndarray, best: np.ndarray) -> None:
        """Take quantiles over searches.

        Args:
            places: trials or seconds, (n,).
            best: the best score of each search there, (searches, n).
        """
        self.places = places
        ordered = np.sort(best, axis=0)
        self.low, self.median, self.high = (_quantile(ordered, q) for q in (0.25, 0.5, 0.75))


def _quantile(ordered: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile of each column as numpy does, which knows nothing of infinite values."""
    place = share * (len(ordered) - 1)
    below, part = int(place), place % 1
    value = ordered[below]
    if part:
        value = (1 - part) * value + part * ordered[below + 1]
    return np.where(np.isfinite(value), value, np.nan)


def band_by_trials(row: Row) -> Band:
    """Return how a strategy's best scores fall from trial to trial, the first being 1."""
    best = np.array([search.best for search in row.searches])  # (searches, trials)
    return Band(np.arange(1, best.shape[1] + 1), best)


def band_by_seconds(row: Row, sign: int) -> Band:
    """Return how a strategy's best scores fall in time; a search that has ended keeps its own."""
    times = np.unique(np.concatenate([search.seconds for search in row.searches]))  # (n,)
    best = []
    for search in row.searches:
        known = np.array([sign * np.inf, *search.best_then])  # before a trial has ended: nothing
        best.append(known[np.searchsorted(search.seconds, times, side="right")])
    return Band(times, np.array(best))


def curves_picture(comparison: Comparison) -> Picture:
    """Draw both."""
    about = (
        "The best validation score so far: the median over the seeds as a line, the quartiles as "
        "a band. On the left by the trials that were trained, on the right by the seconds that "
        "the search took; a search that has ended keeps its score."
    )
    return Picture("curves", "Best score so far", about, png(curves_figure(comparison)))


def curves_figure(comparison: Comparison) -> Figure:
    """Return the picture as a figure."""
    figure = new_figure(4.2, width_in=9.6)
    by_trials, by_seconds = figure.subplots(1, 2, sharey=True)
    bands = [
        (row, band_by_trials(row), band_by_seconds(row, comparison.sign)) for row in comparison.rows
    ]
    for i, (row, in_trials, in_seconds) in enumerate(bands):
        colour = COLOURS[i % len(COLOURS)]
        style = _STYLES[i // len(COLOURS) % len(_STYLES)]
        _draw(by_trials, in_trials, colour, style, row.strategy)
        _draw(by_seconds, in_seconds, colour, style)
    limits = good_range(_to_be_seen([band for _, band, _ in bands]), comparison.sign)
    metric = label(comparison.metric)
    by_trials.set(xlabel="trained trials", ylabel=f"best validation {metric} so far")
    by_trials.set(ylim=limits, yticks=round_values(limits))
    by_seconds.set(xlabel="seconds")
    whole_ticks(by_trials.xaxis)
    _begin_at_zero([by_trials, by_seconds])
    figure.legend(loc="outside upper left", ncols=5, frameon=False, fontsize="small")
    return figure


def _to_be_seen(bands: Sequence[Band]) -> list[float]:
    """Return all medians, and where the bands end; a band may begin outside of the picture."""
    ends = [(band.low[-1], band.high[-1]) for band in bands]
    values = np.concatenate([*(band.median for band in bands), *ends])
    return [float(value) for value in values[~np.isnan(values)]]


def _draw(axes: Axes, band: Band, colour: str, style: str, name: str | None = None) -> None:
    axes.fill_between(
        band.places, band.low, band.high, step="post", color=colour, alpha=0.15, linewidth=0
    )
    axes.step(
        band.places,
        band.median,
        where="post",
        color=colour,
        linestyle=style,
        linewidth=1.6,
        label=None if name is None else label(name),
    )


def _begin_at_zero(both: Sequence[Axes]) -> None:
    for axes in both:
        axes.set_xlim(left=0)
        tidy(axes)
