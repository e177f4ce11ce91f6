"""Journals: the durable record of studies on Optuna storages, in files or databases.

A journal is a file (the default) or a database given by URL. Only the coordinator writes to it;
anyone may read it at any time. `tuner.journal.database` is imported for a database alone, as
SQLAlchemy takes a tenth of the imports of a search.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import JournalError, RunError, StudyError, nearest, one_line, show_location
from tuner.experiment.schema import FINALISTS_SUFFIX, why_reserved
from tuner.journal.locks import file_is_locked, lock_file
from tuner.journal.replay import OUTCOME, ReplayedJournal
from tuner.strategies.rng import training_seed

if TYPE_CHECKING:
    from optuna.trial import Trial

# Attributes of a study
STUDY_ATTR = "tuner"  # its experiment and data
TEST_ATTR = "test"  # the first evaluation on the test set
REOPENED_ATTR = "reopened"  # every later evaluation, in order
RUN_ATTR = "run"  # the budget of its last run, and how that ended
TIME_ATTR = "seconds"  # of all its runs that searched
GPU_ATTR = "groups_on_gpu"  # whether its groups are those of a GPU, on which all sizes go together

# Attributes of a trial
ASKED_AFTER_ATTR = "asked_after"  # how many trials had been told when it was asked
SEED_ATTR = "seed"  # of its training; not in journals of tuner 0.1
OUTCOME_ATTR = OUTCOME  # how its training ended
REPEAT_ATTR = "repeat_of"  # of a duplicate: the earlier trial with the same configuration
TAKEN_ATTR = "taken"  # from another study: that study and trial, with its seed
GROUP_ATTR = "group"  # the numbers of the trials that were trained together, its own among them
LOST_ATTR = "lost"  # why attempts at its training were lost, in order
LEASE_ATTR = "lease"  # of an external study: which client has it; see `tuner.coordination.ask_tell`
REPORT_ATTR = "report "  # and a step: what a client reported from that step on
FINALIST_ATTR = "finalist"  # of a retraining: [configuration's trial number, repeat]
BASELINE_ATTR = "baseline"  # of a training of the untuned default: its params, and which repeat

DURABLE = frozenset({STUDY_ATTR, TEST_ATTR, REOPENED_ATTR, OUTCOME_ATTR, LEASE_ATTR})
"""Attributes that are on the disk before the search continues; the others can be recomputed."""

SERVICE_PREFIX = "service "  # of the attributes in which a service keeps its records; durable, too


class Role(StrEnum):
    """The purpose of a training run."""

    TRIAL = "trial"
    FINALIST = "finalist"
    BASELINE = "baseline"  # the untuned default, for comparison


@dataclass(frozen=True)
class TrialKey:
    """Identifies a training of a study: by its role and number.

    `str` gives these two. The other attributes are known where a trial has been asked for or read;
    they take no part in comparisons.
    """

    role: Role
    number: int  # of its trial, in the study of the search or of the finalists
    configuration: int | None = field(default=None, compare=False)
    """Of a finalist, the number of the trial that it retrains."""
    repeat: int | None = field(default=None, compare=False)
    """Which training of the same configuration it is, from 0; None for a trial."""

    @property
    def name(self) -> str:
        """The name of the training in messages, in tables and in MLflow."""
        match self.role:
            case Role.FINALIST if self.configuration is not None:
                return f"finalist {self.configuration} repeat {self.repeat}"
            case Role.BASELINE if self.repeat is not None:
                return f"default repeat {self.repeat}"
        return str(self)

    def __str__(self) -> str:
        return f"{self.role} {self.number}"


def trial_key(number: int, user_attrs: Mapping[str, Any]) -> TrialKey:
    """Return the key of a trial with these attributes."""
    if BASELINE_ATTR in user_attrs:
        return TrialKey(Role.BASELINE, number, repeat=user_attrs[BASELINE_ATTR]["repeat"])
    if FINALIST_ATTR in user_attrs:
        return TrialKey(Role.FINALIST, number, *user_attrs[FINALIST_ATTR])
    return TrialKey(Role.TRIAL, number)


def seed_of(user_attrs: Mapping[str, Any], number: int, study_seed: int) -> int:
    """Return the seed of a trial's training, as recorded or as derived from the study's seed."""
    if SEED_ATTR in user_attrs:
        return int(user_attrs[SEED_ATTR])
    if TAKEN_ATTR in user_attrs:
        return int(user_attrs[TAKEN_ATTR]["seed"])
    key = trial_key(number, user_attrs)
    which = (number,) if key.role is Role.TRIAL else (key.configuration, key.repeat)
    return training_seed(study_seed, key.role, *(n for n in which if n is not None))


def params_of(trial: Trial | FrozenTrial, user_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the searched hyperparameters of a trial.

    Those of the untuned default may lie outside the search space: Optuna has no place for them.
    """
    baseline = user_attrs.get(BASELINE_ATTR)
    return dict(trial.params if baseline is None else baseline["params"])


