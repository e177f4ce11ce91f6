"""Whether a study's search runs right now, as one sees it from another terminal."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tuner.coordination.journal import is_held
from tuner.coordination.records import StudyRecord, read_study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["State", "read_with_state"]


class State(StrEnum):
    """What has become of a study's search."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped or killed; the same command resumes
    UNKNOWN = "unknown"  # running or killed: its database does not tell


def read_with_state(storage: BaseStorage, name: str, location: str) -> tuple[StudyRecord, State]:
    """Read a study, and say its state.

    It is read again where it does not say how its search ended and nobody writes to it any more:
    that may have ended in the meantime.

    Args:
        storage: its journal.
        name: the study's.
        location: the journal's.

    Raises:
        InputError: the journal cannot be read, or holds no such study.
    """
    record = read_study(storage, name, location)
    if record.ended is None:
        match is_held(location, name):
            case True:
                return record, State.RUNNING
            case None:
                return record, State.UNKNOWN
        record = read_study(storage, name, location)
    # "done" also while the same command only prints it again
    return record, State.DONE if record.ended == "done" else State.INTERRUPTED
