"""Executors run jobs: in worker processes on this machine, or from recorded landscapes."""

from tuner.executors.base import Event, Executor, Finished, Lost, Reported
from tuner.executors.local import LocalExecutor
from tuner.executors.simulated import Landscape, Recording, SimulatedExecutor

__all__ = [
    "Event",
    "Executor",
    "Finished",
    "Landscape",
    "LocalExecutor",
    "Lost",
    "Recording",
    "Reported",
    "SimulatedExecutor",
]
