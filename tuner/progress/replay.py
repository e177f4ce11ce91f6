"""Events of a search elsewhere, as JSON objects, on the reporters of a search here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tuner.coordination.coordinator import Asked, SearchStart
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.journal.storage import Role, TrialKey
from tuner.progress.reporters import Reporter


class EventClock:
    """The time where the events come from: that of the newest event, and what passed since.

    With it, durations are right whatever the clock here shows, and also for events of long ago.

    Args:
        now: the time there, seconds since 1970.
    """

    def __init__(self, now: float) -> None:
        self.set(now)

    def set(self, now: float) -> None:
        """Set the time to that of an event."""
        self._set = now, time.monotonic()

    def __call__(self) -> float:
        """Return the time there, seconds since 1970."""
        now, since = self._set
        return now + time.monotonic() - since


def newest_run(
    events: Iterable[dict[str, Any]], after: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the events of a log as a single run would have sent them.

    A log goes on when a search is resumed. Each run then sends what was finished before, marked
    `earlier`, as a search here does.

    Args:
        events: of a whole log, each with the key `event_id`.
        after: id of the event before the run of interest: earlier events are not yielded.

    Yields:
        Events without `event_id`: one that is sent again has no place in the log.
    """
    past, is_past = _Past(), after is not None
    for event in events:
        if event["event"] == "begun":
            past.repeat()
        if past.knows(event):
            continue
        if not is_past:
            yield from map(_without_id, [*past.due_before(event), event])
        past.add(event)
        is_past = is_past and event["event_id"] != after


def _without_id(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "event_id"}


_Training = tuple[Role, int]


class _Past:
    """What a log has of trials that are finished, and what of it a further run has not sent."""

    def __init__(self) -> None:
        self._asked: dict[_Training, dict[str, Any]] = {}
        self._finished: dict[_Training, dict[str, Any]] = {}
        self._due: list[_Training] = []

    def add(self, event: dict[str, Any]) -> None:
        if event["event"] == "asked":
            self._asked[_training(event)] = event
        elif event["event"] == "finished":
            self._finished[_training(event)] = event

    def knows(self, event: dict[str, Any]) -> bool:
        """Return whether an event only repeats that a trial was finished before."""
        return (
            event["event"] == "finished" and event["earlier"] and _training(event) in self._finished
        )

    def repeat(self) -> None:
        """Let a further run begin: all that is finished is due."""
        self._due = sorted(self._finished, key=lambda key: (key[0] is not Role.TRIAL, key[1]))

    def due_before(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the due events of the stage of an event: those of trials, or all."""
        if "role" in event:
            of_trials = event["role"] == Role.TRIAL
        elif event["event"] in ("result", "ended"):
            of_trials = False
        else:
            return []
        stage = [key for key in self._due if not of_trials or key[0] is Role.TRIAL]
        self._due = [key for key in self._due if key not in stage]
        now, found = {"time": event["time"]}, list[dict[str, Any]]()
        for key in stage:
            found += [self._asked[key] | now] if key in self._asked else []
            found.append(self._finished[key] | now | {"earlier": True})
        return found


def _training(event: Mapping[str, Any]) -> _Training:
    return Role(event["role"]), event["trial"]


class Replay:
    """Turns the objects that `EventWriter` makes back into the calls of a reporter.

    Args:
        reporter: shows the search; its clocks should be `clock`.
        clock: is set to the time of each event.
        read: reads the record of the study.
        at_start: returns further notes when the search begins; later runs in the log do not
            repeat them.
        muted_until: a time there: earlier events are counted, and print nothing.
    """

    def __init__(
        self,
        reporter: Reporter,
        clock: EventClock,
        read: Callable[[], StudyRecord],
        at_start: Callable[[StudyRecord], Iterable[str]] = lambda record: (),
        muted_until: float = 0.0,
    ) -> None:
        self._reporter, self._clock, self._read = reporter, clock, read
        self._at_start, self._muted_until = at_start, muted_until
        self._epochs: dict[TrialKey, list[Epoch]] = {}
        self._outcomes: dict[TrialKey, Outcome] = {}  # in the journal when the search began
        self._has_begun = False

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event; `result` and `ended` show nothing, nor does one of an unknown name."""
        self._reporter.muted = event["time"] < self._muted_until
        self._clock.set(event["time"])
        name = event["event"]
        if name == "begun":
            self._begin(event)
        elif name == "note":
            self._reporter.note(event["text"])
        elif self._has_begun and name in _OF_TRIALS:
            _OF_TRIALS[name](self, _key(event), event)
        self._reporter.muted = False

    def _begin(self, event: Mapping[str, Any]) -> None:
        record, is_first = self._read(), not self._has_begun
        self._has_begun = True
        trainings = (*record.trials, *record.finalists)
        self._outcomes = {t.key: t.outcome for t in trainings if t.outcome is not None}
        self._epochs.clear()
        start = SearchStart(record, self._read, "", event["workers"], event["executor"])
        self._reporter.on_start(start)
        self._reporter.muted = False
        for text in self._at_start(record) if is_first else ():
            self._reporter.note(text)

    def _asked(self, key: TrialKey, event: Mapping[str, Any]) -> None:
        self._reporter.asked(Asked(key, event["repeat_of"], event["params"]))

    def _dispatched(self, key: TrialKey, event: Mapping[str, Any]) -> None:
        self._epochs.pop(key, None)  # of an attempt that was lost
        self._reporter.dispatched(key, event["cost"])

    def _epoch(self, key: TrialKey, event: Mapping[str, Any]) -> None:
        epoch = Epoch(
            epoch=event["epoch"] - 1,
            train_loss=_number(event["train_loss"]),
            val_loss=_number(event["val_loss"]),
            metric=_number(event["value"]),
            time=event["time"],
            fold=event["fold"],
        )
        self._epochs.setdefault(key, []).append(epoch)
        self._reporter.epoch(key, epoch)

    def _finished(self, key: TrialKey, event: Mapping[str, Any]) -> None:
        history = self._epochs.pop(key, [])
        if not history and key in self._outcomes:
            history = list(self._outcomes[key].history)
        outcome = Outcome(
            state=OutcomeState(event["state"]),
            objective=event["value"],
            history=tuple(history),
            reason=event["reason"],
            seconds=event["seconds"],
            finished_at=event["time"],
            n_weights=event["weights"],
            latency_ms=event["latency_ms"],
        )
        self._reporter.finished(key, outcome, event["earlier"])

    def _lost(self, key: TrialKey, event: Mapping[str, Any]) -> None:
        self._reporter.lost(key, event["reason"])


_OF_TRIALS: Mapping[str, Callable[[Replay, TrialKey, Mapping[str, Any]], None]] = {
    "asked": Replay._asked,
    "dispatched": Replay._dispatched,
    "epoch": Replay._epoch,
    "finished": Replay._finished,
    "lost": Replay._lost,
}


def _key(event: Mapping[str, Any]) -> TrialKey:
    role, configuration = Role(event["role"]), event.get("configuration")
    return TrialKey(role, event["trial"], configuration, event.get("repeat"))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
