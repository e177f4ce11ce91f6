"""Training for deployment: so many epochs, the last one kept, and no score."""

import dataclasses
import platform

import numpy as np
import pytest

from tuner.jobs import Outcome, OutcomeState
from tuner.training import train
from tuner.training import trainer as fit

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
