import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.training.layers import POOLINGS, Attention, real_steps


def padded(lengths, width=3):
    """Return outputs with rubbish where they pad, last states, and which steps are real."""
    torch.manual_seed(0)
    lengths = torch.tensor(lengths)
    outputs = torch.randn(len(lengths), int(lengths.max()) + 2, width)
    real = real_steps(lengths, outputs.shape[1], outputs.device)
    outputs[~real] = 1e6
    return outputs, torch.randn(len(lengths), width), real


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(deadline=None)
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


@settings(deadline=None)
@given(lengths)
def test_attention_sums_to_one_and_ignores_padding(lengths):
    attention = Attention(3)
    outputs, last, real = padded(lengths)
    weights = attention.weigh(outputs, last, real)
    assert weights.shape == real.shape
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(lengths)))
    assert (weights[real] > 0).all()
    assert not weights[~real].any()


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
