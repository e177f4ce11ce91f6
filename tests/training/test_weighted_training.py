"""What a sample counts in the loss, and what training makes of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import fit_of
from torch.nn import functional

from tuner import search
from tuner.data.baselines import Baselines, baselines_record
from tuner.data.linear_models import LinearForecast, LinearOfSequences, SequenceChoice, WindowChoice
from tuner.data.metrics import score
from tuner.data.prepared import open_test_part, prepare
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.results.test_score import _Predictions, _scores, breakdown
from tuner.training import train
from tuner.training.losses import balanced_weights, make_loss
from tuner.training.samples import open_samples

CPU = torch.device("cpu")
KINDS = ["regress", "classify", "label", "regress_steps"]


def weighted(ref, weights, **fields):
    """The same data, whose rows or sequences have these weights."""
    arrays = {"weights": np.asarray(weights, np.float64)}

    class Weighed(type(ref)):
        def load(self, name):
            return arrays[name] if name in arrays else super().load(name)

    given = {field.name: getattr(ref, field.name) for field in dataclasses.fields(ref)}
    return Weighed(**given | {"weighted": True} | fields)


def drawn(make_sequences, kind, counts, seed=0):
    """Sequences, each as many times as it says, and then two that are scored."""
    rng = np.random.default_rng(seed)
    lengths = [3, 5, 2, 4, 3, 3, 4]
    each = [rng.normal(size=(n, 2)) for n in lengths]
    says = {
        "regress": lambda n: rng.normal(size=2),
        "classify": lambda n: int(rng.integers(3)),
        "label": lambda n: rng.integers(0, 3, n),
        "regress_steps": lambda n: rng.normal(size=(n, 2)),
    }[kind]
    truth = [says(n) for n in lengths]
    order = [i for i, n in enumerate(counts) for _ in range(n)] + [5, 6]
    classes = 3 if kind in ("classify", "label") else 0
    return make_sequences(
        kind, [each[i] for i in order], [truth[i] for i in order], classes=classes,
        evaluate=[len(order) - 2, len(order) - 1],
    )  # fmt: skip


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_of_weight_two_trains_like_the_sequence_twice(
    make_sequences, make_job, go_on, kind, class_weights
):
    counts = [1, 2, 0, 3, 1]
    alone = drawn(make_sequences, kind, [1] * 5)
    rows = np.diff(alone.load("bounds"))[:, 0]
    per_step = kind in ("label", "regress_steps")
    weights = np.array([*counts, 1, 1]) * 0.7
    ref = weighted(alone, weights.repeat(rows) if per_step else weights)
    repeated = drawn(make_sequences, kind, counts)
    assert ref.train_samples().tolist() == [0, 1, 3, 4]
    metric = "cross_entropy" if alone.shape.classes else "rmse"
    own = {"class_weights": class_weights} if alone.shape.classes else {}
    found = []
    for data in (ref, repeated):
        job = make_job(data, metric=metric, batch_size=64, optimizer="sgd", **own)
        found.append(train(job, go_on).history)
    for one, other in zip(*found, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-3)
        assert one.metric == pytest.approx(other.metric, rel=1e-3)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
def test_the_loss_of_windows_does_not_depend_on_batches(make_ref, loss):
    rng = np.random.default_rng(0)
    quantiles = (0.1, 0.5, 0.9) if loss == "quantile" else ()
    ref = make_ref(rng.normal(size=(60, 2)), horizon=3, quantiles=quantiles, train=(0, 40))
    weights, steps = rng.choice([0, 1, 5.0], 60), (1.0, 0.0, 0.5)
    ref = weighted(ref, weights, step_weights=steps)
    samples, starts = open_samples(ref, CPU), ref.train_samples()
    index = samples.index(starts)
    targets = samples.targets(index)
    outputs = torch.randn(*targets.shape, *([3] if quantiles else []))
    make = make_loss(Hyperparameters(loss=loss), ref, CPU)
    rows = weights[starts[:, None] + np.arange(3)] * steps
    if quantiles:
        above = targets[..., None] - outputs
        levels = torch.tensor(quantiles)
        each = torch.maximum(levels * above, (levels - 1) * above).mean(dim=-1)
    else:
        of = {"mse": functional.mse_loss, "mae": functional.l1_loss}
        each = of.get(loss, functional.huber_loss)(outputs, targets, reduction="none")
    expected = np.average(each.mean(dim=2).numpy(), weights=rows)
    for size in (len(starts), 5):
        total = 0.0
        for part in torch.arange(len(starts)).split(size):
            of_batch = make(outputs[part], targets[part], samples.weights(index[part]))
            total += float(of_batch) * len(part)
        assert total / len(starts) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_validation_loss_is_weighted_as_the_metric_is(make_sequences, make_job, go_on, kind):
    ref = drawn(make_sequences, kind, [1] * 5)
    rows = np.diff(ref.load("bounds"))[:, 0]
    weights = np.array([1, 1, 1, 1, 1, 3, 0.5])
    weights = weights.repeat(rows) if kind in ("label", "regress_steps") else weights
    metric = "cross_entropy" if ref.shape.classes else "mae"
    loss = {} if ref.shape.classes else {"loss": "mae"}
    job = make_job(weighted(ref, weights), metric=metric, **loss)
    for epoch in train(job, go_on).history:  # the metric is in units of 10
        assert epoch.val_loss * (1 if loss == {} else 10) == pytest.approx(epoch.metric, rel=1e-4)


def test_only_how_weights_compare_matters(make_ref, make_job, go_on):
    ref = make_ref(np.random.default_rng(0).normal(size=(80, 1)), horizon=2)
    weights = np.random.default_rng(1).choice([0.5, 1, 2], 80)
    once, larger = (
        train(make_job(weighted(ref, weights * factor), keep_weights=True), go_on)
        for factor in (1, 2.0**40)
    )
    assert once.objective == larger.objective
    assert all(np.array_equal(once.weights[k], larger.weights[k]) for k in once.weights)
    ones = train(make_job(weighted(ref, np.ones(80))), go_on)
    plain = train(make_job(ref), go_on)
    assert ones.objective == pytest.approx(plain.objective, rel=1e-4)


def test_weights_of_scored_rows_have_no_part_in_training(make_ref, make_job, go_on):
    ref = make_ref(np.random.default_rng(0).normal(size=(80, 1)), horizon=2)
    weights = np.random.default_rng(1).uniform(0.5, 2, 80)
    other = weights.copy()
    other[60:] = np.linspace(1e6, 1, 20)
    for options in ({}, {"linear_path": True}):
        found = [
            train(
                dataclasses.replace(
                    make_job(weighted(ref, w), keep_weights=True, **options), validates=False
                ),
                go_on,
            ).weights
            for w in (weights, other)
        ]
        assert all(np.array_equal(found[0][k], found[1][k]) for k in found[0])
        scored = [
            train(make_job(weighted(ref, w), **options), go_on).objective for w in (weights, other)
        ]
        assert scored[0] != scored[1]


def test_balanced_classes_count_what_their_examples_weigh():
    classes, counts = np.array([0, 0, 1, 2]), np.array([1, 2, 3, 6])
    repeated = balanced_weights(classes.repeat(counts), 3)
    assert torch.allclose(balanced_weights(classes, 3, counts * 0.1), repeated)


@pytest.mark.parametrize("kind", ["regress", "classify"])
def test_a_linear_path_of_sequences_counts_what_they_weigh(make_sequences, make_job, kind):
    rng = np.random.default_rng(0)
    x = list(rng.normal(size=(40, 3, 1)))
    says = list(rng.normal(size=(40, 1))) if kind == "regress" else list(rng.integers(0, 2, 40))
    classes = 0 if kind == "regress" else 2
    ref = make_sequences(kind, x, says, classes=classes, evaluate=[39])
    metric = "cross_entropy" if classes else "rmse"
    few = make_sequences(kind, [*x[:20], x[39]], [*says[:20], says[39]], classes=classes,
                         evaluate=[20])  # fmt: skip
    left_out = weighted(ref, [1.0] * 20 + [0.0] * 19 + [1.0])
    paths = [
        fit_of(make_job(data, metric=metric, linear_path=True)).model.linear_path.linear.weight
        for data in (left_out, few, ref)
    ]
    assert torch.allclose(paths[0], paths[1], atol=1e-5)
    assert not torch.allclose(paths[0], paths[2], atol=1e-3)
    heavy = weighted(ref, [1e4] * 20 + [1.0] * 19 + [1.0])
    path = fit_of(make_job(heavy, metric=metric, linear_path=True)).model.linear_path.linear.weight
    near, far = (float((path - p).detach().norm()) for p in (paths[1], paths[2]))
    assert near < far


def regressions(ref, make_job):
    """What the regressions that see training targets say of the rows that are scored."""
    starts = ref.evaluate_samples()
    path = fit_of(make_job(ref, linear_path=True)).model.linear_path.linear.weight
    linear = LinearForecast.fit(ref, WindowChoice(8, False, 1e-8)).predict(starts)
    mean = Baselines(ref, None).predict(starts)["training_mean"]
    return [np.asarray(found.detach() if torch.is_tensor(found) else found)
            for found in (path, linear, mean)]  # fmt: skip


def two_laws(make_ref, weights, horizon):
    """Targets that follow inputs by one law, but from row 30 to 50 by the opposite one."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(90, 1))
    law = np.roll(inputs, 1) + np.roll(inputs, 2) / 2 + 3 + rng.normal(size=(90, 1)) / 10
    other = law.copy()
    other[30:50] *= -1
    refs = [make_ref(y, inputs, horizon=horizon, train=(0, 70),
                     evaluate=(70, 90), target_columns=(0,)) for y in (law, other)]  # fmt: skip
    return [weighted(ref, weights) for ref in refs]


