"""What is learned of every task, from its data to predictions with trained weights."""

import importlib

import numpy as np
import pytest
import torch
from torch.nn import functional

from tuner.data.metrics import score
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.experiment.metrics import METRICS
from tuner.jobs import OutcomeState, PredictJob
from tuner.training import Model, predict, train
from tuner.training.samples import Sequences

LEVELS = (0.1, 0.5, 0.9)
CLASSES = sorted(m for m in METRICS if METRICS[m].of == "classes")


def learn(job, go_on):
    """Train, and predict with the weights."""
    outcome = train(job, go_on)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    return outcome, predict(PredictJob("p", job.hyperparameters, outcome.weights, job.folds[-1]))


def truth_of(ref):
    return ref.truth_of(ref.evaluate_samples())


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "peephole"])
def test_every_cell_learns_from_sequences_of_any_length(sums, make_job, go_on, cell):
    job = make_job(sums, epochs=40, keep_weights=True, cell=cell, pooling="mean", hidden_size=16)
    outcome, predicted = learn(job, go_on)
    truth = truth_of(sums)
    assert predicted.predictions.shape == truth.shape == (20, 1, 2)
    assert score("rmse", truth, predicted.predictions, sums) == outcome.objective
    assert outcome.objective < 0.5 * truth.std()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("metric", CLASSES)
def test_sequences_are_classified(signs, make_job, go_on, metric, bidirectional):
    job = make_job(
        signs,
        epochs=30,
        keep_weights=True,
        metric=metric,
        bidirectional=bidirectional,
        class_weights="balanced",
    )
    outcome, predicted = learn(job, go_on)
    assert predicted.predictions.shape == (30, 3)
    assert predicted.predictions.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-12)
    assert score(metric, truth_of(signs), predicted.predictions, signs) == outcome.objective
    pick = max if METRICS[metric].maximize else min
    assert outcome.objective == pick(e.metric for e in outcome.history)
    if metric == "accuracy":
        assert outcome.objective > 0.7


def test_every_step_is_labelled_and_what_pads_is_not_scored(steps, make_job, go_on):
    job = make_job(steps, epochs=30, keep_weights=True, metric="accuracy", batch_size=7)
    outcome, predicted = learn(job, go_on)
    bounds = steps.load("bounds")[steps.evaluate_samples()]
    assert predicted.predictions.shape == (np.diff(bounds).sum(), 2)
    assert outcome.objective > 0.95
    hits = predicted.predictions.argmax(axis=1) == truth_of(steps)
    assert hits.mean() == outcome.objective
    assert predicted.attention is None


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "mase"])
def test_every_step_has_a_number_and_what_pads_is_not_scored(running_sums, make_job, go_on, metric):
    ref = running_sums
    job = make_job(ref, epochs=40, keep_weights=True, metric=metric, batch_size=7, hidden_size=16)
    outcome, predicted = learn(job, go_on)
    truth = truth_of(ref)
    steps = np.diff(ref.load("bounds")[ref.evaluate_samples()]).sum()
    assert predicted.predictions.shape == truth.shape == (steps, 1, 2)
    assert score(metric, truth, predicted.predictions, ref) == outcome.objective
    error = score("rmse", truth, predicted.predictions, ref)
    assert error < 0.4 * truth.std(axis=(0, 1)).mean()  # 1 by chance


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_the_loss_of_step_numbers_averages_over_real_steps(
    running_sums, make_job, go_on, batch_size, loss
):
    # A step so small that no weight changes: every loss is that of the first weights.
    ref, options = running_sums, {"learning_rate": 1e-30, "batch_size": batch_size, "loss": loss}
    trained = train(make_job(ref, epochs=1, keep_weights=True, **options), go_on)
    model = Model(Hyperparameters(hidden_size=8), ref.shape).eval()
    model.load_weights(trained.weights)
    samples = Sequences(ref, torch.device("cpu"))
    of = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}
    for part, told in (
        (ref.train_samples(), trained.history[0].train_loss),
        (ref.evaluate_samples(), trained.history[0].val_loss),
    ):
        index = samples.index(part)
        outputs, targets = model(*samples.inputs(index)), samples.targets(index)
        real = ~targets.isnan()
        assert 0 < real.sum() < real.numel()
        assert told == pytest.approx(of[loss](outputs[real], targets[real]).item(), rel=1e-5)


