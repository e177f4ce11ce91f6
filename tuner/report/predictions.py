"""Plots of test predictions: forecasts, residuals, errors by part, confusion matrix."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.data.baselines import baseline_name
from tuner.journal.records import ModelScores, StudyRecord
from tuner.report import plotting
from tuner.report.plotting import COLOURS, GREY, POINT, Picture, clipped, drawn, label
from tuner.results.verdict import ranked_baselines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CROWDED = 400  # points, above which they are drawn smaller


@dataclass(frozen=True, eq=False)
class Predicted:
    """Truth and predictions of a series of the test set, or of sequences; NaN for infinite.

    All arrays are (n,).
    """

    at: list[str]  # names of the samples
    truth: np.ndarray
    predicted: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None  # lower and upper ends
    baselines: dict[str, np.ndarray]
    name: str = ""  # of the series, if there are several
    inner: tuple[tuple[str, np.ndarray, np.ndarray], ...] = ()  # narrower bands, widest first

    def limits(self) -> tuple[float, float]:
        """Return the range of drawn predictions; those beyond it are drawn at its edge."""
        low, high = float(np.nanmin(self.truth)), float(np.nanmax(self.truth))
        room = (high - low) or abs(high) or 1.0
        return (low - room, high + room)

    def times(self) -> tuple[np.ndarray, str]:
        """Return the samples' places on an axis, and its name."""
        from matplotlib.dates import date2num

        texts = [text.removeprefix(self.name).strip() for text in self.at]
        with contextlib.suppress(ValueError):
            return np.array([float(int(text)) for text in texts]), "row"
        with contextlib.suppress(ValueError):
            times = [dt.datetime.fromisoformat(text).replace(tzinfo=None) for text in texts]
            return np.asarray(date2num(times)), "time"  # type: ignore[no-untyped-call]
        return np.arange(1.0, len(texts) + 1), "sample of the test set"

    def set_times(self, axes: Axes) -> None:
        """Label the axis of `times`."""
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        _, kind = self.times()
        if kind != "time":
            axes.set_xlabel(kind)
            plotting.whole_ticks(axes.xaxis)
            return
        locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_formatter(formatter)


def predicted_values(record: StudyRecord) -> list[Predicted]:
    """Return the kept predictions of each series; none for classes."""
    kept = _kept(record, "values")
    return [] if kept is None else _parts(kept)


def close_up(record: StudyRecord) -> list[Predicted]:
    """Return the last predictions of each series, each row once; none if all are few."""
    kept = _kept(record, "values")
    return [] if kept is None or "close" not in kept else _parts(kept["close"])


def _parts(kept: Mapping[str, Any]) -> list[Predicted]:
    whole = Predicted(
        at=list(kept["at"]),
        truth=_array(kept["truth"]),
        predicted=_array(kept["predicted"]),
        band=(_array(kept["lower"]), _array(kept["upper"])) if "band" in kept else None,
        baselines={name: _array(values) for name, values in kept["baselines"].items()},
        inner=tuple(
            (band["name"], _array(band["lower"]), _array(band["upper"]))
            for band in kept.get("bands", ())
        ),
    )
    if "series" not in kept:
        return [whole]
    of = np.array(kept["series"])
    return [_part(whole, np.flatnonzero(of == number)) for number in dict.fromkeys(of.tolist())]


def predicted_classes(record: StudyRecord) -> Mapping[str, Any] | None:
    """Return the confusion matrix of the test set; None without one."""
    return _kept(record, "classes")


def _thinning(kept: Mapping[str, Any]) -> str:
    """Return sentences on which predictions are drawn; empty if all are."""
    lines = ""
    if kept["horizon"] > 1:
        lines += f" Of every forecast the first of {kept['horizon']} steps."
    if kept["every"] > 1:
        lines += f" Thinned: one in {kept['every']} of {kept['total']:,} predictions."
    return lines


def _kept(record: StudyRecord, kind: str) -> Mapping[str, Any] | None:
    kept = record.test.predictions if record.test else {}  # older records have none
    return kept if kept and kept["kind"] == kind else None


def _part(whole: Predicted, rows: np.ndarray) -> Predicted:
    """Return some rows; the name of the series is the start that their names share."""
    at = [whole.at[row] for row in rows]
    words = [text.split() for text in at]
    common = itertools.takewhile(lambda w: len(set(w)) == 1, zip(*words, strict=False))
    name = " ".join(w[0] for w in common) if len(at) > 1 else words[0][0]
    return Predicted(
        at,
        whole.truth[rows],
        whole.predicted[rows],
        None if whole.band is None else (whole.band[0][rows], whole.band[1][rows]),
        {key: values[rows] for key, values in whole.baselines.items()},
        name,
        tuple((band, low[rows], high[rows]) for band, low, high in whole.inner),
    )


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], np.float64)


