"""The model: cells, layers, pooling and heads."""

import itertools

import numpy as np
import pytest
import torch
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training import Model
from tuner.training.layers import POOLINGS, Attention, real_steps, reverse
from tuner.training.recurrent import PeepholeLSTM, Recurrent

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


CELLS = ["lstm", "gru", "rnn", "peephole"]
EVERY = itertools.product(CELLS, [False, True], [[5, 5], [6, 3]], sorted(POOLINGS), sorted(TASKS))


@pytest.mark.parametrize(
    ("cell", "both", "widths", "pooling", "task"), [*itertools.islice(EVERY, None, None, 5)]
)
def test_every_model_learns_from_padded_sequences(cell, both, widths, pooling, task):
    torch.manual_seed(0)
    shape, expected = TASKS[task]
    options = {"bidirectional": both, "hidden_size": widths, "embedding_size": 3}
    model = build(shape=shape, cell=cell, pooling=pooling, **options)
    x, lengths = read(shape), torch.tensor([9, 1, 4, 4, 7])
    outputs = model(x, lengths)
    assert outputs.shape == (5, *expected)
    real = real_steps(lengths, 9, x.device)
    kept = outputs[real] if shape.each_step else outputs
    (kept * torch.randn_like(kept)).sum().backward()
    for name, parameter in model.named_parameters():
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


@settings(max_examples=examples(25))
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
    shape = Shape("forecast", features, horizon=horizon, targets=targets)
    options = {"hidden_size": hidden, "num_layers": layers, "bidirectional": bidirectional}
    model = build(shape=shape, dropout=0.5, **options).eval()
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


LENGTHS = torch.tensor([4, 1, 6])


def pair(inputs, units, **options):
    """Return nn.LSTM, and a peephole layer with its weights and peepholes of 0."""
    lstm = nn.LSTM(inputs, units, batch_first=True, **options)
    peephole = PeepholeLSTM(inputs, units, **options)
    missing = peephole.load_state_dict(lstm.state_dict(), strict=False).missing_keys
    assert missing == ["weight_peephole"]
    nn.init.zeros_(peephole.weight_peephole)
    return lstm, peephole


