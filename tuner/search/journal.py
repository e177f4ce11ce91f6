"""Journals: the durable record of studies, on Optuna's storages.

A journal is a file (the default) or a database given by URL. Only the coordinator writes to it;
anyone may read it at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from tuner.errors import JournalError, RunError, StudyError, nearest, one_line, show_location
from tuner.search.attributes import DURABLE

__all__ = [
    "FINALISTS_SUFFIX",
    "journal_location",
    "load_study",
    "quiet_journal",
    "read_journal",
    "study_names",
    "write_journal",
]

FINALISTS_SUFFIX = ".finalists"
_PATIENCE_S = 1.0  # with one who holds the journal: a `tuner sync` is quick
_BEGINS = b'{"op_code"'  # as every record of Optuna's journal does


class _HeldFile(JournalFileBackend):
    """A journal file that its one writer holds, so that Optuna's own lock is not needed.

    Every record is handed to the system at once and survives the death of this process. Only
    what is dear waits for the disk, and takes with it all that was written before: a search
    that lost power asks again for what came after, and gets the same.
    """

    def __init__(self, file: FileIO) -> None:
        super().__init__(str(file.name))
        self._file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        content = "".join(lines).encode()
        try:
            while content:  # the file is unbuffered: what is not written is not pending either
                content = content[self._file.write(content) :]
            if any(DURABLE & log.get("user_attr", {}).keys() for log in logs):
                os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(
                f"{self._file.name}: cannot be written: {error.strerror}; what is in it is kept: "
                f"make room, and the same command resumes"
            ) from None


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
        return _open_database(location, reading=True)
    _check_is_journal(Path(location))
    return _replay(JournalFileBackend(location), location)


@contextlib.contextmanager
def write_journal(location: str) -> Iterator[BaseStorage]:
    """Open a journal for the one coordinator that writes to it; a new file where there is none.

    Nobody keeps two coordinators from one study in a database behind a server.

    Raises:
        JournalError: it is something else, or another coordinator holds it.
    """
    path = _path_of(location)
    if path is None:
        yield _open_database(location)
        return
    in_file = "://" not in location
    if in_file and path.exists():
        _check_is_journal(path)
    _make_folder(path)
    with _locked(path, fcntl.LOCK_EX) as file:
        if not in_file:
            yield _open_database(location)
            return
        _drop_torn_tail(file)
        yield _replay(_HeldFile(file), location)


@contextlib.contextmanager
def quiet_journal(location: str) -> Iterator[BaseStorage]:
    """Open an existing journal for reading, and let no search write to it meanwhile.

    Raises:
        JournalError: as `read_journal`; or a search is writing to it.
    """
    storage = read_journal(location)
    path = _path_of(location)
    if path is None:
        yield storage
        return
    with _locked(path, fcntl.LOCK_SH):
        yield read_journal(location)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[FileIO]:
    """Hold a lock on a file, which ends with this process however it ends."""
    try:
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: cannot be opened: {error.strerror}; give another"
        ) from None
    with file:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise JournalError(
                        f"{path}: another search is writing to it; wait for it, stop it, "
                        f"or give --study another name"
                    ) from None
                time.sleep(0.05)
        yield file


def _replay(backend: JournalFileBackend, location: str) -> BaseStorage:
    """Have Optuna read the records of a journal file."""
    try:
        return JournalStorage(backend)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise JournalError(
            f"{location}: a record in it is damaged ({type(error).__name__}: "
            f"{one_line(error)[:100]}); restore the file from a copy, or give --study another name"
        ) from None


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
    return Path(database) if scheme.partition("+")[0] == "sqlite" and database else None


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


def _drop_torn_tail(file: FileIO) -> None:
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
    file.seek(0, os.SEEK_END)


def _make_folder(path: Path) -> None:
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: its folder cannot be created: {error.strerror}; give another"
        ) from None


def _open_database(url: str, *, reading: bool = False) -> BaseStorage:
    shown = show_location(url)
    if (path := _path_of(url)) is not None:
        _make_folder(path)
    try:
        if reading:  # or Optuna would make its tables in whatever database this is
            engine = sqlalchemy.create_engine(url)
            is_journal = sqlalchemy.inspect(engine).has_table("studies")
            engine.dispose()
            if not is_journal:
                raise JournalError(f"--journal: {shown}: holds no studies; check the URL")
        return optuna.storages.RDBStorage(url)
    except JournalError:
        raise
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
