"""Journals: the durable record of studies on Optuna storages, in files or databases.

A journal is a file (the default) or a database given by URL. Only the coordinator writes to it;
anyone may read it at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import JournalError, RunError, StudyError, nearest, one_line, show_location
from tuner.journal.database import (
    has_studies,
    quiet_database,
    read_database,
    study_is_held,
    write_database,
)
from tuner.journal.locks import file_is_held, locked

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

__all__ = [
    "BASELINE_ATTR",
    "DURABLE",
    "FINALISTS_SUFFIX",
    "FINALIST_ATTR",
    "LOST_ATTR",
    "OUTCOME_ATTR",
    "REOPENED_ATTR",
    "REPEAT_ATTR",
    "RUN_ATTR",
    "STUDY_ATTR",
    "TAKEN_ATTR",
    "TEST_ATTR",
    "TIME_ATTR",
    "TOLD_ATTR",
    "Role",
    "check_is_journal",
    "is_held",
    "journal_at",
    "journal_exists",
    "journal_location",
    "load_study",
    "open_held",
    "params_of",
    "quiet_journal",
    "read_journal",
    "replay",
    "retraining_of",
    "role_of",
    "study_names",
    "training_name",
    "training_seed",
    "write_journal",
]


class Role(StrEnum):
    """What a training run is for."""

    TRIAL = "trial"
    FINALIST = "finalist"
    BASELINE = "baseline"  # the untuned default, for comparison


def training_name(
    role: Role, number: int, configuration: int | None = None, repeat: int | None = None
) -> str:
    """Return what people call a training, everywhere.

    Args:
        role: what it is for.
        number: that of its trial, in the study of the search or of the finalists.
        configuration: of a finalist, the trial that it retrains.
        repeat: which training of the same configuration it is; the first is 0.
    """
    match role:
        case Role.FINALIST if configuration is not None:
            return f"finalist {configuration} repeat {repeat}"
        case Role.BASELINE if repeat is not None:
            return f"default repeat {repeat}"
    return f"{role.value} {number}"


_CODES = {Role.TRIAL: 101, Role.FINALIST: 102, Role.BASELINE: 104}  # 103: fresh.py


def training_seed(seed: int, role: Role, *numbers: int) -> int:
    """Return the 32-bit seed of a training run; distinct for distinct roles and numbers."""
    return int(np.random.SeedSequence([seed, _CODES[role], *numbers]).generate_state(1)[0])


STUDY_ATTR = "tuner"  # of a study: what it searches, and on which data

TEST_ATTR = "test"  # of a study: the first opening of the test part

REOPENED_ATTR = "reopened"  # of a study: every later opening, in order

RUN_ATTR = "run"  # of a study: the budget of its last run, and how that ended

TIME_ATTR = "seconds"  # of a study: how long the runs that searched took, together

OUTCOME_ATTR = "outcome"  # of a trial: how its training ended

REPEAT_ATTR = "repeat_of"  # of a trial: the earlier trial with the same configuration

TAKEN_ATTR = "taken"  # of a trial: the earlier study and trial that it is, with its seed

LOST_ATTR = "lost"  # of a trial: why the machine took attempts away, in order

TOLD_ATTR = "asked_after"  # of a trial: how many trials had been told when it was asked

FINALIST_ATTR = "finalist"  # of a finalist's trial: [configuration's trial number, repeat]

BASELINE_ATTR = "baseline"  # of a training of the untuned default: its params, and which repeat

DURABLE = frozenset({STUDY_ATTR, TEST_ATTR, REOPENED_ATTR, OUTCOME_ATTR})

"""What cannot be worked out again without cost: it is on the disk before the search goes on."""


def role_of(user_attrs: Mapping[str, Any]) -> Role:
    """Return what a trial is for, by its attributes."""
    if BASELINE_ATTR in user_attrs:
        return Role.BASELINE
    return Role.FINALIST if FINALIST_ATTR in user_attrs else Role.TRIAL


def retraining_of(user_attrs: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the trial that a finalist retrains, and which of its trainings one is, if any."""
    if BASELINE_ATTR in user_attrs:
        return None, user_attrs[BASELINE_ATTR]["repeat"]
    configuration, repeat = user_attrs.get(FINALIST_ATTR, (None, None))
    return configuration, repeat


