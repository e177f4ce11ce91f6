import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import Model
from tuner.training.layers import real_steps

TASKS = {
    "forecast": (Shape("forecast", 2, horizon=3, targets=2), (3, 2)),
    "quantiles": (Shape("forecast", 2, horizon=3, targets=2, quantiles=(0.1, 0.5)), (3, 2, 2)),
    "regress": (Shape("regress", 2, targets=2), (1, 2)),
    "classify": (Shape("classify", 2, classes=4), (4,)),
    "label": (Shape("label", 2, classes=4), (9, 4)),
    "regress_steps": (Shape("regress_steps", 2, targets=3), (9, 3)),
    "tokens": (Shape("classify", 0, vocabulary=7, classes=4), (4,)),
}


def build(*, features=2, targets=1, horizon=1, shape=None, **hyperparameters):
    shape = shape or Shape("forecast", features, horizon=horizon, targets=targets)
    return Model(Hyperparameters(**hyperparameters), shape)


def read(shape, batch=5, steps=9):
    torch.manual_seed(1)
    if shape.vocabulary:
        return torch.randint(1, shape.vocabulary, (batch, steps))
    return torch.randn(batch, steps, shape.features)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "peephole"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("widths", [[5, 5], [6, 3]], ids=str)
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_model_learns_from_padded_sequences(cell, bidirectional, widths, pooling, task):
    torch.manual_seed(0)
    shape, expected = TASKS[task]
    model = build(
        shape=shape,
        cell=cell,
        bidirectional=bidirectional,
        hidden_size=widths,
        pooling=pooling,
        embedding_size=3,
    )
    x, lengths = read(shape), torch.tensor([9, 1, 4, 4, 7])
    outputs = model(x, lengths)
    assert outputs.shape == (5, *expected)
    real = real_steps(lengths, 9, x.device)
    kept = outputs[real] if shape.each_step else outputs
    (kept * torch.randn_like(kept)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    for k in (1, 4):
        length = lengths[k]
        alone = model(x[k : k + 1, :length])[0]
        padded = outputs[k, :length] if shape.each_step else outputs[k]
        torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)
    if model.attends:
        weights = model.attention(x, lengths)
        assert weights.shape == (5, 9)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(5))
        assert not weights[~real].any()
    assert model.attends == (pooling == "attention" and not shape.each_step)


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.integers(1, 9),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    features=st.integers(1, 3),
    targets=st.integers(1, 3),
    horizon=st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_a_forecast_is_what_a_plain_lstm_and_a_linear_layer_give(
    hidden, layers, bidirectional, features, targets, horizon, batch
):
    model = build(
        hidden_size=hidden,
        num_layers=layers,
        dropout=0.5,
        bidirectional=bidirectional,
        features=features,
        targets=targets,
        horizon=horizon,
    ).eval()
    lstm = nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
    lstm.load_state_dict(model.recurrent.stacks[0].state_dict())
    windows = torch.randn(batch, 7, features)
    steps, _ = lstm(windows)  # (batch, time, directions * hidden)
    last = steps[:, -1, :hidden]
    if bidirectional:  # the backward direction ends at the first step
        last = torch.cat((last, steps[:, 0, hidden:]), dim=1)
    expected = last @ model.head.weight.T + model.head.bias
    forecasts = model(windows)
    assert forecasts.shape == (batch, horizon, targets)
    torch.testing.assert_close(forecasts, expected.view(batch, horizon, targets))


def test_the_forecast_follows_the_equations_of_the_lstm():
    model = build(features=2, hidden_size=5).double().eval()
    w_ih, w_hh, b_ih, b_hh = (p.detach() for p in model.recurrent.parameters())
    window = torch.randn(9, 2, dtype=torch.float64)
    h = c = torch.zeros(5, dtype=torch.float64)
    for x in window:
        i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    expected = model.head.weight @ h + model.head.bias
    torch.testing.assert_close(model(window[None])[0, 0], expected)


@settings(deadline=None)
@given(st.sampled_from(["direct", "recursive"]), st.integers(0, 99))
def test_quantiles_do_not_cross_and_keep_their_order(decoder, seed):
    torch.manual_seed(seed)
    shape = Shape("forecast", 2, horizon=3, targets=2, quantiles=(0.1, 0.25, 0.5, 0.9))
    model = build(shape=shape, decoder=decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    forecast = model(10 * read(shape))
    assert (forecast.diff(dim=-1) >= 0).all()
    assert forecast.std() > 0


def test_a_token_is_read_as_its_own_vector_and_padding_as_zeros():
    shape = TASKS["tokens"][0]
    model = build(shape=shape, embedding_size=3)
    assert model.embedding.weight.shape == (7, 3)
    assert not model.embedding.weight[0].any()
    model(torch.tensor([[3, 4, 0]])).sum().backward()
    assert model.embedding.weight.grad.any(dim=1).tolist() == [0, 0, 0, 1, 1, 0, 0]


def test_dropout_acts_in_training_only_and_right_before_the_head():
    model = build(hidden_size=64, dropout=0.5)
    seen = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    windows = torch.randn(1, 6, 2)
    model.train()(windows)
    model.eval()(windows)
    dropped, whole = seen
    kept = dropped != 0
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(dropped[kept], whole[kept] * 2)
    assert (whole != 0).all()
    assert torch.equal(model(windows), model(windows))


def test_dropout_also_acts_between_layers():
    model = build(num_layers=2, dropout=0.5)
    model.dropout = nn.Identity()
    windows = torch.randn(1, 6, 2)
    assert not torch.equal(model.train()(windows), model(windows))
    assert torch.equal(model.eval()(windows), model(windows))


@pytest.mark.parametrize("task", sorted(TASKS))
@pytest.mark.parametrize("options", [{}, {"cell": "peephole", "bidirectional": True}], ids=str)
def test_loaded_weights_give_the_same_result_bit_for_bit(task, options):
    shape = TASKS[task][0]
    first, second = (
        build(shape=shape, num_layers=2, pooling="attention", decoder="recursive", **options)
        for _ in range(2)
    )
    x = read(shape)
    assert not torch.equal(first(x), second(x))
    second.load_weights(first.weights())
    assert torch.equal(first(x), second(x))


def test_weights_are_copies_that_training_on_does_not_change():
    model = build()
    weights = model.weights()
    before = {name: array.copy() for name, array in weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(np.array_equal(weights[name], before[name]) for name in before)


def test_weights_may_be_read_only_arrays():
    model = build()
    weights = model.weights()
    for array in weights.values():
        array.flags.writeable = False
    build().load_weights(weights)
