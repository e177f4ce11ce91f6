"""All pictures of a study."""

from __future__ import annotations

from tuner.coordination.records import StudyRecord
from tuner.report.confusion import confusion_picture
from tuner.report.curves import curves_picture
from tuner.report.drawing import Picture
from tuner.report.forecast import forecast_picture
from tuner.report.history import history_picture
from tuner.report.importances import importances_picture
from tuner.report.parallel import parallel_picture
from tuner.report.residuals import residuals_picture
from tuner.report.slices import slices_picture
from tuner.report.spread import spread_picture

__all__ = ["draw_all", "study_pictures"]

_MAKERS = (
    forecast_picture,
    residuals_picture,
    confusion_picture,
    history_picture,
    importances_picture,
    parallel_picture,
    slices_picture,
    spread_picture,
    curves_picture,
)


def draw_all(record: StudyRecord) -> list[Picture]:
    """Return the pictures that a study of its kind has, with those that cannot be drawn yet."""
    return [picture for make in _MAKERS if (picture := make(record)) is not None]


def study_pictures(record: StudyRecord) -> dict[str, bytes]:
    """Return the pictures as PNG by file name; the same record gives the same bytes."""
    return {f"pictures/{p.name}.png": p.png for p in draw_all(record) if p.png is not None}
