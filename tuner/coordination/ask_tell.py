"""Ask and tell: a study whose models train elsewhere, for clients that may vanish at any time.

The coordinator of every search decides what is asked and when it is told. Here its jobs are leased
to clients: a trial whose client does not report in time is given out again, under the same number,
with the same parameters and seed. A lease is a record of the journal, so it outlives this process.
"""

from __future__ import annotations

import datetime as dt
import heapq
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.coordination.coordinator import (
    AsynchronousCoordinator,
    Coordinator,
    Limits,
    Observer,
    Observers,
)
from tuner.coordination.leases import (
    Answer,
    Lease,
    LeaseConflict,
    NoSuchTrial,
    OpenTrial,
    Progress,
    Told,
    end_of,
    new_lease,
    told_of,
    why_not_held,
    with_lease,
)
from tuner.coordination.opening import library_versions
from tuner.coordination.pruning import make_pruner
from tuner.errors import InputError, StudyError, TunerError, one_line, show_location
from tuner.executors.base import Event, Finished, Lost, Reported, Returned
from tuner.experiment import flat, space_size
from tuner.experiment.external import ExternalSpec
from tuner.experiment.space import to_distributions
from tuner.jobs import Epoch, ExternalJob, Outcome, OutcomeState
from tuner.journal.external import (
    ExternalRecord,
    external_facts,
    read_external,
    spec_of,
)
from tuner.journal.records import EXTERNAL, FORMAT
from tuner.journal.storage import (
    LEASE_ATTR,
    REPEAT_ATTR,
    REPORT_ATTR,
    STUDY_ATTR,
    Role,
    TrialKey,
    seed_of,
)

_MOST_STEPS = 100_000  # that a client reports of a trial, without `ExternalSpec.steps`
_REASON = 1000  # characters of the reason of a failure


