"""Plots of hyperparameters: slices, parallel coordinates, importances, spread of a swarm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import RunError
from tuner.experiment.space import to_distributions
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.report import plotting
from tuner.report.history import last_value_of
from tuner.report.plotting import BEST, GREY, POINT, DomainAxis, Picture, drawn, label
from tuner.strategies.codec import Codec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

_COLUMNS = 2
_JITTER = 0.3  # of the distance between two choices


def slices_picture(record: StudyRecord) -> Picture:
    """Draw a panel for each hyperparameter."""
    name, title = "slices", "Slices"
    if why := _why_empty(record):
        return Picture(name, title, why)
    about = (
        "The objective of every complete trial against each hyperparameter, coloured by the "
        "number of the trial. Crosses were pruned and stand at their last value, a star is the "
        "best; values far off lie at the edge."
    )
    return drawn(name, title, about, slices_figure(record))


def _why_empty(record: StudyRecord) -> str | None:
    axes = plotting.axes_of(record)
    if not axes:
        return "Nothing was searched."
    return None if plotting.complete_trials(record, axes) else "No trial is complete."


def slices_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    scales = plotting.axes_of(record)
    n_rows = math.ceil(len(scales) / _COLUMNS)
    figure = plotting.new_figure(0.5 + 2.2 * n_rows)
    grid = figure.subplots(n_rows, _COLUMNS, sharey=True, squeeze=False)
    complete = plotting.complete_trials(record, scales)
    limits = plotting.good_range((t.value for t in complete if t.value is not None), record.sign)
    pruned = [
        (t, value)
        for t in record.trained
        if t.status is Status.PRUNED and plotting.has_all(t, scales)
        if (value := last_value_of(record, t)) is not None
    ]
    numbers = [t.number for t in complete]
    heights = plotting.clipped([t.value for t in complete], limits)
    size = 8 if len(complete) > 300 else 18
    for axes, scale in zip(grid.flat, scales, strict=False):
        axes.scatter(
            _places(scale, [t for t, _ in pruned]),
            plotting.clipped([value for _, value in pruned], limits),
            s=size,
            marker="x",
            color=GREY,
            linewidths=0.8,
            alpha=0.6,
            clip_on=False,
        )
        places = _places(scale, complete)
        dots = axes.scatter(places, heights, s=size, c=numbers, cmap=plotting.MAP, clip_on=False)
        axes.scatter(places[:1], heights[:1], s=90, marker="*", color=BEST, zorder=4)
        # Given ticks, for the room that their numbers take is found before they are chosen.
        axes.set(xlabel=label(scale.name), ylim=limits, yticks=plotting.round_values(limits))
        _set_scale(axes, scale)
        plotting.tidy(axes)
    for axes in grid.flat[len(scales) :]:
        axes.set_visible(False)
    figure.supylabel(f"validation {label(record.experiment.objective.metric)}", fontsize="medium")
    if len(complete) > 1:
        bar = figure.colorbar(dots, ax=grid, location="top", aspect=60, pad=0.01, label="trial")
        plotting.whole_ticks(bar.ax.xaxis)
    return figure


def _places(scale: DomainAxis, trials: Sequence[TrialRecord]) -> np.ndarray:
    places = np.array([scale.number(t.params[scale.name]) for t in trials], np.float64)
    return (
        places + plotting.spread_out([t.number for t in trials], _JITTER)
        if scale.choices
        else places
    )


def _set_scale(axes: Axes, scale: DomainAxis) -> None:
    if scale.choices is not None:
        names = [label(choice) for choice in scale.choices]
        rotation, side = (30, "right") if sum(map(len, names)) > 24 else (0, "center")
        axes.set_xticks(range(len(names)), names, rotation=rotation, ha=side)
        axes.set_xlim(-0.6, len(names) - 0.4)
        return
    low, high = scale.domain.bounds()
    if scale.log:
        axes.set_xscale("log")
        axes.set_xlim(low * (low / high) ** 0.03, high * (high / low) ** 0.03)
        values = [low * (high / low) ** place for place, _ in scale.ticks()]
        axes.set_xticks(values, [text for _, text in scale.ticks()])
        axes.minorticks_off()
    else:
        margin = 0.03 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        if isinstance(low, int):
            plotting.whole_ticks(axes.xaxis)


_AXIS_IN = 1.15  # between two axes, at least
_CROWDED = 300  # trials, whose lines hide one another


def parallel_picture(record: StudyRecord) -> Picture:
    """Draw all configurations with their objectives."""
    name, title = "parallel_coordinates", "Parallel coordinates"
    if why := _why_empty(record):
        return Picture(name, title, why)
    about = (
        "A line is a configuration: the better, the more it stands out, and the best one most of "
        "all. Lines that end before the last axis were pruned."
    )
    return drawn(name, title, about, parallel_figure(record))


def parallel_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    from matplotlib.collections import LineCollection

    scales = plotting.axes_of(record)
    ranked = plotting.complete_trials(record, scales)
    pruned = [
        t for t in record.trained if t.status is Status.PRUNED and plotting.has_all(t, scales)
    ]
    limits = plotting.good_range((t.value for t in ranked if t.value is not None), record.sign)
    figure = plotting.new_figure(4.2, max(plotting.WIDTH_IN, _AXIS_IN * (len(scales) + 1)))
    axes = figure.add_subplot()
    crowd, least = (0.4, 0.06) if len(record.trials) > _CROWDED else (0.9, 0.35)
    points = [_points(t, scales) for t in pruned]
    axes.add_collection(LineCollection(points, colors=GREY, linewidths=0.6, alpha=0.8 * least))
    lines = []
    for trial in reversed(ranked):  # the best ones last, on top
        height = plotting.clipped([trial.value], limits)[0]
        end = (float(len(scales)), (height - limits[0]) / (limits[1] - limits[0]))
        lines.append([*_points(trial, scales), end])
    ranks = np.linspace(1.0, 0.0, len(lines)) if len(lines) > 1 else np.zeros(1)  # 0 is the best
    seen = least + (crowd - least) * (1 - ranks) ** 3
    axes.add_collection(
        LineCollection(
            lines, array=ranks, cmap=plotting.MAP, linewidths=0.9, alpha=seen, clim=(0, 1.1)
        )
    )
    axes.plot(*zip(*lines[-1], strict=True), color=BEST, linewidth=2.2, zorder=4)  # the best
    for position, scale in enumerate(scales):
        _ruler(axes, position, scale.ticks())
    low, high = limits
    _ruler(
        axes,
        len(scales),
        [((v - low) / (high - low), plotting.number(v)) for v in plotting.round_values(limits)],
    )
    axes.set(xlim=(-0.15, len(scales) + 0.55), ylim=(-0.04, 1.04), yticks=[])
    names = [label(scale.name) for scale in scales]
    names.append(label(f"validation {record.experiment.objective.metric}"))
    rotation, side = (25, "left") if max(map(len, names)) > 13 else (0, "center")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(names)), names, rotation=rotation, ha=side)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _points(trial: TrialRecord, scales: list[DomainAxis]) -> list[tuple[float, float]]:
    """Return where the line crosses each axis; equal choices lie a little apart."""
    shift = float(plotting.spread_out([trial.number], 0.03)[0])
    return [
        (float(i), scale.place(trial.params[scale.name]) + (shift if scale.choices else 0.0))
        for i, scale in enumerate(scales)
    ]


def _ruler(axes: Axes, position: int, ticks: list[tuple[float, str]]) -> None:
    axes.axvline(position, color="black", linewidth=0.8, zorder=3)
    for place, text in ticks:
        axes.annotate(
            label(text),
            (position, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            zorder=5,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
        )


_FEWEST = 10  # trials
# Deeper trees, and more of them, take minutes for a thousand trials; shares differ by 1 %.
_N_TREES, _MAX_DEPTH = 32, 8


def importances(record: StudyRecord) -> dict[str, float]:
    """Return the share of each searched hyperparameter in the variance of the objective (fANOVA).

    The shares add up to 1, largest first. Outliers are clipped, so that a few diverged trainings
    do not dominate.

    Raises:
        RunError: there are too few trials, or they do not differ.
    """
    distributions = to_distributions(record.experiment.search_space)
    names = [name for name, distribution in distributions.items() if not distribution.single()]
    trials = [t for t in record.trained if _counts(t) and all(n in t.params for n in names)]
    if not names:
        raise RunError("Nothing was searched.")
    if len(trials) < _FEWEST:
        raise RunError(f"Too few complete trials: {len(trials)} of at least {_FEWEST}.")
    if len({t.value for t in trials}) == 1:
        raise RunError("Every trial has the same objective: nothing made a difference.")
    if len(names) == 1:
        raise RunError(
            f"Only {names[0]} was searched: all that differs is due to it, or to chance."
        )

    from optuna import logging
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.study import create_study
    from optuna.trial import create_trial

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # no message about a new study
    try:
        study = create_study(direction=record.experiment.objective.direction)
    finally:
        logging.set_verbosity(verbosity)
    searched = {name: distributions[name] for name in names}
    values = [t.value for t in trials if t.value is not None]
    for t, value in zip(trials, plotting.near(values, record.sign), strict=True):
        params = {name: t.params[name] for name in names}
        study.add_trial(create_trial(params=params, distributions=searched, value=value))
    evaluator = FanovaImportanceEvaluator(n_trees=_N_TREES, max_depth=_MAX_DEPTH, seed=0)
    try:
        found = get_param_importances(study, evaluator=evaluator)
    except RuntimeError:  # no tree found a difference
        raise RunError("The objective differs too little to tell what made it differ.") from None
    return {name: float(share) for name, share in found.items()}


def importances_picture(record: StudyRecord) -> Picture:
    """Draw the importances."""
    name, title = "importances", "Hyperparameter importances"
    try:
        found = importances(record)
    except RunError as error:
        return Picture(name, title, str(error))
    about = (
        "The share of each hyperparameter in the variance of the objective over the complete "
        "trials (fANOVA); what lies far off counts as the edge. With few trials they are rough."
    )
    return drawn(name, title, about, importances_figure(found))


def importances_figure(found: dict[str, float]) -> Figure:
    """Draw the plot."""
    figure, axes = plotting.new_axes(0.8 + 0.32 * len(found))
    bars = axes.barh([label(n) for n in found], [100 * v for v in found.values()], color=POINT)
    axes.bar_label(bars, fmt="%.0f %%", padding=3)
    axes.invert_yaxis()
    right = 112 * max(found.values())
    axes.set(xlabel="share of the variance of the objective (%)", xlim=(0, right))
    plotting.tidy(axes)
    axes.grid(visible=False, axis="y")
    return figure


def _counts(trial: TrialRecord) -> bool:
    value = trial.value
    return trial.status is Status.COMPLETE and value is not None and math.isfinite(value)


_FEWEST_GENERATIONS = 2  # generations, and individuals of each
_LEAST_SHARE = 0.5  # of a population, below which a last generation says nothing
_POINTS = 512  # that stand for the whole search space


@dataclass(frozen=True)
class Spread:
    """The width of each generation; 1 is that of a uniform sample of the search space."""

    generations: list[int]
    overall: np.ndarray  # (generations,)
    distances: list[np.ndarray]  # of each generation's individuals from its middle
    each: dict[str, np.ndarray]  # of every hyperparameter, (generations,)


def spread_of(record: StudyRecord) -> Spread | None:
    """Return the spread of the generations; None without two of them.

    It is measured in the unit cube of the codec, in which swarms move.
    """
    distributions = {
        name: d
        for name, d in to_distributions(record.experiment.search_space).items()
        if not d.single()
    }
    members: dict[int, list[Mapping[str, object]]] = defaultdict(list)
    for trial in record.trials:
        if trial.generation is not None and plotting.has_all(trial, plotting.axes_of(record)):
            members[trial.generation].append(trial.params)
    fewest = max(_FEWEST_GENERATIONS, _LEAST_SHARE * record.experiment.strategy.rhythm.size)
    generations = sorted(g for g, params in members.items() if len(params) >= fewest)
    if len(generations) < _FEWEST_GENERATIONS or not distributions:
        return None
    places = {
        n: _spread_places({n: d}, [members[g] for g in generations])
        for n, d in distributions.items()
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
    return drawn(name, title, about, spread_figure(spread))


def spread_figure(spread: Spread) -> Figure:
    """Draw the plot."""
    n, names = len(spread.generations), list(spread.each)
    lower = 0.3 * len(names) + 0.5
    figure = plotting.new_figure(2.7 + lower)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, lower])
    for generation, distances in zip(spread.generations, spread.distances, strict=True):
        at = np.full(len(distances), generation)
        above.scatter(at, distances, s=8, color=GREY, alpha=0.5, linewidths=0)
    above.plot(spread.generations, spread.overall, color=POINT, marker="o", markersize=4)
    above.axhline(1.0, color=GREY, linestyle=":", linewidth=1.2)
    above.set(ylabel="spread (1 = even)")
    above.set_ylim(bottom=0)
    plotting.tidy(above)
    columns = np.full((len(names), spread.generations[-1] + 1), np.nan)
    for row, widths in enumerate(spread.each.values()):
        columns[row, spread.generations] = widths
    image = below.imshow(
        columns, aspect="auto", cmap=plotting.MAP, vmin=0, vmax=1.2, interpolation="nearest"
    )
    below.set_yticks(range(len(names)), [label(name) for name in names])
    below.set(xlabel="generation", xlim=(-0.5, spread.generations[-1] + 0.5))
    plotting.whole_ticks(below.xaxis)
    if n <= 12:
        for row, widths in enumerate(spread.each.values()):
            for generation, width in zip(spread.generations, widths, strict=True):
                plotting.write_cell(
                    below, row, generation, f"{width:.2f}", dark=width <= 0.6, size=8
                )
    figure.colorbar(image, ax=below, label="spread", aspect=12)
    return figure


def _spread_places(
    distributions: Mapping[str, BaseDistribution], generations: list[list[Mapping[str, object]]]
) -> tuple[list[np.ndarray], float]:
    """Return each generation's positions, (individuals, columns), and a uniform sample's width."""
    codec = Codec(distributions)
    of = [np.array([codec.encode(params) for params in members]) for members in generations]
    points = np.random.default_rng(0).random((_POINTS, codec.n_columns))
    return of, _width(np.array([codec.encode(codec.decode(point)) for point in points]))


def _width(positions: np.ndarray) -> float:
    """Return the standard deviation over the individuals, all columns together."""
    return float(np.sqrt(positions.var(axis=0, ddof=1).sum()))
