"""Executors run jobs: in worker processes on this machine, or on Ray."""

from tuner.executors.base import Event, Executor, Finished, Lost, Reported
from tuner.executors.choice import ExecutorChoice, choose_executor
from tuner.executors.local import LocalExecutor
from tuner.executors.ray_executor import RayExecutor

__all__ = [
    "Event",
    "Executor",
    "ExecutorChoice",
    "Finished",
    "LocalExecutor",
    "Lost",
    "RayExecutor",
    "Reported",
    "choose_executor",
]