@settings(max_examples=examples(25))
@given(
    st.integers(1, 5),
    st.integers(1, 70),
    st.integers(1, 20),
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_without_peepholes_a_cell_is_torchs_lstm(
    inputs, units, steps, batch, bias, bidirectional, begun
):
    torch.manual_seed(0)
    lstm, peephole = pair(inputs, units, bias=bias, bidirectional=bidirectional)
    directions = 1 + bidirectional
    results = []
    for layer in (lstm, peephole):
        torch.manual_seed(1)
        x = torch.randn(batch, steps, inputs, requires_grad=True)
        state = torch.randn(2, directions, batch, units, requires_grad=True)
        outputs, (h, c) = layer(x, tuple(state) if begun else None)
        weighted = (
            (outputs * torch.randn(outputs.shape)).mean() + (h * c).mean() + c.square().mean()
        )
        weighted.backward()
        grads = {n: p.grad for n, p in layer.named_parameters() if n != "weight_peephole"}
        results.append((outputs, h, c, x.grad, state.grad if begun else None, grads))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_follows_the_equations(bidirectional):
    torch.manual_seed(0)
    layer = PeepholeLSTM(2, 5, bidirectional=bidirectional).double()
    x = torch.randn(1, 7, 2, dtype=torch.float64)
    outputs, (h_last, c_last) = layer(x)
    for d, suffix in enumerate(layer.directions):
        parts = [f"{n}_l0{suffix}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        w, u, b1, b2 = (getattr(layer, name) for name in parts)
        p_i, p_f, p_o = layer.weight_peephole[d]
        h = c = torch.zeros(5, dtype=torch.float64)
        read = []
        for x_t in x[0].flip(0) if suffix else x[0]:
            i, f, g, o = (w @ x_t + b1 + u @ h + b2).chunk(4)
            i, f = (i + p_i * c).sigmoid(), (f + p_f * c).sigmoid()
            c = f * c + i * g.tanh()
            h = (o + p_o * c).sigmoid() * c.tanh()
            read.append(h)
        expected = torch.stack(read[::-1] if suffix else read)
        torch.testing.assert_close(outputs[0, :, 5 * d : 5 * d + 5], expected)
        torch.testing.assert_close((h_last[d, 0], c_last[d, 0]), (h, c))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_its_gradient_is_that_of_finite_differences(bias, bidirectional, lengths):
    torch.manual_seed(0)
    layer = PeepholeLSTM(2, 3, bias=bias, bidirectional=bidirectional).double()
    names = [name for name, _ in layer.named_parameters()]
    directions = 1 + bidirectional

    def run(x, h, c, *weights):
        outputs, final = torch.func.functional_call(
            layer, dict(zip(names, weights, strict=True)), (x, (h, c), lengths)
        )
        real = (
            torch.arange(6) < (lengths if lengths is not None else torch.tensor([6] * 3))[:, None]
        )
        return outputs * real.unsqueeze(2), *final

    shapes = ((3, 6, 2), (directions, 3, 3), (directions, 3, 3))
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(run, (*tensors, *layer.parameters()))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_gradient_may_come_from_any_one_result(part):
    torch.manual_seed(0)
    layer = PeepholeLSTM(2, 3).double()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)

    def run(x):
        outputs, (h, c) = layer(x)
        return (outputs, h, c)[part]

    assert torch.autograd.gradcheck(run, (x,))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_neither_result_nor_gradient(bidirectional):
    torch.manual_seed(0)
    layer = PeepholeLSTM(2, 5, bidirectional=bidirectional)
    x = torch.randn(3, 6, 2, requires_grad=True)
    outputs, (h, c) = layer(x, None, LENGTHS)
    (h.sum() + c.square().sum()).backward()
    for k, length in enumerate(LENGTHS):
        alone = x.detach()[k : k + 1, :length].requires_grad_()
        outputs_alone, (h_alone, c_alone) = layer(alone)
        (h_alone.sum() + c_alone.square().sum()).backward()
        torch.testing.assert_close(outputs[k, :length], outputs_alone[0])
        torch.testing.assert_close((h[:, k], c[:, k]), (h_alone[:, 0], c_alone[:, 0]))
        torch.testing.assert_close(x.grad[k, :length], alone.grad[0])
        assert not x.grad[k, length:].any()


class Allocations(TorchDispatchMode):
    """Adds up the memory of all tensors that are made, in bytes."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()  # kept, so that its address is not used again
                self.storages[storage.data_ptr()] = storage
        return made

    @property
    def total(self):
        return sum(s.nbytes() for s in self.storages.values())


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_without_gradients_it_puts_out_the_same_bits(without, bidirectional, lengths):
    torch.manual_seed(0)
    layer = PeepholeLSTM(2, 5, bidirectional=bidirectional)
    x = torch.randn(3, 6, 2)
    outputs, final = layer(x, None, lengths)
    with without():
        outputs_alone, final_alone = layer(x, None, lengths)
    assert torch.equal(outputs_alone, outputs)
    assert all(map(torch.equal, final_alone, final))


def test_without_gradients_it_keeps_nothing_that_only_they_need():
    layer = PeepholeLSTM(2, 5)
    x = torch.randn(3, 6, 2)
    with Allocations() as for_training:
        layer(x)
    with torch.no_grad(), Allocations() as for_use:
        layer(x)
    # Four gates and the tanh of the cell state, of all steps but one: (steps, batch, units).
    assert for_training.total - for_use.total == 5 * (6 - 1) * 3 * 5 * x.element_size()


def test_its_first_weights_are_drawn_as_torchs_are():
    torch.manual_seed(0)
    layer = PeepholeLSTM(3, 100, bidirectional=True)
    for parameter in layer.parameters():
        assert 0.08 < parameter.abs().max() <= 0.1
        assert abs(parameter.mean()) < 0.02


def test_in_mixed_precision_the_loop_stays_in_single_precision():
    torch.manual_seed(0)
    layer = PeepholeLSTM(3, 4)
    x = torch.randn(2, 5, 3)
    whole, _ = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(x)
        outputs.sum().backward()
    assert outputs.dtype == torch.float32
    assert not torch.equal(outputs, whole)
    torch.testing.assert_close(outputs, whole, rtol=0.02, atol=0.02)
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())


def test_reversing_turns_steps_and_leaves_padding():
    x = torch.arange(1, 13.0).view(2, 6, 1)
    turned = reverse(x, torch.tensor([2, 6])).squeeze(2)
    assert turned.tolist() == [[2, 1, 3, 4, 5, 6], [12, 11, 10, 9, 8, 7]]
    assert torch.equal(reverse(reverse(x, None), None), x)


WIDTHS = [5, [5, 5], [6, 3]]
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def layers_of(inputs=2, **hyperparameters):
    torch.manual_seed(0)
    return Recurrent(Hyperparameters(**hyperparameters), inputs)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_state_is_the_end_of_each_direction(cell, bidirectional):
    layers = layers_of(cell=cell, bidirectional=bidirectional, hidden_size=[4, 5])
    outputs, (hidden, *_) = layers(torch.randn(3, 6, 2))
    expected = outputs[:, -1, :5]
    if bidirectional:
        expected = torch.cat((expected, outputs[:, 0, 5:]), dim=1)
    torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("cell", list(TORCH))
def test_layers_of_one_width_are_one_module_of_torch(cell):
    layers = layers_of(cell=cell, hidden_size=5, num_layers=3, dropout=0.25, bias=False)
    (stack,) = layers.stacks
    assert type(stack) is TORCH[cell]
    assert (stack.num_layers, stack.dropout, stack.bias) == (3, 0.25, False)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_of_different_widths_read_one_another(cell, bidirectional):
    layers = layers_of(cell=cell, hidden_size=[6, 3, 4], bidirectional=bidirectional, dropout=0.5)
    x = torch.randn(2, 5, 2)
    outputs, _ = layers.eval()(x)
    for stack in layers.stacks:
        x, _ = stack(x)
    torch.testing.assert_close(outputs, x)
    layers.train()
    assert not torch.equal(layers(torch.ones(2, 5, 2))[0], layers(torch.ones(2, 5, 2))[0])


def test_one_width_for_each_layer_or_for_all_is_the_same():
    x = torch.randn(2, 5, 2)
    listed, counted = layers_of(hidden_size=[4, 4]), layers_of(hidden_size=4, num_layers=2)
    assert torch.equal(listed(x)[0], counted(x)[0])


@pytest.mark.parametrize("widths", [6, [6, 6], [6, 5]], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_projects_only_its_hidden_state(widths, bidirectional):
    layers = layers_of(hidden_size=widths, proj_size=2, bidirectional=bidirectional)
    directions = 1 + bidirectional
    outputs, (hidden, cell) = layers(torch.randn(3, 4, 2), torch.tensor([4, 2, 1]))
    last = widths if isinstance(widths, int) else widths[-1]
    assert outputs.shape[2] == hidden.shape[1] == layers.width == 2 * directions
    assert cell.shape[1] == last * directions


@pytest.mark.parametrize("cell", ["gru", "rnn", "peephole"])
def test_other_cells_do_not_project(cell):
    assert layers_of(cell=cell, hidden_size=6, proj_size=2).width == 6


def test_relu_is_the_nonlinearity_of_the_cell_rnn():
    x = 100 * torch.randn(3, 4, 2)
    outputs, _ = layers_of(cell="rnn", nonlinearity="relu")(x)
    assert outputs.min() == 0
    assert outputs.max() > 1
    assert layers_of(cell="rnn")(x)[0].abs().max() <= 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("widths", WIDTHS, ids=str)
def test_layers_without_bias_have_none(cell, widths):
    names = [n for n, _ in layers_of(cell=cell, hidden_size=widths, bias=False).named_parameters()]
    assert names
    assert not any("bias" in name for name in names)


def test_one_layer_with_dropout_gives_no_warning(recwarn):
    layers_of(num_layers=1, dropout=0.5)
    assert not recwarn.list


def padded(lengths, width=3):
    """Return outputs with rubbish where they pad, last states, and which steps are real."""
    torch.manual_seed(0)
    lengths = torch.tensor(lengths)
    outputs = torch.randn(len(lengths), int(lengths.max()) + 2, width)
    real = real_steps(lengths, outputs.shape[1], outputs.device)
    outputs[~real] = 1e6
    return outputs, torch.randn(len(lengths), width), real


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(st.sampled_from(sorted(POOLINGS)), lengths)
def test_pooling_sees_the_real_steps_alone(name, lengths):
    pooling = POOLINGS[name](3)
    outputs, last, real = padded(lengths)
    pooled = pooling(outputs, last, real)
    assert pooled.shape == last.shape
    for k, length in enumerate(lengths):
        alone = pooling(outputs[k : k + 1, :length], last[k : k + 1], None)
        torch.testing.assert_close(pooled[k], alone[0])


def test_mean_and_max_are_over_the_steps():
    outputs, last, _ = padded([4, 4])
    outputs = outputs[:, :4]
    assert torch.equal(POOLINGS["mean"](3)(outputs, last, None), outputs.mean(dim=1))
    assert torch.equal(POOLINGS["max"](3)(outputs, last, None), outputs.amax(dim=1))
    assert torch.equal(POOLINGS["last"](3)(outputs, last, None), last)


def test_attention_follows_its_equations():
    attention = Attention(4)
    outputs, last, _ = padded([5], width=4)
    energies = [
        attention.energy.weight[0]
        @ torch.tanh(
            attention.query.weight @ last[0] + attention.query.bias + attention.key.weight @ h
        )
        for h in outputs[0]
    ]
    alpha = torch.stack(energies).softmax(dim=0)
    torch.testing.assert_close(attention.weigh(outputs, last, None)[0], alpha)
    torch.testing.assert_close(attention(outputs, last, None)[0], alpha @ outputs[0])


@pytest.mark.parametrize("name", sorted(POOLINGS))
def test_padding_gets_no_gradient_and_none_is_nan(name):
    outputs, last, real = padded([2, 5])
    outputs[~real] = torch.inf if name == "max" else 1e6
    outputs.requires_grad_()
    pooled = POOLINGS[name](3)(outputs, last, real)
    (pooled.sum() + 0 * outputs[real].sum()).backward()
    assert outputs.grad.isfinite().all()
    assert not outputs.grad[~real].any()
