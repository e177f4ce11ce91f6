"""The texts that a study's MLflow run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuner.coordination.records import StudyRecord
from tuner.results.export import exported, render
from tuner.results.summary import summarize

__all__ = ["made", "study_artifacts"]

T = TypeVar("T")


def made(make: Callable[[], T]) -> T | Exception:
    """Return what a function makes, or the exception that kept it from that."""
    try:
        return make()
    except Exception as error:
        return error


def study_artifacts(record: StudyRecord) -> dict[str, str | Exception]:
    """Return the experiment, the best configuration so far and the result, by file name.

    A file that cannot be made costs no other: in its place stands why.
    """
    files = {"experiment.yaml": made(record.experiment.to_yaml)}
    if record.best is not None:
        files["best.yaml"] = made(lambda: _best(record))
        files["result.json"] = made(lambda: json.dumps(summarize(record), indent=2) + "\n")
    return files


def _best(record: StudyRecord) -> str:
    best = exported(record, Path(record.data["path"]).parent, "best.yaml")
    return render(best, as_json=False)
