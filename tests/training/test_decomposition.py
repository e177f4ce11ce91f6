"""A window's parts: they add up to it, are what the papers say, and know of no other window."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState
from tuner.training import Model, run_job
from tuner.training.device import TrainingError
from tuner.training.layers import Decomposition

TREND = Shape("forecast", 4, horizon=3, targets=2, window=10, target_columns=(2, 0), trend=4)
MODES = Shape("forecast", 4, horizon=3, targets=2, window=10, target_columns=(2, 0), modes=2)


def windows(shape, size=5):
    torch.manual_seed(0)
    return torch.randn(size, shape.window, shape.inputs, dtype=torch.float64)


@settings(deadline=None)
@given(length=st.integers(2, 10))
def test_the_trend_is_a_moving_mean_with_repeated_ends(length):
    shape = Shape("forecast", 4, targets=2, window=10, target_columns=(2, 0), trend=length)
    x = windows(shape)
    parts = Decomposition(shape)(x).numpy()
    own, trend = x.numpy()[:, :, [2, 0]], parts[:, :, -2:]
    behind = (length - 1) // 2
    for t in range(10):
        rows = np.clip(np.arange(t - (length - 1 - behind), t + behind + 1), 0, 9)
        np.testing.assert_allclose(trend[:, t], own[:, rows].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(parts[:, :, :2] + trend, own, atol=1e-12)
    np.testing.assert_array_equal(parts[:, :, 2:4], x.numpy()[:, :, [1, 3]])


def test_modes_and_what_they_leave_add_up_to_each_target():
    x = windows(MODES)
    parts = Decomposition(MODES)(x).numpy()
    assert parts.shape == x.shape
    left, modes = parts[:, :, :2], parts[:, :, 4:].reshape(5, 10, 2, 2)
    np.testing.assert_allclose(left + modes.sum(axis=3), x.numpy()[:, :, [2, 0]], atol=1e-12)
    np.testing.assert_array_equal(parts[:, :, 2:], x.numpy()[:, :, [1, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize("kind", ["last", "mean", "standard"])
@pytest.mark.parametrize("shape", [TREND, MODES], ids=["trend", "modes"])
def test_a_level_that_is_taken_off_moves_no_forecast_of_parts(shape, kind):
    torch.manual_seed(1)
    options = {"hidden_size": 5, "normalize": kind, "linear_path": True}
    model = Model(Hyperparameters(**options), shape).double().eval()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    x = windows(shape)
    lifted = x.clone()
    lifted[:, :, 2] += 100.0  # the first target
    moved = (model(lifted) - model(x)).detach()
    expected = torch.zeros_like(moved)
    expected[:, :, 0] = 100.0
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("shape", [TREND, MODES], ids=["trend", "modes"])
@pytest.mark.parametrize("normalize", ["none", "standard"])
def test_the_exported_model_splits_as_torch_does(shape, normalize):
    torch.manual_seed(2)
    values = {"hidden_size": 6, "normalize": normalize, "linear_path": True, "conv_channels": 3}
    weights = Model(Hyperparameters(**values), shape).weights()
    outcome = run_job(ExportJob("model", values, weights, shape, shape.window), lambda epoch: True)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    assert outcome.exported is not None
    assert outcome.exported.difference < 1e-5


def test_a_target_that_is_not_read_cannot_be_split():
    shape = Shape("forecast", 1, window=5, target_columns=(-1,), trend=3)
    with pytest.raises(TrainingError, match="decompose: needs every target among the features"):
        Model(Hyperparameters(), shape)


def test_modes_are_divided_by_the_spread_of_their_target():
    torch.manual_seed(1)
    values = {"hidden_size": 5, "normalize": "standard"}
    model = Model(Hyperparameters(**values), MODES).double().eval()
    x = windows(MODES)
    larger = x.clone()
    larger[:, :, [0, 2, 4, 5, 6, 7]] *= 50.0  # both targets, and the modes of each
    torch.testing.assert_close(model(larger), 50 * model(x), rtol=1e-3, atol=1e-2)
