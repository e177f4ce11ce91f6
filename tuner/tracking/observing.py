"""How a tracker hears of a search."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tuner.coordination.observer import Observer
from tuner.coordination.seeds import Role
from tuner.jobs import Epoch, Outcome
from tuner.tracking.tracker import Tracker

__all__ = ["TrackingObserver", "closed_at_end"]


class TrackingObserver(Observer):
    """Tells the tracker what trains, and when the journal has something new."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def began(self, role: Role, number: int, time: float) -> None:
        """Begin a curve."""
        self._tracker.live.began(role, number, time)

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Add to a curve."""
        self._tracker.live.epoch(role, number, epoch)
        self._tracker.wake()

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """From here on the journal speaks for the trial."""
        self._tracker.live.ended(role, number)
        self._tracker.wake()

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Give up a curve whose training begins again."""
        self._tracker.live.ended(role, number)


@contextlib.contextmanager
def closed_at_end(tracker: Tracker) -> Iterator[None]:
    """Close the tracker, which copies the rest, whatever ends the search."""
    done = False
    try:
        yield
        done = True
    finally:
        tracker.close(done)
