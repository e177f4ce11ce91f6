"""Events of a search, and who observes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.jobs import Epoch, Outcome
from tuner.journal.storage import Role, training_name

__all__ = ["Asked", "Observer", "Observers"]


@dataclass(frozen=True)
class Asked:
    """A trial that has its configuration."""

    role: Role
    number: int
    repeat_of: int | None  # the earlier trial with the same configuration: it is not trained
    params: Mapping[str, Any]
    configuration: int | None = None  # of a finalist: the trial that it retrains
    repeat: int | None = None  # of a finalist or the default: which of its trainings

    @property
    def name(self) -> str:
        """What people call it."""
        return training_name(self.role, self.number, self.configuration, self.repeat)


class Observer:
    """Is told what happens in a search. This one does nothing with it: the null observer.

    Called from the coordinator's thread; must return at once.
    """

    def asked(self, trial: Asked) -> None:
        """A trial has its configuration."""

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """A trial was handed to the executor; `cost` compares it with others (see `work.cost`)."""

    def began(self, role: Role, number: int, time: float) -> None:
        """A trial began to train then, seconds since 1970; said when its first epoch has ended."""

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """A trial ended an epoch."""

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """A trial's outcome is in the journal."""

    def lost(self, role: Role, number: int, reason: str) -> None:
        """A trial was taken away by the machine, and runs again."""

    def note(self, text: str) -> None:
        """Something that a person should read, once."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def asked(self, trial: Asked) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.asked(trial)

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.dispatched(role, number, cost)

    def began(self, role: Role, number: int, time: float) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.began(role, number, time)

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.epoch(role, number, epoch)

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.finished(role, number, outcome)

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.lost(role, number, reason)

    def note(self, text: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.note(text)