_MOST_SERIES = 4  # with a panel each
_MOST_BASELINES = 3  # beside the winner's forecast; more cannot be told apart


def forecast_picture(record: StudyRecord) -> Picture | None:
    """Draw predictions beside the truth; None if the record keeps none."""
    parts = predicted_values(record)
    if not parts:
        return None
    assert record.test is not None
    kept, forecasts = record.test.predictions, record.experiment.task.kind == "forecast"
    about = "The test set: the truth and the predictions of the winner."
    if forecasts:
        about = "The test set: the truth, the forecast of the winner, and the best baselines."
    if len(parts) > _MOST_SERIES:
        about += f" The first {_MOST_SERIES} of {len(parts)} series."
    title = "Forecast of the test set" if forecasts else "Predictions of the test set"
    if close := close_up(record):
        most, steps = max(len(part.truth) for part in close), kept["horizon"]
        about += f" The last {most} rows"
        about += f": every row once, forecast 1 to {steps} steps ahead." if steps > 1 else "."
    else:
        about += _thinning(kept)
    return drawn("forecast", title, about, forecast_figure(record))


def forecast_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    assert record.test is not None
    kept, close = record.test.predictions, close_up(record)
    parts = (close or predicted_values(record))[:_MOST_SERIES]
    target = label(kept["target"])
    if record.experiment.task.kind != "forecast":
        return _against_truth(parts[0], target)
    metric = record.test.metric
    best = _kept_baselines(record, record.test)[:_MOST_BASELINES]
    baselines = [(name, baseline_name(name, metric)) for name in best]
    figure = plotting.new_figure(1.3 + 2.5 * len(parts))
    panels = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for axes, part in zip(panels, parts, strict=True):
        _draw_forecast(axes, part, kept, baselines, every_step=bool(close))
        axes.set(ylabel=target, title=label(part.name))
    plotting.add_legend(figure, panels[0])
    return figure


def _draw_forecast(
    axes: Axes,
    part: Predicted,
    kept: Mapping[str, Any],
    baselines: list[tuple[str, str]],
    *,
    every_step: bool,
) -> None:
    places, limits = part.times()[0], part.limits()
    marker = "." if len(places) <= 60 else None
    thin = 1.0 if len(places) <= _CROWDED else 0.6
    widest = [] if part.band is None else [(kept["band"], *part.band)]
    for name, *edges in (*widest, *part.inner):
        low, high = (clipped(edge, limits) for edge in edges)
        axes.fill_between(places, low, high, color=POINT, alpha=0.2, linewidth=0, label=name)
    for colour, (name, text) in zip(COLOURS[1:], baselines, strict=False):
        values = clipped(part.baselines[name], limits)
        axes.plot(places, values, color=colour, linewidth=thin, linestyle="--", label=label(text))
    axes.plot(places, part.truth, color="black", marker=marker, linewidth=thin + 0.2, label="truth")
    step = "" if kept["horizon"] == 1 or every_step else f", step 1 of {kept['horizon']}"
    models = f"mean of {kept['models']} models" if kept["models"] > 1 else "model"
    text, heights = f"{models}{step}", clipped(part.predicted, limits)
    axes.plot(places, heights, color=POINT, marker=marker, linewidth=thin + 0.6, label=text)
    part.set_times(axes)
    plotting.tidy(axes)


def _kept_baselines(record: StudyRecord, scores: ModelScores) -> list[str]:
    """Return the names of the baselines with kept predictions, best first."""
    assert record.test is not None
    kept = record.test.predictions["baselines"]
    return [n for n, _ in ranked_baselines(record.test.metric, scores.baselines) if n in kept]


def _against_truth(part: Predicted, target: str) -> Figure:
    (figure, axes), limits = plotting.new_axes(4.6), part.limits()
    if part.band is not None:
        low, high = (clipped(edge, limits) for edge in part.band)
        axes.vlines(part.truth, low, high, color=POINT, alpha=0.25, linewidth=1)
    axes.scatter(part.truth, clipped(part.predicted, limits), s=12, color=POINT, alpha=0.7)
    ends = [float(np.nanmin(part.truth)), float(np.nanmax(part.truth))]
    axes.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="prediction = truth")
    axes.set(xlabel=f"true {target}", ylabel=f"predicted {target}")
    axes.legend(frameon=False)
    plotting.tidy(axes)
    return figure


