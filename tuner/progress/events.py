"""Progress as a stream of events, one JSON object a line."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from tuner.coordination.events import Asked
from tuner.jobs import Epoch, Outcome
from tuner.journal.records import StudyRecord
from tuner.journal.storage import Role
from tuner.progress.watcher import Beginning, Watcher
from tuner.results.summary import summarize

__all__ = ["JsonEvents", "to_json"]


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON: in one line, unless it is indented."""
    separators = None if indent else (",", ":")
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


class JsonEvents(Watcher):
    """Writes what happens when it happens; `docs/commands.md` lists the events and their keys.

    A search that goes on first tells what its earlier runs had finished, marked `earlier`.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock = stream, clock
        self._lock = threading.Lock()  # the tracker writes notes from a thread of its own
        self._handed_out: set[tuple[Role, int]] = set()  # and not ended
        self._retrains: dict[int, int | None] = {}  # finalist -> trial
        self._begun = False

    def begun(self, beginning: Beginning) -> None:
        """Write what is searched, and how far an earlier run has come."""
        self._begun, record = True, beginning.record
        experiment = record.experiment
        self._write(
            "begun",
            study=record.name,
            id=record.id,
            journal=beginning.journal,
            experiment=experiment.name,
            strategy=experiment.strategy.name,
            seed=experiment.seed,
            metric=experiment.objective.metric,
            direction=experiment.objective.direction,
            trials=experiment.n_trials,
            trained=len(record.trained),
            epochs=experiment.budget.epochs * experiment.n_folds,
            workers=beginning.n_workers,
            executor=beginning.executor,
            asynchronous=experiment.asynchronous,
        )
        for text in beginning.warnings:
            self.note(text)

    def asked(self, trial: Asked) -> None:
        """Write that a trial has its configuration."""
        if trial.role is Role.FINALIST:
            self._retrains[trial.number] = trial.configuration
        facts = {"params": trial.params, "repeat_of": trial.repeat_of}
        self._trial("asked", trial.role, trial.number, **facts)

    def dispatched(self, role: Role, number: int, cost: float) -> None:
        """Write that a trial waits for a worker, or has one."""
        self._handed_out.add((role, number))
        self._trial("dispatched", role, number, cost=cost)

    def epoch(self, role: Role, number: int, epoch: Epoch) -> None:
        """Write what a trial has come to; the first epoch is 1."""
        self._trial(
            "epoch",
            role,
            number,
            epoch=epoch.epoch + 1,
            value=epoch.metric,
            train_loss=epoch.train_loss,
            val_loss=epoch.val_loss,
            fold=epoch.fold,
        )

    def finished(self, role: Role, number: int, outcome: Outcome) -> None:
        """Write how a trial ended."""
        earlier = (role, number) not in self._handed_out
        self._handed_out.discard((role, number))
        self._trial(
            "finished",
            role,
            number,
            state=outcome.state.value,
            value=outcome.objective,
            reason=outcome.reason,
            epochs=len(outcome.history),
            seconds=round(outcome.seconds, 3),
            weights=outcome.n_weights,
            latency_ms=outcome.latency_ms,
            earlier=earlier,
        )

    def lost(self, role: Role, number: int, reason: str) -> None:
        """Write that a trial runs again."""
        self._trial("lost", role, number, reason=reason)

    def note(self, text: str) -> None:
        """Write what a person should read."""
        self._write("note", text=text)

    def result(self, record: StudyRecord, commands: list[tuple[str, str]]) -> None:
        """Write what `tuner show --json` prints, without the trials: they have been told."""
        self._write("result", **summarize(record).to_json())

    def comparison(self, facts: Mapping[str, Any]) -> None:
        """Write how strategies differ, after the results of their searches."""
        self._begun = True  # also where earlier runs have made all of them
        self._write("comparison", **facts)

    def ended(self, state: str, reason: str | None, exit_status: int) -> None:
        """Write how it ended, the last of all; nothing of what was refused before it began."""
        if self._begun:
            self._write("ended", state=state, reason=reason, exit_status=exit_status)

    def _trial(self, event: str, role: Role, number: int, **facts: Any) -> None:
        if role is Role.FINALIST:
            facts = {"configuration": self._retrains.get(number), **facts}
        self._write(event, role=role.value, trial=number, **facts)

    def _write(self, event: str, **facts: Any) -> None:
        line = to_json({"event": event, "time": round(self._clock(), 3), **facts})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()
