"""Every configuration as a line across all hyperparameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.report.axes import DomainAxis, axes_of, complete_trials, has_all
from tuner.report.drawing import (
    BEST,
    GREY,
    MAP,
    WIDTH_IN,
    Picture,
    clipped,
    good_range,
    label,
    new_figure,
    number,
    png,
    round_values,
    spread_out,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["parallel_figure", "parallel_picture"]

_AXIS_IN = 1.15  # between two axes, at least
_CROWDED = 300  # trials, whose lines hide one another


def parallel_picture(record: StudyRecord) -> Picture:
    """Draw all configurations with their objectives."""
    name, title = "parallel_coordinates", "Parallel coordinates"
    axes = axes_of(record)
    if not axes:
        return Picture(name, title, "Nothing was searched.")
    if not complete_trials(record, axes):
        return Picture(name, title, "No trial is complete.")
    about = (
        "A line is a configuration: the better, the more it stands out, and the best one most of "
        "all. Lines that end before the last axis were pruned."
    )
    return Picture(name, title, about, png(parallel_figure(record)))


def parallel_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    from matplotlib.collections import LineCollection

    scales = axes_of(record)
    ranked = complete_trials(record, scales)
    pruned = [t for t in record.trained if t.status is Status.PRUNED and has_all(t, scales)]
    limits = good_range((t.value for t in ranked if t.value is not None), record.sign)
    figure = new_figure(4.2, max(WIDTH_IN, _AXIS_IN * (len(scales) + 1)))
    axes = figure.add_subplot()
    crowd, least = (0.4, 0.06) if len(record.trials) > _CROWDED else (0.9, 0.35)
    axes.add_collection(
        LineCollection(
            [_points(t, scales) for t in pruned], colors=GREY, linewidths=0.6, alpha=0.8 * least
        )
    )
    lines = []
    for trial in reversed(ranked):  # the best ones last, on top
        height = clipped([trial.value], limits)[0]
        end = (float(len(scales)), (height - limits[0]) / (limits[1] - limits[0]))
        lines.append([*_points(trial, scales), end])
    ranks = np.linspace(1.0, 0.0, len(lines)) if len(lines) > 1 else np.zeros(1)  # 0 is the best
    seen = least + (crowd - least) * (1 - ranks) ** 3
    axes.add_collection(
        LineCollection(lines, array=ranks, cmap=MAP, linewidths=0.9, alpha=seen, clim=(0, 1.1))
    )
    best = lines[-1]
    axes.plot(*zip(*best, strict=True), color=BEST, linewidth=2.2, zorder=4)
    for position, scale in enumerate(scales):
        _ruler(axes, position, scale.ticks())
    low, high = limits
    ticks = [((v - low) / (high - low), number(v)) for v in round_values(limits)]
    _ruler(axes, len(scales), ticks)
    axes.set(xlim=(-0.15, len(scales) + 0.55), ylim=(-0.04, 1.04), yticks=[])
    names = [label(scale.name) for scale in scales]
    names.append(label(f"validation {record.experiment.objective.metric}"))
    slanted = max(map(len, names)) > 13
    axes.xaxis.tick_top()
    axes.set_xticks(
        range(len(names)), names, rotation=25 if slanted else 0, ha="left" if slanted else "center"
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _points(trial: TrialRecord, scales: list[DomainAxis]) -> list[tuple[float, float]]:
    """Return where the line crosses each axis; equal choices lie a little apart."""
    shift = float(spread_out([trial.number], 0.03)[0])
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
