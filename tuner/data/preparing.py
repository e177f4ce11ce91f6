"""Prepares the data of a search, once and without the test part."""

from __future__ import annotations

from pathlib import Path

from tuner.data.dataset import Dataset, Prepared
from tuner.experiment import Experiment

__all__ = ["Prepared", "check_data", "prepare"]


def check_data(experiment: Experiment) -> Dataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    if experiment.task.kind == "forecast":
        from tuner.data.series import check_series

        return check_series(experiment)
    from tuner.data.sequences import check_sequences

    return check_sequences(experiment)


def prepare(experiment: Experiment, folder: Path) -> Prepared:
    """Read, check, split, transform and scale, and write the arrays without the test part.

    Raises:
        DataError: as `check_data` does, before anything is written.
    """
    return check_data(experiment).write(folder)
