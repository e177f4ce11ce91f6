"""Plots of trials: history, Pareto front, learning curves, hyperparameters, spread of a swarm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.coordination.finalists import find_winner, objectives, pareto_front
from tuner.data.baselines import baseline_name
from tuner.errors import RunError
from tuner.experiment.space import to_distributions
from tuner.jobs import intermediate_values
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.metrics import COSTS
from tuner.report import plotting
from tuner.report.plotting import (
    BEST,
    COLOURS,
    GREY,
    POINT,
    DomainAxis,
    Picture,
    clipped,
    drawn,
    label,
)
from tuner.results.verdict import ranked_baselines
from tuner.strategies.codec import Codec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.distributions import BaseDistribution

_STYLES = {  # marker, colour, whether it is filled
    "complete": ("o", POINT, True),
    "repeat": ("o", POINT, False),
    "pruned": ("x", GREY, True),
    "failed": ("v", plotting.BAD, True),
    "running": ("d", GREY, False),
}


@dataclass(frozen=True)
class History:
    """The marks and the line of the optimization history."""

    marks: dict[str, list[tuple[int, float | None]]]  # by kind: number and value of each trial
    best: list[tuple[int, float]]  # the best objective so far, where it changes and at the end


def history_of(record: StudyRecord) -> History:
    """Return every trial's mark, and the best objective so far of the complete trials."""
    marks: dict[str, list[tuple[int, float | None]]] = {kind: [] for kind in _STYLES}
    best: list[tuple[int, float]] = []
    for trial in record.trials:
        kind, value = "repeat" if trial.repeat_of is not None else trial.status.value, trial.value
        marks[kind].append((trial.number, last_value_of(record, trial)))
        if value is None or not math.isfinite(value):
            continue
        if not best or record.sign * value < record.sign * best[-1][1]:
            best.append((trial.number, value))
    if best and best[-1][0] != record.trials[-1].number:
        best.append((record.trials[-1].number, best[-1][1]))
    return History(marks, best)


def last_value_of(record: StudyRecord, trial: TrialRecord) -> float | None:
    """Return the objective, or of a pruned trial the value that it was pruned with."""
    value = trial.value
    if value is None and trial.status is Status.PRUNED and trial.outcome is not None:
        reported = intermediate_values(trial.outcome.history, record.experiment.n_folds)
        value = reported[max(reported)] if reported else None
    return value if value is not None and math.isfinite(value) else None


def history_picture(record: StudyRecord) -> Picture:
    """Draw the objective of every trial."""
    name, title = "history", "Optimization history"
    if not any(trial.outcome for trial in record.trials):
        return Picture(name, title, "No trial has ended yet.")
    about = (
        "The objective of every trial by its number, and the best so far as a line. A pruned trial "
        "is at its last value; a failed one, or one far off, at the edge."
    )
    return drawn(name, title, about, history_figure(record))


def history_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    history, metric = history_of(record), record.experiment.objective.metric
    complete = [*history.marks["complete"], *history.marks["repeat"]]
    values = [v for _, v in complete or history.marks["pruned"]]
    limits = plotting.good_range((v for v in values if v is not None), record.sign)
    worst = limits[1] if record.sign > 0 else limits[0]
    figure, axes = plotting.new_axes(3.8)
    for kind, trials in history.marks.items():
        if not trials:
            continue
        marker, colour, filled = _STYLES[kind]
        size, alpha = (14, 0.6) if len(record.trials) > 300 else (26, 0.85)
        axes.scatter(
            [n for n, _ in trials],
            clipped([worst if v is None else v for _, v in trials], limits),
            s=size,
            alpha=alpha,
            marker=marker,
            facecolors=colour if filled else "none",
            edgecolors=None if marker == "x" else colour,
            label=f"{kind} ({len(trials)})",
            linewidths=1.0,
            clip_on=False,
            zorder=2,
        )
    if history.best:
        numbers, best = np.array(history.best).T
        axes.step(numbers, best, where="post", color=BEST, label="best so far", zorder=3)
    ranked = ranked_baselines(metric, record.baselines)
    for colour, (name, score) in zip(COLOURS[1:], ranked, strict=False):
        if limits[0] <= score <= limits[1]:
            text = label(baseline_name(name, metric))
            axes.axhline(score, color=colour, linestyle=":", linewidth=1.4, label=text)
    axes.set(xlabel="trial")
    plotting.whole_ticks(axes.xaxis)
    plotting.show_objective(axes, record, limits)
    plotting.add_legend(figure)
    return figure