@pytest.mark.parametrize("horizon", [1, 4])
def test_regressions_do_not_see_targets_of_weight_zero(make_ref, make_job, horizon):
    weights = np.ones(90)
    weights[30:50] = 0
    law, other = two_laws(make_ref, weights, horizon)
    for one, two in zip(regressions(law, make_job), regressions(other, make_job), strict=True):
        assert np.allclose(one, two, atol=1e-6)


def test_regressions_count_what_targets_weigh(make_ref, make_job):
    light, none = np.ones(90), np.ones(90)
    light[30:50], none[30:50] = 1e-4, 0
    _, with_little = two_laws(make_ref, light, 1)
    _, without = two_laws(make_ref, none, 1)
    _, with_all = two_laws(make_ref, np.ones(90), 1)
    found = [regressions(ref, make_job) for ref in (with_little, without, with_all)]
    for little, nothing, everything in zip(*found, strict=True):
        away = np.abs(everything - nothing).max()
        assert np.abs(little - nothing).max() < 0.1 * away


@pytest.mark.parametrize("kind", ["regress", "classify"])
def test_the_linear_model_of_sequences_counts_what_they_weigh(make_sequences, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3, 1))
    sign = np.where(np.arange(60) < 30, 1, -1)  # the first thirty follow another law
    says = sign * x.sum(axis=1)[:, 0]
    truth = list(says[:, None]) if kind == "regress" else list((says > 0).astype(int))
    ref = make_sequences(kind, list(x), truth, classes=2 * (kind == "classify"),
                         evaluate=range(50, 60))  # fmt: skip
    weights = np.where(sign > 0, 1.0, 1e-4)
    linear = LinearOfSequences(weighted(ref, weights), SequenceChoice("values", 0.1, 3))
    found = linear.predict(np.arange(50, 60), np.empty(0))
    follows = x[50:, :, 0].sum(axis=1)
    said = found[:, 0, 0] - 100 if kind == "regress" else found[:, 1] - 0.5
    assert np.corrcoef(said, follows)[0, 1] > 0.9
    plain = Baselines(weighted(ref, weights), None).predict(np.arange(50, 60))
    expected = np.average(ref.truth_of(np.arange(50)), axis=0, weights=weights[:50])
    name = "training_mean" if kind == "regress" else "class_frequencies"
    shown = plain[name][0].ravel()[-1]
    assert shown == pytest.approx(np.ravel(expected)[-1])


