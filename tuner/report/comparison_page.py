"""A comparison as files: a page, a picture, and tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.outputs import written_whole
from tuner.report.comparison import ALPHA, Comparison, Row, score_text
from tuner.report.plotting import (
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
from tuner.report.rendering import render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


_GENERATOR = "tuner compare"
_MARK = f'content="{_GENERATOR}"'


def page(comparison: Comparison, curves: Picture, command: str) -> str:
    """Return the comparison as an HTML page; `command` is shown to repeat it."""
    rows, real = comparison.rows, comparison.real
    names = [row.strategy for row in rows]
    options = [", ".join(f"{name} {value}" for name, value in r.options.items()) for r in rows]
    return render(
        "comparison.html",
        generator=_GENERATOR,
        title=f"{comparison.experiment.name}: {', '.join(names[:-1])} and {names[-1]}",
        comparison=comparison,
        metric=comparison.metric,
        confidence=confidence_text(rows[0]),
        rows=[
            (row.strategy, score_text(row.median), interval_text(row), f"{row.seconds:,.1f}")
            for row in rows
        ],
        searches=[
            (search.study, score_text(search.score), f"{search.seconds[-1]:,.1f}")
            for row in rows
            for search in row.searches
        ],
        curves=curves,
        differences=[
            (f"{d.better} over {d.worse}", f"{d.wins:.2f}", f"{d.p_value:.2g}",
             f"{d.adjusted:.2g}", "real" if d in real else "")
            for d in comparison.differences
        ],
        settings="; ".join(f"{n} ({of})" for n, of in zip(names, options, strict=True)),
        alpha=ALPHA,
        command=command,
    )  # fmt: skip


def interval_text(row: Row) -> str:
    """Write where the median lies."""
    low, high = row.interval.low, row.interval.high
    return score_text(low) if low == high else f"{score_text(low)} to {score_text(high)}"


def confidence_text(row: Row) -> str:
    """Write what kind of interval that is: of 95 %, or of less where there are few seeds."""
    return f"{int(100 * min(row.interval.confidence, 0.95))} % interval"


FILES = ("comparison.html", "curves.png", "scores.csv", "curves.csv")


def is_free(folder: Path) -> bool:
    """Return whether a comparison may be written there: nothing is lost but an older one."""
    taken = [folder / name for name in FILES if (folder / name).exists()]
    if not taken:
        return True
    try:
        with (folder / FILES[0]).open(encoding="utf-8") as file:
            return _MARK in file.read(500)
    except (OSError, ValueError):
        return False


def write(comparison: Comparison, folder: Path, command: str) -> None:
    """Write the files; the folder is made where there is none.

    - `comparison.html`: all of it on one page, with `command`, which makes it again.
    - `curves.png`: the best scores so far.
    - `scores.csv`: a row for each search.
    - `curves.csv`: a row for each search and each trial that it trained.
    """
    folder.mkdir(exist_ok=True)
    picture = curves_picture(comparison)
    assert picture.png is not None
    files = {
        "comparison.html": page(comparison, picture, command).encode(),
        "curves.png": picture.png,
        "scores.csv": _score_table(comparison).encode(),
        "curves.csv": _curves(comparison).encode(),
    }
    for name, content in files.items():
        with written_whole(folder / name) as new:
            new.write_bytes(content)


def _score_table(comparison: Comparison) -> str:
    rows = (
        (search.strategy, search.seed, search.study, _finite(search.score), search.seconds[-1])
        for row in comparison.rows
        for search in row.searches
    )
    return _csv(("strategy", "seed", "study", comparison.metric, "seconds"), rows)


def _curves(comparison: Comparison) -> str:
    rows = (
        (search.strategy, search.seed, i + 1, _finite(search.best[i]),
         search.seconds[i], _finite(search.best_then[i]))
        for row in comparison.rows
        for search in row.searches
        for i in range(comparison.n_trials)
    )  # fmt: skip
    heading = ("strategy", "seed", "trials", "best_by_trials", "seconds", "best_by_seconds")
    return _csv(heading, rows)


def _csv(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(heading)
    table.writerows(rows)
    return file.getvalue()


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