_WIDE = 20  # largest over smallest cost, above which the axis of costs is logarithmic


def front_picture(record: StudyRecord) -> Picture | None:
    """Draw the front; None for a search with one objective."""
    if record.experiment.objective.cost is None:
        return None
    name, title = "pareto_front", "Pareto front"
    if not pareto_front(record):
        return Picture(name, title, "No trial is complete.")
    about = (
        "Every complete trial by its cost and its objective. The line joins the trials that no "
        "other beats in both, with their numbers; values far off lie at the edge."
    )
    return drawn(name, title, about, front_figure(record))


def front_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    objective, front = record.experiment.objective, pareto_front(record)
    assert objective.cost is not None
    known = {t.number: v for t in record.trained if (v := objectives(record, t)) is not None}
    of_front = [known.pop(trial.number) for trial in front]
    others = list(known.values())
    limits = plotting.good_range((score for score, _ in [*others, *of_front]), record.sign)
    figure, axes = plotting.new_axes(3.8)
    if others:
        scores, costs = np.array(others).T
        what = f"beaten by another ({len(others)})"
        axes.scatter(costs, clipped(scores, limits), s=18, color=GREY, label=what, clip_on=False)
    scores, costs = np.array(of_front).T
    heights = clipped(scores, limits)
    axes.step(costs, heights, where="pre", color=POINT, linewidth=1.2, zorder=2)
    what = f"Pareto front ({len(front)})"
    axes.scatter(costs, heights, s=34, color=POINT, label=what, zorder=3, clip_on=False)
    for trial, x, y in zip(front, costs, heights, strict=True):
        axes.annotate(str(trial.number), (x, y), (4, 4), textcoords="offset points", fontsize=7)
    winner = find_winner(record)
    if winner.trial is not None and (at := objectives(record, winner.trial)) is not None:
        place = clipped([at[0]], limits)
        what = f"winner, by {label(objective.metric)}"
        axes.scatter([at[1]], place, s=110, marker="*", color=BEST, label=what, zorder=4)
    every = [cost for _, cost in [*others, *of_front]]
    if min(every) > 0 and max(every) > _WIDE * min(every):
        axes.set_xscale("log")
    axes.set(xlabel=f"{objective.cost} ({COSTS[objective.cost]})")
    plotting.show_objective(axes, record, limits)
    plotting.add_legend(figure)
    return figure


def curves_picture(record: StudyRecord) -> Picture:
    """Draw the learning curves of the best five trials."""
    name, title = "learning_curves", "Learning curves of the best trials"
    if record.best is None:
        return Picture(name, title, "No trial is complete.")
    about = (
        "The metric on the validation set after every epoch. A dot is the best epoch. "
        "Pale lines of the same colour are the same configuration, retrained on fresh seeds."
    )
    if find_winner(record).trial is None:
        about += " Black lines are the trainings of the untuned default, which won."
    if record.experiment.n_folds > 1:
        about += " A line for each fold, one fold after another."
    return drawn(name, title, about, curves_figure(record))