_READ_ANOTHER = "check the study's name or --journal"


def journal_location(study: str, journal: str | None) -> str:
    """Return the location of a study's journal: the given one, or a file named after the study."""
    return journal or str(Path("studies") / f"{study}.journal")


@dataclass(frozen=True)
class Place:
    """Where a study's journal is, and how it is opened for writing."""

    location: str  # a file, or a database's URL
    study: str  # its name in that journal
    open: Callable[[Callable[[str], None]], contextlib.AbstractContextManager[BaseStorage]]
    """Takes a function that shows a note to the user; raises what `write_journal` does."""


def place_of(study: str, journal: str | None) -> Place:
    """Return the place of a study in a journal of its own, or in the given one."""
    location = journal_location(study, journal)
    return Place(location, study, lambda note: write_journal(location, study, note))


def journal_exists(location: str) -> bool:
    """Return whether there is something to read, a journal or not.

    Raises:
        JournalError: it is a database that does not answer.
    """
    path = _path_of(location)
    if path is not None:
        return path.exists()
    from tuner.journal.database import has_studies

    return has_studies(location)


def journal_at(path: Path) -> str | None:
    """Return the location of the journal in a file; None if the file holds none."""
    sqlite = b"SQLite format 3\0"
    try:
        with path.open("rb") as file:
            if file.read(len(sqlite)) == sqlite:
                return f"sqlite:///{path}"
        _check_is_journal(path, _READ_ANOTHER)
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
        from tuner.journal.database import read_database

        return read_database(location)
    _check_is_journal(Path(location), _READ_ANOTHER)
    with _named_damage(location, _READ_ANOTHER):
        return ReplayedJournal(JournalFileBackend(location), small=False)


@contextlib.contextmanager
def write_journal(
    location: str, study: str | None = None, note: Callable[[str], None] = lambda text: None
) -> Iterator[BaseStorage]:
    """Open a journal for its single writer; creates a missing one.

    Operations on a database are retried while it does not answer.

    Args:
        location: a file, or a database's URL.
        study: the study to lock, with its finalists; None for all. A file is locked as a whole.
        note: receives messages for the user, in any thread: that the database does not answer,
            that it does again, that the database has no locks.

    Raises:
        JournalError: it is something else, or another search has locked it; the error names that.
        RunError: in the block: it cannot be written, or another search has locked the study while
            the database was away.
    """
    path = _path_of(location)
    if path is None:
        with _write_database(location, study, note) as storage:
            yield storage
        return
    in_file = "://" not in location
    # The file is locked as a whole: another study's name helps only if it names another file.
    default = study is not None and location == journal_location(study, None)
    alternative = "give another --study name" if default else "give another --journal"
    if in_file and path.exists():
        _check_is_journal(path, f"{alternative} or move the file away" if default else alternative)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"{path}: its folder cannot be created: {error.strerror}"
        raise JournalError(rule, where="--journal", remedy="give another") from None
    with lock_file(path, alternative) as file:
        if in_file:
            yield open_locked(file, alternative)
            return
        with _write_database(location, study, note) as storage:
            yield storage


def _write_database(
    location: str, study: str | None, note: Callable[[str], None]
) -> contextlib.AbstractContextManager[BaseStorage]:
    from tuner.journal.database import write_database

    return write_database(location, study, note)


@contextlib.contextmanager
def lock_for_reading(location: str, study: str | None = None) -> Iterator[BaseStorage]:
    """Open an existing journal for reading, and keep searches from writing to it meanwhile.

    Args:
        location: a file, or a database's URL.
        study: the study to lock on a server; None for all.

    Raises:
        JournalError: as `read_journal`; or a search is writing to it.
    """
    path = _existing_path(location)
    if path is None:
        from tuner.journal.database import lock_database_for_reading

        storage = read_journal(location)
        with lock_database_for_reading(location, study):
            yield storage
        return
    with lock_file(path, shared=True):
        yield read_journal(location)


@contextlib.contextmanager
def group_commit(storage: BaseStorage) -> Iterator[None]:
    """Wait for the disk once, at the end of the block, for all that is written in it.

    Until then, nothing that was written may be acknowledged. A database is not affected: it
    commits every record by itself.

    Args:
        storage: opened by `write_journal`.

    Raises:
        RunError: at the end: the disk refuses; what was written in the block may be lost.
    """
    if not isinstance(storage, _SingleWriterJournal):
        yield
        return
    with storage.file.group_commit():
        yield


