"""Jobs: what the search hands to a worker, and what comes back.

Search and training do not import each other; they meet in these records. A job is a pure
function of its fields: the same job gives the same outcome on the same kind of CPU.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from tuner.data import DataRef

__all__ = ["Epoch", "Job", "Outcome", "OutcomeState", "PredictJob", "TrainJob", "Weights"]

Weights = dict[str, np.ndarray]
"""A model's parameters by name, as numpy arrays."""


class OutcomeState(StrEnum):
    """How a job ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Epoch:
    """One pass over the training windows and what it came to."""

    epoch: int  # from 0
    train_loss: float  # mean over the training windows, in scaled units
    val_loss: float  # over the validation windows, in scaled units
    metric: float  # the objective's metric on the validation part, in the data's units
    time: float  # when it ended, seconds since 1970


@dataclass(frozen=True)
class TrainJob:
    """Train one configuration and score it on the validation part."""

    key: str  # unique among the jobs of one run
    hyperparameters: dict[str, Any]
    seed: int
    epochs: int
    patience: int
    metric: str
    data: DataRef
    can_be_pruned: bool = False  # the worker then waits for an answer after every epoch
    keep_weights: bool = False


@dataclass(frozen=True)
class PredictJob:
    """Forecast the evaluation part of `data` with trained weights."""

    key: str
    hyperparameters: dict[str, Any]
    weights: Weights
    data: DataRef


Job = TrainJob | PredictJob


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    `objective` is the metric of the best epoch, in the data's units; it is None for a failed or
    pruned job, whose story `history` and `reason` tell.
    """

    state: OutcomeState
    objective: float | None = None
    best_epoch: int | None = None
    history: tuple[Epoch, ...] = ()
    reason: str | None = None
    seconds: float = 0.0  # spent training
    finished_at: float = 0.0  # seconds since 1970
    peak_memory_mb: float = 0.0  # of the worker process
    weights: Weights | None = None  # where the job asked to keep them
    predictions: np.ndarray | None = None  # (windows, horizon, targets), of a PredictJob

    def to_json(self) -> dict[str, Any]:
        """Return the record that the journal keeps: everything but the arrays."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del record["weights"], record["predictions"]
        record["state"] = self.state.value
        record["history"] = [
            [e.train_loss, e.val_loss, e.metric, round(e.time, 3)] for e in self.history
        ]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Outcome:
        """Rebuild what `to_json` wrote."""
        fields = dict(record)
        fields["state"] = OutcomeState(fields["state"])
        fields["history"] = tuple(Epoch(i, *row) for i, row in enumerate(fields["history"]))
        return cls(**fields)
