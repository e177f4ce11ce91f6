"""A study of many trials for the service's benchmark, made without asking for each."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from service_load import score

from tuner.journal.external import read_external
from tuner.journal.storage import ASKED_AFTER_ATTR, OUTCOME_ATTR, read_journal
from tuner.service.access import LOCAL
from tuner.service.trial_table import TrialTables


def repeat_trial(root: Path, study: str, n: int) -> None:
    """Give a study n trials: its first one, again and again with other parameters.

    Args:
        root: the folder of a service that is stopped, with journals in files.
        study: external, asynchronous, of the owner `local`, with one trial that was told.
        n: trials in all.
    """
    journal, rng = root / "studies" / LOCAL / f"{study}.journal", random.Random(0)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    first = next(i for i, line in enumerate(lines) if "datetime_start" in line)
    with journal.open("a") as file:
        for number in range(1, n):
            params = {line["param_name"]: rng.random() for line in lines if "param_name" in line}
            for line in lines[first:]:
                file.write(json.dumps(_changed(line, number, params), separators=(",", ":")) + "\n")
    record = read_external(read_journal(str(journal)), study, str(journal))
    TrialTables(root / "trials").of(LOCAL, study, sign=record.sign).begin(record.trials)


def _changed(line: dict[str, Any], number: int, params: dict[str, float]) -> dict[str, Any]:
    """Return a record of a trial's life for another number and other parameters."""
    changed = line | ({"trial_id": number} if "trial_id" in line else {})
    if "param_name" in line:
        changed["param_value_internal"] = params[line["param_name"]]
    if "values" in line:
        changed["values"] = [score(params)]
    attrs = line.get("user_attr", {})
    if ASKED_AFTER_ATTR in attrs:
        changed["user_attr"] = {ASKED_AFTER_ATTR: number}
    if OUTCOME_ATTR in attrs:
        outcome = attrs[OUTCOME_ATTR] | {"objective": score(params)}
        changed["user_attr"] = {OUTCOME_ATTR: outcome}
    return changed
