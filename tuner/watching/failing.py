"""Says early that a search comes to nothing."""

from __future__ import annotations

from collections.abc import Callable

from tuner.coordination.observer import Observer
from tuner.coordination.seeds import Role
from tuner.jobs import Outcome, OutcomeState

__all__ = ["NothingButFailures"]

_MANY = 3


class NothingButFailures(Observer):
    """Says once that every trial so far has failed, when this run has seen a few do so."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._in_progress: set[int] = set()  # trials that this run has handed out
        self._failures = 0
        self._hope = False  # some trial did not fail, or it has been said

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Note that a trial is of this run."""
        if role is Role.TRIAL:
            self._in_progress.add(number)

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Count a failure of this run; what an earlier run has brought to an end is told first."""
        here = number in self._in_progress
        if role is not Role.TRIAL:
            return
        self._in_progress.discard(number)
        if outcome.state is not OutcomeState.FAILED:
            self._hope = True
        elif here:
            self._failures += 1
        if self._failures >= _MANY and not self._hope:
            self._hope = True
            self._note(f"every trial so far has failed: {outcome.reason}; Ctrl-C stops")