def test_the_loss_of_labels_is_the_mean_over_real_steps(steps, make_job, go_on):
    outcome, predicted = learn(
        make_job(steps, epochs=1, keep_weights=True, metric="cross_entropy"), go_on
    )
    assert outcome.history[0].val_loss == pytest.approx(outcome.objective, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_training_loss_of_labels_is_the_mean_over_real_steps(
    steps, make_job, go_on, batch_size
):
    # A step so small that no weight changes: every loss is that of the first weights.
    options = {"learning_rate": 1e-30, "batch_size": batch_size, "metric": "cross_entropy"}
    trained = train(make_job(steps, epochs=1, keep_weights=True, **options), go_on)
    model = Model(Hyperparameters(hidden_size=8), steps.shape).eval()
    model.load_weights(trained.weights)
    samples = Sequences(steps, torch.device("cpu"))
    index = samples.index(steps.train_samples())
    logits, targets = model(*samples.inputs(index)), samples.targets(index)
    expected = functional.cross_entropy(logits[targets >= 0], targets[targets >= 0])
    assert trained.history[0].train_loss == pytest.approx(expected.item(), rel=1e-5)


def test_tokens_are_read(words, make_job, go_on):
    job = make_job(words, epochs=30, metric="accuracy", embedding_size=6, pooling="max")
    assert train(job, go_on).objective > 0.95


@pytest.mark.parametrize("decoder", ["direct", "recursive"])
@pytest.mark.parametrize("metric", ["pinball", "mae"])
def test_quantiles_are_forecast(make_ref, make_job, go_on, decoder, metric):
    rng = np.random.default_rng(0)
    targets = np.sin(np.arange(240) * 0.5)[:, None] + 0.2 * rng.normal(size=(240, 1))
    ref = make_ref(targets, horizon=3, quantiles=LEVELS)
    job = make_job(
        ref, epochs=40, keep_weights=True, metric=metric, decoder=decoder, hidden_size=16
    )
    outcome, predicted = learn(job, go_on)
    truth = truth_of(ref)
    assert predicted.predictions.shape == (*truth.shape, 3)
    assert score(metric, truth, predicted.predictions, ref) == outcome.objective
    assert (np.diff(predicted.predictions, axis=-1) >= 0).all()
    below = (truth[..., None] < predicted.predictions).mean(axis=(0, 1, 2))
    assert below == pytest.approx(LEVELS, abs=0.2)


@pytest.mark.parametrize("decoder", ["direct", "recursive"])
def test_a_horizon_is_forecast_by_every_decoder(make_ref, make_job, go_on, decoder):
    ref = make_ref(np.sin(np.arange(200) * 0.5)[:, None], horizon=4)
    job = make_job(ref, epochs=60, hidden_size=16, decoder=decoder)
    assert train(job, go_on).objective < 0.3 * truth_of(ref).std()


@pytest.mark.parametrize("decoder", ["direct", "recursive"])
def test_attention_to_windows_is_predicted_with_them(make_ref, make_job, go_on, decoder):
    ref = make_ref(np.sin(np.arange(80))[:, None], horizon=2)
    job = make_job(ref, keep_weights=True, pooling="attention", decoder=decoder, window=5)
    _, predicted = learn(job, go_on)
    assert predicted.attention.shape == (len(ref.evaluate_samples()), 5)
    assert predicted.attention.sum(axis=1) == pytest.approx(np.ones(len(predicted.attention)))
    assert predicted.attention.dtype == np.float32


def test_attention_is_nan_after_the_last_step(sums, make_job, go_on, monkeypatch):
    monkeypatch.setattr(importlib.import_module("tuner.training.predict"), "_BATCH", 3)
    _, predicted = learn(make_job(sums, keep_weights=True, pooling="attention"), go_on)
    lengths = np.diff(sums.load("bounds")[sums.evaluate_samples()])[:, 0]
    assert predicted.attention.shape == (20, lengths.max())
    assert np.isfinite(predicted.attention).sum(axis=1).tolist() == lengths.tolist()
    assert np.nansum(predicted.attention, axis=1) == pytest.approx(np.ones(20))
    for row, length in zip(predicted.attention, lengths, strict=True):
        assert np.isfinite(row[:length]).all()


@pytest.mark.parametrize("task", ["sums", "signs", "steps", "words"])
def test_the_same_job_on_sequences_gives_the_same_bits(request, make_job, go_on, task):
    ref = request.getfixturevalue(task)
    metric = "cross_entropy" if ref.shape.classes else "rmse"
    options = {"dropout": 0.3, "cell": "peephole", "bidirectional": True, "num_layers": 2}
    job = make_job(ref, keep_weights=True, metric=metric, **options)
    (first, of_first), (second, of_second) = (learn(job, go_on) for _ in range(2))
    assert first.objective == second.objective
    for name, array in first.weights.items():
        assert array.tobytes() == second.weights[name].tobytes()
    assert of_first.predictions.tobytes() == of_second.predictions.tobytes()


def test_long_sequences_are_predicted_in_small_batches(signs, make_job, go_on, monkeypatch):
    job = make_job(signs, epochs=1, keep_weights=True, metric="cross_entropy")
    _, whole = learn(job, go_on)
    module = importlib.import_module("tuner.training.predict")
    monkeypatch.setattr(module, "_BATCH_NUMBERS", 1)
    _, one_by_one = learn(job, go_on)
    np.testing.assert_allclose(one_by_one.predictions, whole.predictions, rtol=1e-5)


@pytest.mark.parametrize(
    ("hyperparameters", "largest"),
    [
        ({"hidden_size": 1}, 10),
        ({"hidden_size": 16}, 10),
        ({"hidden_size": 32}, 5),
        ({"hidden_size": [8, 40, 16]}, 4),
        ({"hidden_size": 40, "bidirectional": True}, 2),
        ({"hidden_size": 1000}, 1),
        ({"hidden_size": 16, "pooling": "attention"}, 10),
        ({"hidden_size": 16, "embedding_size": 160}, 1),
    ],
    ids=str,
)
def test_wider_layers_predict_fewer_sequences_at_once(
    words, make_job, go_on, monkeypatch, hyperparameters, largest
):
    longest = int(np.diff(words.load("bounds")).max())
    module = importlib.import_module("tuner.training.predict")
    monkeypatch.setattr(module, "_BATCH_NUMBERS", 10 * 16 * longest)
    options = {"embedding_size": 4} | hyperparameters
    job = make_job(words, epochs=1, keep_weights=True, metric="cross_entropy", **options)
    outcome = train(job, go_on)
    sizes = []
    encode = Model._encode
    monkeypatch.setattr(
        Model, "_encode", lambda self, x, *others: sizes.append(len(x)) or encode(self, x, *others)
    )
    predict(PredictJob("p", job.hyperparameters, outcome.weights, words))
    assert max(sizes) == largest
