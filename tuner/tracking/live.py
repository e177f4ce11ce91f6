"""What trials in progress have come to, on its way to MLflow before the journal has it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.coordination.seeds import Role
from tuner.jobs import Epoch

__all__ = ["Attempt", "LiveCurves", "TrialKey"]

TrialKey = tuple[str, int]  # a trial's role and number


@dataclass(frozen=True)
class Attempt:
    """One training of a trial, as far as it is known; `began` tells it from another."""

    began: float  # seconds since 1970
    epochs: tuple[Epoch, ...] = ()


class LiveCurves:
    """The attempts in progress. Filled by the coordinator's thread, read by the tracker's."""

    def __init__(self) -> None:
        self._attempts: dict[TrialKey, tuple[float, list[Epoch]]] = {}
        self._lock = threading.Lock()

    def began(self, role: Role, number: int, time: float) -> None:
        """Take up a trial whose training has begun, for the first time or again."""
        with self._lock:
            self._attempts[str(role), number] = (time, [])

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Add an epoch, with its time as the journal will have it."""
        with self._lock:
            if (attempt := self._attempts.get((str(role), number))) is not None:
                attempt[1].append(dataclasses.replace(epoch, time=round(epoch.time, 3)))

    def ended(self, role: Role, number: int) -> None:
        """Let go of a trial whose outcome the journal has."""
        with self._lock:
            self._attempts.pop((str(role), number), None)

    def snapshot(self) -> Mapping[TrialKey, Attempt]:
        """Return what is in progress at this moment."""
        with self._lock:
            return {k: Attempt(began, tuple(done)) for k, (began, done) in self._attempts.items()}
