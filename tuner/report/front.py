"""Metric and cost of every trial, and the trade-offs that no other trial beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.experiment.metrics import COSTS
from tuner.report.drawing import (
    BEST,
    GREY,
    POINT,
    Picture,
    clipped,
    good_range,
    label,
    new_figure,
    png,
    round_values,
    tidy,
)
from tuner.results.front import objectives, pareto_front
from tuner.results.winner import find_winner

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["front_figure", "front_picture"]

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
    return Picture(name, title, about, png(front_figure(record)))


def front_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    objective, front = record.experiment.objective, pareto_front(record)
    assert objective.cost is not None
    numbers = {trial.number for trial in front}
    others = [
        values
        for t in record.trained
        if t.number not in numbers and (values := objectives(record, t)) is not None
    ]
    of_front = [values for t in front if (values := objectives(record, t)) is not None]
    limits = good_range((score for score, _ in [*others, *of_front]), record.sign)
    figure = new_figure(3.8)
    axes = figure.add_subplot()
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
    axes.set(ylabel=f"validation {label(objective.metric)}", ylim=limits)
    axes.set(yticks=round_values(limits))
    tidy(axes)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    return figure
