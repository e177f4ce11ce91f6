"""The texts that a study's MLflow run keeps."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.coordination.records import StudyRecord
from tuner.results.export import exported, render
from tuner.results.summary import summarize

__all__ = ["study_artifacts"]


def study_artifacts(record: StudyRecord) -> dict[str, str]:
    """Return the experiment, the best configuration so far and the result, by file name."""
    files = {"experiment.yaml": record.experiment.to_yaml()}
    if record.best is not None:
        best = exported(record, Path(record.data["path"]).parent, "best.yaml")
        files["best.yaml"] = render(best, as_json=False)
        files["result.json"] = json.dumps(summarize(record), indent=2) + "\n"
    return files
