"""The files that a study's MLflow run keeps once the search is over."""

from __future__ import annotations

from tuner.coordination.records import StudyRecord
from tuner.report.page import report
from tuner.report.pictures import draw_all
from tuner.results.artifacts import study_artifacts

__all__ = ["final_artifacts"]


def final_artifacts(record: StudyRecord) -> dict[str, str | bytes]:
    """Return the texts of a study, its report and its pictures as PNG, by file name.

    The same record gives the same files, to the byte. Drawing takes a second or three: not to be
    called while the search waits.
    """
    pictures = draw_all(record)
    drawn = {f"pictures/{p.name}.png": p.png for p in pictures if p.png is not None}
    return {**study_artifacts(record), "report.html": report(record, pictures), **drawn}
