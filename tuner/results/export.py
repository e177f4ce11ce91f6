"""The winner as an experiment file whose hyperparameters are fixed."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

from tuner.coordination.records import StudyRecord
from tuner.errors import TunerError
from tuner.experiment import Experiment, dump_yaml
from tuner.experiment.cells import named_code
from tuner.experiment.preparations import value_of
from tuner.own_code import is_reference
from tuner.results.refit import best_epochs, refit_epochs
from tuner.results.winner import Winner, find_winner, winner_of

__all__ = ["ENDINGS", "exported", "is_export", "is_json", "render", "train_command"]

ENDINGS = (".yaml", ".yml", ".json")
"""Of the names of exported files."""

_OF_THE_SEARCH = ("search_space", "strategy", "pruner", "finalists", "asynchronous")
_OF_A_TRAINING = ("epochs", "patience")  # the keys of the budget that are

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
"""What JSON may hold as it is, and YAML may not, or takes for the end of a line."""


def exported(
    record: StudyRecord,
    folder: Path,
    file_name: str,
    data_path: str | None = None,
    trial: int | None = None,
) -> dict[str, Any]:
    """Return the experiment that trains the winner again, with what it scored.

    Args:
        record: the study.
        folder: where the file will be; `data.path`, and a test file, are relative to it.
        file_name: the file's name, for the command that reproduces the score.
        data_path: what to write as `data.path` instead, as it is.
        trial: the number of a trial to export in the winner's place.

    Raises:
        InputError: `trial` is no complete trial.
        RunError: the study has no complete trial.
    """
    winner = find_winner(record) if trial is None else winner_of(record, trial)
    experiment = record.experiment.to_dict()
    for key in _OF_THE_SEARCH:
        experiment.pop(key, None)
    experiment["objective"].pop("metrics", None)  # one configuration is no trade-off
    experiment["budget"] = {key: experiment["budget"][key] for key in _OF_A_TRAINING}
    experiment["hyperparameters"] = winner.hyperparameters(record)
    chosen = record.experiment.preparation(winner.params)
    experiment["data"] |= {name: value_of(text) for name, text in chosen.items()}
    if window := record.experiment.search_space.get("window"):
        # Whatever they read, all trials were scored on the rows that the longest window leaves.
        experiment["task"]["window"] = max(window.bounds())
    # Of the folder itself where it is named by a link, as `..` leads out of the folder itself.
    relative = os.path.relpath(record.data["path"], folder.resolve())
    experiment["data"]["path"] = relative if data_path is None else data_path
    if (test_file := record.data.get("test_file")) is not None:
        experiment["data"]["split"]["test_file"] = os.path.relpath(test_file, folder.resolve())
    if not is_reference(experiment["hyperparameters"]["cell"]):
        experiment.pop("cells", None)
    command = train_command(file_name, own_code=named_code(experiment) is not None)
    experiment["recorded"] = _recorded(record, winner) | {"command": command}
    Experiment.model_validate(experiment)
    return experiment


def _recorded(record: StudyRecord, winner: Winner) -> dict[str, Any]:
    run, finalist = winner.reproducible, winner.finalist
    assert run.outcome is not None
    tested = winner.was_tested(record.test)
    recorded = {
        "study": record.name,
        "seed": run.seed,
        "score": run.value,
        "metric": record.experiment.objective.metric,
        "epochs": best_epochs(run.outcome),
        "refit_epochs": refit_epochs(record, winner),
        "search": winner.search_score if finalist else None,
        "seeds": [repeat.seed for repeat in finalist.repeats] if finalist else None,
        "scores": finalist.scores if finalist else None,
        "mean": finalist.mean if finalist else None,
        "std": finalist.std if finalist else None,
        "test": record.test["mean"] if record.test and tested else None,
        "refit": ((record.test or {}).get("refit") or {}).get("mean") if tested else None,
        "preparations": _read_besides(record.experiment),
        "data_sha256": record.data["sha256"],
        "rows": record.data["rows"],
        "device": run.outcome.device or None,
        "versions": dict(record.versions),
    }
    return {key: value for key, value in recorded.items() if value is not None}


def _read_besides(experiment: Experiment) -> dict[str, list[str]] | None:
    """Return the preparations of a search that say from which row on its models are scored."""
    found: dict[str, list[str]] = {
        name: list(dict.fromkeys([experiment.given(name), *experiment.search_space[name].bounds()]))
        for name in ("transform", "lags")
        if name in experiment.search_space
    }
    return found or None


def train_command(path: str, *, own_code: bool) -> str:
    """Return the command that trains an exported file, to be typed where `path` leads to it.

    Args:
        path: of the file.
        own_code: whether it names code that is not tuner's, which is to be allowed.
    """
    command = f"tuner train {shlex.quote(f'./{path}' if path.startswith('-') else path)}"
    return f"{command} --allow-code" if own_code else command


def render(experiment: dict[str, Any], as_json: bool) -> str:
    """Write an exported experiment as YAML, or as JSON (which is YAML too)."""
    if not as_json:
        return dump_yaml(experiment)
    # Else without \\u escapes: two of them for one character are no YAML.
    text = json.dumps(experiment, indent=2, ensure_ascii=False)
    return _NOT_IN_YAML.sub(lambda c: f"\\u{ord(c[0]):04x}", text) + "\n"


def is_json(path: Path) -> bool:
    """Return whether a file's name asks for JSON."""
    return path.suffix.lower() == ".json"


def is_export(path: Path, study: str) -> bool:
    """Return whether a file is an export of a study, which a newer one may replace."""
    try:
        recorded = Experiment.load(path).recorded
    except TunerError:
        return False
    return recorded is not None and recorded.study == study
