"""A process that holds the study `s` of a journal, to write or to read, until it is killed."""

from __future__ import annotations

import json
import sys
import time

import optuna

from tuner.journal.storage import lock_for_reading, write_journal


def hold(how: str, location: str) -> None:
    """Make the study if it is missing, and print a line once it is held."""
    with (write_journal if how == "write" else lock_for_reading)(location, "s") as storage:
        if "s" not in optuna.get_all_study_names(storage):
            optuna.create_study(study_name="s", storage=storage)
        print("holds it", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    hold(*json.loads(sys.argv[1]))
