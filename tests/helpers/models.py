"""Models and trainings made without a job, and the comparison of weights bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import TrainJob
from tuner.training import Model
from tuner.training.device import Generators
from tuner.training.trainer import Fit

CPU = torch.device("cpu")
BEGIN_AT_ZERO = ("linear_path", "local", "head", "categories")


def drawn(shape: Shape, seed: int = 0, std: float = 0.0, **values: Any) -> Model:
    """A model of 5 units, to predict with; with `std` also heads and linear paths are drawn."""
    torch.manual_seed(seed)
    model = Model(Hyperparameters(**{"hidden_size": 5} | values), shape).eval()
    for name, parameter in model.named_parameters():
        if std and name.startswith(BEGIN_AT_ZERO):
            nn.init.normal_(parameter, std=std)
    return model


def fit_of(job: TrainJob) -> Fit:
    """The training of a job before its first epoch."""
    torch.manual_seed(0)
    generators = Generators(*(torch.Generator().manual_seed(0) for _ in range(2)))
    return Fit(job, Hyperparameters(**job.hyperparameters), job.folds[0], CPU, generators)


def assert_same_bits(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    """Assert that weights are equal, including which zeros are negative."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name
