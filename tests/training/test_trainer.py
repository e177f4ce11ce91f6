"""The training loop: epochs, ends, scores and jobs."""

import dataclasses
import math
import platform
import re
import time

import numpy as np
import pytest
import torch
from helpers.models import assert_same_bits

from tuner.data.metrics import score
from tuner.data.preprocessing import Transform
from tuner.errors import Interrupted
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Outcome, OutcomeState, PredictJob
from tuner.metrics import METRICS
from tuner.training import Model, predict, run_job, train
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


# The same every time


TWO_LAYERS = {"dropout": 0.3, "cell": "peephole", "bidirectional": True, "num_layers": 2}
SEGMENTS = {"normalize": "standard", "linear_path": True, "segment": 3, "conv_channels": 4}


@pytest.mark.parametrize(
    ("data", "hyperparameters"),
    [
        ("sine", {}),
        ("sine", {"bidirectional": True, "batch_size": 7}),
        ("sine", {"cell": "peephole", "hidden_size": [8, 5], "dropout": 0.3}),
        ("sine", {"decoder": "recursive", "pooling": "attention", "schedule": "cosine"}),
        ("sine", {"optimizer": "rmsprop", "loss": "huber", "weight_decay": 0.01}),
        ("sine", SEGMENTS | {"decoder": "segments", "dropout": 0.2, "schedule": "plateau"}),
        *((data, TWO_LAYERS) for data in ("sums", "signs", "steps", "words")),
    ],
    ids=str,
)
def test_the_same_job_gives_the_same_bits_whatever_ran_before(
    request, noise, make_job, go_on, data, hyperparameters
):
    ref = request.getfixturevalue(data)
    metric = "cross_entropy" if ref.shape.classes else "rmse"
    job = make_job(ref, keep_weights=True, metric=metric, **hyperparameters)
    first = train(job, go_on)
    torch.manual_seed(123)
    torch.rand(17)
    train(make_job(noise, seed=9, dropout=0.5), go_on)
    second = train(job, go_on)
    assert numbers(first) == numbers(second)
    assert first.objective == second.objective
    assert_same_bits(first.weights, second.weights)


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


def test_every_epoch_is_reported_as_it_ends(sine, make_job):
    reported = []
    outcome = train(make_job(sine, epochs=4), lambda epoch: reported.append(epoch) or True)
    assert tuple(reported) == outcome.history
    assert [e.epoch for e in reported] == [0, 1, 2, 3]
    times = [e.time for e in reported]
    assert times == sorted(times)
    assert times[-1] <= outcome.finished_at <= time.time()


def test_a_refused_epoch_is_the_last(sine, make_job):
    job = make_job(sine, epochs=9, keep_weights=True)
    outcome = train(job, lambda epoch: epoch.epoch < 2)
    assert outcome.state is OutcomeState.PRUNED
    assert outcome.objective is outcome.best_epoch is outcome.weights is outcome.reason is None
    assert len(outcome.history) == 3


def test_waiting_for_an_answer_is_not_counted_as_training(sine, make_job):
    started = time.perf_counter()
    outcome = train(make_job(sine), lambda epoch: time.sleep(0.05) or True)
    wall = time.perf_counter() - started
    assert 0 < outcome.seconds <= wall - 3 * 0.05


def test_memory_is_measured_in_megabytes(sine, make_job, go_on):
    assert 50 < train(make_job(sine), go_on).peak_memory_mb < 50_000


def test_numbers_that_are_not_finite_fail_the_job(make_ref, make_job, go_on):
    sine = np.sin(np.arange(80))[:, None]
    last = np.arange(80)[:, None] == 79
    absurd = {"transform": Transform("log"), "scale": (1e6,), "offset": (1e6,)}
    for ref, what in (
        (make_ref(np.linspace(1, 2, 80)[:, None] * 1e25), "train_loss is inf"),
        (make_ref(np.where(last, np.nan, sine), sine), "val_loss is nan"),
        (dataclasses.replace(make_ref(sine), **absurd), "rmse is nan"),
    ):
        outcome = train(make_job(ref, keep_weights=True, learning_rate=0.5), go_on)
        assert outcome.state is OutcomeState.FAILED
        assert outcome.reason == f"{what} at epoch 0 (learning_rate 0.5)"
        assert outcome.objective is outcome.weights is None
        assert outcome.history == ()


