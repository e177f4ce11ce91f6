"""The files that a study's MLflow run keeps once the search is over."""

from __future__ import annotations

from functools import partial

from tuner.errors import one_line
from tuner.journal.records import StudyRecord
from tuner.report.page import report
from tuner.report.pictures import MAKERS
from tuner.report.plotting import Picture
from tuner.results.export import made, study_artifacts

__all__ = ["final_artifacts"]


def final_artifacts(record: StudyRecord) -> dict[str, str | bytes | Exception]:
    """Return the texts of a study, its report and its pictures as PNG, by file name.

    A file that cannot be made costs no other: in its place stands why. The same record gives the
    same files, to the byte. Drawing takes a second or three: not to be called while the search
    waits.
    """
    pictures: list[Picture] = []
    drawn: dict[str, bytes | Exception] = {}
    for name, make in MAKERS.items():
        file, picture = f"pictures/{name}.png", made(partial(make, record))
        if isinstance(picture, Exception):
            drawn[file] = picture
            why = f"It could not be drawn: {one_line(picture)}"
            pictures.append(Picture(name, name.replace("_", " ").capitalize(), why))
        elif picture is not None:
            pictures.append(picture)
            if picture.png is not None:
                drawn[file] = picture.png
    return {
        **study_artifacts(record),
        "report.html": made(lambda: report(record, pictures)),
        **drawn,
    }
