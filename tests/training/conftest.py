from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tuner.data import DataRef
from tuner.jobs import Epoch, TrainJob

MakeRef = Callable[..., DataRef]


@pytest.fixture(scope="session")
def make_ref(tmp_path_factory: pytest.TempPathFactory) -> MakeRef:
    """Write a series as prepared data: three quarters to train on, the rest to score."""
    numbers = itertools.count()

    def make(
        targets: np.ndarray,
        inputs: np.ndarray | None = None,
        *,
        window: int = 8,
        horizon: int = 1,
        offset: float = 100.0,
        scale: float = 10.0,
    ) -> DataRef:
        folder = tmp_path_factory.mktemp(f"data{next(numbers)}")
        targets = np.asarray(targets, np.float32)
        np.save(folder / "targets.npy", targets)
        np.save(folder / "inputs.npy", targets if inputs is None else np.asarray(inputs, "f4"))
        np.save(folder / "truth.npy", targets.astype(np.float64) * scale + offset)
        n_rows, n_targets = targets.shape
        end = n_rows * 3 // 4
        return DataRef(
            folder=str(folder),
            window=window,
            horizon=horizon,
            train=(0, end),
            evaluate=(end, n_rows),
            transform="none",
            offset=(offset,) * n_targets,
            scale=(scale,) * n_targets,
        )

    return make


@pytest.fixture(scope="session")
def sine(make_ref: MakeRef) -> DataRef:
    return make_ref(np.sin(np.arange(120) * 0.5)[:, None])


@pytest.fixture(scope="session")
def noise(make_ref: MakeRef) -> DataRef:
    """Nothing can be learned of it, so that the best epoch is an early one."""
    return make_ref(np.random.default_rng(0).normal(size=(80, 1)))


MakeJob = Callable[..., TrainJob]


@pytest.fixture(scope="session")
def make_job() -> MakeJob:
    def make(
        data: DataRef,
        *,
        seed: int = 1,
        epochs: int = 3,
        patience: int = 1000,
        metric: str = "rmse",
        keep_weights: bool = False,
        **hyperparameters: Any,
    ) -> TrainJob:
        return TrainJob(
            key="job",
            hyperparameters={"hidden_size": 8, "learning_rate": 0.01} | hyperparameters,
            seed=seed,
            epochs=epochs,
            patience=patience,
            metric=metric,
            data=data,
            keep_weights=keep_weights,
        )

    return make


@pytest.fixture(scope="session")
def go_on() -> Callable[[Epoch], bool]:
    return lambda epoch: True
