"""Expressions: what numpy and torch say, and nothing that runs."""

import numpy as np
import pytest
import torch
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data import Shape
from tuner.data.metrics import own_score
from tuner.training.losses import user_loss
from tuner.user_code import FUNCTIONS, REDUCING, parse, parse_user_code

VALUES = Shape("forecast", 1, horizon=3, targets=2)


def trees(depth=3):
    """Expressions of values above 0, each with a value for every forecast."""
    leaves = st.sampled_from(["truth", "forecast", "0.5", "2"])
    if not depth:
        return leaves
    inner = trees(depth - 1)
    return st.one_of(
        leaves,
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda x: f"abs({x})"),
        inner.map(lambda x: f"sqrt(abs({x}))"),
        inner.map(lambda x: f"log1p(abs({x}))"),
        st.tuples(inner, inner).map(lambda t: f"maximum({t[0]}, {t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"where({t[0]} < {t[1]}, {t[2]}, -{t[0]})"),
    )


@settings(max_examples=examples(150), derandomize=True)
@given(tree=trees(), reduce=st.sampled_from(["mean", "sum", "median", "std", "min", "max"]))
def test_numpy_torch_and_python_say_the_same(tree, reduce):
    rng = np.random.default_rng(0)
    truth, forecast = (rng.uniform(0.5, 2, (4, 3, 2)) for _ in range(2))
    text = f"{reduce}({tree} + 0 * forecast)"
    found = own_score(text, truth, forecast)
    names = {name: getattr(np, name) for name in FUNCTIONS if hasattr(np, name)}
    expected = eval(text, {"truth": truth, "forecast": forecast, **names})
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    tensors = [torch.from_numpy(a) for a in (forecast, truth)]
    np.testing.assert_allclose(user_loss(text, VALUES)(*tensors), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mse", "mae"])
def test_a_written_loss_trains_like_the_built_in_one(name):
    text = {"mse": "mean((truth - forecast) ** 2)", "mae": "mean(abs(truth - forecast))"}[name]
    functions = {"mse": torch.nn.functional.mse_loss, "mae": torch.nn.functional.l1_loss}
    outputs = torch.randn(4, 3, 2, requires_grad=True)
    targets = torch.randn(4, 3, 2)
    grads = []
    for loss in (user_loss(text, VALUES), functions[name]):
        (grad,) = torch.autograd.grad(loss(outputs, targets), outputs)
        grads.append(grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "truth.__class__",
        "mean(truth.tobytes)",
        "[x for x in truth]",
        "(lambda: forecast)()",
        "truth[0]",
        "'a' * 9",
        "mean(forecast, axis=0)",
        "mean(*forecast)",
        "mean(forecast) if 1 else 0",
        "f'{forecast}'",
        "(forecast := 1)",
        "forecast and truth",
        "1 < forecast < 2",
        "True",
        "1j * mean(forecast)",
        "eval('1')",
        "mean",
        "",
        "mean(forecast",
        "+".join(["forecast"] * 500),
        "-" * 60 + "mean(forecast)",
        "(" * 300 + "forecast" + ")" * 300,
        "1e999 * mean(forecast)",
        "9" * 400 + " * mean(forecast)",
        "mean(forecast\0)",
    ],
)
def test_nothing_but_arithmetic_is_let_through(text):
    with pytest.raises(ValueError, match="got") as refused:
        parse(text)
    assert len(str(refused.value).splitlines()) <= 1 or "\0" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abs(truth - forecast)", r"must have one number as its value.*write mean\(abs"),
        ("mean(truth)", "must measure the forecast"),
        ("mean(abs(truth - forcast))", "knows no 'forcast'.*did you mean 'forecast'"),
        ("maen(abs(truth - forecast))", "has no function 'maen'.*did you mean 'mean'"),
        ("quantile(forecast)", "quantile takes 2, got 1"),
        ("mean + forecast", r"knows no 'mean'.*write mean\(...\)"),
        ("mean(forecast) + truth", "must have one number as its value"),
    ],
)
def test_what_cannot_be_a_score_is_refused_with_what_to_write(text, message):
    with pytest.raises(ValueError, match=message):
        parse_user_code(text)


def test_a_score_is_one_number_where_a_function_reduces():
    assert set(REDUCING) < set(FUNCTIONS)
    for name in REDUCING:
        second = ", 0.5" if FUNCTIONS[name] == 2 else ""
        assert np.ndim(own_score(f"{name}(forecast{second})", np.ones(3), np.ones(3))) == 0


def test_huge_powers_end_at_once():
    assert own_score("9 ** 9 ** 9 ** 9 * mean(forecast)", np.ones(3), np.ones(3)) == np.inf
