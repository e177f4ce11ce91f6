"""The objective against each hyperparameter by itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import Status, StudyRecord
from tuner.report.axes import DomainAxis, axes_of, complete_trials, has_all
from tuner.report.drawing import (
    BEST,
    GREY,
    MAP,
    Picture,
    clipped,
    good_range,
    label,
    new_figure,
    png,
    round_values,
    spread_out,
    tidy,
    whole_ticks,
)
from tuner.report.history import last_value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["slices_figure", "slices_picture"]

_COLUMNS = 2
_JITTER = 0.3  # of the distance between two choices


def slices_picture(record: StudyRecord) -> Picture:
    """Draw a panel for each hyperparameter."""
    name, title = "slices", "Slices"
    if not axes_of(record):
        return Picture(name, title, "Nothing was searched.")
    if not complete_trials(record, axes_of(record)):
        return Picture(name, title, "No trial is complete.")
    about = (
        "The objective of every complete trial against each hyperparameter, coloured by the "
        "number of the trial. Crosses were pruned and stand at their last value, a star is the "
        "best; values far off lie at the edge."
    )
    return Picture(name, title, about, png(slices_figure(record)))


def slices_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    scales = axes_of(record)
    n_rows = math.ceil(len(scales) / _COLUMNS)
    figure = new_figure(0.5 + 2.2 * n_rows)
    grid = figure.subplots(n_rows, _COLUMNS, sharey=True, squeeze=False)
    complete = complete_trials(record, scales)
    limits = good_range((t.value for t in complete if t.value is not None), record.sign)
    pruned = [
        (t, value)
        for t in record.trained
        if t.status is Status.PRUNED and has_all(t, scales)
        if (value := last_value_of(record, t)) is not None
    ]
    numbers = [t.number for t in complete]
    heights = clipped([t.value for t in complete], limits)
    size = 8 if len(complete) > 300 else 18
    for axes, scale in zip(grid.flat, scales, strict=False):
        axes.scatter(
            _places(
                scale, [t.params[scale.name] for t, _ in pruned], [t.number for t, _ in pruned]
            ),
            clipped([value for _, value in pruned], limits),
            s=size,
            marker="x",
            color=GREY,
            linewidths=0.8,
            alpha=0.6,
            clip_on=False,
        )
        places = _places(scale, [t.params[scale.name] for t in complete], numbers)
        dots = axes.scatter(places, heights, s=size, c=numbers, cmap=MAP, clip_on=False)
        axes.scatter(places[:1], heights[:1], s=90, marker="*", color=BEST, zorder=4)
        # Given ticks, for the room that their numbers take is found before they are chosen.
        axes.set(xlabel=label(scale.name), ylim=limits, yticks=round_values(limits))
        _set_scale(axes, scale)
        tidy(axes)
    for axes in grid.flat[len(scales) :]:
        axes.set_visible(False)
    figure.supylabel(f"validation {label(record.experiment.objective.metric)}", fontsize="medium")
    if len(complete) > 1:
        bar = figure.colorbar(dots, ax=grid, location="top", aspect=60, pad=0.01, label="trial")
        whole_ticks(bar.ax.xaxis)
    return figure


def _places(scale: DomainAxis, values: list[object], numbers: list[int]) -> np.ndarray:
    places = np.array([scale.number(value) for value in values], np.float64)
    return places + spread_out(numbers, _JITTER) if scale.choices else places


def _set_scale(axes: Axes, scale: DomainAxis) -> None:
    if scale.choices is not None:
        names = [label(choice) for choice in scale.choices]
        crowded = sum(map(len, names)) > 24
        axes.set_xticks(
            range(len(names)),
            names,
            rotation=30 if crowded else 0,
            ha="right" if crowded else "center",
        )
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
            whole_ticks(axes.xaxis)
