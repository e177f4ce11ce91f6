import math

import numpy as np
import pytest
import torch

from tuner.data.metrics import score
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.metrics import METRICS
from tuner.jobs import OutcomeState, PredictJob
from tuner.training import Model, predict, train
from tuner.training import trainer as fit
from tuner.training.samples import Windows


def numbers(outcome):
    """Return an outcome's history without the times."""
    return [(e.epoch, e.train_loss, e.val_loss, e.metric) for e in outcome.history]


def truth_of(ref):
    return ref.truth_of(ref.evaluate_samples())


def predictions(job, outcome):
    return predict(PredictJob("p", job.hyperparameters, outcome.weights, job.folds[-1])).predictions


# What is learned


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sine_is_forecast_far_better_than_by_its_mean(sine, make_job, go_on, bidirectional):
    job = make_job(sine, epochs=60, batch_size=16, bidirectional=bidirectional)
    outcome = train(job, go_on)
    assert outcome.state is OutcomeState.COMPLETE
    assert outcome.objective < 0.2 * truth_of(sine).std()
    assert outcome.history[-1].train_loss < 0.1 * outcome.history[0].train_loss


def test_several_targets_features_and_steps_are_learned_together(make_ref, make_job, go_on):
    t = np.arange(160)
    targets = np.stack([np.sin(t * 0.5), np.cos(t * 0.3)], axis=1)
    inputs = np.column_stack([targets, np.ones(160)])
    ref = make_ref(targets, inputs, horizon=3)
    job = make_job(ref, epochs=60, batch_size=16, hidden_size=16, num_layers=2, dropout=0.1)
    outcome = train(job, go_on)
    assert outcome.objective < 0.5 * truth_of(ref).std()


def test_losses_are_means_over_windows_in_scaled_units(sine, make_job, go_on, monkeypatch):
    # A step so small that no weight changes: every loss is that of the first weights.
    job = make_job(sine, epochs=1, learning_rate=1e-30, batch_size=33, keep_weights=True)
    outcome = train(job, go_on)
    model = Model(Hyperparameters(**job.hyperparameters), sine.shape).eval()
    model.load_weights(outcome.weights)
    windows = Windows(sine, torch.device("cpu"))
    for samples, loss in (
        (sine.train_samples(), outcome.history[0].train_loss),
        (sine.evaluate_samples(), outcome.history[0].val_loss),
    ):
        index = windows.index(samples)
        assert len(index) % 33 != 0
        errors = (model(windows.inputs(index)[0]) - windows.targets(index)).detach()
        assert loss == pytest.approx(errors.double().square().mean().item(), rel=1e-5)


def test_every_epoch_shuffles_all_training_windows(sine, make_job, go_on, monkeypatch):
    seen = []
    inputs = Windows.inputs
    monkeypatch.setattr(
        Windows, "inputs", lambda self, index: seen.append(index) or inputs(self, index)
    )

    def orders(**hyperparameters):
        seen.clear()
        train(make_job(sine, epochs=2, batch_size=16, **hyperparameters), go_on)
        batches = [b.tolist() for b in seen[:-1]]  # the last one measures the latency
        scored = sine.evaluate_samples().tolist()
        assert batches.count(scored) == 2
        flat = [t for b in batches if b != scored for t in b]
        return flat[: len(flat) // 2], flat[len(flat) // 2 :]

    first, second = orders(dropout=0.5)
    assert sorted(first) == sorted(second) == sine.train_samples().tolist()
    assert first != second
    assert orders(hidden_size=3, dropout=0.0) == (first, second)  # the model draws elsewhere


def test_dropout_is_on_in_training_and_off_in_scoring(sine, make_job, go_on, monkeypatch):
    modes = []
    forward = Model.forward
    monkeypatch.setattr(
        Model,
        "forward",
        lambda self, x, *others: modes.append(self.training) or forward(self, x, *others),
    )
    train(make_job(sine, epochs=3, batch_size=50), go_on)
    each = [True, True, False] * 3
    assert modes[:9] == each
    assert not any(modes[9:])  # those that measure the latency


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(sine, make_job, go_on):
    n_windows = len(sine.train_samples())
    whole, larger = (
        train(make_job(sine, batch_size=size), go_on) for size in (n_windows, 100 * n_windows)
    )
    assert numbers(whole) == numbers(larger)


def test_nothing_after_the_training_part_changes_what_is_learned(make_ref, make_job, go_on):
    targets = np.sin(np.arange(120) * 0.5)[:, None]
    end = 90
    changed = targets.copy()
    changed[end:] += 7.0
    outcomes = [train(make_job(make_ref(t), epochs=4), go_on) for t in (targets, changed)]
    first, second = ([e.train_loss for e in o.history] for o in outcomes)
    assert first == second
    assert outcomes[0].objective != outcomes[1].objective


def test_a_long_gradient_is_clipped(sine, make_job, go_on, monkeypatch):
    norms = []
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: norms.append(
            math.sqrt(sum(p.grad.square().sum() for g in self.param_groups for p in g["params"]))
        ),
    )
    train(make_job(sine, epochs=1, gradient_clip=1e-3), go_on)
    assert norms
    assert max(norms) == pytest.approx(1e-3, rel=1e-3)


