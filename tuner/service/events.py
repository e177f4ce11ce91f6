"""The events of a study: a log on disk, readers that wait for it, and the reporter that writes it.

A log has one event a line, as JSON. The id of an event is the offset of the end of its line, so a
reader goes on from an id without a search. Logs are appended from the threads of studies, and read
from the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from fastapi.sse import format_sse_event

from tuner.errors import Interrupted, RunError
from tuner.jobs import Epoch, Outcome
from tuner.journal.storage import TrialKey
from tuner.progress.reporters import EventWriter, to_json
from tuner.service.hiding import for_clients

_BATCH = 64 * 1024  # bytes that a reader gets at a time
_TAIL = 4096  # bytes at the end of a log that are read for its last event
_BATCHES = 32  # that are kept, of all logs, because many readers want the same

# Seconds between two batches of a log, so that many readers of a busy study cost it little.
_PAUSE_S, _PAUSE_PER_READER_S, _MOST_PAUSE_S = 0.02, 0.0004, 0.1

_EVENT = re.compile(rb'\{"event":"(\w+)","time":[^,}]*,?(.*)\}', re.DOTALL)  # its name, the facts
_TRIAL = re.compile(
    rb'"role":"(\w+)","trial":(\d+)(?:,"(?:configuration|repeat)":(?:\d+|null))*(?:,"epoch":(\d+))?'
)
_TRAINED = re.compile(rb'"trained":\d+')


@dataclass(frozen=True)
class Batch:
    """Consecutive events of a log."""

    after: int
    """The id before the first event."""

    lines: bytes
    """The events, each a line of JSON."""

    @property
    def end(self) -> int:
        """The id of the last event; `after` if there is none."""
        return self.after + len(self.lines)

    @cached_property
    def frames(self) -> bytes:
        """The events as server-sent events: each with its id, its name, and itself as data."""
        at, frames = self.after, []
        for line in self.lines.splitlines(keepends=True):
            at += len(line)
            text = line[:-1].decode()
            frames.append(format_sse_event(data_str=text, event=_name_of(line), id=str(at)))
        return b"".join(frames)


class EventLog:
    """The events of one study.

    Threads may append at any time. `wait` and `visible` belong to the event loop.

    Args:
        path: of the file, which the first event creates. A last line without an end, left by a
            process that was killed, is cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # held while a line is written; never by the loop
        self._file: int | None = None
        self.end, self._last = _repair(path)
        self.visible = self.end
        """The id up to which readers are served: it follows `end` in steps."""
        self.closed = False
        """Whether readers must leave."""
        self._removed = False  # whether what is still written is dropped
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._step_due = False  # a step is on its way
        self._stepped = 0.0  # when the last one was, by the clock of the loop

    @property
    def ended(self) -> bool:
        """Whether the newest event is `ended`."""
        return self._last == "ended"

    def append(self, event: Mapping[str, Any]) -> int:
        """Write an event and return its id; the file has it when this returns, not yet the disk.

        Raises:
            RunError: it cannot be written. The log is as before.
        """
        line = _encoded(event)
        with self._lock:
            if self._removed:
                return self.end
            self._write(line)
            self._last = str(event["event"])
            self.end = end = self.end + len(line)
        if self._waiting and not self._step_due:
            self._step_due = True
            self._call(self._step)
        return end

    def position(self, after: int) -> int:
        """Return `after` if it is the id of an event of this log, else 0: the beginning."""
        if not 0 < after <= self.end:
            return 0
        try:
            with self.path.open("rb") as file:
                file.seek(after - 1)
                return after if file.read(1) == b"\n" else 0
        except FileNotFoundError:
            return 0

    def read(self, after: int) -> Batch:
        """Return the visible events after an id, some at a time; empty where there are none.

        Args:
            after: an id of this log, or 0.
        """
        if after < self.visible:
            with contextlib.suppress(FileNotFoundError):  # it has just been removed
                return _read(self, after, self.visible)
        return Batch(after, b"")

    async def wait(self, after: int) -> None:
        """Return once there is a visible event after an id, or the readers must leave."""
        if self.visible > after or self.closed:
            return
        self._loop = asyncio.get_running_loop()
        woken = self._loop.create_future()
        self._waiting.add(woken)
        try:
            if self.end > self.visible and not self._step_due:  # nobody waited when it came
                self._step_due = True
                self._step()
            await woken
        finally:
            self._waiting.discard(woken)

    def leave(self) -> None:
        """Make all readers leave, from any thread."""
        self.closed = True
        self._call(self._wake)

    def close(self) -> None:
        """Close the file; a further event opens it again."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def remove(self) -> None:
        """Make all readers leave, and delete the file."""
        self.leave()
        self.close()
        with self._lock:
            self._removed = True
            self.path.unlink(missing_ok=True)

    def lines(self) -> list[bytes]:
        """Return all events, each a line of JSON."""
        with contextlib.suppress(FileNotFoundError):
            return self.path.read_bytes().splitlines()
        return []

    def _write(self, line: bytes) -> None:
        try:
            if self._file is None:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._file = os.open(self.path, flags, 0o600)
            n_written = os.write(self._file, line)
            while n_written < len(line):
                n_written += os.write(self._file, line[n_written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, self.end)
            rule = f"the events cannot be written: {error.strerror or error}"
            raise RunError(rule, remedy="make room on the server's disk, then resume") from None

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(function)

    def _step(self) -> None:
        """Make new events visible, not too soon after those before."""
        assert self._loop is not None
        now, n_readers = self._loop.time(), len(self._waiting)
        due = self._stepped + min(_MOST_PAUSE_S, _PAUSE_S + n_readers * _PAUSE_PER_READER_S)
        if now < due:
            self._loop.call_at(due, self._step)
            return
        self._stepped, self._step_due = now, False
        self.visible = self.end
        self._wake()

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)


class EventLogs:
    """The logs of all studies.

    Args:
        root: the folder of the files `OWNER/STUDY.jsonl`.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, threading.Lock()
        self._logs: dict[tuple[str, str], EventLog] = {}
        self._closed = False

    def of(self, owner: str, study: str) -> EventLog:
        """Return the log of a study."""
        with self._lock:
            log = self._logs.get((owner, study))
            if log is None:
                log = EventLog(self._root / owner / f"{study}.jsonl")
                log.closed = self._closed
                self._logs[owner, study] = log
            return log

    def remove(self, owner: str, study: str) -> None:
        """Delete the log of a study; its readers leave."""
        log = self.of(owner, study)
        log.remove()
        with self._lock:  # only now, or a reader would open what is being removed
            self._logs.pop((owner, study), None)

    def end_streams(self) -> None:
        """Make the readers of all logs leave, now and later, from any thread."""
        with self._lock:
            self._closed = True
            logs = list(self._logs.values())
        for log in logs:
            log.leave()

    def close(self) -> None:
        """Make all readers leave, and close the files."""
        self.end_streams()
        for log in list(self._logs.values()):
            log.close()


