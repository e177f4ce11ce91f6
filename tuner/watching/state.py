"""Whether a study's search runs right now, as one sees it from another terminal."""

from __future__ import annotations

from enum import StrEnum

from tuner.coordination.journal import is_held
from tuner.coordination.records import StudyRecord

__all__ = ["State", "state_of"]


class State(StrEnum):
    """What has become of a study's search."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped or killed; the same command resumes
    UNKNOWN = "unknown"  # running or killed: its database does not tell


def state_of(record: StudyRecord, location: str) -> State:
    """Return a study's state; `location` is its journal's."""
    if record.ended == "done":  # also while the same command only prints it again
        return State.DONE
    match is_held(location, record.name):
        case True if record.ended is None:
            return State.RUNNING
        case None if record.ended is None:
            return State.UNKNOWN
        case _:
            return State.INTERRUPTED
