"""Finds a study that is named."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import JournalError, nearest
from tuner.experiment.naming import normalized

if TYPE_CHECKING:
    from tuner.coordination.records import StudyRecord
    from tuner.watching.state import State

__all__ = ["locate", "read", "read_as_it_stands"]


def read(study: str, journal: str | None) -> Any:
    """Return the record of a study that a command names.

    Raises:
        InputError: there is no such study; the nearest name is offered.
    """
    from tuner.coordination.journal import read_journal
    from tuner.coordination.records import read_study

    location = locate(study, journal)
    return read_study(read_journal(location), study, location)


def read_as_it_stands(study: str, journal: str | None) -> tuple[StudyRecord, State]:
    """Return the record of a study that a command names, and whether its search runs.

    Raises:
        InputError: there is no such study; the nearest name is offered.
    """
    from tuner.coordination.journal import read_journal
    from tuner.watching.state import read_with_state

    location = locate(study, journal)
    return read_with_state(read_journal(location), study, location)


def locate(study: str, journal: str | None) -> str:
    """Return where the journal of a study is that a command names.

    Raises:
        InputError: there is no such file in this folder; the nearest name is offered.
    """
    from tuner.coordination.journal import journal_at, journal_location

    location = journal_location(study, journal)
    if journal is None and not Path(location).exists():
        if Path(study).is_file():
            found = journal_at(Path(study))
            asked = f" --journal {shlex.quote(found)}" if found else ""
            raise JournalError(
                f"{study}: is a file, not a study's name; write `tuner studies{asked}`"
            )
        known = [normalized(path.stem) for path in Path("studies").glob("*.journal")]
        hint = nearest(study, known) if known else "; start one: tuner run EXPERIMENT.yaml"
        raise JournalError(f"{location}: no study {study!r} in this folder{hint}")
    return location
