"""Heads: of steps, of known columns, and of each task."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import CPU, drawn
from torch.nn import functional

from tuner.data import Shape
from tuner.data.baselines import Baselines, choose
from tuner.data.metrics import score
from tuner.data.prepared import check_data
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import OutcomeState, PredictJob, TrainJob
from tuner.metrics import METRICS
from tuner.training import Model, predict, recurrent, run_job, train
from tuner.training.recurrent import Recursive
from tuner.training.samples import Sequences, Windows

CELLS = ["lstm", "gru", "rnn", "peephole"]


def build(shape, **hyperparameters):
    torch.manual_seed(0)
    return Model(Hyperparameters(decoder="recursive", **hyperparameters), shape)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)], ids=str)
@pytest.mark.parametrize("pooling", ["last", "attention"])
def test_every_step_is_decoded_and_every_weight_has_a_gradient(
    cell, bidirectional, quantiles, pooling
):
    shape = Shape("forecast", 2, horizon=4, targets=3, quantiles=quantiles)
    model = build(
        shape, cell=cell, bidirectional=bidirectional, pooling=pooling, hidden_size=[6, 5]
    )
    forecast = model(torch.randn(7, 9, 2))
    assert forecast.shape == (7, 4, 3, *([3] if quantiles else []))
    forecast.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_step_is_read_by_the_next_one():
    shape = Shape("forecast", 1, horizon=3, targets=2)
    model = build(shape, hidden_size=5)
    decoder = model.head
    x = torch.randn(4, 6, 1)
    _, state = model.recurrent(x)
    read, state = decoder.begin.expand(4, 1, 2), tuple(s.unsqueeze(0) for s in state)
    expected = []
    for _ in range(3):
        outputs, state = decoder.layer(read, state)
        read = decoder.head(outputs)
        expected.append(read)
    torch.testing.assert_close(model(x), torch.cat(expected, dim=1))


def test_of_quantiles_the_median_is_read_by_the_next_step(monkeypatch):
    shape = Shape("forecast", 1, horizon=2, quantiles=(0.1, 0.5, 0.9))
    model = build(shape, hidden_size=5)
    seen, read = [], recurrent.read
    monkeypatch.setattr(
        recurrent,
        "read",
        lambda layers, x, *more, **options: seen.append(x) or read(layers, x, *more, **options),
    )
    forecast = model(torch.randn(4, 6, 1))
    torch.testing.assert_close(seen[2], forecast[:, :1, :, 1])


@pytest.mark.parametrize(
    ("options", "bridges"),
    [
        ({}, ["Identity", "Identity"]),
        ({"proj_size": 2}, ["Identity", "Identity"]),
        ({"bidirectional": True}, ["Linear", "Linear"]),
        ({"bidirectional": True, "proj_size": 2}, ["Linear", "Linear"]),
        ({"cell": "gru"}, ["Identity"]),
        ({"cell": "peephole", "bidirectional": True}, ["Linear", "Linear"]),
    ],
)
def test_a_bridge_stands_where_sizes_differ(options, bridges):
    model = build(Shape("forecast", 1, horizon=2), hidden_size=5, **options)
    assert [type(b).__name__ for b in model.head.bridges] == bridges
    assert model(torch.randn(3, 4, 1)).shape == (3, 2, 1)


@pytest.mark.parametrize(
    "shape", [Shape("regress", 1, targets=2), Shape("classify", 1, classes=3)], ids=str
)
def test_without_a_horizon_there_is_nothing_to_decode(shape):
    assert not isinstance(build(shape).head, Recursive)


HEADS = {
    "direct": {},
    "step by step": {"decoder": "recursive"},
    "in segments": {"decoder": "segments", "segment": 2},
    "beside a linear path": {"linear_path": True, "normalize": "last"},
}
WINDOW, HORIZON, KNOWN, OWN = 6, 3, 2, 0
SHAPE = Shape(
    "forecast", 3, horizon=HORIZON, window=WINDOW, target_columns=(OWN,), known_columns=(KNOWN,)
)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_reads_the_known_columns_of_its_step(head):
    model = drawn(SHAPE, std=0.3, hidden_size=8, **HEADS[head])
    x = torch.randn(4, WINDOW + HORIZON, 3)
    before = model(x)
    for step in range(HORIZON):
        known, others = x.clone(), x.clone()
        known[:, WINDOW + step, KNOWN] += 1
        others[:, WINDOW + step, [0, 1]] += torch.inf  # would be seen anywhere
        assert (model(known)[:, step] != before[:, step]).all(), step
        assert torch.equal(model(others), before)


@pytest.mark.parametrize("head", HEADS)
def test_two_targets_each_move_by_what_is_known(head):
    shape = Shape(
        "forecast", 3, horizon=HORIZON, window=WINDOW, targets=2, quantiles=(0.1, 0.5),
        target_columns=(0, 1), known_columns=(KNOWN,),
    )  # fmt: skip
    model = drawn(shape, std=0.3, hidden_size=8, **HEADS[head])
    x = torch.randn(1, WINDOW + HORIZON, 3)
    moved = x.clone()
    moved[:, WINDOW:, KNOWN] += 1
    by = (model(moved) - model(x))[0, :, :, 0]  # (horizon, targets)
    assert (by != 0).all()
    assert (by[:, 0] - by[:, 1]).abs().min() > 1e-6


def test_a_model_without_known_columns_keeps_its_weights():
    names = set(drawn(Shape("forecast", 3, horizon=HORIZON, window=WINDOW)).weights())
    assert not any("local" in name for name in names)
    added = set(drawn(SHAPE).weights()) - names
    assert added == {
        f"local.{part}.{of}" for part in ("hidden", "out") for of in ("weight", "bias")
    }


def followers(folder, n=700, **columns):
    """A series that follows a column of its own row, and noise of standard deviation 1."""
    rng = np.random.default_rng(1)
    promo, price = rng.integers(0, 2, n), rng.uniform(1, 3, n)
    f = 10 + 6 * promo - 8 * np.log(price) + 4 * np.sin(3 * price) * (1 - promo)
    frame = pd.DataFrame({"y": f + rng.normal(size=n), "promo": promo, "price": price} | columns)
    frame.to_csv(folder / "rows.csv", index=False)
    return {
        "name": "follows",
        "data": {
            "path": str(folder / "rows.csv"), "target": "y", "known_future": ["promo", "price"],
        },
        "task": {"window": 4, "horizon": 5},
    }  # fmt: skip


def trained(raw, folder, **values):
    experiment = Experiment.model_validate(raw | {"hyperparameters": values})
    data = check_data(experiment).write(folder / "arrays")
    (ref,) = data.folds
    job = TrainJob(
        "job", experiment.configuration({}), seed=0, epochs=25, patience=25, metric="rmse",
        folds=(ref,),
    )  # fmt: skip
    score = run_job(job, lambda epoch: True).objective
    return score, ref


@pytest.mark.parametrize("head", HEADS)
def test_a_known_driving_column_leaves_little_more_than_noise(head, tmp_path):
    values = {"hidden_size": 24, "learning_rate": 0.01, "batch_size": 16} | HEADS[head]
    values["normalize"] = "none"
    score, _ = trained(followers(tmp_path), tmp_path, **values)
    # The noise is 1, and the training mean errs by 3.9: without the columns nothing is better. In
    # so few rows a decoder comes less near than the local head.
    assert score < (1.35 if "decoder" in values else 1.2)


def test_the_linear_regression_reads_the_same_columns(tmp_path):
    raw = followers(tmp_path)
    experiment = Experiment.model_validate(raw)
    (ref,) = check_data(experiment).write(tmp_path / "known").folds
    raw["data"] = {k: v for k, v in raw["data"].items() if k != "known_future"}
    (blind,) = check_data(Experiment.model_validate(raw)).write(tmp_path / "blind").folds
    known, without = (
        Baselines(r, None, choose("rmse", r, None)).scores("rmse") for r in (ref, blind)
    )
    assert known["linear"] < 0.7 * without["linear"]
    assert known["last_value"] == without["last_value"]


def test_of_rows_to_come_a_batch_holds_the_known_columns_alone(tmp_path):
    raw = followers(tmp_path)
    raw["data"] |= {"features": ["promo", "y", "price"], "known_future": ["price"]}
    raw["data"] |= {"lags": {"price": [1], "y": [1]}}
    (ref,) = check_data(Experiment.model_validate(raw)).write(tmp_path / "arrays").folds
    assert ref.shape.known_columns == (2, 3)  # price, and what it was a row before
    samples = Windows(ref, CPU)
    starts = ref.train_samples()[:9]
    x, _ = samples.inputs(samples.index(starts))
    inputs = torch.from_numpy(np.array(ref.load("inputs")))
    for i, start in enumerate(starts):
        assert torch.equal(x[i, : ref.window], inputs[start - ref.window : start])
        coming = inputs[start : start + 5]
        assert torch.equal(x[i, ref.window :, [2, 3]], coming[:, [2, 3]])
        assert not x[i, ref.window :, [0, 1, 4]].any()
        assert coming[:, [0, 1, 4]].any()


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


@pytest.mark.parametrize("metric", CLASSES)
def test_sequences_are_classified(signs, make_job, go_on, metric):
    own = {"bidirectional": metric == "f1", "class_weights": "balanced"}
    job = make_job(signs, epochs=30, keep_weights=True, metric=metric, **own)
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


@pytest.mark.parametrize("metric", ["r2", pytest.param("mase", marks=pytest.mark.slow)])
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


LOSSES = {
    "mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss,
    "cross_entropy": functional.cross_entropy,
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "loss", "batch_size"),
    [("running_sums", "mse", 1), ("running_sums", "mae", 7), ("running_sums", "huber", 200),
     ("steps", "cross_entropy", 1), ("steps", "cross_entropy", 7)],
)  # fmt: skip
def test_a_loss_of_steps_is_the_mean_over_the_real_ones(
    request, make_job, go_on, data, loss, batch_size
):
    # A step so small that no weight changes: every loss is that of the first weights.
    ref, options = request.getfixturevalue(data), {"learning_rate": 1e-30, "loss": loss}
    options |= {"metric": "cross_entropy" if ref.shape.classes else "rmse"}
    trained = train(
        make_job(ref, epochs=1, keep_weights=True, batch_size=batch_size, **options), go_on
    )
    model = Model(Hyperparameters(hidden_size=8), ref.shape).eval()
    model.load_weights(trained.weights)
    samples = Sequences(ref, CPU)
    for part, told in (
        (ref.train_samples(), trained.history[0].train_loss),
        (ref.evaluate_samples(), trained.history[0].val_loss),
    ):
        index = samples.index(part)
        outputs, targets = model(*samples.inputs(index)), samples.targets(index)
        real = targets >= 0 if ref.shape.classes else ~targets.isnan()
        assert 0 < real.sum() < real.numel()
        expected = LOSSES[loss](outputs[real], targets[real]).item()
        assert told == pytest.approx(expected, rel=1e-5)


def test_tokens_are_read(words, make_job, go_on):
    job = make_job(words, epochs=30, metric="accuracy", embedding_size=6, pooling="max")
    assert train(job, go_on).objective > 0.95


@pytest.mark.parametrize(("decoder", "metric"), [("direct", "mae"), ("recursive", "pinball")])
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
def test_attention_to_windows_is_predicted_with_them(make_ref, make_job, go_on, decoder):
    ref = make_ref(np.sin(np.arange(80))[:, None], horizon=2)
    job = make_job(ref, keep_weights=True, pooling="attention", decoder=decoder, window=5)
    _, predicted = learn(job, go_on)
    assert predicted.attention.shape == (len(ref.evaluate_samples()), 5)
    assert predicted.attention.sum(axis=1) == pytest.approx(np.ones(len(predicted.attention)))
    assert predicted.attention.dtype == np.float32


def test_attention_is_nan_after_the_last_step(sums, make_job, go_on, monkeypatch):
    monkeypatch.setattr("tuner.training.model._BATCH", 3)
    _, predicted = learn(make_job(sums, keep_weights=True, pooling="attention"), go_on)
    lengths = np.diff(sums.load("bounds")[sums.evaluate_samples()])[:, 0]
    assert predicted.attention.shape == (20, lengths.max())
    assert np.isfinite(predicted.attention).sum(axis=1).tolist() == lengths.tolist()
    assert np.nansum(predicted.attention, axis=1) == pytest.approx(np.ones(20))
    for row, length in zip(predicted.attention, lengths, strict=True):
        assert np.isfinite(row[:length]).all()


def test_long_sequences_are_predicted_in_small_batches(signs, make_job, go_on, monkeypatch):
    job = make_job(signs, epochs=1, keep_weights=True, metric="cross_entropy")
    _, whole = learn(job, go_on)
    monkeypatch.setattr("tuner.training.model._BATCH_NUMBERS", 1)
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
        ({"hidden_size": 300}, 1),
        ({"hidden_size": 16, "pooling": "attention"}, 10),
        ({"hidden_size": 16, "embedding_size": 160}, 1),
    ],
    ids=str,
)
def test_wider_layers_predict_fewer_sequences_at_once(
    words, make_job, go_on, monkeypatch, hyperparameters, largest
):
    longest = int(np.diff(words.load("bounds")).max())
    monkeypatch.setattr("tuner.training.model._BATCH_NUMBERS", 10 * 16 * longest)
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