# The same every time


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {},
        {"dropout": 0.3, "num_layers": 2},
        {"bidirectional": True, "batch_size": 7},
        {"cell": "peephole", "hidden_size": [8, 5], "dropout": 0.3},
        {"decoder": "recursive", "pooling": "attention", "schedule": "cosine"},
        {"optimizer": "rmsprop", "loss": "huber", "weight_decay": 0.01, "schedule": "plateau"},
    ],
    ids=str,
)
def test_the_same_job_gives_the_same_bits_whatever_ran_before(
    sine, noise, make_job, go_on, hyperparameters
):
    job = make_job(sine, keep_weights=True, **hyperparameters)
    first = train(job, go_on)
    torch.manual_seed(123)
    torch.rand(17)
    train(make_job(noise, seed=9, dropout=0.5), go_on)
    second = train(job, go_on)
    assert numbers(first) == numbers(second)
    assert first.objective == second.objective
    assert first.weights.keys() == second.weights.keys()
    for name, array in first.weights.items():
        assert array.tobytes() == second.weights[name].tobytes()


def test_random_draws_in_the_process_stay_as_they_were(sine, make_ref, make_job, go_on):
    broken = make_ref(np.full((80, 1), np.nan))
    job = make_job(sine, epochs=1, dropout=0.5, keep_weights=True)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    outcome = train(job, go_on)
    predictions(job, outcome)
    assert train(make_job(broken), go_on).state is OutcomeState.FAILED
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_different_seeds_start_and_shuffle_differently(sine, make_job, go_on):
    outcomes = [train(make_job(sine, seed=seed), go_on) for seed in (0, 1, 2**32 - 1, 2**70)]
    assert len({o.objective for o in outcomes}) == 4


def test_keeping_weights_changes_nothing_else(sine, make_job, go_on):
    with_weights, without = (
        train(make_job(sine, keep_weights=keep), go_on) for keep in (True, False)
    )
    assert numbers(with_weights) == numbers(without)
    assert without.weights is None


# The best epoch


@pytest.mark.parametrize("metric", sorted(m for m in METRICS if METRICS[m].of == "values"))
def test_the_kept_weights_give_the_best_epochs_score_exactly(noise, make_job, go_on, metric):
    job = make_job(
        noise, epochs=30, metric=metric, learning_rate=0.05, dropout=0.2, keep_weights=True
    )
    outcome = train(job, go_on)
    pick = max if METRICS[metric].maximize else min
    assert outcome.objective == pick(e.metric for e in outcome.history)
    assert outcome.history[outcome.best_epoch].metric == outcome.objective
    assert outcome.best_epoch < 29
    forecasts = predictions(job, outcome)
    assert forecasts.dtype == np.float64
    assert score(metric, truth_of(noise), forecasts, noise) == outcome.objective


@pytest.mark.parametrize("metric", ["rmse", "r2"])
@pytest.mark.parametrize("patience", [1, 3])
def test_training_stops_after_epochs_without_improvement(
    sine, make_job, go_on, monkeypatch, metric, patience
):
    losses = [5.0, 4.0, 4.0, 4.5, 3.0, 3.0, 3.5, 9.0, 2.0, 1.0]
    metrics = iter((1.0, -loss if metric == "r2" else loss) for loss in losses)
    monkeypatch.setattr(fit.Fit, "evaluate", lambda _: next(metrics))
    outcome = train(make_job(sine, epochs=10, metric=metric, patience=patience), go_on)
    best, n_epochs = {1: (1, 3), 3: (4, 8)}[patience]
    assert outcome.state is OutcomeState.COMPLETE
    assert outcome.best_epoch == best
    assert len(outcome.history) == n_epochs
    assert abs(outcome.objective) == losses[best]


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_a_flat_metric_leaves_the_choice_to_the_loss(sine, make_job, go_on, monkeypatch, metric):
    sign = -1 if metric == "r2" else 1
    epochs = [(2.0, 9), (3.0, 5), (2.5, 5), (2.4, 5), (2.6, 5), (2.4, 5), (2.3, 5), (2.3, 5),
              (0.1, 6), (0.1, 6)]  # fmt: skip
    shown = iter([(loss, sign * value) for loss, value in epochs])
    monkeypatch.setattr(fit.Fit, "evaluate", lambda _: next(shown))
    job = make_job(sine, epochs=10, metric=metric, patience=3, keep_weights=True)
    outcome = train(job, go_on)
    assert outcome.objective == sign * 5
    assert outcome.best_epoch == 6  # not the first with that metric, nor an equal one after it
    assert len(outcome.history) == 10
    assert outcome.val_loss(sign) == 2.3


def test_where_metric_and_loss_stand_still_training_stops(sine, make_job, go_on, monkeypatch):
    monkeypatch.setattr(fit.Fit, "evaluate", lambda _: (1.0, 0.5))
    outcome = train(make_job(sine, epochs=10, patience=3), go_on)
    assert (outcome.best_epoch, len(outcome.history)) == (0, 4)