def set_intermediate_values(
    storage: BaseStorage, trial_id: int, values: Mapping[int, float]
) -> None:
    """Write what a trial is compared by, value by step, in one go where the journal is a file.

    Args:
        storage: opened by `write_journal`.
        trial_id: of a trial that runs.
        values: none of which the journal has.
    """
    if isinstance(storage, _SingleWriterJournal):
        storage.set_trial_intermediate_values(trial_id, values)
        return
    for step, value in values.items():
        storage.set_trial_intermediate_value(trial_id, step, value)


@contextlib.contextmanager
def within(storage: BaseStorage, seconds: float) -> Iterator[None]:
    """Have operations of this thread in the block fail where a database is away for seconds.

    Elsewhere they wait for it much longer. A file is not affected.

    Args:
        storage: opened by `write_journal`; later operations are attempted again.
        seconds: from the beginning of each operation.
    """
    if isinstance(storage, _SingleWriterJournal):
        yield
        return
    from tuner.journal.database import RetryingStorage

    if not isinstance(storage, RetryingStorage):
        yield
        return
    with storage.within(seconds):
        yield


def is_locked(location: str, study: str) -> bool | None:
    """Return whether a search writes to a study right now; None if that is unknown."""
    path = _path_of(location)
    if path is None:
        from tuner.journal.database import database_is_locked

        return database_is_locked(location, study)
    return file_is_locked(path) if path.exists() else None


def study_names(storage: BaseStorage) -> list[str]:
    """Return the names of the studies in a journal: no finalists' and no service's own."""
    return sorted(n for n in optuna.get_all_study_names(storage) if why_reserved(n) is None)


def delete_study(storage: BaseStorage, name: str) -> None:
    """Delete a study and that of its finalists, as far as they are there.

    Args:
        storage: opened by `write_journal`.
        name: of the study, which nobody writes to.

    Raises:
        RunError: the journal cannot be written; the same call later deletes the rest.
    """
    for each in (name + FINALISTS_SUFFIX, name):
        with contextlib.suppress(KeyError):
            optuna.delete_study(study_name=each, storage=storage)


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
        rule = f"holds no study {name!r}"
        raise StudyError(rule, where=where, remedy=nearest(name, known)) from None


def _path_of(location: str) -> Path | None:
    """Return the file of a journal; None for one on a server."""
    if "://" not in location:
        return Path(location)
    scheme, _, database = location.partition(":///")
    file, _, _ = database.partition("?")
    return Path(file) if scheme.partition("+")[0] == "sqlite" and file else None


def _existing_path(location: str) -> Path | None:
    path = _path_of(location)
    if path is not None and not path.exists():
        raise JournalError("no such journal", where=path, remedy=_READ_ANOTHER)
    return path


_FIRST_BYTES = b'{"op_code"'  # of every record of Optuna's journal


def _check_is_journal(path: Path, remedy: str) -> None:
    """Raise JournalError unless a file's first line is a record of a journal."""
    if path.is_dir():
        raise JournalError("is a folder, not a journal", where=path, remedy=remedy)
    try:
        with path.open("rb") as file:
            first = file.readline()
    except OSError as error:
        rule = f"{path}: cannot be opened: {error.strerror}"
        raise JournalError(rule, where="--journal", remedy="give another") from None
    if not first.endswith(b"\n") and first[: len(_FIRST_BYTES)] == _FIRST_BYTES[: len(first)]:
        return  # left by a coordinator that died in its first record, or before it
    try:
        record = json.loads(first)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "op_code" not in record:
        rule = f"is not a journal, its first line is {first[:40]!r}"
        raise JournalError(rule, where=path, remedy=remedy)


def open_locked(file: FileIO, remedy: str) -> BaseStorage:
    """Open a journal file for the writer that has locked it.

    Args:
        file: the file, locked.
        remedy: for a damaged file of which there is no copy.

    Raises:
        JournalError: a record in it is damaged.
    """
    with _named_damage(str(file.name), remedy):
        _drop_torn_record(file)
        return _SingleWriterJournal(_LockedFile(file))


