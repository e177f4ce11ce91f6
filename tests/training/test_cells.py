import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuner.training.layers import reverse
from tuner.training.recurrent import PeepholeLSTM

LENGTHS = torch.tensor([4, 1, 6])


def pair(inputs, units, **options):
    """Return nn.LSTM, and a peephole layer with its weights and peepholes of 0."""
    lstm = nn.LSTM(inputs, units, batch_first=True, **options)
    peephole = PeepholeLSTM(inputs, units, **options)
    missing = peephole.load_state_dict(lstm.state_dict(), strict=False).missing_keys
    assert missing == ["weight_peephole"]
    nn.init.zeros_(peephole.weight_peephole)
    return lstm, peephole


@settings(max_examples=25, deadline=None)
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