_FEWEST_BINS, _MOST_BINS = 8, 40


def residuals_picture(record: StudyRecord) -> Picture | None:
    """Draw the errors; None if the record keeps no predictions."""
    if not predicted_values(record):
        return None
    assert record.test is not None
    along = "in order" if record.experiment.task.kind == "forecast" else "against the truth"
    about = (
        f"The truth minus the prediction, {along} and how often; the outline is the best "
        f"baseline. Good errors lie around zero and show no pattern."
    )
    about += _thinning(record.test.predictions)
    title = "Residuals on the test set"
    return drawn("residuals", title, about, residuals_figure(record))


def residuals_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    assert record.test is not None
    parts, target = predicted_values(record), label(record.test.predictions["target"])
    errors = [part.truth - np.clip(part.predicted, *part.limits()) for part in parts]
    together = np.concatenate(errors)
    figure = plotting.new_figure(3.2)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    size = 5 if len(together) > _CROWDED else 14
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
    for name in _kept_baselines(record, record.test.judged)[:1]:
        plain = np.concatenate([part.truth - part.baselines[name] for part in parts])
        right.hist(
            np.clip(plain, bins[0], bins[-1]),
            bins=bins,
            orientation="horizontal",
            histtype="step",
            color="black",
            label=label(baseline_name(name, record.test.metric)),
        )
        right.legend(loc="upper right", frameon=False, fontsize="x-small")
    right.set_xlabel("how often")
    for axes in (left, right):
        axes.axhline(0, color="black", linewidth=0.8)
        plotting.tidy(axes)
    return figure


FEWEST_STEPS = 3
"""Steps of a horizon that are plotted; fewer are a table."""


def step_picture(record: StudyRecord) -> Picture | None:
    """Draw the test score of each step; None for a short horizon."""
    if len(_steps(record)) < FEWEST_STEPS:
        return None
    about = "The test score of each step of the horizon, the mean of the winner's models."
    title = "Score by step of the horizon"
    return drawn("steps", title, about, step_figure(record))


def step_figure(record: StudyRecord) -> Figure:
    """Draw the plot."""
    rows = _steps(record)
    scores = [np.nan if row["score"] is None else row["score"] for row in rows]
    figure, axes = plotting.new_axes(2.8)
    marker = "." if len(rows) <= 60 else None
    axes.plot([row["name"] for row in rows], scores, color=POINT, marker=marker)
    axes.set(xlabel="step of the horizon", ylabel=label(record.experiment.objective.metric))
    if record.experiment.objective.direction == "minimize":
        axes.set_ylim(bottom=0)
    plotting.whole_ticks(axes.xaxis)
    plotting.tidy(axes)
    return figure


def _steps(record: StudyRecord) -> Sequence[Mapping[str, Any]]:
    return record.test.by.get("step", ()) if record.test else ()


_MOST_NUMBERS = 12  # classes whose cells have room for a number
_NAMES_IN, _CELL_IN = 3.0, 0.14  # width of the names, and of a cell


def confusion_picture(record: StudyRecord) -> Picture | None:
    """Draw the confusion matrix of the test set; None if the record keeps none."""
    kept = predicted_classes(record)
    if kept is None:
        return None
    models = f" over the winner's {kept['models']} models" if kept["models"] > 1 else ""
    about = (
        f"The {kept['total']:,} labels of the test set, counted by true and predicted "
        f"class{models}. The colour is the share of a row, that is, of the true class."
    )
    title = "Confusion matrix of the test set"
    return drawn("confusion", title, about, confusion_figure(kept))


def confusion_figure(kept: Mapping[str, Any]) -> Figure:
    """Draw the plot."""
    counts, names = np.array(kept["confusion"]), [label(name) for name in kept["classes"]]
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    n = len(names)
    width = max(plotting.WIDTH_IN, _NAMES_IN + _CELL_IN * n)
    figure = plotting.new_figure(max(3.6, min(width - 0.9, 1.4 + 0.38 * n)), width)
    axes = figure.add_subplot()
    image = axes.imshow(100 * shares, cmap=plotting.MAP, vmin=0, vmax=100)
    size = 9 if n <= 20 else 7
    slanted = sum(map(len, names)) > 40
    axes.set_xticks(range(n), names, rotation=90 if slanted else 0, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    if n <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            plotting.write_cell(
                axes, row, column, f"{count:,}", dark=shares[row, column] <= 0.5, size=size
            )
    figure.colorbar(image, ax=axes, label="share of the true class (%)", shrink=0.8, aspect=25)
    return figure
