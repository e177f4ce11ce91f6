import pytest
import torch

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import Model
from tuner.training.decoders import Recursive

CELLS = ["lstm", "gru", "rnn", "peephole"]


def build(shape, **hyperparameters):
    torch.manual_seed(0)
    return Model(Hyperparameters(decoder="recursive", **hyperparameters), shape)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=str)
@pytest.mark.parametrize("pooling", ["last", "attention"])
def test_every_step_is_decoded_and_every_weight_has_a_gradient(
    cell, bidirectional, quantiles, pooling
):
    shape = Shape("forecast", 2, horizon=4, targets=3, quantiles=quantiles)
    model = build(
        shape, cell=cell, bidirectional=bidirectional, pooling=pooling, hidden_size=[6, 5]
    )
    forecast = model(torch.randn(7, 9, 2))
    assert forecast.shape == (7, 4, 3, *([3] if quantiles else []))
    forecast.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_step_is_read_by_the_next_one():
    shape = Shape("forecast", 1, horizon=3, targets=2)
    model = build(shape, hidden_size=5)
    decoder = model.head
    x = torch.randn(4, 6, 1)
    _, state = model.recurrent(x)
    read, state = decoder.begin.expand(4, 1, 2), tuple(s.unsqueeze(0) for s in state)
    expected = []
    for _ in range(3):
        outputs, state = decoder.layer(read, state)
        read = decoder.head(outputs)
        expected.append(read)
    torch.testing.assert_close(model(x), torch.cat(expected, dim=1))


def test_of_quantiles_the_median_is_read_by_the_next_step():
    shape = Shape("forecast", 1, horizon=2, quantiles=(0.1, 0.5, 0.9))
    model = build(shape, hidden_size=5)
    seen = []
    model.head.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    forecast = model(torch.randn(4, 6, 1))
    torch.testing.assert_close(seen[1], forecast[:, :1, :, 1])


@pytest.mark.parametrize(
    ("options", "bridges"),
    [
        ({}, ["Identity", "Identity"]),
        ({"proj_size": 2}, ["Identity", "Identity"]),
        ({"bidirectional": True}, ["Linear", "Linear"]),
        ({"bidirectional": True, "proj_size": 2}, ["Linear", "Linear"]),
        ({"cell": "gru"}, ["Identity"]),
        ({"cell": "peephole", "bidirectional": True}, ["Linear", "Linear"]),
    ],
)
def test_a_bridge_stands_where_sizes_differ(options, bridges):
    model = build(Shape("forecast", 1, horizon=2), hidden_size=5, **options)
    assert [type(b).__name__ for b in model.head.bridges] == bridges
    assert model(torch.randn(3, 4, 1)).shape == (3, 2, 1)


def test_training_and_prediction_agree_except_for_dropout():
    model = build(Shape("forecast", 1, horizon=5), hidden_size=5)
    x = torch.randn(3, 4, 1)
    assert torch.equal(model.train()(x), model.eval()(x))


@pytest.mark.parametrize(
    "shape", [Shape("regress", 1, targets=2), Shape("classify", 1, classes=3)], ids=str
)
def test_without_a_horizon_there_is_nothing_to_decode(shape):
    assert not isinstance(build(shape).head, Recursive)
