"""Rules of weights: which columns they cannot be, and what cannot be weighted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.experiment.metrics import METRICS
from tuner.experiment.own_text import is_own

if TYPE_CHECKING:
    from tuner.experiment.schema import Experiment

__all__ = ["check_step_weights", "check_weights"]


def check_step_weights(weights: Sequence[float], horizon: int) -> None:
    """Refuse weights that are not one for each step, and those that leave nothing.

    Raises:
        ValueError: naming the key, rule, value and remedy.
    """
    if len(weights) != horizon:
        text = f"must be one number for each step of horizon, which is {horizon}, got "
        remedy = f"write {horizon} of them, or horizon: {len(weights)}"
        if not weights:
            remedy = f"write {horizon} of them, or remove it"
        raise ValueError(f"step_weights: {text}{len(weights)}; {remedy}")
    if not any(weights):
        text = f"must not all be 0, got {list(weights)}; write 1 where a step counts"
        raise ValueError(f"step_weights: {text}")


def check_weights(experiment: Experiment, loss_key: str, losses: Sequence[str]) -> None:
    """Refuse a column of weights that has another role, and what cannot be weighted.

    Args:
        experiment: whose weights they are.
        loss_key: the key that says which loss is minimized.
        losses: that training may minimize.

    Raises:
        ValueError: naming the key, rule, value and remedy.
    """
    data, name = experiment.data, experiment.data.weight
    if name is None and experiment.task.step_weights is None:
        return
    key = "data.weight" if name is not None else "task.step_weights"
    roles: dict[str, list[str | None]] = {
        "target": [*data.targets], "time": [data.time], "id": [data.id], "text": [data.text],
        "tokens": [data.tokens], "split.column": [data.split.column],
        "split.group": [data.split.group],
    }  # fmt: skip
    for role, columns in roles.items():
        if name is not None and name in columns:
            text = f"must be a column of its own, got {name!r}, which is data.{role}; remove it"
            raise ValueError(f"data.weight: {text}")
    if name is not None and experiment.task.kind == "translate":
        text = f"is of values and classes, got {name!r} with translate; remove it"
        raise ValueError(f"data.weight: {text}")
    own = METRICS[experiment.objective.metric].definition
    if own is not None:
        text = f"one's own cannot be weighted, got {own!r} beside {key}; write rmse, say, or "
        if experiment.task.kind in ("classify", "label"):
            text = text.replace("rmse", "accuracy")
        raise ValueError(f"objective.metric: {text}remove {key}")
    for loss in losses:
        if is_own(loss):
            text = f"one's own cannot be weighted, got {loss!r} beside {key}; write auto, or "
            raise ValueError(f"{loss_key}: {text}remove {key}")