@contextlib.contextmanager
def _named_damage(location: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        rule = f"a record in it is damaged ({type(error).__name__}: {one_line(error)[:100]})"
        remedy = f"restore the file from a copy, or {remedy}"
        raise JournalError(rule, where=location, remedy=remedy) from None


def _drop_torn_record(file: FileIO) -> None:
    """Cut off an incomplete last record: Optuna cannot append to it.

    A dying coordinator leaves half a record at the end, a power failure zeros. Damage elsewhere
    is not dropped.

    Raises:
        ValueError: the last whole line is no record; Optuna would wait for the rest of it.
    """
    file.seek(0)
    content = file.read()
    whole = content[: content.rfind(b"\n") + 1]
    json.loads(whole[:-1].rpartition(b"\n")[2] if whole else b"{}")
    if len(whole) < len(content):
        file.truncate(len(whole))
    file.seek(0, os.SEEK_END)


def _is_durable(log: Mapping[str, Any]) -> bool:
    """Return whether a record of the journal has to be on the disk before the search continues."""
    keys = log.get("user_attr", {}).keys()
    return bool(DURABLE & keys) or any(key.startswith(SERVICE_PREFIX) for key in keys)


class _LockedFile(BaseJournalBackend):
    """A journal file that its single writer has locked, so that Optuna's own lock is not needed.

    Every record is written to the system at once and survives the death of this process. Only
    `DURABLE` attributes wait for the disk, with all that was written before. After a power
    failure the search asks again for the later records, and gets the same. In a group, all records
    are written at its end: each call of the system would let another thread of this process run.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._next = (0, 0)  # the record to be read next, and the byte at which it begins
        self._unread: deque[bytes] | None = None  # lines from there on; None: they are in the file
        self._pending = b""  # records to be written
        self._deferred = self._unsynced = False  # whether they wait; whether a sync is needed

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        if self._unread is None or self._next[0] != log_number_from:
            yield from self._read_file(log_number_from)
            self._unread = deque()
            return
        number, begin = self._next
        while self._unread:
            line = self._unread.popleft()
            number, begin = number + 1, begin + len(line)
            self._next = (number, begin)
            yield json.loads(line)

    def _read_file(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        self._unread = None
        self._write()
        number, begin = self._next if self._next[0] == log_number_from else (0, 0)
        with Path(self._file.name).open("rb") as file:
            file.seek(begin)
            for line in file:
                number, begin = number + 1, begin + len(line)
                self._next = (number, begin)
                if number > log_number_from:
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        self._pending += b"".join(lines)
        self._unsynced |= any(map(_is_durable, logs))
        if not self._deferred:
            self._write(sync=True)
        if self._unread is not None:
            self._unread.extend(lines)

    @contextlib.contextmanager
    def group_commit(self) -> Iterator[None]:
        """Write all records at the end of the block, and wait for the disk once.

        A block inside another one is part of it.
        """
        if self._deferred:
            yield
            return
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
            self._write(sync=True, known=True)

    def _write(self, *, sync: bool = False, known: bool = False) -> None:
        """Write what is pending; if that is `known`, by reading it back, a stop postpones it."""
        content, self._pending = self._pending, b""
        with self._undone_on_error(due=content if known else b""):
            while content:  # the file is unbuffered
                content = content[self._file.write(content) :]
            if sync and self._unsynced:
                os.fsync(self._file.fileno())
                self._unsynced = False  # not before: what is stopped here is synced when it is due

    @contextlib.contextmanager
    def _undone_on_error(self, due: bytes) -> Iterator[None]:
        end = self._file.tell()
        try:
            with self._explained():
                yield
        except BaseException as error:  # also Ctrl-C, after which running trials are recorded
            with contextlib.suppress(OSError):  # the next record must not follow half a line
                self._file.truncate(self._file.seek(end))
            if not isinstance(error, RunError):
                self._pending = due + self._pending
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            rule = f"cannot be written: {error.strerror}"
            remedy = "what is in it is kept: make room, and the same command resumes"
            raise RunError(rule, where=self._file.name, remedy=remedy) from None


class _SingleWriterJournal(ReplayedJournal):
    """A journal that remembers which trials wait; Optuna scans all trials whenever one is asked."""

    def __init__(self, backend: _LockedFile) -> None:
        self.file = backend
        super().__init__(backend, small=True)
        self._waiting: dict[int, set[int]] = {}  # trials' ids, by study's

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None and template_trial.state is TrialState.WAITING:
            self._waiting_of(study_id).add(trial_id)
        return trial_id

    def set_trial_intermediate_values(self, trial_id: int, values: Mapping[int, float]) -> None:
        """Set the values of some steps, as so many calls of Optuna's method for one would do."""
        own = {
            "op_code": JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE,
            "worker_id": self._replay_result.worker_id,
            "trial_id": trial_id,
        }
        with self._thread_lock:
            self.file.append_logs(
                [own | {"step": k, "intermediate_value": value} for k, value in values.items()]
            )
            self._sync_with_backend()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        for waiting in self._waiting.values():
            waiting.discard(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):
            return [self.get_trial(trial_id) for trial_id in sorted(self._waiting_of(study_id))]
        return super().get_all_trials(study_id, deepcopy, states)

    def _waiting_of(self, study_id: int) -> set[int]:
        if study_id not in self._waiting:
            found = super().get_all_trials(study_id, False, (TrialState.WAITING,))
            self._waiting[study_id] = {trial._trial_id for trial in found}
        return self._waiting[study_id]
