"""The predictions of the test part, as its record keeps them."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "CROWDED",
    "Predicted",
    "close_up",
    "predicted_classes",
    "predicted_values",
    "what_is_kept",
]

CROWDED = 400
"""Points that are drawn smaller, for they hide one another."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """Values of one series of the test part, or of sequences; nan where one is not finite."""

    at: list[str]  # what people call the samples
    truth: np.ndarray
    predicted: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None
    baselines: dict[str, np.ndarray]
    name: str = ""  # of the series, where there are several
    inner: tuple[tuple[str, np.ndarray, np.ndarray], ...] = ()  # bands in the band, wide ones first

    def limits(self) -> tuple[float, float]:
        """Return how far a prediction may lie off to be drawn where it is, not at the edge."""
        low, high = float(np.nanmin(self.truth)), float(np.nanmax(self.truth))
        room = (high - low) or abs(high) or 1.0
        return (low - room, high + room)

    def times(self) -> tuple[np.ndarray, str]:
        """Return the places of the samples on an axis, and what the axis is."""
        texts = [text.removeprefix(self.name).strip() for text in self.at]
        try:
            return np.array([float(int(text)) for text in texts]), "row"
        except ValueError:
            pass
        try:
            times = [dt.datetime.fromisoformat(text).replace(tzinfo=None) for text in texts]
        except ValueError:
            return np.arange(1.0, len(texts) + 1), "sample of the test part"
        from matplotlib.dates import date2num

        return np.asarray(date2num(times)), "time"  # type: ignore[no-untyped-call]

    def set_times(self, axes: Axes) -> None:
        """Give the axis that `times` is on its ticks and its name."""
        _, kind = self.times()
        axes.set_xlabel("" if kind == "time" else kind)
        if kind != "time":
            whole_ticks(axes.xaxis)
        else:
            from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

            locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_locator(locator)
            formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_formatter(formatter)


def predicted_values(record: StudyRecord) -> list[Predicted]:
    """Return what is kept of the predicted values, a series each; nothing for classes."""
    kept = _kept(record, "values")
    return [] if kept is None else _parts(kept)


def close_up(record: StudyRecord) -> list[Predicted]:
    """Return the last predictions, a series each, every row once; nothing where all are few."""
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
    """Return the confusion matrix of the test part; None where there is none."""
    return _kept(record, "classes")


def what_is_kept(kept: Mapping[str, Any]) -> str:
    """Return sentences that say which of the predictions are drawn; none where all are."""
    said = ""
    if kept["horizon"] > 1:
        said += f" Of every forecast the first of {kept['horizon']} steps."
    if kept["every"] > 1:
        said += f" Thinned: one in {kept['every']} of {kept['total']:,} predictions."
    return said


def _kept(record: StudyRecord, kind: str) -> Mapping[str, Any] | None:
    kept = (record.test or {}).get("predictions")  # older records have none
    return kept if kept is not None and kept["kind"] == kind else None


def _part(whole: Predicted, rows: np.ndarray) -> Predicted:
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
