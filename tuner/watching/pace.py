"""How long the rest of a stage takes, from the work that this run has done so far."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pace"]

_AT_MOST = 0.9  # of a trial is done while it runs: one that outlives the mean is nearly done


class Pace:
    """Compares the work done with the work left, each trial weighed by its estimated cost.

    The dearest trials of a generation are begun first: an estimate from the number of trials
    would begin far too high. What an earlier run has done counts for neither.

    Args:
        n_epochs: that a trial has at most.
        clock: seconds, from any beginning.
    """

    def __init__(self, n_epochs: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._n_epochs, self._clock = n_epochs, clock
        self._in_progress: dict[int, tuple[float, int]] = {}  # cost and epochs done, by trial
        self._dispatched, self._dispatched_cost = 0, 0.0
        self._ended, self._ended_cost, self._ended_epochs = 0, 0.0, 0
        self._handed_out_since: float | None = None
        self._since: float | None = None
        self._cost_before = 0.0  # of the epoch that had ended when the clock began

    def dispatched(self, number: int, cost: float) -> None:
        """Note that a trial was handed out."""
        if self._handed_out_since is None:
            self._handed_out_since = self._clock()
        self._in_progress[number] = (cost, 0)
        self._dispatched += 1
        self._dispatched_cost += cost

    def epoch(self, number: int) -> None:
        """Note that a trial ended an epoch; the first of all begins the clock."""
        if number not in self._in_progress:
            return
        cost, epochs = self._in_progress[number]
        self._in_progress[number] = (cost, epochs + 1)
        if self._since is None:  # a worker's start is no part of the pace
            self._since, self._cost_before = self._clock(), cost

    def lost(self, number: int) -> None:
        """Note that a trial begins again."""
        if number in self._in_progress:
            self._in_progress[number] = (self._in_progress[number][0], 0)

    def finished(self, number: int) -> None:
        """Note that a trial ended; one that this run did not hand out does not count."""
        if number not in self._in_progress:
            return
        cost, epochs = self._in_progress.pop(number)
        self._ended += 1
        self._ended_cost += cost
        self._ended_epochs += epochs
        if self._since is None:  # it failed before its first epoch, say
            self._since = self._handed_out_since

    @property
    def certain(self) -> bool:
        """Whether a trial has ended: till then none is known to end before its last epoch."""
        return self._ended > 0

    def seconds_left(self, n_trials: int) -> float | None:
        """Estimate how long `n_trials` take that have not ended; None while nothing is known."""
        if self._since is None or n_trials <= 0:
            return None
        share = min(1.0, 1 / self._epochs_of_a_trial())
        begun = sum(
            cost * min(_AT_MOST, epochs * share) for cost, epochs in self._in_progress.values()
        )
        done = self._ended_cost + begun - self._cost_before * share
        seconds = self._clock() - self._since
        if done <= 0 or seconds <= 0:
            return None
        handed_out = sum(cost for cost, _ in self._in_progress.values())
        mean = self._dispatched_cost / self._dispatched
        left = handed_out - begun + mean * (n_trials - len(self._in_progress))
        return seconds * left / done

    def _epochs_of_a_trial(self) -> float:
        """Return the mean over the trials that have ended: most stop before their last epoch."""
        if self._ended_epochs == 0:
            return self._n_epochs
        return self._ended_epochs / self._ended