class AskTell:
    """One external study, open for its single writer; all calls come from one thread.

    A call that raises `RunError` has left memory and journal apart: open the study again.

    Args:
        storage: the journal, opened for writing.
        location: of the journal, for messages.
        name: of the study.
        spec: of a new study, or of one that must be the same, but for its budget; None for one
            that exists.
        clock: returns the time in seconds since 1970.
        observer: receives the events of the study, but for its start and end.
        opened: is called with the study as it is, before any event.
        expiries: when leases of an earlier opening expire, by their ids; see `expiries`.
        served_since: since when clients could renew their leases. A lease that is not among
            `expiries` lasts a whole time from then, or from its last report; by default from now.

    Raises:
        StudyError: the study is another one, or none, or of a newer version.
    """

    def __init__(
        self,
        storage: BaseStorage,
        location: str,
        name: str,
        spec: ExternalSpec | None = None,
        *,
        clock: Callable[[], float] = time.time,
        observer: Observer | None = None,
        opened: Callable[[ExternalRecord], None] = lambda record: None,
        expiries: Mapping[str, float] | None = None,
        served_since: float | None = None,
    ) -> None:
        self.name, self._storage, self._location, self._clock = name, storage, location, clock
        self._study, self.spec = _open(storage, location, name, spec)
        self._id: str = self._study.user_attrs[STUDY_ATTR]["id"]
        self._tasks: dict[int, OpenTrial] = {}  # by number
        self._available: list[int] = []  # a heap of numbers: to be given out, if still so
        self._expiries: list[tuple[float, int]] = []  # a heap: when, and which number
        self._asked: dict[tuple[str, str], list[int]] = {}  # by client and idempotency key
        self.cancelled = False
        """Whether clients get no further trials; what they have they may tell."""
        self._trained = 0
        self._best: Told | None = None
        self._known_expiries = dict(expiries or {})
        self._served_since = clock() if served_since is None else served_since
        self._desk, self._restoring = _Desk(self._submitted), True
        self._relay = _Relay([observer or Observer()])
        self._coordinator = self._make_coordinator()
        self._remember_keys()
        opened(self.record)
        self._coordinator.begin()
        self._coordinator.step()
        self._restoring = False

    def ask(self, client: str, n: int = 1, key: str | None = None) -> list[Lease]:
        """Give trials to a client.

        Args:
            client: its name.
            n: how many it wants, at least 1.
            key: the same key gives the same client the same trials again.

        Returns:
            At most `n` leases. None at all if the budget is used, the study is cancelled, or
            other trials must be told before the next one is known; see `progress`.
        """
        now = self._clock()
        self.expire()
        if key is not None and (again := self._again(client, key, now)):
            return again
        leases: list[Lease] = []
        while len(leases) < n and not self.cancelled:
            number = self._next(n - len(leases))
            if number is None:
                break
            leases.append(self._give(self._tasks[number], client, key, now))
        if key is not None and leases:
            self._asked[client, key] = [lease.number for lease in leases]
        return leases

    def report(self, number: int, lease: str, step: int, values: Sequence[float]) -> Answer:
        """Take the values of a trial's next steps, ask the pruner, and renew the lease.

        Args:
            number: of the trial.
            lease: its id.
            step: of the first value, from 0. Steps that are known already may come again.
            values: one for each step; may be nan or infinite. Without any, the lease is renewed
                and `step` plays no role.

        Raises:
            NoSuchTrial: there is none of this number.
            LeaseConflict: the lease is not the newest, the trial has ended, the study is
                cancelled, a step is missing, or a known one has another value.
            InputError: the trial has more steps than allowed.
        """
        task, now = self._held(number, lease), self._clock()
        if self.cancelled:
            remedy = "stop; the trial is given out again if the study is resumed"
            raise LeaseConflict(f"study {self.name!r} is cancelled", remedy=remedy)
        self._relay.muted = True
        self._judge(task)  # the steps of before a restart
        self._relay.muted = False
        if values and not task.prune and (new := self._new_values(task, step, values)):
            known = len(task.epochs)
            for value in new:
                epoch = Epoch(len(task.epochs), 0.0, 0.0, value, round(now, 3))
                task.epochs.append(epoch)  # it has no losses; zeros decide nothing
                self._judge(task)
                if task.prune:
                    break
            kept = [epoch.metric for epoch in task.epochs[known:]]
            note = [task.attempt, round(now, 3), kept]
            self._storage.set_trial_user_attr(task.trial_id, f"{REPORT_ATTR}{known}", note)
        self._renew(task, now)
        return Answer(task.prune, task.expires)

    def tell(
        self,
        number: int,
        lease: str,
        value: float | None = None,
        *,
        failed: str | None = None,
        pruned: bool = False,
    ) -> Told:
        """Take the result of a trial: its value, or why it failed, or that it was stopped early.

        Args:
            number: of the trial.
            lease: its id.
            value: of a complete trial; one that is not finite means that it failed.
            failed: the reason of a failure.
            pruned: whether it was stopped as the pruner asked.

        Returns:
            How the trial ended; the same if the same is told again.

        Raises:
            NoSuchTrial: there is none of this number.
            LeaseConflict: another result was told, or the trial was given to another client.
        """
        told = self._told(number, value, failed, pruned)
        if number not in self._tasks:
            return self._told_before(told, lease)
        task, now = self._held(number, lease), self._clock()
        outcome = Outcome(
            told.state,
            objective=told.value,
            history=tuple(task.epochs),
            reason=told.reason,
            seconds=max(0.0, round(now - task.since, 3)),
            finished_at=round(now, 3),
        )
        self._coordinator.step([Finished(task.job.key, outcome)])
        return told

    def release(self, number: int, lease: str) -> None:
        """Take a trial back from a client that stops; it is given out again at once.

        Raises:
            NoSuchTrial: there is none of this number.
            LeaseConflict: the trial has ended, or was given to another client.
        """
        task = self._tasks.get(number)
        if task is not None and task.lease is None and task.returned == lease:
            return
        task = self._held(number, lease)
        task.returned, task.lease = lease, None
        self._write_lease(task)
        self._coordinator.step([Returned(task.job.key)])

    def abandon(self, leases: Sequence[Lease]) -> None:
        """Take back the trials of an `ask` whose answer nobody got.

        A trial stays with its client where the lease was in another answer too: the client may
        have asked again with its key.
        """
        for lease in leases:
            task = self._tasks.get(lease.number)
            if task is None or task.lease != lease.id:
                continue
            task.answers -= 1
            if not task.answers:
                self.release(lease.number, lease.id)

    def expire(self) -> int:
        """Make the trials available whose leases have expired; returns how many."""
        now, n = self._clock(), 0
        while self._expiries and self._expiries[0][0] <= now:
            _, number = heapq.heappop(self._expiries)
            task = self._tasks.get(number)
            if task is None or task.lease is None or task.expired:
                continue
            if task.expires > now:  # it was renewed
                heapq.heappush(self._expiries, (task.expires, number))
                continue
            task.expired, n = True, n + 1
            heapq.heappush(self._available, number)
        return n

    @property
    def next_expiry(self) -> float | None:
        """When `expire` may next have something to do, in seconds since 1970; None if never."""
        return self._expiries[0][0] if self._expiries else None

    @property
    def expiries(self) -> dict[str, float]:
        """When the leases that clients have expire, in seconds since 1970, by their ids."""
        return {t.lease: t.expires for t in self._tasks.values() if t.lease is not None}

    def params_of(self, number: int) -> dict[str, Any]:
        """Return the parameters of a trial."""
        return dict(self._storage.get_trial(self._trial_id(number)).params)

    @property
    def progress(self) -> Progress:
        """Where the study stands; quick."""
        leased = sum(task.lease is not None for task in self._tasks.values())
        return Progress(self._trained, leased, self._best, self._coordinator.done)

    @property
    def record(self) -> ExternalRecord:
        """The study with all of its trials."""
        return read_external(self._storage, self.name, self._location)

    def _make_coordinator(self) -> Coordinator:
        spec = self.spec
        prunes = spec.pruner.name != "none"

        def make_job(trial: optuna.Trial) -> ExternalJob:
            key = str(TrialKey(Role.TRIAL, trial.number))
            seed = seed_of(trial.user_attrs, trial.number, spec.seed)
            return ExternalJob(key, trial._trial_id, trial.number, trial.params, seed, prunes)

        kind = AsynchronousCoordinator if spec.asynchronous else Coordinator
        limits = Limits(spec.trials, n_configurations=space_size(spec.space), retries=spec.retries)
        return kind(
            self._study,
            to_distributions(spec.space),
            spec.strategy.rhythm,
            self._desk,
            make_job,
            limits,
            distinct=spec.distinct,
            pruner=make_pruner(spec.pruner, spec.steps or 1, by_loss=False),
            seed=spec.seed,
            observer=Observers([_Ended(self._ended), self._relay]),
            on_demand=True,
        )

    def _next(self, wanted: int) -> int | None:
        """Return the number of a trial to give out; None if there is none now."""
        while True:
            while self._available:
                number = heapq.heappop(self._available)
                task = self._tasks.get(number)
                if task is None:  # it was told by a client whose lease had expired
                    continue
                if task.lease is None:
                    return number
                if task.expired:  # the coordinator submits it again, or gives it up
                    reason = f"client {task.client!r} did not report for {self.spec.lease_s:g} s"
                    self._coordinator.step([Lost(task.job.key, reason)])
            self._desk.n_workers = len(self._tasks) + wanted
            self._coordinator.step()
            self._desk.n_workers = 0
            if not self._available:
                return None

    def _give(self, task: OpenTrial, client: str, key: str | None, now: float) -> Lease:
        task.attempt += 1
        task.lease, task.returned = new_lease(self._id, task.job.number), None
        task.client, task.key = client, key
        task.since, task.answers = round(now, 3), 1
        self._write_lease(task)
        self._renew(task, now)
        heapq.heappush(self._expiries, (task.expires, task.job.number))
        return self._lease_of(task)

    def _write_lease(self, task: OpenTrial) -> None:
        note = {
            "id": task.lease,
            "returned": task.returned,
            "client": task.client,
            "key": task.key,
            "attempt": task.attempt,
            "since": task.since,
        }
        self._storage.set_trial_user_attr(task.trial_id, LEASE_ATTR, note)

    def _restore_lease(self, task: OpenTrial, lease: str) -> None:
        """Have a lease expire when it does; its renewals without values are in no journal."""
        reported = task.epochs[-1].time if task.epochs else task.since
        renewed = max(reported, self._served_since)
        task.expires = self._known_expiries.get(lease, renewed + self.spec.lease_s)
        heapq.heappush(self._expiries, (task.expires, task.job.number))

    def _renew(self, task: OpenTrial, now: float) -> None:
        task.expires = now + self.spec.lease_s
        if task.expired:
            task.expired = False
            heapq.heappush(self._expiries, (task.expires, task.job.number))

    def _lease_of(self, task: OpenTrial) -> Lease:
        assert task.lease is not None
        job = task.job
        return Lease(
            job.number, job.params, job.seed, task.lease, task.client, task.expires, task.attempt
        )

    def _again(self, client: str, key: str, now: float) -> list[Lease]:
        """Return the leases that were given for this key, but for those given to others since."""
        leases = []
        for number in self._asked.get((client, key), ()):
            task = self._tasks.get(number)
            if task is None:
                frozen = self._storage.get_trial(self._trial_id(number))
                task = with_lease(
                    ExternalJob(
                        "",
                        frozen._trial_id,
                        number,
                        frozen.params,
                        seed_of(frozen.user_attrs, number, self.spec.seed),
                    ),
                    frozen.user_attrs,
                )
                task.expires = now
            if task.lease is None or (task.client, task.key) != (client, key):
                continue
            if number in self._tasks:
                self._renew(task, now)
                task.answers += 1
            leases.append(self._lease_of(task))
        return leases

    def _held(self, number: int, lease: str) -> OpenTrial:
        """Return the trial that a client has, after checking that it has it."""
        task = self._tasks.get(number)
        if task is None or task.lease != lease:
            raise self._no_longer(number, lease)
        return task

    def _no_longer(self, number: int, lease: str) -> TunerError:
        """Return why a client does not have a trial by its lease."""
        attrs = self._attrs_of(number)
        if attrs is None:
            return NoSuchTrial(f"study {self.name!r} has no trial {number}")
        return why_not_held(number, lease, self._id, attrs, self._tasks.get(number))

    def _attrs_of(self, number: int) -> Mapping[str, Any] | None:
        """Return the attributes of a trial; None if there is none of this number."""
        try:
            return (
                self._storage.get_trial(self._trial_id(number)).user_attrs if number >= 0 else None
            )
        except KeyError:
            return None

    def _told(self, number: int, value: float | None, failed: str | None, pruned: bool) -> Told:
        if (value is not None) + (failed is not None) + pruned != 1:
            rule = "a trial ends with one of value, failed and pruned"
            raise InputError(rule, where=f"trial {number}", remedy="give one of them")
        if failed is not None:
            reason = one_line(failed)[:_REASON] or "its client gave no reason"
            return Told(number, OutcomeState.FAILED, None, reason)
        if pruned:
            return Told(number, OutcomeState.PRUNED, None)
        assert value is not None
        if not math.isfinite(value):
            return Told(number, OutcomeState.FAILED, None, f"the value is {value}")
        return Told(number, OutcomeState.COMPLETE, float(value))

    def _told_before(self, told: Told, lease: str) -> Told:
        """Return what was told of a trial that has ended, after checking that it is the same."""
        number = told.number
        attrs = self._attrs_of(number) or {}
        if REPEAT_ATTR in attrs or attrs.get(LEASE_ATTR, {}).get("id") != lease:
            raise self._no_longer(number, lease)
        before = told_of(number, attrs)
        if (before.state, before.value) != (told.state, told.value):
            rule = end_of(number, attrs)
            raise LeaseConflict(rule, remedy="the first result stays; ask for another trial")
        return before

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def _new_values(self, task: OpenTrial, step: int, values: Sequence[float]) -> list[float]:
        """Return the values of new steps, after checking that the known ones are the same."""
        where, known = f"trial {task.job.number}", len(task.epochs)
        if step > known:
            rule = f"step {step} is reported before step {known}"
            raise LeaseConflict(rule, where=where, remedy=f"report from step {known} on")
        most = self.spec.steps or _MOST_STEPS
        if step + len(values) > most:
            rule = f"a trial has at most {most} steps"
            raise InputError(rule, where=where, got=step + len(values), remedy="tell its value")
        for epoch, value in zip(task.epochs[step:], values, strict=False):
            if epoch.metric != value and not (math.isnan(epoch.metric) and math.isnan(value)):
                rule = f"step {epoch.epoch} has the value {epoch.metric!r} already"
                raise LeaseConflict(rule, where=where, got=repr(value))
        return [float(value) for value in values[known - step :]]

    def _judge(self, task: OpenTrial) -> None:
        """Have the pruner judge the steps that it has not seen."""
        for epoch in task.epochs[task.judged :]:
            self._desk.go_on = True
            report = Reported(task.job.key, epoch, max(0.0, epoch.time - task.since))
            self._coordinator.step([report])
            task.judged, task.prune = epoch.epoch + 1, not self._desk.go_on

    def _submitted(self, job: ExternalJob) -> None:
        """Note that the coordinator wants a trial to be trained: for the first time, or again."""
        if self._restoring:
            task = with_lease(job, self._storage.get_trial(job.trial_id).user_attrs)
            self._tasks[job.number] = task
            if task.lease is not None:
                self._restore_lease(task, task.lease)
                return
        elif (task := self._tasks.get(job.number, OpenTrial(job, job.trial_id))).attempt:
            task.lease, task.epochs, task.judged, task.prune = None, [], 0, False
            task.expires, task.expired = math.inf, False
        self._tasks[job.number] = task
        heapq.heappush(self._available, job.number)

    def _ended(self, key: TrialKey, outcome: Outcome) -> None:
        self._tasks.pop(key.number, None)
        self._trained += 1
        told = Told(key.number, outcome.state, outcome.objective, outcome.reason)
        if told.value is not None and (self._best is None or self._is_better(told, self._best)):
            self._best = told

    def _is_better(self, new: Told, old: Told) -> bool:
        sign = -1 if self.spec.direction == "maximize" else 1
        return (sign * (new.value or 0.0), new.number) < (sign * (old.value or 0.0), old.number)

    def _remember_keys(self) -> None:
        for trial in self._study.get_trials(deepcopy=False):
            lease = trial.user_attrs.get(LEASE_ATTR)
            if lease is not None and lease["key"] is not None:
                self._asked.setdefault((lease["client"], lease["key"]), []).append(trial.number)


