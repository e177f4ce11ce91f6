"""Journals: the durable record of studies, on Optuna's storages.

A journal is a file (the default) or a database given by URL. Only the coordinator writes to it;
anyone may read it at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from tuner.errors import JournalError, StudyError, nearest, one_line
from tuner.search.attributes import DURABLE

__all__ = [
    "FINALISTS_SUFFIX",
    "is_being_written",
    "journal_location",
    "load_study",
    "read_journal",
    "study_names",
    "write_journal",
]

FINALISTS_SUFFIX = ".finalists"
_BEGINS = b'{"op_code"'  # as every record of Optuna's journal does


class _HeldFile(JournalFileBackend):
    """A journal file that its one writer holds, so that Optuna's own lock is not needed.

    Every record is handed to the system at once and survives the death of this process. Only
    what is dear waits for the disk, and takes with it all that was written before: a search
    that lost power asks again for what came after, and gets the same.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file.name)
        self._file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._file.write("".join(lines).encode())
        self._file.flush()
        if any(DURABLE & log.get("user_attr", {}).keys() for log in logs):
            os.fsync(self._file.fileno())


def journal_location(study: str, journal: str | None) -> str:
    """Return where a study's journal is: what was given, or a file named after the study."""
    return journal or str(Path("studies") / f"{study}.journal")


def read_journal(location: str) -> BaseStorage:
    """Open an existing journal for reading; creates nothing.

    Raises:
        JournalError: there is none, it is something else, or its database does not answer.
    """
    if (path := _path_of(location)) is not None and not path.exists():
        raise JournalError(f"{path}: no such journal; check the study's name or --journal")
    if "://" in location:
        return _open_database(location)
    _check_is_journal(Path(location))
    return JournalStorage(JournalFileBackend(location))


@contextlib.contextmanager
def write_journal(location: str) -> Iterator[BaseStorage]:
    """Open a journal for the one coordinator that writes to it; a new file where there is none.

    Raises:
        JournalError: it is something else, or another coordinator holds it.
    """
    if "://" in location:
        yield _open_database(location)
        return
    path = Path(location)
    if path.exists():
        _check_is_journal(path)
    _make_folder(path)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise JournalError(
                f"{path}: another search is writing to it; wait for it, stop it, "
                f"or give --study another name"
            ) from None
        _drop_torn_tail(file)
        yield JournalStorage(_HeldFile(file))


def is_being_written(location: str) -> bool:
    """Say whether a coordinator holds a journal file now; of a database nobody knows."""
    if "://" in location:
        return False
    with Path(location).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


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
        raise StudyError(f"{location}: holds no study {name!r}{nearest(name, known)}") from None


def _path_of(location: str) -> Path | None:
    """Return the file behind a location; None where it is on a server."""
    if "://" not in location:
        return Path(location)
    return Path(location.removeprefix("sqlite:///")) if location.startswith("sqlite:///") else None


def _check_is_journal(path: Path) -> None:
    if path.is_dir():
        raise JournalError(f"{path}: is a folder, not a journal; give another --journal")
    with path.open("rb") as file:
        first = file.readline()
    if not first.endswith(b"\n") and first[: len(_BEGINS)] == _BEGINS[: len(first)]:
        return  # left by a coordinator that died in its first record, or before it
    try:
        record = json.loads(first)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "op_code" not in record:
        raise JournalError(
            f"{path}: is not a journal, its first line is {first[:40]!r}; "
            f"give --study another name or move the file away"
        )


def _drop_torn_tail(file: BinaryIO) -> None:
    """Cut off what was not written whole: Optuna cannot append to it.

    A dying coordinator leaves half a record at the end, a machine without power zeros.
    """
    file.seek(0)
    content = file.read()
    whole, _, _ = content.partition(b"\0")
    whole = whole[: whole.rfind(b"\n") + 1]
    last_line = whole[:-1].rpartition(b"\n")[2]
    try:
        json.loads(last_line or b"{}")
    except ValueError:
        whole = whole[: -len(last_line) - 1]
    if len(whole) < len(content):
        file.truncate(len(whole))


def _make_folder(path: Path) -> None:
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: its folder cannot be created: {error.strerror}; give another"
        ) from None


def _open_database(url: str) -> BaseStorage:
    shown = re.sub(r"://[^@/]*@", "://", url)  # without a password
    if (path := _path_of(url)) is not None:
        _make_folder(path)
    try:
        return optuna.storages.RDBStorage(url)
    except ModuleNotFoundError as error:
        raise JournalError(
            f"--journal: {shown}: its driver is not installed; pip install {error.name}"
        ) from None
    except Exception as error:  # SQLAlchemy's and every driver's own
        cause = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else None
        if cause is not None:
            raise JournalError(
                f"--journal: {shown}: its driver is not installed; pip install {cause.name}"
            ) from None
        raise JournalError(
            f"--journal: {shown}: cannot be opened: {one_line(error)[:200]}; "
            f"write a file's path, or sqlite:///studies.db, say"
        ) from None
