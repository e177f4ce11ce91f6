"""How the best trials learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.report.drawing import (
    COLOURS,
    Picture,
    good_range,
    label,
    new_figure,
    number,
    png,
    round_values,
    tidy,
    whole_ticks,
)
from tuner.results.winner import find_winner

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curves_figure", "curves_picture"]

_SHOWN = len(COLOURS)


def curves_picture(record: StudyRecord) -> Picture:
    """Draw the learning curves of the best five trials."""
    name, title = "learning_curves", "Learning curves of the best trials"
    if record.best is None:
        return Picture(name, title, "No trial is complete.")
    about = (
        "The metric on the validation part after every epoch. A dot is the epoch that counts. "
        "Pale lines of the same colour are the same configuration, retrained on fresh seeds."
    )
    if find_winner(record).trial is None:
        about += " Black lines are the trainings of the untuned default, which won."
    if record.experiment.n_folds > 1:
        about += " A line for each fold, one fold after another."
    return Picture(name, title, about, png(curves_figure(record)))


def curves_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    figure = new_figure(3.8)
    axes = figure.add_subplot()
    metric = record.experiment.objective.metric
    values: list[float] = []
    for colour, trial in zip(COLOURS, record.ranked()[:_SHOWN], strict=False):
        for repeat in record.finalists:
            if repeat.configuration == trial.number and repeat.outcome is not None:
                epochs, heights = _curve(repeat)
                axes.plot(epochs, heights, color=colour, alpha=0.3, linewidth=1)
                values += heights.tolist()
        epochs, heights = _curve(trial)
        values += heights.tolist()
        text = f"trial {trial.number}: {number(trial.value)}"
        axes.plot(epochs, heights, color=colour, linewidth=1.6, label=text)
        assert trial.outcome is not None
        if trial.outcome.best_epoch is not None:
            best = trial.outcome.history[trial.outcome.best_epoch]
            axes.plot(best.epoch + 1, best.metric, marker="o", markersize=5, color=colour)
    winner = find_winner(record)
    for repeat in winner.runs if winner.trial is None else []:  # the untuned default
        epochs, heights = _curve(repeat)
        values += heights.tolist()
        text = f"{winner.name}, the winner: {number(repeat.value)}"
        first = repeat is winner.runs[0]
        axes.plot(epochs, heights, color="black", linewidth=1, label=text if first else None)
    finite = [value for value in values if np.isfinite(value)]
    axes.set(xlabel="epoch", ylabel=f"validation {label(metric)}")
    limits = good_range(finite, record.sign)
    axes.set(ylim=limits, yticks=round_values(limits))
    whole_ticks(axes.xaxis)
    tidy(axes)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize="small")
    return figure


def _curve(trial: TrialRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return epochs, from 1, and the metric; a gap before every further fold."""
    assert trial.outcome is not None
    epochs: list[float] = []
    heights: list[float] = []
    for i, epoch in enumerate(trial.outcome.history):
        if i and epoch.fold != trial.outcome.history[i - 1].fold:
            epochs.append(epoch.epoch + 0.5)
            heights.append(np.nan)
        epochs.append(epoch.epoch + 1)
        heights.append(epoch.metric if np.isfinite(epoch.metric) else np.nan)
    return np.array(epochs), np.array(heights)