def series(folder, frame, *, weight="w", task=None, **values):
    frame.to_csv(folder / "data.csv", index=False)
    data = {"path": str(folder / "data.csv"), "target": "y", "features": ["y"]}
    data |= {"split": {"validation": 40, "test": 40}}
    data |= {} if weight is None else {"weight": weight}
    return Experiment.from_dict(
        {"name": "weighed", "data": data, "task": task or {"window": 6, "horizon": 2}, **values}
    )


def waves(n=260, corrupted=slice(0, 0)):
    """A wave with little noise; a stretch of it is noise and has no weight."""
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(n) / 3) + rng.normal(size=n) / 50
    w = np.ones(n)
    y[corrupted], w[corrupted] = 3 * rng.normal(size=n)[corrupted], 0
    return pd.DataFrame({"y": y, "w": w})


@pytest.mark.parametrize("linear_path", [False, True])
def test_a_corrupted_stretch_of_weight_zero_does_less_harm(tmp_path, make_job, go_on, linear_path):
    """Also in the regressions that a model begins with, and that it has to beat."""
    frame, errors, linear = waves(corrupted=slice(60, 120)), [], []
    for weight in ("w", None):
        folder = tmp_path / str(weight)
        folder.mkdir()
        prepared = prepare(series(folder, frame, weight=weight), folder / "search")
        job = make_job(*prepared.folds, epochs=12, linear_path=linear_path, batch_size=16)
        errors.append(train(job, go_on).objective)
        linear.append(baselines_record("rmse", prepared.folds, None)["baselines"]["linear"])
    assert errors[0] < 0.8 * errors[1]
    assert linear[0] < 0.8 * linear[1]