class EventReporter(EventWriter):
    """Writes the events of one run of a study to its log.

    If the service died during the run, the log has its beginning. What the log has is not written
    again: a trial that is trained again adds the epochs that are missing. After `ended`, a new run
    begins with `begun`.

    Args:
        log: of the study. Nobody else writes to it during the run.
        root: the service's folder; see `for_clients`.
        clock: returns seconds since 1970.
    """

    def __init__(
        self, log: EventLog, root: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(clock)
        self._log, self._root = log, root

    @cached_property
    def _seen(self) -> _Seen:
        return _Seen(self._log.lines())

    def write(self, event: dict[str, Any]) -> None:
        if event["event"] == "begun":
            event["journal"] = None  # it is a place of the server
        if event["event"] == "ended" or not self._seen.has(event):
            self._log.append(event)

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        if earlier and (n_epochs := self._seen.epochs_in_progress(key)) is not None:
            earlier = False  # it ended in this run; the service died before the event
            for epoch in outcome.history[n_epochs:]:
                self.epoch(key, epoch)
        super().finished(key, outcome, earlier)

    def note(self, text: str) -> None:
        super().note(for_clients(text, self._root))

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """Write how the study ended, also if it never began."""
        self._begun = True
        super().ended(state, reason and for_clients(reason, self._root), exit_status)
        self._log.close()

    def cancelled(self) -> None:
        """Write that the owner has cancelled the study."""
        self.ended("interrupted", "cancelled", Interrupted.exit_status)


class ExternalReporter(EventReporter):
    """Writes the events of an external study: of a step, its value alone is known."""

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        self._trial("epoch", key, epoch=epoch.epoch + 1, value=epoch.metric)


@dataclass
class _Training:
    """What a log has of a trial."""

    asked: int = 0  # the hash of the event
    dispatched: bool = False
    epochs: int = 0
    finished: bool = False


class _Seen:
    """What a log has of a run that was cut off, and of the trials of all runs.

    Args:
        lines: all events of the log.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._trials: dict[tuple[bytes, int], _Training] = {}
        self._facts: dict[bytes, set[int]] = {}  # of the run, by event: hashes of the others
        for line in lines:
            if match := _EVENT.match(line):
                self._add(*match.groups())

    def has(self, event: Mapping[str, Any]) -> bool:
        """Return whether the log has an event; each is asked about once, in order."""
        known = self._trials if "role" in event else self._facts.get(event["event"].encode())
        match = _EVENT.match(_encoded(event)) if known else None
        if match is None:
            return False
        name, facts = match.groups()
        if "role" in event:
            return self._has_of_trial(name, facts)
        return _hash(name, facts) in self._facts[name]

    def epochs_in_progress(self, key: TrialKey) -> int | None:
        """Return how many epochs the log has of a trial that it has not seen end, or None."""
        trial = self._trials.get((key.role.value.encode(), key.number))
        return trial.epochs if trial and trial.dispatched and not trial.finished else None

    def _add(self, name: bytes, facts: bytes) -> None:
        if (of_trial := _TRIAL.match(facts)) is None:
            if name == b"ended":
                self._facts.clear()
                for trial in self._trials.values():
                    trial.dispatched, trial.epochs = trial.finished, 0
            else:
                self._facts.setdefault(name, set()).add(_hash(name, facts))
            return
        role, number, epoch = of_trial.groups()
        trial = self._trials.setdefault((role, int(number)), _Training())
        match name:
            case b"asked":
                trial.asked = _hash(name, facts)
            case b"dispatched":
                trial.dispatched = True
            case b"epoch":
                trial.epochs = int(epoch)
            case b"finished":
                trial.finished = True
            case b"lost":
                trial.dispatched, trial.epochs = False, 0

    def _has_of_trial(self, name: bytes, facts: bytes) -> bool:
        of_trial = _TRIAL.match(facts)
        assert of_trial is not None
        role, number, epoch = of_trial.groups()
        key = role, int(number)
        if (trial := self._trials.get(key)) is None:
            return False
        match name:
            case b"asked" if trial.asked == _hash(name, facts):
                return True
            case b"dispatched":
                return trial.dispatched
            case b"epoch":
                return int(epoch) <= trial.epochs
            case b"finished" if trial.finished:
                del self._trials[key]
                return True
        del self._trials[key]  # what follows is new
        return False


def _hash(name: bytes, facts: bytes) -> int:
    return hash(_TRAINED.sub(b"", facts) if name == b"begun" else facts)


def _encoded(event: Mapping[str, Any]) -> bytes:
    return to_json(event).encode() + b"\n"


def _name_of(line: bytes) -> str:
    match = _EVENT.match(line)
    assert match is not None
    return match[1].decode()


@lru_cache(maxsize=_BATCHES)
def _read(log: EventLog, after: int, until: int) -> Batch:
    with log.path.open("rb") as file:
        file.seek(after)
        lines = file.read(min(_BATCH, until - after))
        if not lines.endswith(b"\n"):  # the last line goes on
            lines += file.readline()
    return Batch(after, lines)


def _repair(path: Path) -> tuple[int, str | None]:
    """Cut off an unfinished last line; return the size, and the name of the last event."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return 0, None
    with file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while len(tail) < end and tail.count(b"\n") < 2:  # the last whole line is in it
            n = min(end, max(_TAIL, 2 * len(tail)))
            file.seek(end - n)
            tail = file.read(n)
        whole, _, torn = tail.rpartition(b"\n")
        if torn:
            end -= len(torn)
            file.truncate(end)
        last = whole.rpartition(b"\n")[2]
    match = _EVENT.match(last)
    return end, match[1].decode() if match else None