def test_a_later_nan_metric_fails_the_job_and_keeps_its_epochs(sine, make_job, monkeypatch):
    metrics = iter([3.0, 2.0, math.nan])
    monkeypatch.setattr(fit, "score", lambda *_: next(metrics))
    reported = []
    outcome = train(make_job(sine, epochs=9), lambda epoch: reported.append(epoch) or True)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == "rmse is nan at epoch 2 (learning_rate 0.01)"
    assert [e.metric for e in outcome.history] == [3.0, 2.0]
    assert tuple(reported) == outcome.history


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of\n  memory"),
        MemoryError("out of\nmemory"),
        RuntimeError("out  of memory"),
    ],
)
def test_a_model_that_does_not_fit_into_memory_fails_in_one_line(
    sine, make_job, monkeypatch, error
):
    def grow(epoch):
        if epoch.epoch == 1:
            monkeypatch.setattr(Model, "forward", fail)
        return True

    def fail(self, x, *others):
        raise error

    outcome = train(make_job(sine, epochs=5), grow)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == f"{type(error).__name__}: out of memory"
    assert len(outcome.history) == 2


def test_a_model_far_too_large_fails_instead_of_raising(sine, make_job, go_on, monkeypatch):
    def allocate(self, x, *others):
        return torch.empty(2**48)

    monkeypatch.setattr(Model, "forward", allocate)
    outcome = train(make_job(sine), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert "\n" not in outcome.reason


EPOCHS = 4


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def unscored(job, **changes):
    return dataclasses.replace(job, validates=False, **changes)


@pytest.mark.parametrize("schedule", ["none", "cosine"])
@pytest.mark.parametrize("data", ["sine", "words"])
def test_the_weights_are_those_of_the_scored_epoch(request, make_job, go_on, data, schedule):
    ref = request.getfixturevalue(data)
    metric = "rmse" if data == "sine" else "cross_entropy"
    job = make_job(ref, epochs=12, schedule=schedule, metric=metric, dropout=0.2, keep_weights=True)
    cut = {"epochs": EPOCHS, "schedule_epochs": 12}
    scored = train(dataclasses.replace(job, **cut), go_on)
    assert scored.best_epoch == EPOCHS - 1  # whose weights it has
    assert same(train(unscored(job, **cut), go_on).weights, scored.weights)
    assert not same(train(unscored(job, **cut | {"seed": 2}), go_on).weights, scored.weights)


def test_it_has_neither_score_nor_history_and_nobody_is_asked(noise, make_job):
    def report(epoch):
        raise AssertionError("an epoch was reported")

    outcome = train(unscored(make_job(noise, epochs=EPOCHS, patience=1)), report)
    assert (outcome.objective, outcome.history) == (None, ())
    assert outcome.best_epoch == EPOCHS - 1
    assert outcome.weights is None
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_the_validation_part_is_not_looked_at(noise, make_job, go_on, monkeypatch):
    monkeypatch.setattr(fit.Fit, "evaluate", None)
    assert train(unscored(make_job(noise)), go_on).state is OutcomeState.COMPLETE


def rates(job, monkeypatch, go_on):
    """The learning rate of every epoch."""
    found = []
    train_epoch = fit.Fit.train_epoch

    def noted(self):
        found.append(self.optimizer.param_groups[0]["lr"])
        return train_epoch(self)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Fit, "train_epoch", noted)
        train(job, go_on)
    return found


def test_a_schedule_runs_as_it_did_in_the_longer_training(noise, make_job, go_on, monkeypatch):
    job = make_job(noise, epochs=20, schedule="cosine")
    whole = rates(job, monkeypatch, go_on)
    cut = rates(unscored(job, epochs=5, schedule_epochs=20), monkeypatch, go_on)
    assert cut == whole[:5]
    assert rates(unscored(job, epochs=5), monkeypatch, go_on) != cut


def test_a_plateau_is_one_of_the_training_loss(noise, make_job, go_on, monkeypatch):
    job = unscored(make_job(noise, epochs=9, schedule="plateau"))
    monkeypatch.setattr(fit.Fit, "train_epoch", lambda self: 1.0)
    assert rates(job, monkeypatch, go_on) == [0.01] * 7 + [0.005] * 2
    losses = iter(range(9, 0, -1))
    monkeypatch.setattr(fit.Fit, "train_epoch", lambda self: float(next(losses)))
    assert set(rates(job, monkeypatch, go_on)) == {0.01}