@pytest.mark.slow
def test_weights_apply_to_refitted_models_and_baselines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = waves()
    frame["w"] = np.random.default_rng(3).choice([0, 1, 10.0], len(frame))
    values = {
        "hyperparameters": {"hidden_size": 4}, "objective": {"metric": "mae"},
        "budget": {"trials": 1, "epochs": 2},
        "finalists": {"top": 1, "repeats": 2, "baseline": False},
        "task": {"window": 6, "horizon": 3, "step_weights": [1, 0.5, 0]},
    }  # fmt: skip
    asked = series(tmp_path, frame, **values)
    study = search(asked, tracking=False, progress=False, workers=1)
    test = study.test
    (ref,) = open_test_part(asked, tmp_path / "opened").folds
    samples = ref.evaluate_samples()
    assert len(samples) < 38
    truth, weights = ref.truth_of(samples)[:, :, 0], ref.weights_of(samples)
    assert (weights.sum(axis=1) > 0).all()

    def mae(forecast, weights=weights):
        return (np.abs(truth - forecast) * weights).sum() / weights.sum()

    last = frame["y"].to_numpy()[samples - 1][:, None]
    assert test["baselines"]["last_value"] == pytest.approx(mae(last))
    assert test["refit"]["baselines"]["last_value"] == pytest.approx(mae(last))
    table = study.predictions  # of the refitted model
    assert np.allclose(table["y_true"], truth.ravel())
    forecast = table["y"].to_numpy().reshape(truth.shape)
    assert test["refit"]["scores"][0] == pytest.approx(mae(forecast), rel=1e-4)
    assert mae(forecast) != pytest.approx(mae(forecast, np.ones_like(weights)), rel=1e-3)
    rows = study.predict(frame[["y"]])  # which needs no weights
    assert len(rows) == 3
    both = [forecast[..., None], last[..., None].repeat(3, axis=1)]
    said = _Predictions(both, sum(both) / 2, [])
    scores = _scores("mae", ref.truth_of(samples), ref, said)
    assert scores["ensemble"] == pytest.approx(mae((forecast + last) / 2))


def test_each_step_is_scored_even_where_it_weighs_nothing(tmp_path):
    frame = waves()
    frame["w"] = np.random.default_rng(3).choice([0, 1, 10.0], len(frame))
    task = {"window": 6, "horizon": 2, "step_weights": [1, 0]}
    asked = series(tmp_path, frame, task=task, objective={"metric": "mae"})
    opened = open_test_part(asked, tmp_path / "opened")
    (ref,) = opened.folds
    samples = ref.evaluate_samples()
    truth = ref.truth_of(samples)
    error = np.random.default_rng(0).uniform(1, 2, truth.shape)
    by = breakdown("mae", opened, truth, [truth + error])["step"]
    rows = ref.load("weights")[samples[:, None] + np.arange(2)]
    expected = [np.average(error[:, k, 0], weights=rows[:, k]) for k in range(2)]
    assert [step["score"] for step in by] == pytest.approx(expected)


def test_a_score_without_weights_asks_for_none(make_ref, make_sequences):
    ref = make_ref(np.zeros((40, 1)))
    assert not ref.has_weights
    assert open_samples(ref, CPU).weights(torch.arange(10, 12)) is None
    found = drawn(make_sequences, "label", [1] * 5)
    assert open_samples(found, CPU).weights(torch.arange(2)) is None
    truth = ref.truth_of(ref.evaluate_samples())
    assert score("rmse", truth, truth + 2, ref) == pytest.approx(2)
