"""What came of jobs, from the events of an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuner.executors import Finished, Reported
from tuner.executors.base import Event, Executor
from tuner.jobs import Outcome


def n_finished(n: int) -> Callable[[Sequence[Event]], bool]:
    """Return whether `n` jobs have ended, as a function of events."""
    return lambda seen: sum(isinstance(event, Finished) for event in seen) >= n


def outcomes(seen: Sequence[Event]) -> dict[str, Outcome]:
    """Return the outcomes of the jobs that have ended, by key."""
    return {event.key: event.outcome for event in seen if isinstance(event, Finished)}


def events(
    executor: Executor,
    until: Callable[[Sequence[Event]], bool],
    answer: Callable[[Reported], bool] | None = None,
    timeout_s: float = 180,
) -> list[Event]:
    """Poll until `until(events)`; answer reports where `answer` is given."""
    seen: list[Event] = []
    deadline = time.monotonic() + timeout_s
    while not until(seen):
        assert time.monotonic() < deadline, seen
        for event in executor.poll(0.2):
            seen.append(event)
            if answer and isinstance(event, Reported):
                executor.answer(event.key, answer(event))
    return seen


def go_on(event: Reported) -> bool:
    return True
