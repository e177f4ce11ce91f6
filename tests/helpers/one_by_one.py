"""The jobs of a group without a batched model: each by itself, their epochs reported together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from tuner.jobs import Epoch, Outcome, TrainJob


def one_by_one(
    run_job: Callable[[Any, Callable[[Epoch], bool]], Outcome],
    jobs: Sequence[TrainJob],
    report: Callable[[Sequence[tuple[str, Epoch]]], Sequence[bool]],
) -> list[Outcome]:
    """Do the jobs of a group each by itself, with their epochs reported together.

    Args:
        run_job: does one of them, in a thread of its own.
        jobs: the members.
        report: as `tuner.executors.base.RunGroup` has it.
    """
    turns = _Turns(len(jobs), report)
    outcomes: list[Any] = [None] * len(jobs)

    def run(number: int) -> None:
        try:
            outcomes[number] = run_job(
                jobs[number], lambda epoch: turns.wait(number, jobs[number].key, epoch)
            )
        except Exception as error:
            outcomes[number] = error
        finally:
            turns.leave(number)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


class _Turns:
    """Collects an epoch of every member that still trains, and then reports them."""

    def __init__(self, n: int, report: Any) -> None:
        self._report, self._changed = report, threading.Condition()
        self._training = set(range(n))
        self._epochs: dict[int, tuple[str, Epoch]] = {}
        self._answers: dict[int, bool] = {}

    def wait(self, number: int, key: str, epoch: Epoch) -> bool:
        """Return the answer to a member's epoch."""
        with self._changed:
            self._epochs[number] = key, epoch
            self._report_if_all()
            self._changed.wait_for(lambda: number in self._answers)
            return self._answers.pop(number)

    def leave(self, number: int) -> None:
        """Note that a member has ended."""
        with self._changed:
            self._training.discard(number)
            self._report_if_all()

    def _report_if_all(self) -> None:
        if self._epochs and self._epochs.keys() == self._training:
            members = sorted(self._epochs)
            answers = self._report([self._epochs[member] for member in members])
            self._answers.update(zip(members, answers, strict=True))
            self._epochs.clear()
            self._changed.notify_all()
