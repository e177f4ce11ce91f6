"""Executors run jobs: in worker processes on this machine, or wherever else one is written for."""

from tuner.executors.base import Event, Executor, Finished, Lost, Reported
from tuner.executors.local import LocalExecutor

__all__ = ["Event", "Executor", "Finished", "LocalExecutor", "Lost", "Reported"]
