"""What came of jobs, from the events of an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tuner.executors import Finished
from tuner.executors.base import Event
from tuner.jobs import Outcome


def n_finished(n: int) -> Callable[[Sequence[Event]], bool]:
    """Return whether `n` jobs have ended, as a function of events."""
    return lambda seen: sum(isinstance(event, Finished) for event in seen) >= n


def outcomes(seen: Sequence[Event]) -> dict[str, Outcome]:
    """Return the outcomes of the jobs that have ended, by key."""
    return {event.key: event.outcome for event in seen if isinstance(event, Finished)}
