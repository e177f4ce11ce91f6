"""Journals in a file: one record a line, each written at once and whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Container, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from tuner.coordination.attributes import DURABLE
from tuner.errors import JournalError, RunError, one_line

__all__ = ["check_is_journal", "open_held", "replay"]

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
