"""The Ray actor that does jobs. The executor hands the class to Ray and never makes one."""

from __future__ import annotations

import importlib
import os
import queue
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuner import __version__
from tuner.data.reference import hold_arrays
from tuner.executors.base import Message, Ready, Started, serve
from tuner.jobs import Job

if TYPE_CHECKING:
    from tuner.executors.base import RunJob

__all__ = ["N_CALLS", "RayWorker"]

N_CALLS = 3
"""Calls in progress at a time: `train`, `hear`, and the one of `next_messages` that waits."""


class RayWorker:
    """Trains one job at a time, and queues messages for the executor."""

    def __init__(self, training: str, gpus: float) -> None:
        """Bring torch up; `next_messages` then begins with `Ready`.

        Args:
            training: the module that `prepare`s what does jobs.
            gpus: as Ray was told; without any it hides those that other jobs have reserved.
        """
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._run_job: RunJob = importlib.import_module(training).prepare()
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._messages.put(Ready(__version__))

    def train(self, job: Job, folders: Sequence[str], *arrays: Mapping[str, np.ndarray]) -> None:
        """Do a job whose data was prepared in these folders and came as these arrays."""
        hold_arrays(dict(zip(folders, arrays, strict=True)))
        serve(job, self._run_job, self._say, self._answers.get)

    def hear(self, go_on: bool) -> None:
        """Take the answer to what waits for one: `Started`, and the report of some jobs."""
        self._answers.put(go_on)

    def next_messages(self) -> list[Message]:
        """Return what was said since the last call, waiting until there is something."""
        messages = [self._messages.get()]
        while not self._messages.empty():
            messages.append(self._messages.get())
        return messages

    def _say(self, message: Message) -> None:
        self._messages.put(message)
        if isinstance(message, Started):
            # A job that hangs and holds Python's lock lets nothing out any more; it must not
            # begin before the executor knows that it does, and counts.
            self._answers.get()
