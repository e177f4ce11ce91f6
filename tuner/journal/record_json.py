"""The record of a study as JSON: a client of a service reads it as if the journal were here."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tuner.errors import StudyError, one_line
from tuner.experiment import Experiment
from tuner.jobs import Outcome
from tuner.journal.records import FORMAT, Status, StudyRecord, StudyState, TestScore, TrialRecord
from tuner.journal.storage import Role

_NUMBER = "$float"
"""Key of an object that stands for a number that JSON lacks: `nan`, `inf` or `-inf`."""


def record_to_text(record: StudyRecord, state: StudyState) -> str:
    """Return a study and the state of its search as JSON.

    Returns:
        Strict JSON, without NaN and infinity, that `record_from_text` reads.
    """
    whole = {"state": state.value, "record": _study_to_json(record)}
    try:
        return json.dumps(whole, allow_nan=False)
    except ValueError:  # rare: the metric of an epoch is not finite
        return json.dumps(_tagged(whole), allow_nan=False)


def record_from_text(text: str) -> tuple[StudyRecord, StudyState]:
    """Read a study and the state of its search from JSON by `record_to_text`.

    Raises:
        StudyError: it is of another version of tuner.
    """
    try:
        raw = json.loads(text, object_hook=_untagged)
        return _study_from_json(raw["record"]), StudyState(raw["state"])
    except (KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {one_line(error)[:200]}"
        rule = f"the record of the study was written by another version of tuner ({why})"
        raise StudyError(rule, remedy="install the version of the service") from None


def _study_to_json(record: StudyRecord) -> dict[str, Any]:
    own = ("experiment", "data", "trials", "finalists", "test", "earlier_tests")
    raw = {f.name: getattr(record, f.name) for f in fields(record) if f.name not in own}
    return raw | {
        "experiment": record.experiment.to_dict(),
        "data": dict(record.data),
        "trials": [_trial_to_json(trial) for trial in record.trials],
        "finalists": [_trial_to_json(trial) for trial in record.finalists],
        "tests": [test.to_json() for test in record.openings],
    }


def _study_from_json(raw: dict[str, Any]) -> StudyRecord:
    if raw["format"] > FORMAT:
        raise ValueError(f"format {raw['format']}, this one reads {FORMAT}")
    trials: list[TrialRecord] = []
    for each in raw["trials"]:
        trials.append(_trial_from_json(each, trials))
    tests = [TestScore.from_json(test) for test in raw["tests"]]
    known = {f.name for f in fields(StudyRecord)}
    read = {key: value for key, value in raw.items() if key in known}
    return StudyRecord(
        **read
        | {
            "experiment": Experiment.of_record(raw["experiment"]),
            "trials": tuple(trials),
            "finalists": tuple(_trial_from_json(each) for each in raw["finalists"]),
            "test": tests[-1] if tests else None,
            "earlier_tests": tuple(tests[:-1]),
            "begun_from": tuple(raw["begun_from"]),
            "remarks": tuple(raw["remarks"]),
        }
    )


def _trial_to_json(trial: TrialRecord) -> dict[str, Any]:
    """Return a trial; that of a repeat has no outcome, as the original's is also its own."""
    raw = {f.name: getattr(trial, f.name) for f in fields(trial)}
    ended = trial.outcome if trial.repeat_of is None else None
    asked_at = None if trial.asked_at is None else trial.asked_at.isoformat()
    outcome = None if ended is None else ended.to_json()
    changed = {"role": trial.role.value, "status": trial.status.value, "params": dict(trial.params)}
    return raw | changed | {"asked_at": asked_at, "outcome": outcome}


def _trial_from_json(raw: dict[str, Any], earlier: list[TrialRecord] | None = None) -> TrialRecord:
    known = {f.name for f in fields(TrialRecord)}
    read = {key: value for key, value in raw.items() if key in known}
    outcome = None if raw["outcome"] is None else Outcome.from_json(raw["outcome"])
    if earlier is not None and raw["repeat_of"] is not None:
        outcome = earlier[raw["repeat_of"]].outcome
    asked_at = raw["asked_at"]
    return TrialRecord(
        **read
        | {
            "role": Role(raw["role"]),
            "status": Status(raw["status"]),
            "asked_at": None if asked_at is None else dt.datetime.fromisoformat(asked_at),
            "outcome": outcome,
            "lost": tuple(raw["lost"]),
            "group": tuple(raw.get("group", ())),
        }
    )


def _tagged(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return {_NUMBER: repr(value)}
        case Mapping():
            return {key: _tagged(each) for key, each in value.items()}
        case list() | tuple():
            return [_tagged(each) for each in value]
    return value


def _untagged(value: dict[str, Any]) -> Any:
    return float(value[_NUMBER]) if value.keys() == {_NUMBER} else value
