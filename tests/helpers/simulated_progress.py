"""A search under a clock of its own, told to an observer as the coordinator tells it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

from tuner.coordination.coordinator import Asked, Observer
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken_up(progress, *args, **keys):
    """Return a progress or reporter that has taken up a study: see `Progress.begin`."""
    progress.begin(*args, **keys)
    return progress


def trial(number: int) -> TrialKey:
    return TrialKey(Role.TRIAL, number)


def hand_out(observer: Observer, *keys: int | TrialKey, params=None, cost: float = 1.0) -> None:
    """Ask for trials, given by their numbers or keys, and dispatch them."""
    known = [trial(key) if isinstance(key, int) else key for key in keys]
    for key in known:
        observer.asked(Asked(key, None, params or {}))
    for key in known:
        observer.dispatched(key, cost)


def epoch(number: int, metric: float = 1.0) -> Epoch:
    return Epoch(number, 1.0, 1.0, metric, 0.0)


def complete(value: float = 1.0) -> Outcome:
    return Outcome(OutcomeState.COMPLETE, objective=value)


def simulate(
    observer: Observer,
    clock: Clock,
    costs: Sequence[float],
    *,
    seconds: Sequence[float] | None = None,
    n_workers: int = 2,
    generation: int = 10,
    n_epochs: int = 10,
    epochs: Sequence[int] | None = None,
    first: int = 0,
    starting_s: float = 0.0,
    after: Callable[[int], None] = lambda n_ended: None,
) -> float:
    """Train trials in generations, in each the most expensive first; return when the last ended.

    A trial takes its cost in seconds and all epochs, unless `seconds` and `epochs` are given.
    """
    seconds, order = seconds or costs, itertools.count()
    free = [clock.now + starting_s] * n_workers
    n_ended = 0
    for begin in range(0, len(costs), generation):
        numbers = range(begin, min(begin + generation, len(costs)))
        for k in numbers:
            observer.asked(Asked(trial(first + k), None, {}))
        events: list[tuple[float, int, int, int]] = []
        for k in sorted(numbers, key=lambda k: -costs[k]):
            observer.dispatched(trial(first + k), costs[k])
            since = max(heapq.heappop(free), clock.now)
            last = epochs[k] if epochs else n_epochs
            events += [
                (since + seconds[k] * (e + 1) / last, next(order), k, e) for e in range(last)
            ]
            heapq.heappush(free, since + seconds[k])
        for time, _, k, e in sorted(events):
            clock.now = time
            observer.epoch(trial(first + k), epoch(e))
            if e + 1 == (epochs[k] if epochs else n_epochs):
                observer.finished(trial(first + k), complete(float(k)))
                n_ended += 1
                after(n_ended)
    return clock.now
