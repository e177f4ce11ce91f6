"""Targets that are not worth a model, and metrics that have no sense for some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tuner.data.dataset import Facts
from tuner.data.features import Table
from tuner.data.tables import refusal

__all__ = ["check_measurable", "constant_features", "constant_targets"]


def constant_targets(targets: Sequence[str], truth: np.ndarray) -> Iterator[tuple[str, str]]:
    """Say which targets are the same in the whole training part: there is nothing to learn.

    Args:
        targets: their names.
        truth: (n, targets), of the training part; nan where it is missing.
    """
    for name, column in zip(targets, truth.T, strict=True):
        values = column[~np.isnan(column)]
        if len(values) and np.ptp(values) == 0:
            text = f"{name!r} is {values[0]:g} in all of the training part: nothing can be learned"
            yield "constant", text


def constant_features(
    table: Table, rows: np.ndarray, later: np.ndarray, targets: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Say which other columns are the same in the whole training part: they tell nothing.

    Args:
        table: that was made of the series.
        rows: of the training part.
        later: rows of the validation part, in which such a column may move.
        targets: their names.
    """
    for at, (name, column) in enumerate(zip(table.names, table.inputs.T, strict=True)):
        if at in table.category_columns:
            continue
        values = column[rows]
        values = values[~np.isnan(values)]
        if name not in targets and len(values) and np.ptp(values) == 0:
            text = f"{name!r} is {values[0]:g} in all of the training part"
            after = column[later]
            moved = after[~np.isnan(after) & (after != values[0])]
            if len(moved):
                text += f", and {moved[0]:g} later: what that means was never learned"
            else:
                text += ": it tells a model nothing"
            yield "constant", f"{text}; leave it out of data.features"


def check_measurable(
    metric: str, facts: Facts, part: str, truth: np.ndarray, units: np.ndarray
) -> None:
    """Refuse a metric that has no score of these values, or the same one whatever is predicted.

    Args:
        metric: the experiment's.
        facts: gives the file and the names of the targets.
        part: that the values are of.
        truth: (n, targets), what is to be predicted.
        units: (samples, targets), what MASE divides by; nan where there is nothing.

    Raises:
        DataError: naming metric, target and remedy.
    """
    if metric == "r2" and len(truth) < 2:
        text = "r2 needs at least 2 values, got 1; make the part larger or choose another metric"
        raise refusal(facts.path, f"data.split.{part.partition(' ')[0]}", text)
    for target, values, divisors in zip(facts.targets, truth.T, units.T, strict=True):
        of = f"{target!r} in the {part} part"
        if metric == "mape" and (values == 0).any():
            text = f"mape divides by the values, got 0 for {of}; write smape, mae or rmse"
        elif metric == "r2" and np.ptp(values) == 0:
            text = f"r2 compares with the variance, got a constant for {of}; write rmse or mae"
        elif metric == "mase" and (np.isnan(divisors).all() or (divisors == 0).any()):
            got = "0" if (divisors == 0).any() else "none"
            text = (
                f"mase divides by the error of the naive forecast in the training part, got {got} "
                f"for {target!r}, which is constant, repeats itself or is too short; write rmse "
                f"or mae"
            )
        else:
            continue
        raise refusal(facts.path, "objective.metric", text)
