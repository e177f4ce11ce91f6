"""What was predicted of the test part, and what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import (
    COLOURS,
    GREY,
    POINT,
    Picture,
    clipped,
    label,
    new_figure,
    png,
    tidy,
)
from tuner.report.predicted import (
    CROWDED,
    Predicted,
    close_up,
    predicted_values,
    what_is_kept,
)
from tuner.results.plain import plain_name, ranked_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["forecast_figure", "forecast_picture"]

_MOST_SERIES = 4  # a panel each
_MOST_PLAIN = 3  # forecasts beside the winner's; more cannot be told apart


def forecast_picture(record: StudyRecord) -> Picture | None:
    """Draw predictions beside the truth; None where the record keeps none."""
    parts = predicted_values(record)
    if not parts:
        return None
    assert record.test is not None
    kept, forecasts = record.test["predictions"], record.experiment.task.kind == "forecast"
    if forecasts:
        about = "The test part: what came, what the winner forecast, and the best plain forecasts."
    else:
        about = "The test part: what the winner predicted against what is true."
    if len(parts) > _MOST_SERIES:
        about += f" The first {_MOST_SERIES} of {len(parts)} series."
    if close := close_up(record):
        most, steps = max(len(part.truth) for part in close), kept["horizon"]
        about += f" The last {most} rows"
        about += f": every row once, forecast 1 to {steps} steps ahead." if steps > 1 else "."
        return Picture("forecast", "Forecast of the test part", about, png(forecast_figure(record)))
    title = "Forecast of the test part" if forecasts else "Predictions of the test part"
    return Picture("forecast", title, about + what_is_kept(kept), png(forecast_figure(record)))


def forecast_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    assert record.test is not None
    kept, close = record.test["predictions"], close_up(record)
    parts = (close or predicted_values(record))[:_MOST_SERIES]
    target = label(kept["target"])
    if record.experiment.task.kind != "forecast":
        return _against_truth(parts[0], target)
    drawn = _best_plain(record)
    figure = new_figure(1.3 + 2.5 * len(parts))
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, part in zip(panels, parts, strict=True):
        _forecast(axes, part, kept, drawn, every_step=bool(close))
        axes.set(ylabel=target, title=label(part.name))
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper left", ncols=3, frameon=False, fontsize="small"
    )
    return figure


def _forecast(
    axes: Axes,
    part: Predicted,
    kept: dict[str, Any],
    drawn: list[tuple[str, str]],
    *,
    every_step: bool = False,
) -> None:
    places, limits = part.times()[0], part.limits()
    marker = "." if len(places) <= 60 else None
    thin = 1.0 if len(places) <= CROWDED else 0.6
    if part.band is not None:
        low, high = (clipped(edge, limits) for edge in part.band)
        axes.fill_between(
            places, low, high, color=POINT, alpha=0.2, linewidth=0, label=kept["band"]
        )
    for name, *edges in part.inner:
        low, high = (clipped(edge, limits) for edge in edges)
        axes.fill_between(places, low, high, color=POINT, alpha=0.2, linewidth=0, label=name)
    for colour, (name, text) in zip(COLOURS[1:], drawn, strict=False):
        values = clipped(part.baselines[name], limits)
        axes.plot(places, values, color=colour, linewidth=thin, linestyle="--", label=label(text))
    axes.plot(places, part.truth, color="black", marker=marker, linewidth=thin + 0.2, label="truth")
    step = "" if kept["horizon"] == 1 or every_step else f", step 1 of {kept['horizon']}"
    models = f"mean of {kept['models']} models" if kept["models"] > 1 else "model"
    axes.plot(
        places,
        clipped(part.predicted, limits),
        color=POINT,
        marker=marker,
        linewidth=thin + 0.6,
        label=f"{models}{step}",
    )
    part.set_times(axes)
    tidy(axes)


def _best_plain(record: StudyRecord) -> list[tuple[str, str]]:
    """Return the best plain forecasts that the record keeps, each with what it is called."""
    assert record.test is not None
    metric, kept = record.test["metric"], record.test["predictions"]["baselines"]
    ranked = [name for name, _ in ranked_plain(metric, record.test["baselines"]) if name in kept]
    return [(name, plain_name(name, metric)) for name in ranked[:_MOST_PLAIN]]


def _against_truth(part: Predicted, target: str) -> Figure:
    figure, limits = new_figure(4.6), part.limits()
    axes = figure.add_subplot()
    if part.band is not None:
        low, high = (clipped(edge, limits) for edge in part.band)
        axes.vlines(part.truth, low, high, color=POINT, alpha=0.25, linewidth=1)
    axes.scatter(part.truth, clipped(part.predicted, limits), s=12, color=POINT, alpha=0.7)
    ends = [float(np.nanmin(part.truth)), float(np.nanmax(part.truth))]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="as it should be")
    axes.set(xlabel=f"true {target}", ylabel=f"predicted {target}")
    axes.legend(frameon=False)
    tidy(axes)
    return figure
