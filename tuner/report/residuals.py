"""How far the predictions of the test part are off, in order and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import COLOURS, POINT, Picture, label, new_figure, png, tidy
from tuner.report.predicted import CROWDED, predicted_values, what_is_kept
from tuner.results.judged import judged
from tuner.results.plain import plain_name, ranked_plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["residuals_figure", "residuals_picture"]

_FEWEST_BINS, _MOST_BINS = 8, 40


def residuals_picture(record: StudyRecord) -> Picture | None:
    """Draw the errors; None where the record keeps no predictions."""
    if not predicted_values(record):
        return None
    assert record.test is not None
    along = "in order" if record.experiment.task.kind == "forecast" else "against the truth"
    about = (
        f"The truth minus the prediction, {along} and how often; the outline is the best plain "
        f"prediction. Good errors lie around zero and show no pattern."
    )
    about += what_is_kept(record.test["predictions"])
    title = "Residuals on the test part"
    return Picture("residuals", title, about, png(residuals_figure(record)))


def residuals_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    assert record.test is not None
    parts, target = predicted_values(record), label(record.test["predictions"]["target"])
    errors = [part.truth - np.clip(part.predicted, *part.limits()) for part in parts]
    together = np.concatenate(errors)
    figure = new_figure(3.2)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    size = 5 if len(together) > CROWDED else 14
    forecast = record.experiment.task.kind == "forecast"
    for part, of_part, colour in zip(parts, errors, COLOURS * len(parts), strict=False):
        places = part.times()[0] if forecast else part.truth
        left.scatter(places, of_part, s=size, color=colour, alpha=0.7)
    if forecast:
        parts[0].set_times(left)
    else:
        left.set_xlabel(f"true {target}")
    left.set_ylabel(f"{target}: truth − prediction")
    finite = together[np.isfinite(together)]
    n_bins = min(_MOST_BINS, max(_FEWEST_BINS, round(np.sqrt(len(finite)))))
    bins = np.histogram_bin_edges(finite, bins=n_bins).tolist()
    right.hist(finite, bins=bins, orientation="horizontal", color=POINT, alpha=0.8)
    if baseline := _best_baseline(record):
        plain = np.concatenate([part.truth - part.baselines[baseline] for part in parts])
        right.hist(
            np.clip(plain, bins[0], bins[-1]),
            bins=bins,
            orientation="horizontal",
            histtype="step",
            color="black",
            label=label(plain_name(baseline, record.test["metric"])),
        )
        right.legend(loc="upper right", frameon=False, fontsize="x-small")
    right.set_xlabel("how often")
    for axes in (left, right):
        axes.axhline(0, color="black", linewidth=0.8)
        tidy(axes)
    return figure


def _best_baseline(record: StudyRecord) -> str | None:
    """Return the plain prediction with the best score, of those that the record keeps."""
    assert record.test is not None
    kept = record.test["predictions"]["baselines"]
    ranked = ranked_plain(record.test["metric"], judged(record.test)["baselines"])
    return next((name for name, _ in ranked if name in kept), None)
