"""All pictures of a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tuner.journal.records import StudyRecord
from tuner.report.history import curves_picture, front_picture, history_picture
from tuner.report.parameters import (
    importances_picture,
    parallel_picture,
    slices_picture,
    spread_picture,
)
from tuner.report.plotting import Picture
from tuner.report.predictions import (
    confusion_picture,
    forecast_picture,
    residuals_picture,
    step_picture,
)

__all__ = ["MAKERS", "draw_all", "study_pictures"]

MAKERS: Mapping[str, Callable[[StudyRecord], Picture | None]] = {
    "forecast": forecast_picture,
    "steps": step_picture,
    "residuals": residuals_picture,
    "confusion": confusion_picture,
    "pareto_front": front_picture,
    "history": history_picture,
    "importances": importances_picture,
    "parallel_coordinates": parallel_picture,
    "slices": slices_picture,
    "swarm_spread": spread_picture,
    "learning_curves": curves_picture,
}
"""What draws each picture, by the picture's name; None where a study has none of its kind."""


def draw_all(record: StudyRecord) -> list[Picture]:
    """Return the pictures that a study of its kind has, with those that cannot be drawn yet."""
    return [picture for make in MAKERS.values() if (picture := make(record)) is not None]


def study_pictures(record: StudyRecord) -> dict[str, bytes]:
    """Return the pictures as PNG by file name; the same record gives the same bytes."""
    return {f"pictures/{p.name}.png": p.png for p in draw_all(record) if p.png is not None}