def curves_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    figure, axes = plotting.new_axes(3.8)
    values: list[float] = []
    for colour, trial in zip(COLOURS, record.ranked(), strict=False):
        for repeat in record.finalists:
            if repeat.configuration == trial.number and repeat.outcome is not None:
                values += _draw_curve(axes, repeat, color=colour, alpha=0.3, linewidth=1)
        text = f"trial {trial.number}: {plotting.number(trial.value)}"
        values += _draw_curve(axes, trial, color=colour, linewidth=1.6, label=text)
        assert trial.outcome is not None
        if trial.outcome.best_epoch is not None:
            best = trial.outcome.history[trial.outcome.best_epoch]
            axes.plot(best.epoch + 1, best.metric, marker="o", markersize=5, color=colour)
    winner = find_winner(record)
    for repeat in winner.runs if winner.trial is None else []:  # the untuned default
        text = f"{winner.name}, the winner: {plotting.number(repeat.value)}"
        shown = text if repeat is winner.runs[0] else None
        values += _draw_curve(axes, repeat, color="black", linewidth=1, label=shown)
    finite = [value for value in values if np.isfinite(value)]
    axes.set(xlabel="epoch")
    plotting.whole_ticks(axes.xaxis)
    plotting.show_objective(axes, record, plotting.good_range(finite, record.sign))
    plotting.add_legend(figure)
    return figure


def _draw_curve(axes: Axes, trial: TrialRecord, **style: Any) -> list[float]:
    """Plot the metric by epoch, from 1, with a gap between folds; return its values."""
    assert trial.outcome is not None
    epochs: list[float] = []
    heights: list[float] = []
    for i, epoch in enumerate(trial.outcome.history):
        if i and epoch.fold != trial.outcome.history[i - 1].fold:
            epochs.append(epoch.epoch + 0.5)
            heights.append(np.nan)
        epochs.append(epoch.epoch + 1)
        heights.append(epoch.metric if np.isfinite(epoch.metric) else np.nan)
    axes.plot(epochs, heights, **style)
    return heights


_COLUMNS = 2  # of panels
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
    scales, complete, pruned, limits = _searched(record)
    n_rows = math.ceil(len(scales) / _COLUMNS)
    figure = plotting.new_figure(0.5 + 2.2 * n_rows)
    grid = figure.subplots(n_rows, _COLUMNS, sharey=True, squeeze=False)
    ended = [(t, v) for t in pruned if (v := last_value_of(record, t)) is not None]
    crosses = clipped([value for _, value in ended], limits)
    numbers = [t.number for t in complete]
    heights = clipped([t.value for t in complete], limits)
    size = 8 if len(complete) > 300 else 18
    for axes, scale in zip(grid.flat, scales, strict=False):
        places = _places(scale, [t for t, _ in ended])
        style: dict[str, Any] = {"marker": "x", "color": GREY, "linewidths": 0.8, "alpha": 0.6}
        axes.scatter(places, crosses, s=size, clip_on=False, **style)
        places = _places(scale, complete)
        dots = axes.scatter(places, heights, s=size, c=numbers, cmap=plotting.MAP, clip_on=False)
        axes.scatter(places[:1], heights[:1], s=90, marker="*", color=BEST, zorder=4)
        # Ticks are given: matplotlib reserves the room for their labels before it chooses them.
        axes.set(xlabel=label(scale.name), ylim=limits, yticks=plotting.round_values(limits))
        scale.set_limits(axes)
        plotting.tidy(axes)
    for axes in grid.flat[len(scales) :]:
        axes.set_visible(False)
    figure.supylabel(f"validation {label(record.experiment.objective.metric)}", fontsize="medium")
    if len(complete) > 1:
        bar = figure.colorbar(dots, ax=grid, location="top", aspect=60, pad=0.01, label="trial")
        plotting.whole_ticks(bar.ax.xaxis)
    return figure


def _searched(
    record: StudyRecord,
) -> tuple[list[DomainAxis], list[TrialRecord], list[TrialRecord], tuple[float, float]]:
    """Return the axes, the complete trials, best first, the pruned trials and the value limits."""
    scales = plotting.axes_of(record)
    complete = plotting.complete_trials(record, scales)
    limits = plotting.good_range((t.value for t in complete if t.value is not None), record.sign)
    pruned = [t for t in record.trained if t.status is Status.PRUNED]
    return scales, complete, [t for t in pruned if plotting.has_all(t, scales)], limits


def _places(scale: DomainAxis, trials: Sequence[TrialRecord]) -> np.ndarray:
    places = np.array([scale.number(t.params[scale.name]) for t in trials], np.float64)
    if scale.choices:
        places += plotting.spread_out([t.number for t in trials], _JITTER)
    return places