def test_a_loss_that_is_not_finite_fails_the_job(noise, make_job, go_on, monkeypatch):
    losses = iter([1.0, float("nan")])
    monkeypatch.setattr(fit.Fit, "train_epoch", lambda self: next(losses))
    outcome = train(unscored(make_job(noise)), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason.startswith("train_loss is nan at epoch 1 ")


def test_an_outcome_says_what_calculated(noise, make_job, go_on):
    for job in (make_job(noise), unscored(make_job(noise))):
        device = train(dataclasses.replace(job, device="cpu"), go_on).device
        assert device.startswith(f"{platform.machine()} ")
        assert device == " ".join(device.split())


def test_a_train_job_is_trained_and_a_predict_job_forecasts(sine, make_job, go_on):
    job = make_job(sine, keep_weights=True)
    trained = run_job(job, go_on)
    assert trained.state is OutcomeState.COMPLETE
    outcome = run_job(PredictJob("p", job.hyperparameters, trained.weights, sine), go_on)
    assert outcome.state is OutcomeState.COMPLETE
    assert outcome.predictions.shape == (len(sine.evaluate_samples()), 1, 1)
    assert np.abs(outcome.predictions - 100).max() < 20  # in the data's units
    assert outcome.objective is None
    assert outcome.peak_memory_mb > 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hyperparameters": {"hidden_size": 0}}, "ValidationError: .*hidden_size"),
        ({"metric": "speed"}, "KeyError: 'speed'"),
    ],
)
def test_what_a_job_raises_becomes_a_failed_outcome_in_one_line(
    sine, make_job, go_on, change, reason
):
    outcome = run_job(dataclasses.replace(make_job(sine), **change), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.finished_at > 0
    assert "\n" not in outcome.reason
    assert re.match(reason, outcome.reason)


def test_missing_data_fails_the_job(sine, make_job, go_on, tmp_path):
    gone = dataclasses.replace(sine, folder=str(tmp_path / "gone"))
    outcome = run_job(make_job(gone), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason.startswith("FileNotFoundError: ")


def test_weights_of_another_model_fail_the_job(sine, make_job, go_on):
    job = make_job(sine, epochs=1, keep_weights=True)
    weights = run_job(job, go_on).weights
    outcome = run_job(PredictJob("p", {"hidden_size": 9}, weights, sine), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert "size mismatch" in outcome.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Interrupted])
def test_an_interruption_is_passed_on(sine, make_job, error):
    def interrupt(epoch):
        raise error("stopped")

    with pytest.raises(error):
        run_job(make_job(sine), interrupt)


CUDA_ERROR = """CUDA error: device-side assert triggered
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""


@pytest.fixture
def cuda(monkeypatch):
    """Stands for a CUDA that is in use; returns what breaks it."""
    broken = []

    def synchronize():
        if broken:
            raise RuntimeError(CUDA_ERROR)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", synchronize)
    return lambda: broken.append(True)


@pytest.mark.parametrize("error", [RuntimeError(CUDA_ERROR), KeyError("any other")])
def test_a_job_that_fails_as_cuda_breaks_is_not_to_blame(sine, make_job, cuda, error):
    def report(epoch):
        cuda()
        raise error

    with pytest.raises(RuntimeError) as caught:
        run_job(make_job(sine), report)
    expected = (
        "CUDA does not work in this process any more: CUDA error: device-side assert triggered"
    )
    assert str(caught.value) == expected
    assert type(caught.value) is RuntimeError


def test_a_prediction_that_fails_as_cuda_breaks_is_not_to_blame(sine, go_on, cuda):
    cuda()
    with pytest.raises(RuntimeError, match="CUDA does not work in this process any more"):
        run_job(PredictJob("p", {"hidden_size": 9}, {}, sine), go_on)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: no kernel")]
)
def test_a_job_that_fails_while_cuda_works_has_failed(sine, make_job, cuda, error):
    def report(epoch):
        raise error

    outcome = run_job(make_job(sine), report)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == f"{type(error).__name__}: {error}"