class _Desk:
    """Where the coordinator leaves its jobs: clients come for them."""

    def __init__(self, submitted: Callable[[ExternalJob], None]) -> None:
        self.n_workers = 0  # as many jobs at a time as clients want now
        self.go_on = True  # the last answer
        self._submitted = submitted

    def submit(self, job: ExternalJob) -> None:
        """Have a job be given out."""
        self._submitted(job)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return nothing: events come by `Coordinator.step`."""
        return []

    def answer(self, key: str, go_on: bool) -> None:
        """Keep the answer to the report that is being handled."""
        self.go_on = go_on

    def withdraw(self) -> list[str]:
        """Drop nothing: an external study is never stopped for good."""
        return []


@dataclass(frozen=True)
class _Ended(Observer):
    """Passes on the trials that have ended, also those of earlier runs."""

    ended: Callable[[TrialKey, Outcome], None]

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        self.ended(key, outcome)


class _Relay(Observers):
    """Passes on events, but for steps that were reported before a restart."""

    muted = False

    def began(self, key: TrialKey, time: float) -> None:
        if not self.muted:
            super().began(key, time)

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        if not self.muted:
            super().epoch(key, epoch)


def _open(
    storage: BaseStorage, location: str, name: str, spec: ExternalSpec | None
) -> tuple[optuna.Study, ExternalSpec]:
    """Open a study with its sampler, or create it."""
    where = show_location(location)
    known = name in optuna.get_all_study_names(storage)
    if not known and spec is None:
        raise StudyError(f"holds no study {name!r}", where=where, remedy="create it")
    if known:
        study = optuna.load_study(study_name=name, storage=storage)
    else:
        assert spec is not None
        study = optuna.create_study(study_name=name, storage=storage, direction=spec.direction)
    if STUDY_ATTR not in study.user_attrs and not study.get_trials(deepcopy=False):
        if spec is None:  # killed before it was complete
            raise StudyError(f"holds no study {name!r}", where=where, remedy="create it")
        facts = {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            EXTERNAL: spec.to_dict(),
            "versions": library_versions(),
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        study.set_user_attr(STUDY_ATTR, facts)
    begun = spec_of(external_facts(study, where), name, where)
    distributions = to_distributions(begun.space)
    study.sampler = begun.strategy.make_sampler(distributions, begun.seed, begun.trials)
    if spec is None:
        return study, begun
    _check_same(begun, spec, f"{where}: study {name!r}")
    return study, begun.model_copy(update={"trials": spec.trials})


def _check_same(begun: ExternalSpec, spec: ExternalSpec, where: str) -> None:
    old, new = dict(flat(begun.to_dict())), dict(flat(spec.to_dict()))
    # Names first: with another strategy, all of its options differ as well.
    for key in sorted(old.keys() | new.keys(), key=lambda key: (".name" not in key, key)):
        if key != "trials" and old.get(key) != new.get(key):
            was, now = (repr(d[key]) if key in d else "nothing" for d in (old, new))
            rule = f"{where} was created with {key}={was}"
            raise StudyError(rule, got=now, remedy="put it back, or give another name")
