"""How training ends: when it has been told to, and when something goes wrong."""

import dataclasses
import math
import time

import numpy as np
import pytest
import torch

from tuner.data.preprocessing import Transform
from tuner.jobs import OutcomeState
from tuner.training import Model, train
from tuner.training import trainer as fit


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


def test_targets_too_large_for_a_loss_fail_the_job(make_ref, make_job, go_on):
    ref = make_ref(np.linspace(1, 2, 80)[:, None] * 1e25)
    outcome = train(make_job(ref, keep_weights=True, learning_rate=0.5), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == "train_loss is inf at epoch 0 (learning_rate 0.5)"
    assert outcome.objective is outcome.weights is None
    assert outcome.history == ()


def test_a_loss_that_is_nan_on_the_validation_part_fails_the_job(make_ref, make_job, go_on):
    targets = np.sin(np.arange(80))[:, None]
    ref = make_ref(np.where(np.arange(80)[:, None] == 79, np.nan, targets), targets)
    outcome = train(make_job(ref), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == "val_loss is nan at epoch 0 (learning_rate 0.01)"


def test_a_later_nan_metric_fails_the_job_and_keeps_its_epochs(sine, make_job, monkeypatch):
    metrics = iter([3.0, 2.0, math.nan])
    monkeypatch.setattr(fit, "score", lambda *_: next(metrics))
    reported = []
    outcome = train(make_job(sine, epochs=9), lambda epoch: reported.append(epoch) or True)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == "rmse is nan at epoch 2 (learning_rate 0.01)"
    assert [e.metric for e in outcome.history] == [3.0, 2.0]
    assert tuple(reported) == outcome.history


def test_absurd_forecasts_fail_the_job_without_a_warning(make_ref, make_job, go_on):
    ref = make_ref(np.sin(np.arange(80))[:, None])
    ref = dataclasses.replace(ref, transform=Transform("log"), scale=(1e6,), offset=(1e6,))
    outcome = train(make_job(ref), go_on)
    assert outcome.reason == "rmse is nan at epoch 0 (learning_rate 0.01)"


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