_AXIS_IN = 1.15  # least distance of two axes
_CROWDED = 300  # trials, above which lines are drawn fainter


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

    scales, ranked, pruned, limits = _searched(record)
    figure = plotting.new_figure(4.2, max(plotting.WIDTH_IN, _AXIS_IN * (len(scales) + 1)))
    axes = figure.add_subplot()
    crowd, least = (0.4, 0.06) if len(record.trials) > _CROWDED else (0.9, 0.35)
    points = [_points(t, scales) for t in pruned]
    axes.add_collection(LineCollection(points, colors=GREY, linewidths=0.6, alpha=0.8 * least))
    lines = []
    for trial in reversed(ranked):  # the best trial last, on top
        height = clipped([trial.value], limits)[0]
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
    (low, high), values = limits, plotting.round_values(limits)
    ticks = [((v - low) / (high - low), plotting.number(v)) for v in values]
    _ruler(axes, len(scales), ticks)
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
    searched = _distributions(record)
    names = list(searched)
    trials = plotting.complete_trials(record, plotting.axes_of(record))
    trials.sort(key=lambda trial: trial.number)
    values = [t.value for t in trials if t.value is not None]
    if not names:
        raise RunError("Nothing was searched.")
    if len(trials) < _FEWEST:
        raise RunError(f"Too few complete trials: {len(trials)} of at least {_FEWEST}.")
    if len(set(values)) == 1:
        raise RunError("Every trial has the same objective: nothing made a difference.")
    if len(names) == 1:
        raise RunError(
            f"Only {names[0]} was searched: every difference is due to it, or to chance."
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


def _distributions(record: StudyRecord) -> dict[str, BaseDistribution]:
    """Return the distributions of the hyperparameters that have more than one value."""
    space = to_distributions(record.experiment.search_space)
    return {name: distribution for name, distribution in space.items() if not distribution.single()}


_FEWEST_GENERATIONS = 2  # and individuals in each
_LEAST_SHARE = 0.5  # of a population; a generation with fewer individuals is left out
_POINTS = 512  # of the uniform sample of the search space


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
    distributions, axes = _distributions(record), plotting.axes_of(record)
    members: dict[int, list[Mapping[str, object]]] = defaultdict(list)
    for trial in record.trials:
        if trial.generation is not None and plotting.has_all(trial, axes):
            members[trial.generation].append(trial.params)
    fewest = max(_FEWEST_GENERATIONS, _LEAST_SHARE * record.experiment.strategy.rhythm.size)
    generations = sorted(g for g, params in members.items() if len(params) >= fewest)
    if len(generations) < _FEWEST_GENERATIONS or not distributions:
        return None
    compared = [members[g] for g in generations]
    places = {name: _spread_places({name: d}, compared) for name, d in distributions.items()}
    each = {name: np.array([_width(p) for p in of]) for name, (of, _) in places.items()}
    # Squares of widths add up over hyperparameters, as those of distances do.
    whole = np.sqrt(sum(even**2 for _, even in places.values()))
    overall = np.sqrt(sum(widths**2 for widths in each.values())) / whole
    away = [
        np.hstack([of[i] - of[i].mean(axis=0) for of, _ in places.values()])
        for i in range(len(generations))
    ]
    distances = [np.linalg.norm(of, axis=1) / whole for of in away]
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
    names = list(spread.each)
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
    columns[:, spread.generations] = list(spread.each.values())
    image = below.imshow(
        columns, aspect="auto", cmap=plotting.MAP, vmin=0, vmax=1.2, interpolation="nearest"
    )
    below.set_yticks(range(len(names)), [label(name) for name in names])
    below.set(xlabel="generation", xlim=(-0.5, spread.generations[-1] + 0.5))
    plotting.whole_ticks(below.xaxis)
    if len(spread.generations) <= 12:
        for (row, generation), width in np.ndenumerate(columns):
            if not np.isnan(width):
                text = f"{width:.2f}"
                plotting.write_cell(below, row, generation, text, dark=width <= 0.6, size=8)
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
