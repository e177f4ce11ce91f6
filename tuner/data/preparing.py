"""Prepares the data of a search, once and without the test part."""

from __future__ import annotations

from pathlib import Path

from tuner.data.dataset import Dataset, Facts, Prepared
from tuner.data.own_metrics import check_own_metric
from tuner.data.tables import refusal
from tuner.experiment import Experiment

__all__ = ["Prepared", "check_data", "check_same", "prepare"]


def check_data(experiment: Experiment, *, all_data: bool = False) -> Dataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Args:
        experiment: says which data, and how it is prepared.
        all_data: whether the validation part is trained on too, and everything fitted on both;
            with rolling origins, on all before the test part. What is evaluated then was seen
            in training: it gives no score.

    Raises:
        DataError: naming file, key, rule, value and remedy.
    """
    check_own_metric(experiment, Path(experiment.data.path))
    if experiment.task.of_series:
        from tuner.data.series import check_series

        return check_series(experiment, all_data=all_data)
    if experiment.task.kind == "translate":
        from tuner.data.pairs import check_pairs

        return check_pairs(experiment, all_data=all_data)
    from tuner.data.sequences import check_sequences

    return check_sequences(experiment, all_data=all_data)


def prepare(experiment: Experiment, folder: Path, *, all_data: bool = False) -> Prepared:
    """Read, check, split, transform and scale, and write the arrays without the test part.

    Args:
        experiment: says which data, and how it is prepared.
        folder: where the arrays are written.
        all_data: see `check_data`.

    Raises:
        DataError: as `check_data` does, before anything is written.
    """
    return check_data(experiment, all_data=all_data).write(folder)


def check_same(facts: Facts, sha256: str | None) -> None:
    """Refuse a file that is not the one that was searched on, whose sha256 it is.

    Raises:
        DataError: naming both.
    """
    if sha256 is not None and facts.sha256 != sha256:
        text = f"must be the file that was searched on (sha256 {sha256[:12]}), got "
        remedy = f"{facts.sha256[:12]}; bring the file back"
        raise refusal(facts.path, "data.path", text + remedy)
