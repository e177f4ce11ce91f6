"""Tracking beside a running search: a thread that copies what the journal says to MLflow."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from tuner.search.records import StudyRecord
from tuner.tracking.live import LiveCurves
from tuner.tracking.state import SyncState
from tuner.tracking.store import explain, open_store
from tuner.tracking.sync import sync_study

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["MlflowTracker", "NullTracker", "Tracker", "experiment_file"]

Files = Mapping[str, str | bytes]
"""Texts and pictures by file name."""

_PAUSE_S = 1.0  # between two syncs, at least
_READING_SHARE = 0.1  # of the thread's time, at most: reading the journal holds up the search
_SHORT_S = 10.0  # that closing takes at most where nothing good is to be expected
_LONGEST_PAUSE_S = 60.0  # between two attempts where MLflow does not answer


class Tracker(abc.ABC):
    """Follows a search from beside it. No method ever raises, or blocks the search."""

    def __init__(self) -> None:
        self.live = LiveCurves()

    @abc.abstractmethod
    def wake(self) -> None:
        """Say that the journal has something new."""

    @abc.abstractmethod
    def close(self, done: bool, timeout_s: float = 60) -> bool:
        """Copy what is left and end.

        Args:
            done: whether the study came to its end.
            timeout_s: how long to wait for it.

        Returns:
            Whether the copy is complete.
        """


class NullTracker(Tracker):
    """Tracks nothing."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self, done: bool, timeout_s: float = 60) -> bool:
        """Have nothing left to do."""
        return True


def experiment_file(record: StudyRecord) -> dict[str, str | bytes]:
    """Return the artifact that every study has: its experiment as it was understood."""
    return {"experiment.yaml": record.experiment.to_yaml()}


class MlflowTracker(Tracker):
    """Copies a study to MLflow while it runs.

    Args:
        read: reads the study from its journal; called in the tracker's thread.
        study: its name, for the warning.
        warn: is told once, in the tracker's thread, when MLflow cannot be written to. The search
            goes on, and so do the attempts.
        artifacts_of: the files that the study's run holds; called at the beginning and at the end.
        artifacts_at_end_of: those that it holds besides once the study is done.
    """

    def __init__(
        self,
        read: Callable[[], StudyRecord],
        study: str,
        warn: Callable[[str], None],
        artifacts_of: Callable[[StudyRecord], Files] = experiment_file,
        artifacts_at_end_of: Callable[[StudyRecord], Files] = lambda record: {},
    ) -> None:
        super().__init__()
        self._read, self._study, self._warn = read, study, warn
        self._artifacts_of, self._artifacts_at_end_of = artifacts_of, artifacts_at_end_of
        self._client: MlflowClient | None = None
        self._state = SyncState()
        self._news, self._closing = threading.Event(), threading.Event()
        self._done = self._complete = self._warned = False
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._news.set()  # the study's run is there from the start
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether all that the journal says was in MLflow when this was closed."""
        return self._complete

    def wake(self) -> None:
        """Have the thread copy what is new; returns at once."""
        self._news.set()

    def close(self, done: bool, timeout_s: float = 60) -> bool:
        """Copy what is left, say in MLflow how the study ended, and end the thread."""
        if not self._closing.is_set():
            self._done = done
            self._closing.set()
            self._news.set()
        if self._warned or not done:  # who waits for a store that does not answer, or to stop?
            timeout_s = min(timeout_s, _SHORT_S)
        self._thread.join(timeout_s)
        return self._complete

    def _run(self) -> None:
        pause_s, closing = 0.0, False
        while not closing:
            self._news.wait()
            self._closing.wait(pause_s)
            self._news.clear()
            closing = self._closing.is_set()
            try:
                pause_s = max(_PAUSE_S, self._sync(closing) / _READING_SHARE)
                self._complete = closing
            except Exception as error:
                self._report(error)
                pause_s = min(max(_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S)
                self._news.set()  # try again, whether or not there is more to copy

    def _sync(self, closing: bool) -> float:
        """Copy what is new; return how long reading it took."""
        if self._client is None:
            self._client = open_store()
        live = self.live.snapshot()  # before the journal: what ends in between has its outcome
        begun = time.monotonic()
        record = self._read()
        reading_s = time.monotonic() - begun
        artifacts: dict[str, str | bytes] = {}
        if closing or self._state.parent is None:
            artifacts |= self._artifacts_of(record)
        if closing and self._done:
            artifacts |= self._artifacts_at_end_of(record)
        sync_study(
            self._client,
            record,
            self._state,
            running=not closing,
            done=self._done,
            artifacts=artifacts,
            live={} if closing else live,
        )
        return reading_s

    def _report(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                f"{explain(error)}; the search goes on, and `tuner sync {self._study}` "
                f"completes the copy later"
            )
