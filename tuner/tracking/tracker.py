"""Tracking beside a running search: a thread that copies the journal to MLflow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tuner.coordination.coordinator import Observer, SearchStart
from tuner.jobs import Epoch, Outcome
from tuner.journal.records import StudyRecord
from tuner.journal.storage import TrialKey
from tuner.tracking.layout import Attempt
from tuner.tracking.store import describe_store, explain, open_store
from tuner.tracking.sync import Files, SyncState, all_made, sync_study

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAUSE_S = 1.0  # between two syncs, at least
_LONG_PAUSE_S = 5.0  # at most, while MLflow answers
_SHARE = 0.01  # of a processor's time for copying, unless it takes more every _LONG_PAUSE_S
_LONG_S = 30.0  # that closing takes at most
_SHORT_S = 5.0  # likewise if MLflow does not answer, or the search is interrupted
_LONGEST_PAUSE_S = 60.0  # between two attempts, while MLflow does not answer


def experiment_file(record: StudyRecord) -> Files:
    """Return the artifact of every study: its experiment."""
    return {"experiment.yaml": record.experiment.to_yaml()}


class LiveCurves:
    """The trainings in progress; written by the coordinator's thread, read by the tracker's."""

    def __init__(self) -> None:
        self._attempts: dict[TrialKey, Attempt] = {}

    def began(self, key: TrialKey, time: float) -> None:
        """Add a trial whose training has begun."""
        self._attempts[key] = Attempt(time)

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        """Add an epoch, with its time rounded as in the journal."""
        if (attempt := self._attempts.get(key)) is not None:
            epochs = (*attempt.epochs, replace(epoch, time=round(epoch.time, 3)))
            self._attempts[key] = replace(attempt, epochs=epochs)

    def ended(self, key: TrialKey) -> None:
        """Remove a trial."""
        self._attempts.pop(key, None)

    def snapshot(self) -> Mapping[TrialKey, Attempt]:
        """Return the trainings in progress."""
        return self._attempts.copy()  # in one step: no other thread changes it meanwhile


class MlflowTracker:
    """Copies a study to MLflow while it runs. No method raises, or blocks the search.

    Args:
        read: reads the study from its journal; called in the tracker's thread.
        sync_command: what completes the copy, for warnings.
        warn: called once, in either thread, when MLflow cannot be written to; attempts continue.
            Called at the end if the copy is complete then, and for files that failed.
        artifacts_of: the files of the study's run; called at the beginning and at the end.
        artifacts_at_end_of: more files of it once the study is done.
        before_end: called after the first copy, to import what `artifacts_at_end_of` needs.
    """

    def __init__(
        self,
        read: Callable[[], StudyRecord],
        sync_command: str,
        warn: Callable[[str], None],
        artifacts_of: Callable[[StudyRecord], Files] = experiment_file,
        artifacts_at_end_of: Callable[[StudyRecord], Files] = lambda record: {},
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.live = LiveCurves()
        self._before_end: Callable[[], None] | None = before_end
        self._read, self._sync_command, self._warn = read, sync_command, warn
        self._artifacts_of, self._artifacts_at_end_of = artifacts_of, artifacts_at_end_of
        self._client: MlflowClient | None = None
        self._state = SyncState()
        self._lacking: tuple[str, ...] = ()
        self._news, self._closing = threading.Event(), threading.Event()
        self._done = self._complete = self._failing = self._warned = False
        self._warning = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._news.set()  # the study's run is there from the start
        self._thread.start()

    def wake(self) -> None:
        """Let the thread copy what is new; return at once."""
        self._news.set()

    def close(self, done: bool, timeout_s: float = _LONG_S) -> bool:
        """Copy the rest and the final state, and end the thread; return whether all is copied."""
        if self._closing.is_set():
            self._thread.join(timeout_s)
            return self._complete
        self._done = done
        self._closing.set()
        self._news.set()
        if self._failing or not done:
            timeout_s = min(timeout_s, _SHORT_S)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn_once(f"{describe_store()} takes too long to answer")
        elif self._complete and self._lacking:
            files = "; ".join(self._lacking)
            adds = f"`{self._sync_command}` adds what is lacking once that is mended"
            self._send(f"MLflow has all but {files}; {adds}")
        elif self._complete and self._warned:
            self._send("MLflow answers again, and has all of it")
        return self._complete

    def _run(self) -> None:
        pause_s, closing = 0.0, False
        while not closing:
            self._news.wait()
            self._closing.wait(pause_s)
            self._news.clear()
            closing, begun = self._closing.is_set(), time.monotonic()
            try:
                pause_s = min(max(_PAUSE_S, self._sync(closing) / _SHARE), _LONG_PAUSE_S)
                self._complete, self._failing = closing, False
                self._prepare_end()
            except Exception as error:
                self._failing = True
                self._warn_once(explain(error))
                if self._closing.is_set() and time.monotonic() - begun > _PAUSE_S:
                    return  # it timed out, and would again
                pause_s = min(max(_PAUSE_S, 2 * pause_s), _LONGEST_PAUSE_S)
                self._news.set()  # try again

    def _prepare_end(self) -> None:
        """Do beside the search, once, what its end would wait for."""
        if self._before_end is not None and not self._closing.is_set():
            before_end, self._before_end = self._before_end, None
            with contextlib.suppress(Exception):  # the end says which file lacks it
                before_end()

    def _sync(self, closing: bool) -> float:
        """Copy what is new; return the processor time, in seconds."""
        if self._client is None:
            self._client = open_store()
        live = self.live.snapshot()  # before the journal: trials that end meanwhile have outcomes
        begun = time.thread_time()
        record = self._read()
        artifacts: Files | Callable[[], Files] = {}
        if closing and self._done:
            artifacts = partial(self._all_artifacts_of, record)
        elif closing or self._state.parent is None:
            artifacts = all_made(partial(self._artifacts_of, record))
        count = sync_study(
            self._client,
            record,
            self._state,
            running=not closing,
            done=self._done,
            artifacts=artifacts,
            live={} if closing else live,
        )
        self._lacking = count.lacking
        return time.thread_time() - begun

    def _all_artifacts_of(self, record: StudyRecord) -> Files:
        both = self._artifacts_of, self._artifacts_at_end_of
        return {name: file for of in both for name, file in all_made(partial(of, record)).items()}

    def _warn_once(self, reason: str) -> None:
        with self._warning:
            warned, self._warned = self._warned, True
        copies = f"`{self._sync_command}` completes the copy"
        if not self._closing.is_set():
            copies = f"the search continues, and {copies} later"
        if not warned:
            self._send(f"{reason}; {copies}")

    def _send(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._warn(text)


class TrackingObserver(Observer):
    """Copies a search to MLflow while it runs.

    Args:
        make: makes the tracker from a function that reads the study.
    """

    def __init__(self, make: Callable[[Callable[[], StudyRecord]], MlflowTracker]) -> None:
        self._make = make
        self._tracker: MlflowTracker | None = None  # None before the start
        self.complete = True  # whether the copy was complete at the end; plots may be missing

    def on_start(self, start: SearchStart) -> None:
        self._tracker = self._make(start.read)

    def began(self, key: TrialKey, time: float) -> None:
        if self._tracker:
            self._tracker.live.began(key, time)

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        if self._tracker:
            self._tracker.live.epoch(key, epoch)
            self._tracker.wake()

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        if self._tracker:
            self._tracker.live.ended(key)  # the journal has its curve
            self._tracker.wake()

    def lost(self, key: TrialKey, reason: str) -> None:
        if self._tracker:
            self._tracker.live.ended(key)

    def on_end(self, done: bool) -> None:
        if self._tracker:
            self.complete = self._tracker.close(done)
