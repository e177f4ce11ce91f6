"""Events of a search, and the observers that receive them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tuner.jobs import Epoch, Outcome
from tuner.journal.records import StudyRecord
from tuner.journal.storage import TrialKey

__all__ = ["Asked", "Observer", "Observers", "SearchStart", "WinnerModel"]


@dataclass(frozen=True)
class SearchStart:
    """A search whose input is checked and whose study is open."""

    record: StudyRecord  # with the trials of earlier runs
    read: Callable[[], StudyRecord]  # reads the study again, in any thread, until `on_end`
    journal: str  # its location, without a password
    n_workers: int
    executor: str
    finalists: bool = True  # whether they are trained after the trials


@dataclass(frozen=True)
class Asked:
    """A trial that has its configuration."""

    key: TrialKey
    repeat_of: int | None  # the earlier trial with the same configuration: it is not trained
    params: Mapping[str, Any]


class WinnerModel(Protocol):
    """The winner's model, with its weights in memory."""

    def write(self, folder: Path) -> None:
        """Write the model into a folder; raises what `results.export.write_model` does."""


class Observer:
    """Receives the events of a search; this one ignores them.

    All methods are called in the coordinator's thread, but `note`, which any thread calls. All but
    `on_winner` must return at once.
    """

    def on_start(self, start: SearchStart) -> None:
        """The search starts or resumes; called before any trial."""

    def on_winner(self, model: WinnerModel) -> None:
        """The test score is recorded; `model` can be used until this returns."""

    def on_end(self, done: bool) -> None:
        """The search ended, and the journal holds how; `done`: nothing stopped it.

        Called also where it failed before `on_start`.
        """

    def asked(self, trial: Asked) -> None:
        """A trial has its configuration."""

    def dispatched(self, key: TrialKey, cost: float) -> None:
        """A trial was handed to the executor; see `tuner.jobs.cost`."""

    def began(self, key: TrialKey, time: float) -> None:
        """A trial's training began at `time`, seconds since 1970; sent before its first epoch."""

    def epoch(self, key: TrialKey, epoch: Epoch) -> None:
        """A trial ended an epoch."""

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        """A trial's outcome is in the journal; `earlier`: it was when this run began."""

    def lost(self, key: TrialKey, reason: str) -> None:
        """The machine took a trial away; it runs again."""

    def note(self, text: str) -> None:
        """A message for the user."""


class Observers(Observer):
    """Several observers as one: each event goes to all of them, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers


def _to_all(event: str) -> Callable[..., None]:
    def send(self: Observers, *args: Any, **keys: Any) -> None:
        for observer in self._observers:
            getattr(observer, event)(*args, **keys)

    return send


for _event in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Observers, _event, _to_all(_event))
