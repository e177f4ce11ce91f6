"""How far a search goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """When a search ends, and when a trial is given up."""

    n_trials: int | None  # trained in all; repeats do not count
    n_configurations: int | None = None  # of the search space; None where it is infinite
    stagnation: int | None = None  # generations without a better score
    retries: int = 2  # of a job that the machine lost
    out_of_time: Callable[[], bool] = lambda: False  # says when no further trial may start
