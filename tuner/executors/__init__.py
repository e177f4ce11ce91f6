"""Executors run jobs: in worker processes on this machine, on Ray, or from recorded landscapes."""

from tuner.executors.base import Event, Executor, Finished, Lost, Reported
from tuner.executors.choice import ExecutorChoice, choose_executor
from tuner.executors.local import LocalExecutor
from tuner.executors.ray_executor import RayExecutor
from tuner.executors.simulated import Landscape, Recording, SimulatedExecutor

__all__ = [
    "Event",
    "Executor",
    "ExecutorChoice",
    "Finished",
    "Landscape",
    "LocalExecutor",
    "Lost",
    "RayExecutor",
    "Recording",
    "Reported",
    "SimulatedExecutor",
    "choose_executor",
]
