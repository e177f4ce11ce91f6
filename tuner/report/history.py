"""The objective of every trial, and the best so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.jobs import intermediate_values
from tuner.report.drawing import (
    BAD,
    BEST,
    COLOURS,
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
    whole_ticks,
)
from tuner.results.plain import plain_name, ranked_plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["History", "history_figure", "history_of", "history_picture", "last_value_of"]

_STYLES = {  # marker, colour, whether it is filled
    "complete": ("o", POINT, True),
    "repeat": ("o", POINT, False),
    "pruned": ("x", GREY, True),
    "failed": ("v", BAD, True),
    "running": ("d", GREY, False),
}


@dataclass(frozen=True)
class History:
    """What the picture shows."""

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
        "stands at its last value; one that failed, or lies far off, at the edge."
    )
    return Picture(name, title, about, png(history_figure(record)))


def history_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    history, metric = history_of(record), record.experiment.objective.metric
    complete = [v for kind in ("complete", "repeat") for _, v in history.marks[kind]]
    values = complete or [v for _, v in history.marks["pruned"]]
    limits = good_range((v for v in values if v is not None), record.sign)
    worst = limits[1] if record.sign > 0 else limits[0]
    figure = new_figure(3.8)
    axes = figure.add_subplot()
    for kind, trials in history.marks.items():
        if not trials:
            continue
        numbers = [n for n, _ in trials]
        heights = clipped([worst if v is None else v for _, v in trials], limits)
        marker, colour, filled = _STYLES[kind]
        crowded = len(record.trials) > 300
        axes.scatter(
            numbers,
            heights,
            s=14 if crowded else 26,
            marker=marker,
            facecolors=colour if filled else "none",
            edgecolors=None if marker == "x" else colour,
            linewidths=1.0,
            alpha=0.6 if crowded else 0.85,
            label=f"{kind} ({len(trials)})",
            clip_on=False,
            zorder=2,
        )
    if history.best:
        numbers, best = np.array(history.best).T
        axes.step(numbers, best, where="post", color=BEST, label="best so far", zorder=3)
    metric = record.experiment.objective.metric
    ranked = ranked_plain(metric, record.baselines)
    for colour, (name, score) in zip(COLOURS[1:], ranked, strict=False):
        if limits[0] <= score <= limits[1]:
            text = label(plain_name(name, metric))
            axes.axhline(score, color=colour, linestyle=":", linewidth=1.4, label=text)
    axes.set(xlabel="trial", ylabel=f"validation {label(metric)}")
    axes.set(ylim=limits, yticks=round_values(limits))
    whole_ticks(axes.xaxis)
    tidy(axes)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    return figure
