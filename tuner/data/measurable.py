"""Metrics that have no sense for some values, refused before anything is trained."""

from __future__ import annotations

import numpy as np

from tuner.data.dataset import Facts
from tuner.data.tables import refusal

__all__ = ["check_measurable"]


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
