"""How far a search goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tuner.experiment import Experiment

__all__ = ["Limits", "why_it_ended"]


@dataclass(frozen=True)
class Limits:
    """When a search ends, and when a trial is given up."""

    n_trials: int | None  # trained in all; repeats do not count
    n_configurations: int | None = None  # of the search space; None where it is infinite
    stagnation: int | None = None  # generations without a better score
    retries: int = 2  # of a job that the machine lost
    out_of_time: Callable[[], bool] = lambda: False  # says when no further trial may start


def why_it_ended(
    experiment: Experiment, n_trained: int, exhausted: bool, out_of_time: bool
) -> str | None:
    """Say why a search is over; None where it has trained what it was asked for.

    Args:
        experiment: what was searched.
        n_trained: how many trials have been trained in all.
        exhausted: whether no configuration is left.
        out_of_time: whether the time is up.
    """
    budget = experiment.budget
    if not experiment.search_space or (budget.trials is not None and n_trained >= budget.trials):
        return None
    of = "" if budget.trials is None else f" of {budget.trials}"
    if exhausted:
        return f"every configuration of the search space ({n_trained}) has been trained"
    if out_of_time:
        return f"the time is up ({budget.timeout:g} s): {n_trained}{of} trials were trained"
    return (
        f"no better score in {budget.stagnation} generations: the search ends after "
        f"{n_trained}{of} trials"
    )
