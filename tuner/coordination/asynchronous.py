"""The coordinator that never lets a worker wait, and gives repeatability up for it.

A trial is told when it ends and asked when a worker is free: what a strategy knows, and what
pruning compares with, depends on which trial ends first.
"""

from __future__ import annotations

from tuner.coordination.coordinator import Coordinator
from tuner.coordination.slots import Slot

__all__ = ["AsynchronousCoordinator"]


class AsynchronousCoordinator(Coordinator):
    """Tells and asks at once; what is finished survives an interruption all the same."""

    def _advance(self) -> None:
        while True:
            for slot in [slot for slot in self._untold if slot.settled]:
                self._tell(slot)
            busy = len(self._ready) + len(self._in_flight)
            if busy >= self._executor.n_workers or not self._wants_more():
                return
            if self._stagnant(len(self._told)):
                return
            self._ask()

    def _n_seen(self, slot: Slot) -> int:
        return len(self._told)
