"""What `tuner init` writes for independent sequences, and why: from their length and number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tuner.data.linear_sequences import MOST_VALUES

__all__ = ["SequencePlan", "plan_sequences", "too_few_to_choose"]

_SECONDS = 25.0  # that a trial may take on one core, about
_LONG = 48  # steps, from which on they are read in segments, behind a convolution
_STEPS_READ = 16  # about, of a long sequence
_FEW = 500  # sequences: a hundred or so validate


@dataclass(frozen=True)
class SequencePlan:
    """Everything about a first search over sequences that depends on them."""

    metric: str
    linear_paths: tuple[bool, ...]  # that are searched, where it begins first; one is fixed
    bidirectional: bool
    segments: tuple[int, ...]  # that are searched; one is fixed, and 1 is none
    channels: tuple[int, ...]  # of a convolution, likewise; 0 is none
    poolings: tuple[str, ...]
    hidden_sizes: tuple[int, int]
    batch_sizes: tuple[int, ...]
    learning_rates: tuple[float, float]
    trials: int
    epochs: int
    patience: int
    startup: int
    warmup: int
    repeats: int


def too_few_to_choose(lengths: np.ndarray) -> bool:
    """Return whether luck on the validation sequences would choose between unlike models."""
    return len(lengths) < _FEW


def plan_sequences(kind: str, lengths: np.ndarray, *, n_features: int) -> SequencePlan:
    """Choose what a first search begins with.

    Sequences of one length may have a linear path. It is searched here: a linear model that
    nearly fits the training sequences leaves the layers little to learn. Where there are too few
    to choose (`too_few_to_choose`) the caller may keep it.

    Args:
        kind: classify, label, regress or regress_steps.
        lengths: steps of each sequence, (sequences,).
        n_features: columns of numbers that are read.
    """
    middle = int(np.median(lengths))
    one_length = lengths.min() == lengths.max() and middle * n_features <= MOST_VALUES
    each_step = kind in ("label", "regress_steps")
    linear = not each_step and one_length
    long = middle >= _LONG
    segments: tuple[int, ...] = (1,)
    if long and not each_step:
        near = max(2, middle // _STEPS_READ)
        segments = tuple(sorted({max(2, near // 2), near, 2 * near}))
    read = math.ceil(middle / segments[0])
    trained = max(1, int(len(lengths) * 0.65))
    batches = (8, 16, 32) if trained < 1000 else (16, 32, 64) if trained < 5000 else (64, 128, 256)
    seconds = trained / batches[1] * 0.006 + trained * read * 8e-6
    of_values = kind in ("regress", "regress_steps")
    most = 150 if of_values else 60
    epochs = int(min(most, max(8, _SECONDS / seconds)))
    return SequencePlan(
        metric="rmse" if of_values else "accuracy",
        linear_paths=(True, False) if linear else (),
        bidirectional=True,
        segments=segments,
        channels=(0, 32) if long else (0,),
        poolings=() if each_step else ("last", "mean", "max", "attention"),
        hidden_sizes=(16, 128),
        batch_sizes=batches,
        learning_rates=(0.001, 0.02),
        trials=30 if epochs > 15 else 20,
        epochs=epochs,
        patience=min(epochs, max(5, epochs // 4)),
        startup=8,
        warmup=max(3, epochs // 5),
        repeats=3,
    )
