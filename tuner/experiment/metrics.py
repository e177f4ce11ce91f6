"""The metrics by name: what they measure, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["COSTS", "METRICS", "Metric"]


@dataclass(frozen=True)
class Metric:
    """A score of predictions on rows or sequences that were not trained on."""

    of: Literal["values", "quantiles", "classes"]
    maximize: bool = False

    @property
    def sign(self) -> float:
        """What a score is multiplied with so that less is better."""
        return -1.0 if self.maximize else 1.0


METRICS = {
    "rmse": Metric("values"),
    "mae": Metric("values"),
    "mape": Metric("values"),
    "smape": Metric("values"),
    "mase": Metric("values"),
    "r2": Metric("values", maximize=True),
    "pinball": Metric("quantiles"),
    "accuracy": Metric("classes", maximize=True),
    "f1": Metric("classes", maximize=True),
    "auroc": Metric("classes", maximize=True),
    "cross_entropy": Metric("classes"),
}

COSTS = {
    "weights": "numbers that were learned",
    "seconds": "of training",
    "latency": "milliseconds of predicting one sample, in torch",
}
"""What a model costs, of which less is better: a second objective beside a metric."""
