"""Which classes of the test part were taken for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import MAP, WIDTH_IN, Picture, label, new_figure, png
from tuner.report.predicted import predicted_classes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_figure", "confusion_picture"]

_MOST_NUMBERS = 12  # classes whose cells have room for a number
_NAMES_IN, _CELL_IN = 3.0, 0.14  # room for the names, and for a cell beside a legible one


def confusion_picture(record: StudyRecord) -> Picture | None:
    """Draw the confusion matrix of the test part; None where the record keeps none."""
    kept = predicted_classes(record)
    if kept is None:
        return None
    models = f" over the winner's {kept['models']} models" if kept["models"] > 1 else ""
    about = (
        f"What the test part's {kept['total']:,} labels were taken for, counted{models}. The "
        f"colour is the share of a row: of all that are truly of its class."
    )
    return Picture("confusion", "Confusion matrix of the test part", about,
                   png(confusion_figure(kept)))  # fmt: skip


def confusion_figure(kept: Mapping[str, Any]) -> Figure:
    """Return the picture as a figure."""
    counts, names = np.array(kept["confusion"]), [label(name) for name in kept["classes"]]
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    n = len(names)
    width = max(WIDTH_IN, _NAMES_IN + _CELL_IN * n)
    figure = new_figure(max(3.6, min(width - 0.9, 1.4 + 0.38 * n)), width)
    axes = figure.add_subplot()
    image = axes.imshow(100 * shares, cmap=MAP, vmin=0, vmax=100)
    size = 9 if n <= 20 else 7
    slanted = sum(map(len, names)) > 40
    axes.set_xticks(range(n), names, rotation=90 if slanted else 0, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=size,
                      color=colour)  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8, aspect=25)
    return figure
