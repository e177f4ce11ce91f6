"""The studies of the service: their names, states and progress, and the records of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from tuner.errors import JournalAway, near_miss
from tuner.experiment import space_size
from tuner.experiment.external import ExternalSpec
from tuner.service.access import Owner
from tuner.service.problems import Problem
from tuner.service.records import WRITE_S, ServiceJournal

_SILENT_S = 90.0  # without a client; one that waits for a trial comes every minute
_SPEC, _STATE, _DELETED = "study ", "state ", "deleted "  # keys of records
_NAMES = 500  # of an owner's newest studies, among which a misspelt one is looked for


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
    best: dict[str, Any] | None = None  # trial (None: the untuned default), score, params
    is_old: bool = False
    """Whether it was recorded with the state, and trials may have ended since."""


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
    submissions: list[str] = field(default_factory=list)  # digests of all its specifications
    deleting: bool = False  # whether it goes: nothing changes it any more
    heard: float = field(default_factory=time.time)
    """When a client of an external study came last, or the service began to know the study."""

    @property
    def key(self) -> str:
        """Its place among the records, and in folders."""
        return f"{self.owner}/{self.name}"

    def was_submitted(self, spec: Mapping[str, Any]) -> bool:
        """Return whether the study has, or had before it was extended, a specification."""
        return _digest(spec) in self.submissions

    def waits_for_clients(self, now: float) -> str | None:
        """Return that an external study runs and no client comes, and since when; else None."""
        if self.kind is not Kind.EXTERNAL or self.state is not State.RUNNING:
            return None
        if now - self.heard <= max(_SILENT_S, self.spec["lease_s"]):
            return None
        since = dt.datetime.fromtimestamp(self.heard, dt.UTC)
        return f"waits for clients: none has come since {since:%Y-%m-%d %H:%M} UTC"

    @property
    def exhausted(self) -> str | None:
        """That all of an external study's space is tried, and no budget adds a trial; else None."""
        if self.kind is not Kind.EXTERNAL or self.state is not State.DONE:
            return None
        return self.exhausted_by(self.progress.trained)

    def exhausted_by(self, trained: int) -> str | None:
        """Return that an external study's space has no more configurations than were trained."""
        n = self._n_configurations
        if n is None or trained < n:
            return None
        return f"the space has only {n} configuration{'s' * (n != 1)}, and all were tried"

    @cached_property  # an extension changes neither
    def _n_configurations(self) -> int | None:
        """How many trials an external study can have; None where there is no end."""
        spec = ExternalSpec.model_validate(self.spec)
        return space_size(spec.space) if spec.distinct else None

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

    Readers never wait for the disk: what they see changes once it is written.

    Args:
        records: of the service; those of studies are read.
    """

    def __init__(self, records: ServiceJournal) -> None:
        self._records = records
        self._writing = threading.RLock()  # taken before any other lock
        self._lock = threading.Lock()  # of what readers see; never held over a write
        self._studies: dict[tuple[str, str], Study] = {}
        states, deleted = records.under(_STATE), records.under(_DELETED)
        for key, spec in sorted(records.under(_SPEC).items(), key=lambda item: item[1]["number"]):
            owner, _, name = key.partition("/")
            read = {"kind": Kind(spec["kind"]), "facts": Facts(**spec["facts"])}
            study = Study(owner, name, **spec | read)
            study.submissions = study.submissions or [_digest(study.spec)]
            study.deleting = key in deleted
            _restore(study, states.get(key, {}))
            self._studies[owner, name] = study
        for key in deleted.keys() - {study.key for study in self._studies.values()}:
            self._remove_records(key)
        numbers = [study.number for study in self._studies.values()]
        self._next = max(numbers, default=0) + 1

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Keep all others from changing studies, from a check to the change that it allows.

        It waits for the disk, so nothing in the event loop may enter it.

        Raises:
            JournalAway: what another thread writes has not been written for seconds.
        """
        if not self._writing.acquire(timeout=WRITE_S):
            rule = f"another change has waited for the journal for {WRITE_S:g} s"
            raise JournalAway(rule, remedy="try again")
        try:
            yield
        finally:
            self._writing.release()

    def get(self, owner: str, name: str) -> Study:
        """Return a study.

        Raises:
            Problem: 404, the owner has no such study.
        """
        if (found := self.find(owner, name)) is not None:
            return found
        near = near_miss(name, [study.name for study in self.of(owner)[:_NAMES]])
        meant = "" if near is None else f"; did you mean {near!r}?"
        raise Problem(404, f"no study {name!r}{meant}")

    def get_at_once(self, owner: str, name: str) -> Study:
        """Return a study as `get` does; the event loop has no time to look for similar names."""
        if (found := self.find(owner, name)) is None:
            raise Problem(404, f"no study {name!r}")
        return found

    def find(self, owner: str, name: str) -> Study | None:
        """Return a study, or None."""
        with self._lock:
            return self._studies.get((owner, name))

    def check_is_there(self, study: Study) -> None:
        """Raise a Problem, 404, if a study has been removed."""
        if self.find(study.owner, study.name) is not study:
            raise Problem(404, f"no study {study.name!r}")

    def check_stays(self, study: Study) -> None:
        """Raise a Problem, 404 or 409, if a study has been removed or is being deleted."""
        self.check_is_there(study)
        if study.deleting:
            raise Problem(409, f"study {study.name!r} is being deleted; delete it again")

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

    def half_deleted(self) -> list[Study]:
        """Return the studies whose deletion has begun."""
        with self._lock:
            return [study for study in self._studies.values() if study.deleting]

    def add(self, owner: str, name: str, kind: Kind, spec: dict[str, Any], facts: Facts) -> Study:
        """Add a queued study.

        Raises:
            Problem: 409, the owner has a study of that name.
            RunError: the journal cannot be written.
        """
        with self.changing():
            if (owner, name) in self._studies:
                raise Problem(409, f"there is a study {name!r} already; give another name")
            study = Study(owner, name, kind, self._next, now(), spec, facts)
            study.submissions.append(_digest(spec))
            self._write_spec(study, spec, facts, study.submissions)
            with self._lock:
                self._studies[owner, name] = study
            self._next += 1
            return study

    def check_room(self, owner: Owner, study: Study | None = None) -> None:
        """Raise a Problem, 429, if an owner has as many open studies as allowed.

        Args:
            owner: would have one more.
            study: goes on; None: it is new. One that has not ended is among the open ones already.
        """
        if study is not None and not study.state.has_ended:
            return
        n_open = sum(not study.state.has_ended for study in self.of(owner.name))
        if n_open >= owner.limits.studies_queued:
            detail = f"{n_open} studies have not ended, the limit; wait, or cancel one"
            raise Problem(429, detail, headers={"Retry-After": "60"})

    def respecify(self, study: Study, spec: dict[str, Any], facts: Facts) -> None:
        """Change what a study searches with: its budget, say.

        Raises:
            Problem: 404 or 409, it is deleted.
            RunError: the journal cannot be written; nothing has changed.
        """
        with self.changing():
            self.check_stays(study)
            submissions = list(dict.fromkeys([*study.submissions, _digest(spec)]))
            self._write_spec(study, spec, facts, submissions)
            with self._lock:
                study.spec, study.facts, study.submissions = spec, facts, submissions

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
            Problem: 404 or 409, it is deleted.
            RunError: the journal cannot be written; nothing has changed.
        """
        with self.changing():
            if study.state not in expected:
                return False
            self.check_stays(study)
            began, ended = study.began, study.ended
            if state is State.RUNNING:
                began, ended = began or now(), None
            elif state.has_ended:
                ended = now()
            new = {"state": state, "error": error, "began": began, "ended": ended}
            progress = {"trained": study.progress.trained, "best": study.progress.best}
            self._records.put(_STATE + study.key, new | progress)
            with self._lock:
                vars(study).update(new)
            return True

    def begin_removal(self, study: Study) -> None:
        """Note that a study goes: nothing changes it any more, and its name stays taken.

        What is on the disk of it can be removed then, and its records at last. Where that does
        not come to an end, the next start of the service finds the study in `half_deleted`.

        Raises:
            Problem: 404, it is gone; 409, it has not ended.
            RunError: the journal cannot be written; nothing has changed.
        """
        with self.changing():
            self.check_is_there(study)
            if not study.state.has_ended:
                raise Problem(409, f"study {study.name!r} is {study.state}; cancel it first")
            if not study.deleting:
                self._records.put(_DELETED + study.key, True)
                study.deleting = True

    def remove(self, study: Study) -> None:
        """Remove the records of a study, after all else of it."""
        with self.changing():
            self._remove_records(study.key)
            with self._lock:
                del self._studies[study.owner, study.name]

    def counts(self) -> Counter[tuple[Kind, State]]:
        """Return how many studies of each kind are in each state."""
        with self._lock:
            return Counter((study.kind, study.state) for study in self._studies.values())

    def _write_spec(
        self, study: Study, spec: dict[str, Any], facts: Facts, submissions: list[str]
    ) -> None:
        kept = {key: getattr(study, key) for key in ("kind", "number", "submitted")}
        changed = {"spec": spec, "facts": asdict(facts), "submissions": submissions}
        self._records.put(_SPEC + study.key, kept | changed)

    def _remove_records(self, key: str) -> None:
        """Remove the records of a study, last the one by which the next start goes on."""
        for kind in (_SPEC, _STATE, _DELETED):
            self._records.put(kind + key, None)


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _restore(study: Study, state: dict[str, Any]) -> None:
    """Set what the record of a state holds; a study without one was only submitted."""
    if state:
        study.state, study.error = State(state["state"]), state["error"]
        study.began, study.ended = state["began"], state["ended"]
        is_old = study.state is not State.DONE
        study.progress = Progress(state["trained"], state["best"], is_old)
