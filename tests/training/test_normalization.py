"""A window's level: taken off as the papers say, put back, and never known from what lies ahead."""

import numpy as np
import pytest
import torch
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import Model
from tuner.training.device import TrainingError
from tuner.training.layers import Normalization

ALONE = Shape("forecast", 1, horizon=4, window=10, target_columns=(0,))
MANY = Shape(
    "forecast", 4, horizon=3, targets=2, window=10, target_columns=(2, 0), lag_columns=((1, 1),)
)  # column 3 is no target's
OPTIONS = [
    {},
    {"cell": "gru", "decoder": "recursive", "linear_path": True},
    {"cell": "peephole", "pooling": "attention", "bidirectional": True, "segment": 4},
    {"cell": "rnn", "decoder": "segments", "segment": 3, "conv_channels": 2, "pooling": "mean"},
    {"num_layers": 2, "proj_size": 2, "pooling": "max", "linear_path": True, "conv_channels": 3},
]


def drawn(shape, **options):
    """A model all of whose weights are drawn, in double precision."""
    torch.manual_seed(0)
    model = Model(Hyperparameters(hidden_size=5, **options), shape).double().eval()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def windows(shape, seed=0, size=6):
    torch.manual_seed(seed)
    return torch.randn(size, shape.window, shape.features, dtype=torch.float64)


def test_the_level_is_that_of_the_papers_equations():
    x = windows(MANY)
    a = x.numpy()
    own = a[:, :, [2, 0]]
    mean = own.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.square(own - mean).mean(axis=1, keepdims=True) + 1e-5)  # RevIN, eq. 1
    for kind, shift, by in (
        ("last", own[:, -1:], np.ones_like(mean)),
        ("mean", mean, np.ones_like(mean)),
        ("standard", mean, spread),
    ):
        found, level = Normalization(kind, MANY)(x)
        expected = a.copy()
        for column, target in ((2, 0), (0, 1), (1, 1)):  # the lag has the second target's level
            expected[:, :, column] -= shift[:, :, target]  # eq. 2
            expected[:, :, column] /= by[:, :, target]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_array_equal(found[:, :, 3], a[:, :, 3])
        y = torch.randn(6, 3, 2, dtype=torch.float64)
        np.testing.assert_allclose(level.denormalize(y), y.numpy() * by + shift)  # eq. 4
        torch.testing.assert_close(level.denormalize(level.normalize(y)), y)
        several = torch.stack((y, y + 1), dim=3)  # quantiles
        expected = np.stack([v * by + shift for v in (y.numpy(), y.numpy() + 1)], axis=3)
        np.testing.assert_allclose(level.denormalize(several), expected)


@settings(max_examples=examples(15))
@given(
    kind=st.sampled_from(["last", "mean", "standard"]),
    options=st.sampled_from(OPTIONS),
    quantiles=st.sampled_from([(), (0.1, 0.5)]),
    seed=st.integers(0, 99),
    constant=st.floats(-100, 100),
)
def test_a_higher_target_window_raises_the_forecast_equally(
    kind, options, quantiles, seed, constant
):
    shape = Shape(**vars(ALONE) | {"quantiles": quantiles})
    model, x = drawn(shape, normalize=kind, **options), windows(shape, seed)
    forecast = model(x)
    torch.testing.assert_close(model(x + constant), forecast + constant, rtol=1e-9, atol=1e-9)
    plain = drawn(shape, **options)
    if abs(constant) > 1:
        assert not torch.allclose(plain(x + constant), plain(x) + constant)


@settings(max_examples=examples(15))
@given(options=st.sampled_from(OPTIONS), seed=st.integers(0, 99), factor=st.floats(10, 1000))
def test_a_wider_window_widens_the_forecast(options, seed, factor):
    model, x = drawn(ALONE, normalize="standard", **options), 100 * windows(ALONE, seed)
    torch.testing.assert_close(model(factor * x), factor * model(x), rtol=1e-6, atol=1e-4)


def test_each_target_moves_by_its_own_level_alone():
    x = windows(MANY)
    model = drawn(MANY, normalize="last")
    both = x.clone()
    both[:, :, 2] += 7
    moved = model(both) - model(x)
    torch.testing.assert_close(moved[..., 0], torch.full_like(moved[..., 0], 7))
    torch.testing.assert_close(moved[..., 1], torch.zeros_like(moved[..., 1]))
    both[:, :, 3] += 7  # a price, say
    assert not torch.allclose(model(both) - model(x), moved)


def test_a_window_that_does_not_move_has_a_finite_forecast():
    model = drawn(ALONE, normalize="standard").float()
    x = torch.full((2, 10, 1), 3.0, requires_grad=True)
    forecast = model(x)
    forecast.sum().backward()
    assert forecast.isfinite().all()
    assert (forecast - 3).abs().max() < 0.1
    assert x.grad.isfinite().all()


def test_a_target_that_is_not_read_has_no_level():
    for key, options in (("normalize", {"normalize": "last"}), ("linear_path", {"linear_path": 1})):
        for columns in ((-1,), ()):
            shape = Shape(**vars(ALONE) | {"target_columns": columns})
            with pytest.raises(TrainingError, match=f"{key}: needs every target"):
                Model(Hyperparameters(**options | {"linear_path": key == "linear_path"}), shape)


@pytest.mark.parametrize("kind", ["last", "mean", "standard"])
def test_the_loss_is_taken_after_the_inverse(make_ref, make_job, go_on, kind):
    from tuner.training import train

    # Each window is as wide as its level: only after the inverse do the wide ones weigh more.
    level = np.repeat([1.0, 8.0, 2.0, 9.0], 40)[:, None]
    ref = make_ref(level * np.sin(np.arange(160) * 0.7)[:, None], horizon=2)
    job = make_job(ref, epochs=1, keep_weights=True, normalize=kind)
    outcome = train(job, go_on)
    model = Model(Hyperparameters(**job.hyperparameters), ref.shape).eval()
    model.load_weights(outcome.weights)
    samples = ref.evaluate_samples()
    x = torch.tensor(ref.load("inputs")[samples[:, None] + np.arange(-8, 0)])
    y = ref.load("targets")[samples[:, None] + np.arange(2)]
    expected = np.square(model(x).detach().numpy() - y).mean()
    assert outcome.history[0].val_loss == pytest.approx(expected, rel=1e-5)
