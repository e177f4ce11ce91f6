"""The service's own records: by key, durable, in a journal that one service writes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.errors import JournalAway, JournalInUse, RunError
from tuner.experiment.schema import SERVICE_STUDY
from tuner.journal.database import RetryingStorage
from tuner.journal.storage import (
    SERVICE_PREFIX,
    Place,
    delete_study,
    place_of,
    within,
    write_journal,
)
from tuner.service.access import LOCAL

WRITE_S = 4.0
"""Seconds that a record waits for a database, or for another record."""

_AGAIN_S = 0.5  # between two attempts to take over from another service
_log = logging.getLogger("tuner.service")


class ServiceJournal:
    """Records of the service, and the journals of its studies.

    With files, each study has a file of its own. In a database, all studies share the one
    connection that holds the lock, so two services never write to the same database.

    Args:
        storage: of the records, opened for writing.
        root: the service's folder.
        url: of the database; None for files.
    """

    def __init__(self, storage: BaseStorage, root: Path, url: str | None) -> None:
        self._storage, self._root, self._url = storage, root, url
        self._writing = threading.Lock()  # taken before the other one
        self._lock = threading.Lock()  # of what readers see; never held over a write
        self._study = optuna.create_study(
            study_name=SERVICE_STUDY, storage=storage, load_if_exists=True
        )
        found = self._study.user_attrs
        self._records: dict[str, Any] = {
            key.removeprefix(SERVICE_PREFIX): value
            for key, value in found.items()
            if key.startswith(SERVICE_PREFIX) and value is not None
        }

    def put(self, key: str, value: Any) -> None:
        """Write a record, as JSON; it is on the disk when this returns. None removes it.

        Raises:
            JournalAway: the journal cannot be written, or not within seconds.
        """
        with self._writing, _in_seconds(self._storage):
            self._study.set_user_attr(SERVICE_PREFIX + key, value)
        with self._lock:
            if value is None:
                self._records.pop(key, None)
            else:
                self._records[key] = value

    @property
    def failed(self) -> bool:
        """Whether the database was away for so long, or was taken, that nothing is written."""
        return isinstance(self._storage, RetryingStorage) and self._storage.failed

    def remove_study(self, owner: str, study: str) -> None:
        """Remove the journal of a study that nobody writes to, or what is left of it.

        Raises:
            JournalAway: the journal cannot be written now.
        """
        place = self.place_of(owner, study)
        if self._url is None:
            Path(place.location).unlink(missing_ok=True)
            return
        with _in_seconds(self._storage):
            delete_study(self._storage, place.study)

    def under(self, prefix: str) -> dict[str, Any]:
        """Return the records whose keys begin with a prefix, by the rest of their keys."""
        with self._lock:
            found = self._records.items()
            return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}

    def place_of(self, owner: str, study: str) -> Place:
        """Return the place of a study's journal."""
        if self._url is not None:
            # Those of the owner without tokens keep their names; no name has a colon.
            name = study if owner == LOCAL else f"{owner}:{study}"
            return Place(self._url, name, lambda note: contextlib.nullcontext(self._storage))
        return place_of(study, str(self._root / "studies" / owner / f"{study}.journal"))


@contextlib.contextmanager
def _in_seconds(storage: BaseStorage) -> Iterator[None]:
    """Raise JournalAway where the journal cannot be written, or does not answer for seconds."""
    try:
        with within(storage, WRITE_S):
            yield
    except RunError as error:
        _log.error("%s", error)
        rule = "the service's journal cannot be written now"
        raise JournalAway(rule, remedy="try again later") from error


@contextlib.contextmanager
def hold_records(
    root: Path,
    url: str | None,
    note: Callable[[str], None],
    *,
    stand_by: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[ServiceJournal | None]:
    """Open the service's records, waiting while another service holds them.

    Args:
        root: the service's folder; its `service.journal` holds the records without a database.
        url: of a database; None for files.
        note: receives messages of the journal for the user.
        stand_by: called once, with the reason, if another service holds the records, which are
            then waited for; None raises.
        stop: ends the wait; None is yielded then.

    Raises:
        JournalInUse: another service holds them, and `stand_by` is None.
        JournalError: the journal cannot be used.
    """
    stop, waiting = stop or threading.Event(), False
    location = url or str(root / "service.journal")
    with contextlib.ExitStack() as stack:
        while not stop.is_set():
            try:
                storage = stack.enter_context(write_journal(location, None, note))
            except JournalInUse as used:
                if stand_by is None:
                    raise
                if not waiting:
                    stand_by(str(used.with_(remedy=None)))
                waiting = True
                stop.wait(_AGAIN_S)
                continue
            yield ServiceJournal(storage, root, url)
            return
        yield None
