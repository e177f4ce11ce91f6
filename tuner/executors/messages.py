"""What workers say to the executor beside the events that it passes on."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.executors.base import Finished, Reported

__all__ = ["Died", "Message", "Ready", "Started"]


@dataclass(frozen=True)
class Ready:
    """A worker has started and can begin a job."""

    version: str  # of tuner, where the worker runs


@dataclass(frozen=True)
class Started:
    """A worker begins to train a job; until then it was queued, sent or unpacked."""

    key: str


@dataclass(frozen=True)
class Died:
    """A worker is no more; said in its place by whoever noticed."""

    reason: str


Message = Ready | Started | Reported | Finished | Died
