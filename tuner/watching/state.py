"""Whether a study's search runs right now, as one sees it from another terminal."""

from __future__ import annotations

from enum import StrEnum

from tuner.coordination.journal import is_held, read_journal
from tuner.coordination.records import StudyRecord, read_study

__all__ = ["State", "with_state"]


class State(StrEnum):
    """What has become of a study's search."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped or killed; the same command resumes
    UNKNOWN = "unknown"  # running or killed: its database does not tell


def with_state(record: StudyRecord, location: str) -> tuple[StudyRecord, State]:
    """Return a study's record with its state; `location` is its journal's.

    The record is read again where nobody writes to the journal any more and the record does not
    say how its search ended: that may have ended in the meantime.
    """
    if record.ended is None:
        match is_held(location, record.name):
            case True:
                return record, State.RUNNING
            case None:
                return record, State.UNKNOWN
        record = read_study(read_journal(location), record.name, location)
    # "done" also while the same command only prints it again
    return record, State.DONE if record.ended == "done" else State.INTERRUPTED
