"""Runs a command while watching the memory of its processes; used by the other scripts."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tuner.template import can_fork

__all__ = ["Watched", "watch"]

_EVERY_S = 0.1


@dataclass
class Watched:
    """What a command took.

    Memory is the resident set: it counts what processes share for each of them.
    """

    wall_s: float = 0.0
    coordinator_mb: float = 0.0
    workers_mb: dict[int, float] = field(default_factory=dict)  # by process id


def watch(command: list[str], folder: Path) -> Watched:
    """Run `command` in `folder`, its output thrown away, and look at it ten times a second.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    watched = Watched()
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    coordinator = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            watched.coordinator_mb = max(watched.coordinator_mb, _resident_mb(coordinator))
            for worker in _workers_of(coordinator):
                before = watched.workers_mb.get(worker.pid, 0.0)
                watched.workers_mb[worker.pid] = max(before, _resident_mb(worker))
        except psutil.NoSuchProcess:  # ended between two looks
            pass
        time.sleep(_EVERY_S)
    watched.wall_s = time.perf_counter() - begun
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return watched


def _workers_of(coordinator: psutil.Process) -> list[psutil.Process]:
    """Return the local workers: where processes are forked, the children of its template."""
    children: list[psutil.Process] = coordinator.children()
    if not can_fork():
        return children
    return [worker for template in children for worker in template.children()]


def _resident_mb(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20
