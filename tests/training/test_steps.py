"""Steps of the optimizer: the weights as one tensor, clipping, and batches that are views."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.models import assert_same_bits, drawn, fit_of
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import samples
from tuner.training.optimizers import (
    JoinedSteps,
    SeparateSteps,
    joined,
    make_steps,
    trained_weights,
)
from tuner.training.recurrent import make_layers, read
from tuner.training.samples import open_samples

FORECAST = Shape("forecast", 2, horizon=3, targets=2, window=6, target_columns=(0, 1))
OPTIMIZERS = ["adam", "adamw", "rmsprop", "sgd"]


def loss_of(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(8, n, 2, generator=generator) for n in (6, 3))
    return (model(x) - y).square().mean()


# The weights


def test_weights_become_views_of_one_tensor_and_stay_equal():
    model = drawn(FORECAST, num_layers=2, linear_path=True)
    before, weights = model.weights(), trained_weights(model)
    (whole,) = joined(model)
    assert_same_bits(before, model.weights())
    assert len(whole) == sum(weight.numel() for weight in weights)
    whole.fill_(3.0)
    assert all((weight == 3).all() for weight in weights)
    assert not any((weight == 3).any() for weight in model.linear_path.parameters())


def test_loaded_weights_stay_in_the_tensor():
    model, other = drawn(FORECAST), drawn(FORECAST, seed=1)
    (whole,) = joined(model)
    model.load_weights(other.weights())
    assert_same_bits(model.weights(), other.weights())
    assert torch.equal(whole, torch.cat([w.detach().flatten() for w in trained_weights(model)]))


# The steps


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_joined_weights_step_as_separate_ones_do(name, clip):
    parameters = Hyperparameters(
        optimizer=name, learning_rate=0.01, weight_decay=0.1, gradient_clip=clip, hidden_size=5
    )
    one, other = (drawn(FORECAST, pooling="attention").train() for _ in range(2))
    steps = make_steps(one, parameters)
    apart = SeparateSteps(trained_weights(other), parameters, half=False)
    assert isinstance(steps, JoinedSteps)
    for k in range(6):
        for group in (*steps.optimizer.param_groups, *apart.optimizer.param_groups):
            group["lr"] = 0.01 / (1 + k)  # as a schedule does
        steps.take(loss_of(one, k))
        apart.take(loss_of(other, k))
    for name, array in one.weights().items():
        np.testing.assert_allclose(array, other.weights()[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("kind", ["joined", "separate"])
@pytest.mark.parametrize("clip", [0.01, 1e3])
def test_a_gradient_is_clipped_to_the_largest_norm(kind, clip):
    parameters = Hyperparameters(optimizer="sgd", learning_rate=0.5, gradient_clip=clip)
    model = drawn(FORECAST)
    weights = trained_weights(model)
    loss = loss_of(model)
    found = torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(model), weights)])
    before = torch.cat([w.detach().flatten() for w in weights])
    if kind == "joined":
        make_steps(model, parameters).take(loss)
    else:
        SeparateSteps(weights, parameters, half=False).take(loss)
    moved = before - torch.cat([w.detach().flatten() for w in weights])
    expected = 0.5 * found * min(1.0, clip / float(found.norm()))
    assert clip == 1e3 or float(found.norm()) > 10 * clip
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=2e-7)


def test_a_weight_that_the_loss_does_not_use_stays():
    model = drawn(FORECAST, num_layers=2)
    steps, before = make_steps(model, Hyperparameters()), model.weights()
    steps.take(model.head.weight.square().sum())
    changed = [name for name, array in model.weights().items() if (array != before[name]).any()]
    assert changed == ["head.weight"]


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_gradient_that_is_not_finite_shows_in_the_weights(name):
    model = drawn(FORECAST)
    steps = make_steps(model, Hyperparameters(optimizer=name))
    steps.take(loss_of(model) * torch.inf)
    assert all(weight.isnan().all() for weight in trained_weights(model))


def test_tied_frozen_and_lazy_weights_of_user_code_are_trained(make_ref, make_job):
    rows = np.cumsum(np.random.default_rng(0).normal(size=(120, 1)), axis=0) / 5
    fit = fit_of(make_job(make_ref(rows), cell="own_classes:Tied"))
    assert isinstance(fit.steps, SeparateSteps)
    losses, own = [fit.train_epoch()], fit.model.own.module
    assert own.first.weight.shape == (4, 1)
    first = own.first.weight.detach().clone()
    losses += [fit.train_epoch() for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(own.again, own.second.weight)
    assert (own.frozen == 1).all()
    assert (own.first.weight != first).all()


# Torch's layers


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_an_lstm_is_read_as_its_module_reads(bidirectional, bias):
    parameters = Hyperparameters(dropout=0.5, bias=bias)
    layers = make_layers(parameters, 3, 4, n_layers=2, bidirectional=bidirectional)
    x, state = torch.randn(5, 7, 3), torch.randn(2, 2 + 2 * bidirectional, 5, 4).unbind()
    for given in (None, state):
        torch.manual_seed(1)
        outputs, last = read(layers, x, given)
        torch.manual_seed(1)  # of the dropout
        expected, last_expected = layers(x, given)
        assert torch.equal(outputs, expected)
        assert all(torch.equal(a, b) for a, b in zip(last, last_expected, strict=True))


# Batches


@pytest.mark.parametrize("numbers", [1, 200, 2**18])
def test_batches_are_the_windows_of_the_index(make_ref, monkeypatch, numbers):
    monkeypatch.setattr(samples, "_NUMBERS_AT_ONCE", numbers)
    rows = np.random.default_rng(0).normal(size=(90, 2))
    ref = dataclasses.replace(make_ref(rows, horizon=3), step_weights=(1.0, 2.0, 3.0))
    windows = open_samples(ref, torch.device("cpu"))
    index = windows.index(ref.train_samples()).flip(0)
    found = list(windows.batches(index, 7))
    assert [len(batch.inputs) for batch in found] == [7] * (len(index) // 7) + [len(index) % 7]
    for batch, own in zip(found, index.split(7), strict=True):
        assert torch.equal(batch.inputs, windows.inputs(own)[0])
        assert torch.equal(batch.targets, windows.targets(own))
        assert torch.equal(batch.weights, windows.weights(own))
        assert (batch.lengths, batch.prefix, batch.losses) == (None, None, len(own))


@pytest.mark.parametrize("data", ["sums", "signs", "steps", "words", "running_sums"])
def test_batches_of_sequences_count_their_losses(request, data):
    ref = request.getfixturevalue(data)
    sequences = open_samples(ref, torch.device("cpu"))
    index = sequences.index(ref.train_samples())
    for batch, own in zip(sequences.batches(index, 9), index.split(9), strict=True):
        assert torch.equal(batch.inputs, sequences.inputs(own)[0])
        missing = batch.targets.isnan() if batch.targets.is_floating_point() else batch.targets < 0
        real = ~missing.flatten(2)[..., 0] if missing.ndim == 3 else ~missing
        assert batch.losses == int(real.sum())


def test_lstm_layers_keep_their_parameters():
    model = drawn(FORECAST, num_layers=2)
    (stack,) = model.recurrent.stacks
    assert isinstance(stack, nn.LSTM)
    joined(model)
    parameters = {id(weight) for weight in stack.parameters()}
    assert {id(weight) for layer in stack.all_weights for weight in layer} == parameters
