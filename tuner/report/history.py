"""Plots of the search: objective by trial, Pareto front, learning curves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data.baselines import baseline_name
from tuner.jobs import intermediate_values
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.metrics import COSTS
from tuner.report import plotting
from tuner.report.plotting import BEST, COLOURS, GREY, POINT, Picture, clipped, drawn, label
from tuner.results.verdict import ranked_baselines
from tuner.results.winner import find_winner, objectives, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    """Return every trial's mark, and the running best over the complete ones."""
    marks: dict[str, list[tuple[int, float | None]]] = {kind: [] for kind in _STYLES}
    best: list[tuple[int, float]] = []
    for trial in record.trials:
        kind = "repeat" if trial.repeat_of is not None else trial.status.value
        marks[kind].append((trial.number, last_value_of(record, trial)))
        if trial.value is None or not math.isfinite(trial.value):
            continue
        if not best or record.sign * trial.value < record.sign * best[-1][1]:
            best.append((trial.number, trial.value))
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
    complete = [v for kind in ("complete", "repeat") for _, v in history.marks[kind]]
    values = complete or [v for _, v in history.marks["pruned"]]
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


_WIDE = 20  # times the least cost: from there on the axis of costs is logarithmic


def front_picture(record: StudyRecord) -> Picture | None:
    """Draw the front; None where the search has one objective."""
    if record.experiment.objective.cost is None:
        return None
    name, title = "pareto_front", "Pareto front"
    if not pareto_front(record):
        return Picture(name, title, "No trial is complete.")
    about = (
        "Every complete trial by what it costs and how good it is. The line joins the trials that "
        "no other beats in both, with their numbers; values far off lie at the edge."
    )
    return drawn(name, title, about, front_figure(record))


def front_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    objective, front = record.experiment.objective, pareto_front(record)
    assert objective.cost is not None
    numbers = {trial.number for trial in front}
    others = [
        values
        for t in record.trained
        if t.number not in numbers and (values := objectives(record, t)) is not None
    ]
    of_front = [values for t in front if (values := objectives(record, t)) is not None]
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


_SHOWN = len(COLOURS)


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
    for colour, trial in zip(COLOURS, record.ranked()[:_SHOWN], strict=False):
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
