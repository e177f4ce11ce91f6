"""The winner as an experiment file whose hyperparameters are fixed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tuner.experiment import Experiment, dump_yaml
from tuner.results.winner import find_winner
from tuner.search.records import StudyRecord

__all__ = ["exported", "render"]

_SEARCH_KEYS = ("search_space", "strategy", "pruner", "finalists")


def exported(record: StudyRecord, folder: Path, file_name: str) -> dict[str, Any]:
    """Return the experiment that trains the winner again, with what it scored.

    Args:
        record: the study.
        folder: where the file will be; `data.path` is relative to it.
        file_name: the file's name, for the command that reproduces the score.

    Raises:
        RunError: the study has no complete trial.
    """
    winner = find_winner(record)
    run = winner.reproducible
    experiment = record.experiment.to_dict()
    for key in _SEARCH_KEYS:
        experiment.pop(key, None)
    experiment["hyperparameters"] = winner.hyperparameters(record)
    if window := record.experiment.search_space.get("window"):
        # Whatever they read, all trials were scored on the rows that the longest window leaves.
        experiment["task"]["window"] = max(window.bounds())
    experiment["data"]["path"] = os.path.relpath(record.data["path"], folder.absolute())
    tested = record.test is not None and record.test["configuration"] == winner.trial.number
    experiment["recorded"] = {
        "study": record.name,
        "seed": run.seed,
        "score": run.value,
        "metric": record.experiment.objective.metric,
        "mean": winner.finalist.mean if winner.finalist else None,
        "std": winner.finalist.std if winner.finalist else None,
        "test": record.test["mean"] if record.test and tested else None,
        "data_sha256": record.data["sha256"],
        "rows": record.data["rows"],
        "versions": dict(record.versions),
        "command": f"tuner train {file_name}",
    }
    experiment["recorded"] = {k: v for k, v in experiment["recorded"].items() if v is not None}
    Experiment.model_validate(experiment)
    return experiment


def render(experiment: dict[str, Any], as_json: bool) -> str:
    """Write an exported experiment as YAML, or as JSON (which is YAML too)."""
    if as_json:  # without \\u escapes: two of them for one character are no YAML
        return json.dumps(experiment, indent=2, ensure_ascii=False) + "\n"
    return dump_yaml(experiment)
