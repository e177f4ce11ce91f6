"""How far a swarm has contracted, generation by generation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.axes import axes_of, has_all
from tuner.report.drawing import (
    GREY,
    MAP,
    POINT,
    Picture,
    label,
    new_figure,
    png,
    tidy,
    whole_ticks,
)
from tuner.strategies.codec import Codec
from tuner.strategies.registry import rhythm_of
from tuner.strategies.space import to_distributions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

__all__ = ["Spread", "spread_figure", "spread_of", "spread_picture"]

_FEWEST = 2  # generations, and individuals of each
_LEAST_SHARE = 0.5  # of a population, below which a last generation says nothing
_POINTS = 512  # that stand for the whole search space


@dataclass(frozen=True)
class Spread:
    """How wide each generation's configurations lie; 1 is as wide as spread over the space."""

    generations: list[int]
    overall: np.ndarray  # (generations,)
    distances: list[np.ndarray]  # of each generation's individuals from its middle
    each: dict[str, np.ndarray]  # of every hyperparameter, (generations,)


def spread_of(record: StudyRecord) -> Spread | None:
    """Measure the generations; None where there are too few, or the strategy has none.

    Configurations are measured where swarms move: in the unit cube of the codec, in which
    logarithmic domains are even and every choice is as far from another.
    """
    distributions = {
        name: d
        for name, d in to_distributions(record.experiment.search_space).items()
        if not d.single()
    }
    members: dict[int, list[Mapping[str, object]]] = defaultdict(list)
    for trial in record.trials:
        if trial.generation is not None and has_all(trial, axes_of(record)):
            members[trial.generation].append(trial.params)
    fewest = max(_FEWEST, _LEAST_SHARE * rhythm_of(record.experiment.strategy).size)
    generations = sorted(g for g, params in members.items() if len(params) >= fewest)
    if len(generations) < _FEWEST or not distributions:
        return None
    places = {
        n: _places({n: d}, [members[g] for g in generations]) for n, d in distributions.items()
    }
    each = {name: np.array([_width(p) for p in of]) for name, (of, _) in places.items()}
    # Squares of widths add up over hyperparameters, as those of distances do.
    whole = np.sqrt(sum(even**2 for _, even in places.values()))
    overall = np.sqrt(sum(widths**2 for widths in each.values())) / whole
    distances = [
        np.linalg.norm(np.hstack([of[i] - of[i].mean(axis=0) for of, _ in places.values()]), axis=1)
        / whole
        for i in range(len(generations))
    ]
    shares = {name: widths / places[name][1] for name, widths in each.items()}
    return Spread(generations, overall, distances, shares)


def spread_picture(record: StudyRecord) -> Picture | None:
    """Draw the spread; None for a strategy without generations."""
    name, title = "swarm_spread", "Spread of the generations"
    if not any(trial.generation is not None for trial in record.trials):
        return None
    spread = spread_of(record)
    if spread is None:
        return Picture(name, title, "There are not two generations to compare yet.")
    about = (
        "How far the configurations of a generation lie apart: 1 is as far as spread evenly over "
        "the search space, 0 is all alike. Above, all hyperparameters together, with a dot for "
        "every individual's distance from the middle of its generation; below, each by itself."
    )
    return Picture(name, title, about, png(spread_figure(spread)))


def spread_figure(spread: Spread) -> Figure:
    """Return the picture as a figure."""
    n, names = len(spread.generations), list(spread.each)
    lower = 0.3 * len(names) + 0.5
    figure = new_figure(2.7 + lower)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lower])
    for generation, distances in zip(spread.generations, spread.distances, strict=True):
        at = np.full(len(distances), generation)
        above.scatter(at, distances, s=8, color=GREY, alpha=0.5, linewidths=0)
    above.plot(spread.generations, spread.overall, color=POINT, marker="o", markersize=4)
    above.axhline(1.0, color=GREY, linestyle=":", linewidth=1.2)
    above.set(ylabel="spread (1 = even)")
    above.set_ylim(bottom=0)
    tidy(above)
    columns = np.full((len(names), spread.generations[-1] + 1), np.nan)
    for row, widths in enumerate(spread.each.values()):
        columns[row, spread.generations] = widths
    image = below.imshow(
        columns, aspect="auto", cmap=MAP, vmin=0, vmax=1.2, interpolation="nearest"
    )
    below.set_yticks(range(len(names)), [label(name) for name in names])
    below.set(xlabel="generation", xlim=(-0.5, spread.generations[-1] + 0.5))
    whole_ticks(below.xaxis)
    if n <= 12:
        for row, widths in enumerate(spread.each.values()):
            for generation, width in zip(spread.generations, widths, strict=True):
                colour = "black" if width > 0.6 else "white"
                text = f"{width:.2f}"
                below.text(
                    generation, row, text, ha="center", va="center", fontsize=8, color=colour
                )
    figure.colorbar(image, ax=below, label="spread", aspect=12)
    return figure


def _places(
    distributions: Mapping[str, BaseDistribution], generations: list[list[Mapping[str, object]]]
) -> tuple[list[np.ndarray], float]:
    """Return every generation's positions, (individuals, columns), and how wide an even one is."""
    codec = Codec(distributions)
    of = [np.array([codec.encode(params) for params in members]) for members in generations]
    points = np.random.default_rng(0).random((_POINTS, codec.n_columns))
    return of, _width(np.array([codec.encode(codec.decode(point)) for point in points]))


def _width(positions: np.ndarray) -> float:
    """Return the standard deviation over the individuals, all columns together."""
    return float(np.sqrt(positions.var(axis=0, ddof=1).sum()))
