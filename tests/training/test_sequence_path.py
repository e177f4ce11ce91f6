"""The linear path over whole sequences is the regression that it says it is, of training alone."""

import numpy as np
import pytest
import torch
from helpers.examples import examples
from helpers.models import assert_same_bits, fit_of
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as TheirRidge

from tuner.data import Shape
from tuner.data.reference import some_of
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import PredictJob
from tuner.training import Model, linear_path, predict, train
from tuner.training.device import TrainingError
from tuner.training.linear_path import LOGISTIC_PENALTIES, Moments, choose_logistic, fit_logistic

CPU = torch.device("cpu")
KINDS = ("regress", "classify")


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch):
    monkeypatch.setattr(linear_path, "_fitted", type(linear_path._fitted)())


def drawn(kind, n=60, steps=5, seed=0):
    """Sequences of two numbers, one of them the same in the first step, and what they come to."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, steps, 2)) * (1, 4) + (0, 7)
    x[:, 0, 1] = 3.0
    says = (x - (0, 7)).reshape(n, -1) @ rng.normal(size=(2 * steps, 3)) / 4
    says += rng.normal(size=(n, 3)) - says.mean(axis=0)
    return x, (says[:, :2] if kind == "regress" else says.argmax(axis=1))


def ref_of(make_sequences, kind, x, y):
    """Return prepared sequences of one length, the last quarter to score."""
    classes = 3 if kind == "classify" else 0
    return make_sequences(kind, list(x), list(y), classes=classes)


def standardized(x, by):
    spread = by.std(axis=0)
    return (x - by.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)


def kept(monkeypatch, name):
    """Return what a function of the module will have returned."""
    chosen, of = [], getattr(linear_path, name)
    monkeypatch.setattr(linear_path, name, lambda *args: chosen.append(of(*args)) or chosen[-1])
    return chosen


OTHERS = (
    {},
    {"segment": 2, "conv_channels": 3, "pooling": "mean"},
    {"bidirectional": True, "num_layers": 2, "dropout": 0.5},
)


@pytest.mark.parametrize("steps", [5, 30], ids=["fewer numbers than rows", "more"])
@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_a_model_of_values_begins_as_scikit_learns_ridge(
    make_sequences, make_job, monkeypatch, options, steps
):
    x, y = drawn("regress", steps=steps)
    chosen, of = [], Moments.ridge
    monkeypatch.setattr(Moments, "ridge", lambda *args: chosen.append(of(*args)) or chosen[-1])
    ref = ref_of(make_sequences, "regress", x, y)
    fit = fit_of(make_job(ref, linear_path=True, **options))
    flat, train_on = x.reshape(60, -1), ref.train_samples()
    theirs = TheirRidge(alpha=chosen[0].penalty)
    theirs.fit(standardized(flat, flat[train_on])[train_on], y[train_on])
    expected = theirs.predict(standardized(flat, flat[train_on]))[ref.evaluate_samples()]
    said = fit.model.eval()(fit.samples.inputs(fit.scored_index)[0]).detach()
    np.testing.assert_allclose(said[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("steps", [5, 30], ids=["fewer numbers than rows", "more"])
def test_a_classifier_starts_as_logistic_regression(
    make_sequences, make_job, monkeypatch, steps, weights
):
    x, y = drawn("classify", steps=steps)
    chosen = kept(monkeypatch, "choose_logistic")
    ref = ref_of(make_sequences, "classify", x, y)
    fit = fit_of(make_job(ref, linear_path=True, metric="accuracy", class_weights=weights))
    flat, train_on = x.reshape(60, -1), ref.train_samples()
    theirs = LogisticRegression(
        C=1 / chosen[0].penalty, tol=1e-8, max_iter=5000,
        class_weight=None if weights == "none" else weights,
    )  # fmt: skip
    theirs.fit(standardized(flat, flat[train_on])[train_on], y[train_on])
    expected = theirs.predict_proba(standardized(flat, flat[train_on]))[ref.evaluate_samples()]
    said = fit.model.eval()(fit.samples.inputs(fit.scored_index)[0]).detach()
    np.testing.assert_allclose(said.softmax(dim=1), expected, atol=1e-3)


def test_the_penalty_of_classes_minimizes_cross_entropy():
    x, y = drawn("classify", n=80)
    x = torch.tensor(standardized(x.reshape(80, -1), x.reshape(80, -1)))
    fold = np.empty(80, int)
    fold[np.argsort(y, kind="stable")] = np.arange(80) % 5  # each class is dealt around

    def cost(penalty):
        total = 0.0
        for k in range(5):
            rest, held = fold != k, fold == k
            theirs = LogisticRegression(C=1 / (penalty * rest.mean()), tol=1e-8, max_iter=5000)
            said = theirs.fit(x[rest], y[rest]).predict_log_proba(x[held])
            total -= said[np.arange(held.sum()), y[held]].sum()
        return total

    found = choose_logistic(x, torch.tensor(y), torch.ones(80), 3)
    unit = float(x.square().sum() / x.shape[1])
    assert found.penalty == pytest.approx(min((unit * p for p in LOGISTIC_PENALTIES), key=cost))


@pytest.mark.parametrize(
    "y", [[0, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1], [0, 2]], ids=["rare", "one class", "two rows"]
)
def test_classes_without_examples_give_finite_weights(y):
    x = torch.tensor(np.random.default_rng(0).normal(size=(len(y), 4)))
    for inputs in (x, torch.zeros_like(x)):
        found = choose_logistic(inputs, torch.tensor(y), torch.ones(len(y)), 3)
        assert torch.isfinite(found.weight).all()
        assert torch.isfinite(found.bias).all()


def test_a_regression_converges_from_another_start():
    x, y = drawn("classify")
    x, y, ones = torch.tensor(x.reshape(60, -1)), torch.tensor(y), torch.ones(60)
    near = fit_logistic(x, y, ones, 3, 9.0)
    one, other = fit_logistic(x, y, ones, 3, 3.0), fit_logistic(x, y, ones, 3, 3.0, near)
    torch.testing.assert_close(one.weight, other.weight, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_keeps_its_weights_while_the_layers_learn(make_sequences, make_job, go_on, kind):
    ref = ref_of(make_sequences, kind, *drawn(kind))
    metric = "rmse" if kind == "regress" else "accuracy"
    job = make_job(ref, epochs=2, keep_weights=True, linear_path=True, metric=metric)
    first, outcome = fit_of(job).model.weights(), train(job, go_on)
    for name in ("linear_path.linear.weight", "linear_path.linear.bias"):
        assert first[name].any()
        np.testing.assert_array_equal(outcome.weights[name], first[name])
    assert not first["head.weight"].any()
    assert outcome.weights["head.weight"].any()
    assert_same_bits(train(job, go_on).weights, outcome.weights)


@settings(max_examples=examples(6))
@given(kind=st.sampled_from(KINDS), seed=st.integers(1, 99), other=st.sampled_from(OTHERS))
def test_sequences_that_are_not_trained_on_move_nothing(
    make_sequences, make_job, go_on, kind, seed, other
):
    x, y = drawn(kind, n=24)
    strange, new = x.copy(), y.copy()
    strange[18:] += 1e3 * np.random.default_rng(seed).normal(size=strange[18:].shape)
    new[18:] = y[18:] * 9 if kind == "regress" else (y[18:] + 1) % 3
    options = {"epochs": 1, "keep_weights": True, "linear_path": True, **other}
    options["metric"] = "rmse" if kind == "regress" else "accuracy"
    one, two = (
        train(make_job(ref_of(make_sequences, kind, *data), **options), go_on).weights
        for data in ((x, y), (strange, new))
    )
    assert_same_bits(one, two)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_of_its_own_sequence_alone(make_sequences, make_job, go_on, kind):
    x, y = drawn(kind, n=24)
    metric = "rmse" if kind == "regress" else "accuracy"
    job = make_job(
        ref_of(make_sequences, kind, x, y),
        epochs=1, keep_weights=True, linear_path=True, metric=metric,
    )  # fmt: skip
    weights = train(job, go_on).weights
    other = x.copy()
    other[20:] += 5
    before, after = (
        predict(PredictJob("p", job.hyperparameters, weights, ref_of(make_sequences, kind, r, y)))
        for r in (x, other)
    )
    np.testing.assert_array_equal(after.predictions[:2], before.predictions[:2])
    assert (after.predictions[2:] != before.predictions[2:]).any()


def test_what_was_fitted_on_the_same_numbers_is_not_fitted_again(
    make_sequences, make_job, monkeypatch
):
    x, y = drawn("classify")
    chosen = kept(monkeypatch, "choose_logistic")
    ref = ref_of(make_sequences, "classify", x, y)
    models = [
        fit_of(make_job(r, linear_path=True, metric="accuracy", class_weights=weights)).model
        for r, weights in (
            (ref, "none"), (ref, "none"), (ref, "balanced"),
            (ref_of(make_sequences, "classify", x + 1, y), "none"),
        )
    ]  # fmt: skip
    assert len(chosen) == 3
    first, again = (model.linear_path.linear.weight for model in models[:2])
    assert torch.equal(first, again)


def test_too_many_sequences_are_sampled_reproducibly(make_sequences, make_job, monkeypatch):
    for kind, name, most in (("regress", "_PRODUCTS", 15 * 100), ("classify", "_NUMBERS", 15 * 30)):
        x, y = drawn(kind)
        monkeypatch.setattr(linear_path, name, most)
        some = fit_of(make_job(ref_of(make_sequences, kind, x, y), linear_path=True)).model
        few = [*some_of(45, 15).tolist(), *range(45, 60)]
        ref = make_sequences(
            kind, list(x[few]), list(y[few]), evaluate=range(15, 30),
            classes=3 if kind == "classify" else 0,
        )  # fmt: skip
        expected = fit_of(make_job(ref, linear_path=True)).model
        torch.testing.assert_close(
            some.linear_path.linear.weight, expected.linear_path.linear.weight
        )


def test_there_is_no_linear_model_of_ragged_or_token_sequences():
    for shape in (Shape("regress", 2), Shape("classify", 0, vocabulary=4, classes=2, window=3)):
        with pytest.raises(TrainingError, match="needs sequences of numbers, all of one length"):
            Model(Hyperparameters(linear_path=True), shape)
