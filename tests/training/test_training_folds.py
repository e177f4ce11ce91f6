import dataclasses
import math

import numpy as np
import pytest

from tuner.jobs import OutcomeState, PredictJob, intermediate_values
from tuner.training import predict, train
from tuner.training import trainer as fit


@pytest.fixture(scope="session")
def folds(make_ref):
    """Three splits of one series, each of which trains on more of it."""
    targets = np.sin(np.arange(120) * 0.5)[:, None]
    return tuple(
        make_ref(targets, train=(0, end), evaluate=(end, end + 20)) for end in (60, 80, 100)
    )


def numbers(history):
    return [(e.train_loss, e.val_loss, e.metric) for e in history]


def test_the_score_is_the_mean_of_the_folds_bests(folds, make_job, go_on):
    job = make_job(*folds, epochs=4, keep_weights=True)
    outcome = train(job, go_on)
    assert outcome.state is OutcomeState.COMPLETE
    assert [e.epoch for e in outcome.history] == list(range(12))
    assert [e.fold for e in outcome.history] == [0] * 4 + [1] * 4 + [2] * 4
    best = [min(e.metric for e in outcome.history[i : i + 4]) for i in (0, 4, 8)]
    assert outcome.objective == pytest.approx(np.mean(best), rel=1e-12)
    assert outcome.best_epoch >= 8
    assert outcome.history[outcome.best_epoch].metric == best[2]
    forecast = predict(PredictJob("p", job.hyperparameters, outcome.weights, folds[2])).predictions
    truth = folds[2].truth_of(folds[2].evaluate_samples())
    assert math.sqrt(np.square(forecast - truth).mean()) == pytest.approx(best[2], rel=1e-12)


def test_a_folds_last_epoch_carries_its_score(folds, make_job):
    reported = []
    outcome = train(make_job(*folds, epochs=4), lambda epoch: reported.append(epoch) or True)
    assert tuple(reported) == outcome.history
    best = [min(e.metric for e in reported[i : i + 4]) for i in (0, 4, 8)]
    expected = [None] * 12
    expected[3::4] = best
    assert [e.fold_score for e in reported] == expected
    so_far = [sum(best[: k + 1]) / (k + 1) for k in range(3)]
    assert intermediate_values(reported, 3) == pytest.approx(dict(enumerate(so_far)))


def test_one_fold_has_no_score_of_its_own(folds, make_job, go_on):
    assert all(e.fold_score is None for e in train(make_job(folds[0]), go_on).history)


@pytest.mark.parametrize("metric", ["rmse", "r2"])
def test_a_fold_that_stops_early_scores_and_the_next_begins(
    folds, make_job, go_on, monkeypatch, metric
):
    sign = -1 if metric == "r2" else 1
    losses = [3.0, 2.0, 2.5, 2.5, 9.0, 9.5, 9.5, 5.0, 4.0, 3.0, 2.0]
    metrics = iter(sign * loss for loss in losses)
    monkeypatch.setattr(fit, "score", lambda *_: next(metrics))
    outcome = train(make_job(*folds, epochs=4, patience=2, metric=metric), go_on)
    assert [e.fold for e in outcome.history] == [0] * 4 + [1] * 3 + [2] * 4
    scores = {e.epoch: e.fold_score for e in outcome.history if e.fold_score is not None}
    assert scores == {3: sign * 2.0, 6: sign * 9.0, 10: sign * 2.0}
    assert outcome.objective == pytest.approx(sign * 13 / 3)
    assert outcome.best_epoch == 10


def test_the_first_fold_trains_alone_and_others_by_own_seeds(folds, make_job, go_on):
    one = train(make_job(folds[0]), go_on)
    thrice = train(make_job(*folds[:1] * 3), go_on)
    parts = [numbers(thrice.history[i : i + 3]) for i in (0, 3, 6)]
    assert parts[0] == numbers(one.history)
    assert parts[0] != parts[1] != parts[2] != parts[0]
    again = train(make_job(*folds[:1] * 3), go_on)
    assert numbers(again.history) == numbers(thrice.history)


def test_every_fold_begins_its_schedule_anew(folds, make_job, go_on, monkeypatch):
    rates = []
    train_epoch = fit.Fit.train_epoch
    monkeypatch.setattr(
        fit.Fit,
        "train_epoch",
        lambda self: rates.append(self.optimizer.param_groups[0]["lr"]) or train_epoch(self),
    )
    train(make_job(*folds[:2], epochs=4, schedule="cosine"), go_on)
    assert rates[:4] == rates[4:]
    assert rates[0] == 0.01
    assert rates == sorted(rates[:4], reverse=True) * 2


@pytest.mark.parametrize("refused", [1, 3, 6, 11])
def test_a_refused_epoch_is_the_last_of_all_folds(folds, make_job, refused):
    job = make_job(*folds, epochs=4, keep_weights=True)
    outcome = train(job, lambda epoch: epoch.epoch != refused)
    assert outcome.state is OutcomeState.PRUNED
    assert len(outcome.history) == refused + 1
    assert outcome.objective is outcome.best_epoch is outcome.weights is None


def test_a_failed_fold_fails_the_job_and_keeps_its_epochs(folds, make_ref, make_job, go_on):
    broken = make_ref(np.full((120, 1), np.nan), train=(0, 60), evaluate=(60, 80))
    outcome = train(make_job(folds[0], broken), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == "train_loss is nan at epoch 3 (learning_rate 0.01)"
    assert len(outcome.history) == 3
    assert outcome.objective is None


def test_a_searched_window_replaces_that_of_every_fold(folds, make_job, go_on):
    shorter = tuple(dataclasses.replace(ref, window=5) for ref in folds[:2])
    searched = train(make_job(*folds[:2], window=5), go_on)
    assert numbers(searched.history) == numbers(train(make_job(*shorter), go_on).history)
    assert numbers(searched.history) != numbers(train(make_job(*folds[:2]), go_on).history)
