"""Leases: which client has which trial of an external study, and how the journal keeps that."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import InputError, TunerError
from tuner.jobs import Epoch, ExternalJob, OutcomeState
from tuner.journal.storage import LEASE_ATTR, OUTCOME_ATTR, REPEAT_ATTR, REPORT_ATTR

_DRAWN = 24  # characters of a lease that are random; the others tell whose it is


class LeaseConflict(TunerError):
    """A lease, a value or a step contradicts what the study has."""


class NoSuchTrial(InputError):
    """The study has no trial of this number."""


@dataclass(frozen=True)
class Lease:
    """A trial that a client has, until it tells, or does not report in time."""

    number: int  # of the trial
    params: Mapping[str, Any]
    seed: int  # of its training, from 0 to 2**32 - 1
    id: str  # random; whoever has it may report and tell
    client: str
    expires: float  # seconds since 1970
    attempt: int  # how often the trial has been given out, from 1


@dataclass(frozen=True)
class Told:
    """How a trial ended: as its client told, or as the rules have it."""

    number: int
    state: OutcomeState
    value: float | None  # of a complete trial
    reason: str | None = None  # of a failed one


@dataclass(frozen=True)
class Answer:
    """The answer to a report."""

    prune: bool  # whether the training should stop
    expires: float  # when the lease does now, in seconds since 1970


@dataclass(frozen=True)
class Progress:
    """Where a study stands."""

    trained: int  # trials that have ended, without repeats
    leased: int  # trials that clients have
    best: Told | None
    done: bool  # no further trial will be given out, and all have ended


@dataclass(eq=False)
class OpenTrial:
    """A trial that has no outcome yet."""

    job: ExternalJob
    trial_id: int
    attempt: int = 0  # of the newest lease; 0 before the first
    lease: str | None = None  # its id; None while no client has it
    returned: str | None = None  # the id of a lease that was given back
    client: str = ""
    key: str | None = None  # the idempotency key with which it was asked for
    since: float = 0.0  # when it was given out
    answers: int = 0  # in which the lease was given, without those that nobody got
    expires: float = math.inf
    expired: bool = False  # and not given out again: the lease is good until then
    epochs: list[Epoch] = field(default_factory=list)  # of the values that were reported
    judged: int = 0  # how many of them the pruner has seen
    prune: bool = False  # its last answer


def new_lease(study: str, number: int) -> str:
    """Return a random id of a lease, which `why_not_held` recognizes.

    Args:
        study: the study's id.
        number: of the trial.
    """
    drawn = secrets.token_hex(_DRAWN // 2)
    return drawn + _mark(study, number, drawn)


def _mark(study: str, number: int, drawn: str) -> str:
    text = f"{study} {number} {drawn}".encode(errors="replace")
    return hashlib.sha256(text).hexdigest()[:8]


def with_lease(job: ExternalJob, attrs: Mapping[str, Any]) -> OpenTrial:
    """Return a trial with its newest lease and the values reported under it, from its record."""
    task, lease = OpenTrial(job, job.trial_id), attrs.get(LEASE_ATTR)
    if lease is None:
        return task
    task.attempt, task.lease, task.returned = lease["attempt"], lease["id"], lease["returned"]
    task.client, task.key, task.since = lease["client"], lease["key"], lease["since"]
    if task.lease is None:
        return task
    task.answers = 1  # somebody may have got it
    steps = [int(name.removeprefix(REPORT_ATTR)) for name in attrs if name.startswith(REPORT_ATTR)]
    for step in sorted(steps):
        attempt, at, values = attrs[f"{REPORT_ATTR}{step}"]
        if attempt == task.attempt:
            task.epochs += [Epoch(step + i, 0.0, 0.0, v, at) for i, v in enumerate(values)]
    return task


def told_of(number: int, attrs: Mapping[str, Any]) -> Told:
    """Return how a trial ended, from its record."""
    outcome = attrs[OUTCOME_ATTR]
    state = OutcomeState(outcome["state"])
    return Told(number, state, outcome["objective"], outcome["reason"])


def end_of(number: int, attrs: Mapping[str, Any]) -> str:
    """Return how a trial has ended, for messages."""
    told = told_of(number, attrs)
    was = told.state.value if told.value is None else f"the value {told.value!r}"
    return f"trial {number} has ended with {was}" + (f" ({told.reason})" if told.reason else "")


def why_not_held(
    number: int, lease: str, study: str, attrs: Mapping[str, Any], task: OpenTrial | None
) -> LeaseConflict:
    """Return why a client does not have a trial by its lease.

    Args:
        number: of the trial.
        lease: what the client has sent.
        study: the study's id.
        attrs: of the trial's record.
        task: the trial; None if it has ended.
    """
    newest = attrs.get(LEASE_ATTR, {}).get("id")
    if REPEAT_ATTR in attrs:
        rule = f"trial {number} repeats trial {attrs[REPEAT_ATTR]}, and was given to nobody"
        return LeaseConflict(rule, remedy="ask for another trial")
    if lease != newest and lease[_DRAWN:] != _mark(study, number, lease[:_DRAWN]):
        rule = f"trial {number} was never given out with this lease"
        return LeaseConflict(rule, remedy="send number and lease as `ask` answered them")
    if lease == newest and task is None:
        return LeaseConflict(end_of(number, attrs), remedy="ask for another trial")
    if task is not None and task.lease is None and task.returned == lease:
        rule = f"this lease of trial {number} was given back"
    else:
        ended = ", and has ended" if task is None else ""
        rule = f"this lease of trial {number} expired or was given back, and the trial was "
        rule += f"given out again{ended}"
    return LeaseConflict(rule, remedy="stop, and ask for another trial")
