"""The linear path is the ridge regression that it says it is, and what a model begins with."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from helpers.examples import examples
from helpers.models import assert_same_bits, fit_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as TheirRidge
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import PredictJob
from tuner.training import Model, linear_path, predict, train
from tuner.training.linear_path import PENALTIES, Moments


def in_batches(*arrays, size=7):
    tensors = [torch.tensor(a) for a in arrays]

    def batches():
        yield from zip(*(t.split(size) for t in tensors), strict=True)

    return batches


def fit_ridge(batches):
    return Moments.of(batches).ridge()


def gcv(x, y, penalty):
    """Golub, Heath & Wahba (1979), eq. 1.4, with an intercept, by its definition."""
    n, centred = len(x), x - x.mean(axis=0)
    inner = centred.T @ centred + penalty * np.eye(x.shape[1])
    hat = centred @ np.linalg.solve(inner, centred.T) + 1 / n
    away = y - hat @ y
    return float((away**2).sum() / n / (np.trace(np.eye(n) - hat) / n) ** 2)


@settings(max_examples=examples(20))
@given(st.integers(0, 2**32 - 1), st.integers(30, 60), st.integers(1, 6), st.integers(1, 3))
def test_the_penalty_minimizes_generalized_cross_validation(seed, n, inputs, outputs):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, inputs)) @ rng.normal(size=(inputs, inputs)) + 5
    y = x @ rng.normal(size=(inputs, outputs)) + 3 * rng.normal(size=(n, outputs))
    found = fit_ridge(in_batches(x, y, np.ones(n)))
    tried = [p * x.var(axis=0).mean() * n for p in PENALTIES]
    assert found.penalty == pytest.approx(min(tried, key=lambda p: gcv(x, y, p)))
    theirs = TheirRidge(alpha=found.penalty).fit(x, y)
    np.testing.assert_allclose(found.weight, theirs.coef_.reshape(outputs, -1), rtol=1e-6)
    np.testing.assert_allclose(found.bias, theirs.intercept_, rtol=1e-6)


def test_rows_weigh_as_they_do_in_scikit_learn():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(50, 4)) + 3, rng.uniform(0.1, 3, 50)
    y = x[:, :2] + rng.normal(size=(50, 2))
    found = fit_ridge(in_batches(x, y, weights))
    theirs = TheirRidge(alpha=found.penalty).fit(x, y, weights)
    np.testing.assert_allclose(found.weight, theirs.coef_, rtol=1e-8)
    np.testing.assert_allclose(found.bias, theirs.intercept_, rtol=1e-8)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_few_rows_and_constant_inputs_still_give_a_line(n):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 8))
    x[:, 3] = 2.0
    y = rng.normal(size=(n, 2))
    found = fit_ridge(in_batches(x, y, np.ones(n)))
    assert torch.isfinite(found.weight).all()
    assert found.weight[:, 3].abs().max() < 1e-9
    constant = fit_ridge(in_batches(np.full((n, 8), 4.0), y, np.ones(n)))
    assert not constant.weight.any()
    np.testing.assert_allclose(constant.bias, y.mean(axis=0))


@settings(max_examples=examples(20))
@given(st.integers(0, 2**32 - 1), st.integers(8, 30), st.integers(2, 30))
def test_moments_of_parts_and_scaled_inputs_are_those_of_rows(seed, n, later):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n + later, 3)) + 100, rng.normal(size=(n + later, 2))
    weights, scale = rng.uniform(0.1, 3, n + later), np.array([1.0, 0.3, 2.0])
    all_rows = Moments.of(in_batches(x * scale, y, weights))
    parts = [
        Moments.of(in_batches(x[part], y[part], weights[part]))
        for part in (slice(n), slice(n, None))
    ]
    added = (parts[0] + parts[1]).scaled(torch.tensor(scale))
    for name in ("n", "total", "mean_x", "mean_y", "xx", "xy", "yy"):
        there = np.asarray(getattr(all_rows, name))
        np.testing.assert_allclose(getattr(added, name), there, rtol=1e-7, atol=1e-7)
    fitted = parts[0].ridge()
    away = y[n:] - x[n:] @ fitted.weight.numpy().T - fitted.bias.numpy()
    expected = (weights[n:, None] * away**2).sum()
    assert parts[1].error(fitted) == pytest.approx(expected, rel=1e-6)


# In a model

DECODERS = ({}, {"decoder": "recursive"}, {"decoder": "segments", "segment": 2})


def walk(n=90, targets=1):
    return np.cumsum(np.random.default_rng(1).normal(size=(n, targets)), axis=0) / 5


@pytest.mark.parametrize("options", DECODERS, ids=str)
@pytest.mark.parametrize("kind", ["none", "last", "mean", "standard"])
def test_a_model_starts_as_ridge_regression(make_ref, make_job, kind, options, monkeypatch):
    chosen = []
    of = Moments.ridge
    monkeypatch.setattr(Moments, "ridge", lambda rows: chosen.append(of(rows)) or chosen[-1])
    monkeypatch.setattr(linear_path, "_BATCH", 16)
    rows = walk(targets=2)
    ref = make_ref(rows, horizon=3)
    fit = fit_of(make_job(ref, normalize=kind, linear_path=True, dropout=0.5, **options))

    def of_parts(samples):
        x = rows[samples[:, None] + np.arange(-8, 0)].transpose(0, 2, 1)  # (n, targets, window)
        y = rows[samples[:, None] + np.arange(3)].transpose(0, 2, 1)
        shift, spread = np.zeros_like(x[..., :1]), np.ones_like(x[..., :1])
        if kind == "last":
            shift = x[..., -1:]
        elif kind != "none":
            shift = x.mean(axis=2, keepdims=True)
        if kind == "standard":
            spread = np.sqrt(x.var(axis=2, keepdims=True) + 1e-5)
        return (x - shift) / spread, (y - shift) / spread, shift, spread

    x, y, _, spread = of_parts(ref.train_samples())
    (found,) = chosen
    theirs = TheirRidge(alpha=found.penalty)
    near = linear_path.prior(8, 1, 3)  # the ridge of scaled inputs
    np.testing.assert_array_equal(near, 1 / np.arange(8, 0, -1))
    theirs.fit(near * x.reshape(-1, 8), y.reshape(-1, 3), np.square(spread).ravel())
    np.testing.assert_allclose(found.weight, theirs.coef_, atol=1e-5)
    x, _, shift, spread = of_parts(ref.evaluate_samples())
    expected = theirs.predict(near * x.reshape(-1, 8)).reshape(-1, 2, 3) * spread + shift
    read, _ = fit.samples.inputs(fit.scored_index)
    said = fit.model.eval()(read).detach()
    np.testing.assert_allclose(said, expected.transpose(0, 2, 1), atol=1e-4)


@pytest.mark.parametrize("options", DECODERS, ids=str)
def test_first_quantiles_are_those_of_the_regressions_errors(make_ref, make_job, options):
    ref = make_ref(walk(800), horizon=4, quantiles=(0.1, 0.5, 0.9))
    fit = fit_of(make_job(ref, normalize="last", linear_path=True, **options))
    x, _ = fit.samples.inputs(fit.train_index)
    above = fit.model(x) >= fit.samples.targets(fit.train_index).unsqueeze(3)
    share = above.float().mean(dim=(0, 1, 2))
    np.testing.assert_allclose(share, [0.1, 0.5, 0.9], atol=0.03)


def test_the_forecast_adds_layers_and_autoregression():
    shape = Shape("forecast", 3, horizon=2, targets=2, window=5, target_columns=(2, 0))
    options = {"hidden_size": 4}
    model = Model(Hyperparameters(**options, linear_path=True), shape)
    for parameter in model.parameters():
        nn.init.uniform_(parameter)
    layers = Model(Hyperparameters(**options), shape)
    layers.load_weights({n: w for n, w in model.weights().items() if "linear_path" not in n})
    x = torch.randn(6, 5, 3)
    weight, bias = model.linear_path.linear.weight, model.linear_path.linear.bias
    ahead = torch.stack([x[:, :, c] @ weight.T + bias for c in (2, 0)], dim=2)
    torch.testing.assert_close(model(x), layers(x) + ahead)


def test_far_rows_are_penalized_more_except_in_phase():
    by_hand = [1 / 2, 1 / 3, 1 / 3, 1 / 2, 1, 1 / 2, 1 / 2, 1]
    np.testing.assert_allclose(linear_path.prior(8, 4, 1), by_hand)
    np.testing.assert_allclose(linear_path.prior(8, 4, 4), [1 / 2] * 4 + [1] * 4)


@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 40))
def test_no_row_is_nearer_than_the_last_and_none_is_lost(window, season, horizon):
    near = linear_path.prior(window, season, horizon)
    assert near.shape == (window,)
    assert near[-1] == 1 == near.max()
    assert (near >= 1 / np.arange(window, 0, -1)).all()


def autoregression(n, seed=0, until=None):
    """A series that follows itself and what another column was a row before, up to a row."""
    rng = np.random.default_rng(seed)
    leads, rows = rng.normal(size=n), np.zeros(n)
    for t in range(1, n):
        follows = 0.5 * leads[t - 1] if until is None or t < until else 0.0
        rows[t] = 0.7 * rows[t - 1] + follows + rng.normal(0, 0.05)
    return np.column_stack((rows, leads, rng.normal(size=n)))


def columns_of(path):
    """The weights, (columns, window)."""
    return path.linear.weight.numpy().reshape(-1, 8)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)], ids=str)
def test_a_single_target_is_forecast_from_all_columns_that_help(make_ref, make_job, order):
    rows = autoregression(400)
    place = order.index(0)
    ref = make_ref(rows[:, :1], rows[:, order], target_columns=(place,))
    found = columns_of(fit_of(make_job(ref, linear_path=True)).model.linear_path)
    expected = np.zeros((3, 8))
    expected[place, -1], expected[order.index(1), -1] = 0.7, 0.5
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_all_columns_are_those_of_a_ridge_of_scaled_inputs(make_ref, make_job, monkeypatch):
    chosen, of = [], Moments.ridge
    monkeypatch.setattr(Moments, "ridge", lambda rows: chosen.append(of(rows)) or chosen[-1])
    rows = autoregression(200) * (1, 3, 1)
    ref = make_ref(rows[:, :1], rows, target_columns=(0,), horizon=2)
    path = fit_of(make_job(ref, linear_path=True)).model.linear_path
    scaled = chosen[-1].weight.numpy()
    starts = ref.train_samples()
    x = np.stack([rows[t - 8 : t].T.ravel() for t in starts])
    y = np.stack([rows[t : t + 2, 0] for t in starts])
    weight = path.linear.weight.double().numpy()
    used = np.abs(scaled) > 0
    scale = (weight / np.where(used, scaled, 1.0)).max(axis=0)
    theirs = TheirRidge(alpha=chosen[-1].penalty).fit(x * scale, y)
    np.testing.assert_allclose(theirs.coef_ * scale, weight, atol=1e-5)
    np.testing.assert_allclose(theirs.intercept_, path.linear.bias, atol=1e-5)
    np.testing.assert_allclose(scale[:8], linear_path.prior(8, 1, 2), rtol=1e-5)


def test_a_column_that_stopped_helping_is_not_read(make_ref, make_job):
    rows = autoregression(300, until=150)  # of 225 training rows
    ref = make_ref(rows[:, :1], rows, target_columns=(0,))
    path = fit_of(make_job(ref, linear_path=True)).model.linear_path
    alone = fit_of(make_job(make_ref(rows[:, :1]), linear_path=True)).model.linear_path
    assert path.own_inputs.tolist() == [True] * 8 + [False] * 16
    assert not columns_of(path)[1:].any()
    np.testing.assert_allclose(columns_of(path)[:1], columns_of(alone), atol=0.02)


def test_whether_columns_help_is_judged_late_in_each_series(make_ref, make_job):
    blocks = [autoregression(100, seed) for seed in range(3)]
    blocks.append(np.random.default_rng(9).normal(size=(100, 3)))  # nothing leads here
    rows, bounds = np.concatenate(blocks), 100 * np.arange(4)[:, None]
    ref = make_ref(rows[:, :1], rows, target_columns=(0,))
    for name, ends in (("train", 80), ("evaluate", 100), ("reach", 100)):
        begin = 80 if name == "evaluate" else 0
        np.save(f"{ref.folder}/{name}.npy", bounds + np.array([begin, ends]))
    found = columns_of(fit_of(make_job(ref, linear_path=True)).model.linear_path)
    assert found[1, -1] > 0.2


@pytest.mark.parametrize("horizon", [1, 3])
def test_late_and_early_windows_share_no_forecast_row(make_ref, horizon):
    ref = make_ref(walk(100), horizon=horizon)
    index = torch.from_numpy(ref.train_samples())
    late, early, between = (part.numpy() for part in linear_path._in_time(index, ref))
    assert sorted([*late, *early, *between]) == index.tolist()
    assert len(late) == len(index) // 4
    assert early.max() + horizon <= late.min()
    assert len(between) == horizon - 1


def test_lags_of_the_target_are_its_own_and_always_read(make_ref, make_job):
    rows = np.column_stack((walk(200), np.roll(walk(200), 3)))
    ref = make_ref(rows[:, :1], rows, target_columns=(0,), lag_columns=((1, 0),))
    path = fit_of(make_job(ref, linear_path=True)).model.linear_path
    assert path.own_inputs.all()


@pytest.mark.parametrize("kind", ["none", "standard"])
def test_other_columns_are_read_as_they_are_normalized(make_ref, make_job, kind):
    rows = np.column_stack((walk()[::-1], walk()))
    ref = make_ref(rows[:, 1:], rows, target_columns=(1,), horizon=2)
    model = fit_of(make_job(ref, linear_path=True, normalize=kind)).model
    x = torch.randn(4, 8, 2)
    read, level = model._normalize(x)
    weight, bias = model.linear_path.linear.weight, model.linear_path.linear.bias
    ahead = torch.cat((read[:, :, 0], read[:, :, 1]), dim=1) @ weight.T + bias
    expected = ahead.unsqueeze(2) if level is None else level.denormalize(ahead.unsqueeze(2))
    torch.testing.assert_close(model.eval()(x), expected)


def test_of_too_many_columns_only_the_targets_own_is_read(make_ref, make_job, monkeypatch):
    monkeypatch.setattr(linear_path, "MOST_INPUTS", 15)
    rows = autoregression(300)
    ref = make_ref(rows[:, :1], rows, target_columns=(0,))
    alone = fit_of(make_job(make_ref(rows[:, :1]), linear_path=True))
    path = fit_of(make_job(ref, linear_path=True)).model.linear_path
    torch.testing.assert_close(path.linear.weight, alone.model.linear_path.linear.weight)


def test_overlong_windows_are_regressed_on_their_last_rows(make_ref, make_job, monkeypatch):
    monkeypatch.setattr(linear_path, "_LONGEST", 3)
    ref = make_ref(walk())
    long = fit_of(make_job(ref, linear_path=True)).model.linear_path.linear.weight
    short = dataclasses.replace(ref, window=3, longest_window=8)
    expected = fit_of(make_job(short, linear_path=True)).model.linear_path.linear.weight
    assert not long[:, :5].any()
    # The short windows are five more.
    torch.testing.assert_close(long[:, 5:], expected, atol=0.05, rtol=0)


def test_too_many_windows_are_sampled_at_every_hour(make_ref, make_job, monkeypatch):
    rng, n = np.random.default_rng(0), 4800
    hours = 5 * np.sin(2 * np.pi * np.arange(n) / 24) + rng.normal(0, 0.5, n)
    ref = make_ref(hours[:, None])
    every = fit_of(make_job(ref, linear_path=True)).model.linear_path.linear
    monkeypatch.setattr(linear_path, "_PRODUCTS", 64 * -(-len(ref.train_samples()) // 24))
    some = fit_of(make_job(ref, linear_path=True)).model.linear_path.linear
    assert not torch.equal(every.weight, some.weight)
    torch.testing.assert_close(some.weight, every.weight, atol=0.25, rtol=0)
    torch.testing.assert_close(some.bias, every.bias, atol=0.1, rtol=0)


# What lies ahead

KEYS = {
    "normalize": ("last", "mean", "standard"),
    "linear_path": (True,),
    "segment": (3,),
    "conv_channels": (2,),
    "decoder": ("segments", "recursive"),
    "weight_averaging": (2.0,),
}
PAIRS = [
    dict(zip(pair, values, strict=True))
    for pair in itertools.combinations(KEYS, 2)
    for values in itertools.product(*(KEYS[key] for key in pair))
]


@settings(max_examples=examples(8))
@given(options=st.sampled_from(PAIRS), seed=st.integers(0, 99))
def test_rows_after_the_training_part_change_no_weight(make_ref, make_job, go_on, options, seed):
    rows = np.column_stack((walk(60), walk(61)[1:]))
    other = rows.copy()
    other[45:] += 10 * np.random.default_rng(seed).normal(size=(15, 2))
    refs = [make_ref(r[:, :1], r, target_columns=(0,), horizon=2) for r in (rows, other)]
    outcomes = [train(make_job(ref, epochs=1, keep_weights=True, **options), go_on) for ref in refs]
    assert_same_bits(*(outcome.weights for outcome in outcomes))


@settings(max_examples=examples(8))
@given(options=st.sampled_from(PAIRS), seed=st.integers(0, 99), ahead=st.integers(0, 12))
def test_rows_from_the_first_one_forecast_on_move_no_forecast(
    make_ref, make_job, go_on, options, seed, ahead
):
    rows, job = walk(60), None
    ref = make_ref(rows, horizon=2)
    job = make_job(ref, epochs=1, keep_weights=True, **options)
    weights = train(job, go_on).weights
    first = int(ref.evaluate_samples()[ahead])
    other = rows.copy()
    other[first:] += 10 * np.random.default_rng(seed).normal(size=(60 - first, 1))
    before, after = (
        predict(PredictJob("p", job.hyperparameters, weights, r)).predictions
        for r in (ref, make_ref(other, horizon=2))
    )
    np.testing.assert_array_equal(after[: ahead + 1], before[: ahead + 1])
    if ahead < 12:
        assert (after[ahead + 1 :] != before[ahead + 1 :]).any()
