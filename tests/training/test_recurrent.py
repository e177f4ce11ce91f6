import pytest
import torch
from torch import nn

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.recurrent import Recurrent

CELLS = ["lstm", "gru", "rnn", "peephole"]
WIDTHS = [5, [5, 5], [6, 3]]
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def build(inputs=2, **hyperparameters):
    torch.manual_seed(0)
    return Recurrent(Hyperparameters(**hyperparameters), inputs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_a_padded_sequence_gives_what_it_gives_alone(cell, bidirectional, widths):
    layers = build(cell=cell, bidirectional=bidirectional, hidden_size=widths)
    lengths = torch.tensor([3, 7, 1, 5])
    x = torch.randn(4, 7, 2)
    outputs, state = layers(x, lengths)
    last = widths if isinstance(widths, int) else widths[-1]
    assert outputs.shape == (4, 7, layers.width)
    assert layers.width == last * (1 + bidirectional)
    assert [s.shape for s in state] == [(4, size) for size in layers.state_sizes]
    assert len(state) == (2 if cell in ("lstm", "peephole") else 1)
    for k, length in enumerate(lengths):
        alone, state_alone = layers(x[k : k + 1, :length])
        torch.testing.assert_close(outputs[k, :length], alone[0])
        for s, s_alone in zip(state, state_alone, strict=True):
            torch.testing.assert_close(s[k], s_alone[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_state_is_the_end_of_each_direction(cell, bidirectional):
    layers = build(cell=cell, bidirectional=bidirectional, hidden_size=[4, 5])
    outputs, (hidden, *_) = layers(torch.randn(3, 6, 2))
    expected = outputs[:, -1, :5]
    if bidirectional:
        expected = torch.cat((expected, outputs[:, 0, 5:]), dim=1)
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("cell", list(TORCH))
def test_layers_of_one_width_are_one_module_of_torch(cell):
    layers = build(cell=cell, hidden_size=5, num_layers=3, dropout=0.25, bias=False)
    (stack,) = layers.stacks
    assert type(stack) is TORCH[cell]
    assert (stack.num_layers, stack.dropout, stack.bias) == (3, 0.25, False)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_different_widths_read_one_another(cell, bidirectional):
    layers = build(cell=cell, hidden_size=[6, 3, 4], bidirectional=bidirectional, dropout=0.5)
    x = torch.randn(2, 5, 2)
    outputs, _ = layers.eval()(x)
    for stack in layers.stacks:
        x, _ = stack(x)
    torch.testing.assert_close(outputs, x)
    layers.train()
    assert not torch.equal(layers(torch.ones(2, 5, 2))[0], layers(torch.ones(2, 5, 2))[0])


def test_one_width_for_each_layer_or_for_all_is_the_same():
    x = torch.randn(2, 5, 2)
    listed, counted = build(hidden_size=[4, 4]), build(hidden_size=4, num_layers=2)
    assert torch.equal(listed(x)[0], counted(x)[0])


@pytest.mark.parametrize("widths", [6, [6, 6], [6, 5]], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_projects_only_its_hidden_state(widths, bidirectional):
    layers = build(hidden_size=widths, proj_size=2, bidirectional=bidirectional)
    directions = 1 + bidirectional
    outputs, (hidden, cell) = layers(torch.randn(3, 4, 2), torch.tensor([4, 2, 1]))
    last = widths if isinstance(widths, int) else widths[-1]
    assert outputs.shape[2] == hidden.shape[1] == layers.width == 2 * directions
    assert cell.shape[1] == last * directions


@pytest.mark.parametrize("cell", ["gru", "rnn", "peephole"])
def test_other_cells_do_not_project(cell):
    assert build(cell=cell, hidden_size=6, proj_size=2).width == 6


def test_relu_is_the_nonlinearity_of_the_cell_rnn():
    x = 100 * torch.randn(3, 4, 2)
    outputs, _ = build(cell="rnn", nonlinearity="relu")(x)
    assert outputs.min() == 0
    assert outputs.max() > 1
    assert build(cell="rnn")(x)[0].abs().max() <= 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_layers_without_bias_have_none(cell, widths):
    names = [n for n, _ in build(cell=cell, hidden_size=widths, bias=False).named_parameters()]
    assert names
    assert not any("bias" in name for name in names)


def test_one_layer_with_dropout_gives_no_warning(recwarn):
    build(num_layers=1, dropout=0.5)
    assert not recwarn.list