def params_of(trial: Trial | FrozenTrial, user_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the searched hyperparameters of a trial.

    Those of the untuned default need not lie in the search space: Optuna has no place for them.
    """
    baseline = user_attrs.get(BASELINE_ATTR)
    return dict(trial.params if baseline is None else baseline["params"])


_BEGINS = b'{"op_code"'  # as every record of Optuna's journal does


class _HeldFile(BaseJournalBackend):
    """A journal file that its one writer holds, so that Optuna's own lock is not needed.

    Every record is handed to the system at once and survives the death of this process. Only
    what is dear waits for the disk, and takes with it all that was written before: a search
    that lost power asks again for what came after, and gets the same.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._next = (0, 0)  # the record to be read next, and the byte at which it begins

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Return the records from one on; fast where that is the one after those read last."""
        number, begin = self._next if self._next[0] == log_number_from else (0, 0)
        with Path(self._file.name).open("rb") as file:
            file.seek(begin)
            for line in file:
                number, begin = number + 1, begin + len(line)
                self._next = (number, begin)
                if number > log_number_from:
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write records after those that are there."""
        lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        content = "".join(lines).encode()
        end = self._file.tell()
        try:
            while content:  # the file is unbuffered: what is not written is not pending either
                content = content[self._file.write(content) :]
            if any(DURABLE & log.get("user_attr", {}).keys() for log in logs):
                os.fsync(self._file.fileno())
        except BaseException as error:  # Ctrl-C as well: what is in progress is recorded then
            with contextlib.suppress(OSError):  # what is written next must not follow half a line
                self._file.truncate(self._file.seek(end))
            if not isinstance(error, OSError):
                raise
            raise RunError(
                f"{self._file.name}: cannot be written: {error.strerror}; what is in it is kept: "
                f"make room, and the same command resumes"
            ) from None


def check_is_journal(path: Path, instead: str) -> None:
    """Look at a file's first line.

    Args:
        path: the file.
        instead: what to do where it is something else.

    Raises:
        JournalError: it is something else, or cannot be read.
    """
    if path.is_dir():
        raise JournalError(f"{path}: is a folder, not a journal; {instead}")
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: cannot be opened: {error.strerror}; give another"
        ) from None
    if not first.endswith(b"\n") and first[: len(_BEGINS)] == _BEGINS[: len(first)]:
        return  # left by a coordinator that died in its first record, or before it
    try:
        record = json.loads(first)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "op_code" not in record:
        raise JournalError(f"{path}: is not a journal, its first line is {first[:40]!r}; {instead}")


def open_held(file: FileIO, instead: str) -> BaseStorage:
    """Open a journal file for the one writer that holds it.

    Args:
        file: the file, locked.
        instead: what to do where it is damaged and there is no copy.

    Raises:
        JournalError: a record in it is damaged.
    """
    with _damage_named(str(file.name), instead):
        _drop_torn_record(file)
    return replay(_HeldFile(file), str(file.name), instead)


class _OwnJournal(JournalStorage):
    """A journal that nobody else writes to, so that it need not look which trials wait.

    Optuna looks through all of them whenever one is asked for.
    """

    def __init__(self, backend: BaseJournalBackend) -> None:
        super().__init__(backend)
        self._waiting: dict[int, set[int]] = {}  # trials' ids, by study's

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial, which may wait."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None and template_trial.state is TrialState.WAITING:
            self._waiting_of(study_id).add(trial_id)
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state."""
        for waiting in self._waiting.values():
            waiting.discard(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return a study's trials in `states`."""
        if states == (TrialState.WAITING,):
            return [self.get_trial(trial_id) for trial_id in sorted(self._waiting_of(study_id))]
        return super().get_all_trials(study_id, deepcopy, states)

    def _waiting_of(self, study_id: int) -> set[int]:
        if study_id not in self._waiting:
            found = super().get_all_trials(study_id, False, (TrialState.WAITING,))
            self._waiting[study_id] = {trial._trial_id for trial in found}
        return self._waiting[study_id]


def replay(backend: BaseJournalBackend, location: str, instead: str) -> BaseStorage:
    """Have Optuna read the records of a journal file.

    Args:
        backend: reads the file.
        location: the file, for messages.
        instead: what to do where it is damaged and there is no copy.

    Raises:
        JournalError: one of them is damaged.
    """
    with _damage_named(location, instead):
        return _OwnJournal(backend) if isinstance(backend, _HeldFile) else JournalStorage(backend)


@contextlib.contextmanager
def _damage_named(location: str, instead: str) -> Iterator[None]:
    try:
        yield
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise JournalError(
            f"{location}: a record in it is damaged ({type(error).__name__}: "
            f"{one_line(error)[:100]}); restore the file from a copy, or {instead}"
        ) from None


def _drop_torn_record(file: FileIO) -> None:
    """Cut off what was not written whole: Optuna cannot append to it.

    A dying coordinator leaves half a record at the end, a machine without power zeros. Anything
    else that is no record was one, which is not ours to drop.

    Raises:
        ValueError: the last whole line is no record; Optuna would take it for one that is being
            written.
    """
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    json.loads(whole[:-1].rpartition(b"\n")[2] if whole else b"{}")
    if len(whole) < len(content):
        file.truncate(len(whole))
    file.seek(0, os.SEEK_END)


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
