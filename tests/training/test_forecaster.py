from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import Forecaster


def build(*, features=2, targets=1, horizon=1, **hyperparameters):
    return Forecaster(
        Hyperparameters(**hyperparameters), features=features, targets=targets, horizon=horizon
    )


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
    lstm.load_state_dict(model.lstm.state_dict())
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
    w_ih, w_hh, b_ih, b_hh = (p.detach() for p in model.lstm.parameters())
    window = torch.randn(9, 2, dtype=torch.float64)
    h = c = torch.zeros(5, dtype=torch.float64)
    for x in window:
        i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    expected = model.head.weight @ h + model.head.bias
    torch.testing.assert_close(model(window[None])[0, 0], expected)


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


def test_dropout_also_acts_between_layers(recwarn):
    model = build(num_layers=2, dropout=0.5)
    assert model.lstm.dropout == 0.5
    model.dropout = nn.Identity()
    windows = torch.randn(1, 6, 2)
    assert not torch.equal(model.train()(windows), model(windows))
    assert torch.equal(model.eval()(windows), model(windows))


def test_one_layer_with_dropout_gives_no_warning(recwarn):
    build(num_layers=1, dropout=0.5)
    assert not recwarn.list


@pytest.mark.parametrize("bidirectional", [False, True])
def test_loaded_weights_give_the_same_forecast_bit_for_bit(bidirectional):
    first, second = (build(bidirectional=bidirectional, num_layers=2).eval() for _ in range(2))
    windows = torch.randn(3, 6, 2)
    assert not torch.equal(first(windows), second(windows))
    second.load_weights(first.weights())
    assert torch.equal(first(windows), second(windows))


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
