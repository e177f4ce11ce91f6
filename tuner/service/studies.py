"""The studies of the service: their names, states and progress, and the records of them."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Container
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tuner.service.access import Owner
from tuner.service.problems import Problem
from tuner.service.records import ServiceJournal

_SPEC, _STATE = "study ", "state "  # keys of records


class State(StrEnum):
    """Where a study of the service stands."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLED = "cancelled"  # by its owner; it can be resumed
    DONE = "done"
    FAILED = "failed"  # with an error; it can be resumed

    @property
    def has_ended(self) -> bool:
        """Whether nothing happens before somebody resumes it."""
        return self in (State.CANCELLED, State.DONE, State.FAILED)


class Kind(StrEnum):
    """Who trains the models of a study."""

    SEARCH = "search"  # workers of the service
    EXTERNAL = "external"  # clients, by ask and tell


@dataclass
class Progress:
    """How far a study is."""

    trained: int = 0  # trials that have ended, without duplicates
    best: dict[str, Any] | None = None  # trial, score, params


@dataclass(frozen=True)
class Facts:
    """What the list of studies shows of a study's specification."""

    experiment: str
    strategy: str
    seed: int
    metric: str
    direction: str  # minimize or maximize
    trials: int | None  # the budget

    @property
    def sign(self) -> int:
        """The factor of a score with which less is better."""
        return -1 if self.direction == "maximize" else 1


@dataclass(eq=False)
class Study:
    """One study of an owner."""

    owner: str
    name: str
    kind: Kind
    number: int  # counts all studies, in the order of submission
    submitted: str  # ISO 8601, UTC
    spec: dict[str, Any]  # what was submitted, and how
    facts: Facts
    state: State = State.QUEUED
    error: str | None = None
    began: str | None = None
    ended: str | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def key(self) -> str:
        """Its place among the records, and in folders."""
        return f"{self.owner}/{self.name}"

    def check_can_cancel(self) -> None:
        """Raise a Problem, 409, if it is done or has failed."""
        if self.state in (State.DONE, State.FAILED):
            raise Problem(409, f"study {self.name!r} is {self.state}: nothing is to cancel")

    def check_can_resume(self) -> None:
        """Raise a Problem, 409, if it is done."""
        if self.state is State.DONE:
            raise Problem(409, f"study {self.name!r} is done; extend it to go on")


def now() -> str:
    """Return the time, ISO 8601, UTC, to the millisecond."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


class Studies:
    """All studies of the service by owner and name. Thread-safe; changes are durable at once.

    Args:
        records: of the service; those of studies are read.
    """

    def __init__(self, records: ServiceJournal) -> None:
        self._records = records
        self._lock = threading.RLock()
        self._studies: dict[tuple[str, str], Study] = {}
        states = records.under(_STATE)
        for key, spec in sorted(records.under(_SPEC).items(), key=lambda item: item[1]["number"]):
            owner, _, name = key.partition("/")
            read = {"kind": Kind(spec["kind"]), "facts": Facts(**spec["facts"])}
            study = Study(owner, name, **spec | read)
            _restore(study, states.get(key, {}))
            self._studies[owner, name] = study
        numbers = [study.number for study in self._studies.values()]
        self._next = max(numbers, default=0) + 1

    def get(self, owner: str, name: str) -> Study:
        """Return a study.

        Raises:
            Problem: 404, the owner has no such study.
        """
        with self._lock:
            found = self._studies.get((owner, name))
        if found is None:
            raise Problem(404, f"no study {name!r}")
        return found

    def find(self, owner: str, name: str) -> Study | None:
        """Return a study, or None."""
        with self._lock:
            return self._studies.get((owner, name))

    def of(self, owner: str) -> list[Study]:
        """Return an owner's studies, newest first."""
        with self._lock:
            own = [study for study in self._studies.values() if study.owner == owner]
        return sorted(own, key=lambda study: -study.number)

    def in_state(self, *states: State, kind: Kind | None = None) -> list[Study]:
        """Return the studies of all owners in some states, oldest first."""
        with self._lock:
            found = [s for s in self._studies.values() if s.state in states]
        return sorted((s for s in found if kind in (None, s.kind)), key=lambda s: s.number)

    def add(self, owner: str, name: str, kind: Kind, spec: dict[str, Any], facts: Facts) -> Study:
        """Add a queued study.

        Raises:
            Problem: 409, the owner has a study of that name.
            RunError: the journal cannot be written.
        """
        with self._lock:
            if (owner, name) in self._studies:
                raise Problem(409, f"there is a study {name!r} already; give another name")
            study = Study(owner, name, kind, self._next, now(), spec, facts)
            self._write_spec(study)
            self._studies[owner, name] = study
            self._next += 1
            return study

    def check_room(self, owner: Owner) -> None:
        """Raise a Problem, 429, if an owner has as many open studies as allowed."""
        n_open = sum(not study.state.has_ended for study in self.of(owner.name))
        if n_open >= owner.limits.studies_queued:
            detail = f"{n_open} studies have not ended, the limit; wait, or cancel one"
            raise Problem(429, detail, headers={"Retry-After": "60"})

    def respecify(self, study: Study, spec: dict[str, Any], facts: Facts) -> None:
        """Change what a study searches with: its budget, say."""
        with self._lock:
            before = study.spec, study.facts
            study.spec, study.facts = spec, facts
            try:
                self._write_spec(study)
            except BaseException:
                study.spec, study.facts = before
                raise

    def change(
        self,
        study: Study,
        state: State,
        error: str | None = None,
        *,
        expected: Container[State] = frozenset(State),
    ) -> bool:
        """Change the state of a study; its progress is recorded with it.

        Args:
            study: is changed.
            state: the new one.
            error: of a study that has failed.
            expected: the states from which it may change; in another one, nothing happens.

        Returns:
            Whether it was changed.

        Raises:
            RunError: the journal cannot be written.
        """
        with self._lock:
            if study.state not in expected:
                return False
            before = study.state, study.error, study.began, study.ended
            study.state, study.error = state, error
            if state is State.RUNNING:
                study.began, study.ended = study.began or now(), None
            elif state.has_ended:
                study.ended = now()
            try:
                self._write_state(study)
            except BaseException:
                study.state, study.error, study.began, study.ended = before
                raise
            return True

    def remove(self, study: Study) -> None:
        """Remove a study from the records."""
        with self._lock:
            self._records.put(_SPEC + study.key, None)
            self._records.put(_STATE + study.key, None)
            self._studies.pop((study.owner, study.name), None)

    def counts(self) -> Counter[tuple[Kind, State]]:
        """Return how many studies of each kind are in each state."""
        with self._lock:
            return Counter((study.kind, study.state) for study in self._studies.values())

    def _write_spec(self, study: Study) -> None:
        keys = ("kind", "number", "submitted", "spec")
        spec = {key: getattr(study, key) for key in keys} | {"facts": asdict(study.facts)}
        self._records.put(_SPEC + study.key, spec)

    def _write_state(self, study: Study) -> None:
        keys = ("state", "error", "began", "ended")
        state = {key: getattr(study, key) for key in keys} | asdict(study.progress)
        self._records.put(_STATE + study.key, state)


def _restore(study: Study, state: dict[str, Any]) -> None:
    """Set what the record of a state holds; a study without one was only submitted."""
    if state:
        study.state, study.error = State(state["state"]), state["error"]
        study.began, study.ended = state["began"], state["ended"]
        study.progress = Progress(state["trained"], state["best"])
