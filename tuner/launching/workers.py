"""How many trials run at a time, and what there is to say about that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.strategies.registry import rhythm_of

if TYPE_CHECKING:
    from tuner.executors.choosing import ExecutorChoice

__all__ = ["check_workers", "choose_workers", "warnings"]


def check_workers(workers: int | None, option: str = "--workers", one: str = "--workers 1") -> None:
    """Refuse a number that no machine has.

    Args:
        workers: how many were asked for.
        option: what asked for them.
        one: how to ask for one.

    Raises:
        InputError: it is below 1.
    """
    if workers is not None and workers < 1:
        raise InputError(
            f"{option}: must be at least 1, got {workers}; write {one}, or leave it out"
        )


def choose_workers(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> int:
    """Return what was asked for, or else as many as there is room for; never more than are used."""
    return max(1, min(choice.capacity if workers is None else workers, _useful(experiment)))


def warnings(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> list[str]:
    """Return what a person should know who asked for so many workers."""
    found = []
    useful = _useful(experiment)
    enough = max(1, min(choice.capacity, useful))
    if workers is not None and workers > enough:
        key = "population" if rhythm_of(experiment.strategy).generational else "batch"
        what = "budget.trials" if experiment.asynchronous else f"strategy.{key}"
        if useful <= choice.capacity:
            why = f"more than there are trials at a time ({what} is {useful})"
        else:
            why = f"more than fit on {choice.unit}, they get in each other's way"
            if workers > useful:
                why += f", though {useful} at most are used ({what})"
        found.append(f"--workers {workers}: {why}; --workers {enough} is enough")
    if experiment.asynchronous:
        found.append(
            "asynchronous: a trial starts when a worker is free, so the same search run again "
            "gives other trials"
        )
    return found


def _useful(experiment: Experiment) -> int:
    """Return how many trials the strategy can have in progress."""
    if experiment.asynchronous:
        return sys.maxsize if experiment.n_trials is None else experiment.n_trials
    return rhythm_of(experiment.strategy).size
