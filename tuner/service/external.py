"""External studies: clients ask and tell, and the models train elsewhere.

Each open study has a thread, which alone touches its journal. It drains a queue of requests, waits
for the disk once for all of them, and only then answers. So many clients share a wait, and no
request holds a thread.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from optuna.storages import BaseStorage

from tuner.coordination.ask_tell import AskTell
from tuner.coordination.coordinator import HeldObservers, Observer
from tuner.coordination.leases import Lease, LeaseConflict
from tuner.errors import InputError, TunerError
from tuner.experiment import flat
from tuner.experiment.external import ExternalSpec
from tuner.journal.external import ExternalRecord
from tuner.journal.storage import group_commit, within
from tuner.service.access import Owner
from tuner.service.connections import allow_open_files
from tuner.service.events import EventLogs, EventReporter, ExternalReporter
from tuner.service.external_limits import make_room, most_open
from tuner.service.external_problems import (
    check_not_exhausted,
    is_cancelled,
    is_done,
    new_budget,
    problem_of,
    still_writes,
)
from tuner.service.problems import Problem, unexpected
from tuner.service.records import WRITE_S, ServiceJournal
from tuner.service.settings import Limits, Settings
from tuner.service.studies import Facts, Kind, State, Studies, Study
from tuner.service.trial_table import TrialTable, TrialTables

_IDLE_S = 120.0  # without a request, after which a study is closed
_GROUP_S = 0.02  # of work, after which a group of requests waits for the disk
_CLOSE_S = 10.0  # for a study that writes, before it is changed
_OPEN = (State.QUEUED, State.RUNNING)
_log = logging.getLogger("tuner.service")


@dataclass(eq=False)
class _Request:
    """What a client wants of a study, and where the answer goes."""

    do: Callable[[AskTell], Any]
    answer: Future[Any] = field(default_factory=Future)
    until: float | None = None  # how long it may wait for an answer that is not empty
    undo: Callable[[AskTell, Any], None] | None = None  # of a result that nobody takes


class ExternalStudies:
    """The external studies of all owners.

    Args:
        studies: the index of studies.
        records: opens the journals.
        events: the logs of events.
        tables: the rows of trials.
        settings: of the service.
        limits_of: returns the limits of an owner.
        idle_s: seconds without a request, after which a study is closed.
    """

    def __init__(
        self,
        studies: Studies,
        records: ServiceJournal,
        events: EventLogs,
        tables: TrialTables,
        settings: Settings,
        limits_of: Callable[[str], Limits],
        *,
        idle_s: float = _IDLE_S,
    ) -> None:
        self.studies, self.records, self.events, self.tables = studies, records, events, tables
        self.settings, self.idle_s, self._limits_of = settings, idle_s, limits_of
        self._most_open = most_open(allow_open_files())
        self._lock = threading.RLock()
        self._open: dict[Study, _OpenStudy] = {}
        self._changing: WeakKeyDictionary[Study, threading.Lock] = WeakKeyDictionary()
        self.expiries: WeakKeyDictionary[Study, dict[str, float]] = WeakKeyDictionary()
        """When the leases of closed studies expire, by study and id."""
        self.since = time.time()
        """When the service started: a lease from before lasts a whole time from then."""
        self._stopping = False

    def create(self, owner: Owner, values: Mapping[str, Any]) -> tuple[Study, bool]:
        """Create a study, or return the one of this name if it is the same.

        Args:
            owner: whose study it is.
            values: see `ExternalSpec`. Without `trials` the budget is the owner's limit.

        Returns:
            The study, and whether it is new.

        Raises:
            ExperimentError: a value breaks a rule.
            Problem: 409, the name belongs to another study; 422, too many trials; 429, too many
                studies are open.
            RunError: the journal cannot be written.
        """
        most, given = owner.limits.trials, _without_none(values)
        spec = ExternalSpec.from_dict({"trials": most, **given})
        written = spec.to_dict()
        with self.studies.changing():
            known = self.studies.find(owner.name, spec.name)
            if known is not None:
                self.studies.check_stays(known)
                if "trials" not in given:  # the limit may be another one now
                    written["trials"] = known.spec.get("trials")
                if not known.was_submitted(written):
                    _check_same(known, written)
                # It is queued if the service died before it was complete.
                self.studies.change(known, State.RUNNING, expected=(State.QUEUED,))
                return known, False
            if spec.trials is None or spec.trials > most:
                rule = f"must be at most {most}, got {spec.trials}"
                raise Problem(422, f"trials: {rule}", key="trials")
            self.studies.check_room(owner)
            study = self.studies.add(owner.name, spec.name, Kind.EXTERNAL, written, _facts(spec))
            self.studies.change(study, State.RUNNING)
            return study, True

    def find(self, owner: Owner, name: str) -> Study:
        """Return a study.

        Raises:
            Problem: 404, the owner has no such study; 409, its models train here.
        """
        study = self.studies.get_at_once(owner.name, name)
        if study.kind is not Kind.EXTERNAL:
            raise Problem(409, f"study {name!r} is a search: workers of the service train it")
        return study

    async def ask(
        self, study: Study, client: str, n: int, key: str | None, wait_s: float
    ) -> list[Lease]:
        """Give trials to a client, which may wait for them without holding a thread.

        Returns:
            At most `n`; none where there is nothing to ask within `wait_s` seconds.

        Raises:
            Problem: 410, the budget is used, or the space, and all trials have ended; 409, the
                study is cancelled.
        """

        def ask(open_study: AskTell) -> list[Lease]:
            leases = open_study.ask(client, n, key)
            if not leases and open_study.cancelled:
                raise is_cancelled(study)
            if not leases and open_study.progress.done:
                raise is_done(study, open_study.progress.trained)
            return leases

        self._check_state(study)
        if study.state is State.DONE:
            raise is_done(study, study.progress.trained)
        until = time.monotonic() + wait_s if wait_s > 0 else None
        request = _Request(ask, until=until, undo=AskTell.abandon)
        leases: list[Lease] = await self._call(request, study)
        return leases

    async def call(self, study: Study, do: Callable[[AskTell], Any]) -> Any:
        """Do something with an open study in its thread; it is on the disk when this returns.

        Raises:
            Problem: as `do` is refused: 404 for a trial, 409 for a lease.
        """
        if study.state is State.FAILED:
            self._check_state(study)
        return await self._call(_Request(do), study)

    def cancel(self, study: Study) -> None:
        """Give out no further trial until the study is resumed; results are still taken.

        Raises:
            Problem: 409, it is done.
        """
        with self.closed(study):
            study.check_can_cancel()
            if self.studies.change(study, State.CANCELLED, expected=_OPEN):
                log = self.events.of(study.owner, study.name)
                EventReporter(log, self.settings.root).cancelled()

    def resume(self, study: Study, owner: Owner) -> None:
        """Go on with a study that was cancelled or has failed.

        Raises:
            Problem: 409, it is done; 429, too many studies are open.
        """
        with self.closed(study), self.studies.changing():
            study.check_can_resume()
            self.studies.check_room(owner, study)
            self.studies.change(study, State.RUNNING, expected=(State.CANCELLED, State.FAILED))

    def extend(self, study: Study, changes: Mapping[str, Any], owner: Owner) -> None:
        """Raise the budget of trials, and go on.

        Raises:
            Problem: 422, another key, fewer trials than before, or too many; 409, all of the
                space is tried; 429, too many studies are open.
        """
        trials, most = new_budget(changes), owner.limits.trials
        with self.closed(study), self.studies.changing():
            self.studies.check_room(owner, study)
            if not study.spec["trials"] <= trials <= most:
                rule = f"must be from {study.spec['trials']} to {most}"
                raise Problem(422, f"trials: {rule}, got {trials}", key="trials")
            check_not_exhausted(study)
            spec = study.spec | {"trials": trials}
            facts = _facts(ExternalSpec.model_validate(spec))
            # In this order: a study that runs with the old budget ends again when it is opened,
            # and the request, which has no answer, is sent again.
            self.studies.change(study, State.RUNNING)
            self.studies.respecify(study, spec, facts)

    @contextmanager
    def closed(self, study: Study) -> Iterator[None]:
        """Keep a study closed for the block, in which it may be changed, by nobody else.

        Requests that come meanwhile, and asks that wait, are answered afterwards: by the study as
        it then is.

        Raises:
            JournalAway: its thread waits for the journal.
        """
        with self._lock:
            one_at_a_time = self._changing.setdefault(study, threading.Lock())
        if not one_at_a_time.acquire(timeout=_CLOSE_S):
            raise still_writes(study)
        try:
            with self._lock:
                before, holder = self._open.get(study), _OpenStudy(self, study)
                self._open[study] = holder  # has no thread: it keeps the requests
            try:
                if before is not None and not before.close(_CLOSE_S):
                    self._put_back(before, holder)
                    raise still_writes(study)
                yield
            finally:
                self.ended(holder)
        finally:
            one_at_a_time.release()

    def stop(self) -> None:
        """Answer what waits, and close all studies; their leases go on when the service is back."""
        with self._lock:
            self._stopping = True
            every = [each for each in self._open.values() if each.has_thread]
        for open_study in every:
            open_study.close(0)
        for open_study in every:
            open_study.close()

    @property
    def n_open(self) -> int:
        """How many studies have a thread now."""
        return len(self._open)

    async def _call(self, request: _Request, study: Study) -> Any:
        study.heard = time.time()
        self._submit(request, study)
        try:
            return await asyncio.wrap_future(request.answer)
        except TunerError as error:
            raise problem_of(error, self.settings) from None

    def _submit(self, request: _Request, study: Study) -> None:
        with self._lock:
            if self._stopping:
                raise Problem(503, "the service stops", headers={"Retry-After": "5"})
            if study.deleting:  # its files are being removed
                raise Problem(404, f"no study {study.name!r}")
            open_study = self._open.get(study)
            if open_study is None:
                limit = self._limits_of(study.owner).studies_open
                make_room(self._open.values(), study.owner, limit, self._most_open)
                open_study = self._open[study] = self._started(study)
            open_study.requests.put(request)

    def _started(self, study: Study) -> _OpenStudy:
        """Return a study whose thread has been started; it cannot end before the lock is free."""
        open_study = _OpenStudy(self, study)
        try:
            open_study.start()
        except Exception as error:  # the system has no thread left
            _log.error("no thread for study %s: %s", study.key, error)
            detail = "the service has no thread left for a study; try again later"
            raise Problem(503, detail, headers={"Retry-After": "5"}) from None
        return open_study

    def _put_back(self, before: _OpenStudy, holder: _OpenStudy) -> None:
        """Let a study that has not closed in time be the open one again, until it has ended.

        Nobody may open it a second time meanwhile. It opens again for the requests of the holder.
        """
        with self._lock:
            if before.has_ended:
                return
            self._open[before.study] = before
            for request in holder.left():
                before.requests.put(request)

    def _check_state(self, study: Study) -> None:
        if study.state is State.CANCELLED:
            raise is_cancelled(study)
        if study.state is State.FAILED:
            raise Problem(409, f"study {study.name!r} has failed: {study.error}; resume it")

    def ended(self, open_study: _OpenStudy, error: BaseException | None = None) -> None:
        """Note that a study is closed.

        Args:
            open_study: has closed its journal.
            error: the reason, with which its requests fail; without one, they open the study again.
        """
        with self._lock:
            open_study.has_ended = True
            if self._open.get(open_study.study) is open_study:
                del self._open[open_study.study]
            for request in open_study.left():
                if error is not None:
                    _fail(request, error)
                    continue
                try:
                    self._submit(request, open_study.study)
                except Problem as stops:
                    _fail(request, stops)
                except Exception as failed:  # none is left without an answer
                    _fail(request, unexpected(failed))


class _OpenStudy:
    """A study that has a thread."""

    def __init__(self, external: ExternalStudies, study: Study) -> None:
        self.study, self._external = study, external
        self.requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiting: deque[_Request] = deque()  # asks that may wait, in order
        self._thread = threading.Thread(target=self._run, name=f"ask {study.key}", daemon=True)
        self._reporter: EventReporter | None = None
        self.has_ended = False
        """Whether its journal is closed, and its requests are with another one or answered."""
        self.is_closing = False
        """Whether its thread ends as soon as it can."""

    @property
    def has_thread(self) -> bool:
        """Whether it was started."""
        return self._thread.ident is not None

    @property
    def is_idle(self) -> bool:
        """Whether it has a thread, and no request."""
        return self.has_thread and self.requests.empty() and not self._waiting

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, timeout_s: float | None = None) -> bool:
        """End the thread after the requests that are there; return whether it has ended in time."""
        self.is_closing = True
        self.requests.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def left(self) -> list[_Request]:
        """Return the requests that have no answer."""
        found = list(self._waiting)
        self._waiting.clear()
        while True:
            try:
                request = self.requests.get_nowait()
            except queue.Empty:
                return found
            if request is not None:
                found.append(request)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with ExitStack() as stack:
                open_study, commit = self._opened(stack)
                try:
                    while self._serve(open_study, commit):
                        pass
                finally:
                    self._external.expiries[self.study] = open_study.expiries
        except BaseException as raised:
            error = raised if isinstance(raised, TunerError | Problem) else unexpected(raised)
        self._external.ended(self, error)

    def _opened(self, stack: ExitStack) -> tuple[AskTell, Callable[[], Any]]:
        external, study = self._external, self.study
        place = external.records.place_of(study.owner, study.name)
        running = external.tables.running(study.owner, study.name, sign=study.facts.sign)
        table = stack.enter_context(running)
        log = external.events.of(study.owner, study.name)
        observers: list[Observer] = [table]
        if not study.state.has_ended:  # after `ended` nothing follows
            self._reporter = ExternalReporter(log, external.settings.root)
            stack.callback(log.close)  # the next append opens it again
            observers.append(self._reporter)
        held = HeldObservers(observers)
        storage = stack.enter_context(place.open(lambda note: None))
        stack.enter_context(within(storage, WRITE_S))  # clients wait
        open_study = AskTell(
            storage,
            place.location,
            place.study,
            ExternalSpec.model_validate(study.spec),
            observer=held,
            opened=lambda record: self._begin(record, table),
            expiries=external.expiries.get(study),
            served_since=external.since,
        )
        held.release()
        open_study.cancelled = study.state is State.CANCELLED
        self._note(open_study)
        return open_study, partial(_commit, storage, held)

    def _begin(self, record: ExternalRecord, table: TrialTable) -> None:
        table.begin(record.trials)
        if self._reporter is None:
            return
        spec, facts = record.spec, self.study.facts
        self._reporter.write(
            {
                "event": "begun",
                "time": round(time.time(), 3),
                "study": self.study.name,
                "id": record.id,
                "journal": None,
                "experiment": facts.experiment,
                "strategy": facts.strategy,
                "seed": facts.seed,
                "metric": facts.metric,
                "direction": facts.direction,
                "trials": facts.trials,
                "trained": len(record.trained),
                "epochs": spec.steps,
                "workers": None,
                "executor": "external",
                "asynchronous": spec.asynchronous,
            }
        )

    def _serve(self, open_study: AskTell, commit: Callable[[], Any]) -> bool:
        """Do what is to do now, as one group; return False to end."""
        try:
            request = self.requests.get(timeout=self._pause(open_study))
        except queue.Empty:
            if not self._waiting:
                return False
            request = _Request(lambda study: None)
        done: list[tuple[_Request, Any]] = []
        goes_on, begun = True, time.monotonic()
        try:
            with commit():
                while True:
                    if request is None:
                        goes_on = False
                        break
                    self._do(request, open_study, done)
                    if time.monotonic() - begun > _GROUP_S:
                        break
                    try:
                        request = self.requests.get_nowait()
                    except queue.Empty:
                        break
                self._serve_waiting(open_study, done)
            self._note(open_study)
        except BaseException:  # nothing in this group may be acknowledged
            self._waiting.extend(request for request, _ in done)
            raise
        refused = [(each.undo, result) for each, result in done if not _answer(each, result)]
        if refused:
            with commit():
                for undo, result in refused:
                    if undo is not None and not isinstance(result, BaseException):
                        undo(open_study, result)
        return goes_on

    def _do(self, request: _Request, open_study: AskTell, done: list[tuple[_Request, Any]]) -> None:
        """Do one thing; its answer waits for the disk."""
        if request.answer.cancelled():
            return
        try:
            result = request.do(open_study)
        except (LeaseConflict, InputError, Problem) as refused:
            result = refused
        except BaseException:
            done.append((request, None))
            raise
        if result == [] and request.until is not None and request.until > time.monotonic():
            self._waiting.append(request)
        else:
            done.append((request, result))

    def _serve_waiting(self, open_study: AskTell, done: list[tuple[_Request, Any]]) -> None:
        """Serve the asks that wait, in order, as far as there are trials; end those in vain."""
        served = True
        for _ in range(len(self._waiting)):
            request = self._waiting.popleft()
            assert request.until is not None
            if request.answer.cancelled():
                continue
            if served or request.until <= time.monotonic():
                before = len(done)
                self._do(request, open_study, done)
                served = len(done) > before
            else:
                self._waiting.append(request)

    def _pause(self, open_study: AskTell) -> float:
        """Return for how long there is nothing to do without a further request."""
        if not self._waiting:
            return self._external.idle_s
        now = time.monotonic()
        pause = min(request.until - now for request in self._waiting if request.until is not None)
        if (expiry := open_study.next_expiry) is not None:
            pause = min(pause, expiry - time.time())
        return max(0.001, pause)

    def _note(self, open_study: AskTell) -> None:
        """Keep the progress where the list of studies shows it, and the end of the study."""
        progress, shown = open_study.progress, self.study.progress
        shown.trained, shown.is_old, best = progress.trained, False, progress.best
        if best is not None and (shown.best is None or shown.best["trial"] != best.number):
            params = open_study.params_of(best.number)
            shown.best = {"trial": best.number, "score": best.value, "params": params}
        if progress.done and self.study.state is State.RUNNING:
            ended = self._external.studies.change(self.study, State.DONE, expected=(State.RUNNING,))
            if ended and self._reporter is not None:
                self._reporter.ended("done", None, 0)


@contextmanager
def _commit(storage: BaseStorage, observers: HeldObservers) -> Iterator[None]:
    """Wait for the disk at the end of the block; then events and rows show what happened in it."""
    with group_commit(storage):
        yield
    observers.release()


def _answer(request: _Request, result: Any) -> bool:
    """Send an answer; return whether somebody takes it."""
    if not request.answer.set_running_or_notify_cancel():
        return False
    if isinstance(result, BaseException):
        request.answer.set_exception(result)
    else:
        request.answer.set_result(result)
    return True


def _fail(request: _Request, error: BaseException) -> None:
    if request.answer.set_running_or_notify_cancel():
        request.answer.set_exception(error)


def _facts(spec: ExternalSpec) -> Facts:
    return Facts(
        experiment=spec.name,
        strategy=spec.strategy.name,
        seed=spec.seed,
        metric=spec.metric,
        direction=spec.direction,
        trials=spec.trials,
    )


def _check_same(study: Study, spec: Mapping[str, Any]) -> None:
    """Raise a Problem unless a study was created with a specification."""
    if study.kind is not Kind.EXTERNAL:
        raise Problem(409, f"there is a search {study.name!r} already; give another name")
    old, new = dict(flat(study.spec)), dict(flat(dict(spec)))
    for key in sorted(old.keys() | new.keys(), key=lambda key: (".name" not in key, key)):
        if old.get(key) != new.get(key):
            was, got = (repr(each[key]) if key in each else "nothing" for each in (old, new))
            detail = f"study {study.name!r} was created with {key}={was}, got {got}"
            extend = ", extend the study" if key == "trials" else ""
            raise Problem(409, f"{detail}; put it back{extend}, or give another name", key=key)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None or key != "trials"}
