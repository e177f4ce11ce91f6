"""Journals: the durable record of studies, on Optuna's storages.

A journal is a file (the default) or a database given by URL. Only the coordinator writes to it;
anyone may read it at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend

from tuner.coordination.database import (
    has_studies,
    quiet_database,
    read_database,
    study_is_held,
    write_database,
)
from tuner.coordination.holders import file_is_held, locked
from tuner.coordination.journal_file import check_is_journal, open_held, replay
from tuner.errors import JournalError, StudyError, nearest, show_location

__all__ = [
    "FINALISTS_SUFFIX",
    "is_held",
    "journal_at",
    "journal_exists",
    "journal_location",
    "load_study",
    "quiet_journal",
    "read_journal",
    "study_names",
    "write_journal",
]

FINALISTS_SUFFIX = ".finalists"
_SQLITE = b"SQLite format 3\0"
_READ_ANOTHER = "check the study's name or --journal"


def journal_location(study: str, journal: str | None) -> str:
    """Return where a study's journal is: what was given, or a file named after the study."""
    return journal or str(Path("studies") / f"{study}.journal")


def journal_exists(location: str) -> bool:
    """Return whether there is something to read, a journal or not.

    Raises:
        JournalError: it is a database that does not answer.
    """
    path = _path_of(location)
    return has_studies(location) if path is None else path.exists()


def journal_at(path: Path) -> str | None:
    """Return the location of the journal that a file holds; None where it holds none."""
    try:
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) == _SQLITE:
                return f"sqlite:///{path}"
        check_is_journal(path, _READ_ANOTHER)
    except (OSError, JournalError):
        return None
    return str(path)


def read_journal(location: str) -> BaseStorage:
    """Open an existing journal for reading; creates nothing.

    Raises:
        JournalError: there is none, it is something else, or its database does not answer.
    """
    _existing_path(location)
    if "://" in location:
        return read_database(location)
    check_is_journal(Path(location), _READ_ANOTHER)
    return replay(JournalFileBackend(location), location, _READ_ANOTHER)


def _existing_path(location: str) -> Path | None:
    """Return the file of an existing journal, or None for one on a server."""
    path = _path_of(location)
    if path is not None and not path.exists():
        raise JournalError(f"{path}: no such journal; {_READ_ANOTHER}")
    return path


@contextlib.contextmanager
def write_journal(
    location: str, study: str | None = None, note: Callable[[str], None] = lambda text: None
) -> Iterator[BaseStorage]:
    """Open a journal for the one coordinator that writes to it; a new one where there is none.

    A database that goes away meanwhile is waited for.

    Args:
        location: a file, or a database's URL.
        study: what is written, with its finalists. A file is held as a whole all the same; a
            server keeps two coordinators from one study, and from all of them with None.
        note: is told, in any thread, what a person should read: that the database does not
            answer, that it does again, that nobody keeps a second coordinator from the study.

    Raises:
        JournalError: it is something else, or another coordinator holds it; the error names it.
        RunError: in the block: it cannot be written, or another coordinator took the study while
            the database was away.
    """
    path = _path_of(location)
    if path is None:
        with write_database(location, study, note) as storage:
            yield storage
        return
    in_file = "://" not in location
    # The file is held as a whole: another study's name helps only where it names another file.
    default = study is not None and location == journal_location(study, None)
    instead = "give another --study name" if default else "give another --journal"
    if in_file and path.exists():
        check_is_journal(path, f"{instead} or move the file away" if default else instead)
    _make_folder(path)
    with locked(path, instead) as file:
        if in_file:
            yield open_held(file, instead)
            return
        with write_database(location, study, note) as storage:
            yield storage


@contextlib.contextmanager
def quiet_journal(location: str, study: str | None = None) -> Iterator[BaseStorage]:
    """Open an existing journal for reading, and let no search write to it meanwhile.

    Args:
        location: a file, or a database's URL.
        study: what no search may write to; on a server, None is all of them.

    Raises:
        JournalError: as `read_journal`; or a search is writing to it.
    """
    path = _existing_path(location)
    if path is None:
        storage = read_journal(location)
        with quiet_database(location, study):
            yield storage
        return
    with locked(path, shared=True):
        yield read_journal(location)


def is_held(location: str, study: str) -> bool | None:
    """Return whether a search writes to a study right now; None where nobody can tell."""
    path = _path_of(location)
    if path is None:
        return study_is_held(location, study)
    return file_is_held(path) if path.exists() else None


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of the studies in a journal, without those of their finalists."""
    names = optuna.get_all_study_names(storage)
    return sorted(n for n in names if not n.endswith(FINALISTS_SUFFIX))


def load_study(storage: BaseStorage, name: str, location: str) -> optuna.Study:
    """Open a study for reading.

    Raises:
        StudyError: the journal does not hold it.
    """
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = study_names(storage)
        where = show_location(location)
        raise StudyError(f"{where}: holds no study {name!r}{nearest(name, known)}") from None


def _path_of(location: str) -> Path | None:
    """Return the file behind a location; None where it is on a server."""
    if "://" not in location:
        return Path(location)
    scheme, _, database = location.partition(":///")
    file, _, _ = database.partition("?")
    return Path(file) if scheme.partition("+")[0] == "sqlite" and file else None


def _make_folder(path: Path) -> None:
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: its folder cannot be created: {error.strerror}; give another"
        ) from None
