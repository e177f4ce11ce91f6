"""Cells, models, metrics and losses of one's own."""

import dataclasses
import math

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from helpers.models import drawn

from tuner.data import SeriesRef, Shape
from tuner.data.metrics import score
from tuner.data.prepared import check_data
from tuner.errors import DataError, InputError
from tuner.experiment import Experiment
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState
from tuner.metrics import METRICS, short_name
from tuner.training import Model, run_job
from tuner.training.device import TrainingError
from tuner.training.model import WeightAverage
from tuner.training.optimizers import joined
from tuner.training.recurrent import make_layers, read
from tuner.training.user_models import inspect_loss

LEAKY = {"cell": "own_classes:Leaky", "leak": 0.8, "gate": "tanh"}
FORECAST = Shape("forecast", 3, horizon=4, targets=2, window=7, target_columns=(0, 2))
CLASSES = Shape("classify", 2, classes=3)
LABELS = Shape("label", 2, classes=3)


def exported(model, **values):
    job = ExportJob("model", {"hidden_size": 5} | values, model.weights(), model.shape, 7)
    return run_job(job, lambda epoch: True)


def graph_of(model, **values):
    outcome = exported(model, **values)
    assert outcome.exported is not None, outcome.reason
    assert outcome.exported.difference <= 1e-5
    return outcome.exported.file


def test_it_follows_its_equation_with_its_own_keys():
    layer = make_layers(Hyperparameters(**LEAKY), 3, 4, bidirectional=False)
    x = torch.randn(2, 6, 3)
    outputs, (state,) = read(layer, x)
    linear = layer.ways[0].linear
    h = torch.zeros(2, 4)
    for t in range(6):
        h = 0.8 * h + 0.2 * torch.tanh(linear(x[:, t]))
        torch.testing.assert_close(outputs[:, t], h)
    torch.testing.assert_close(state, h[None])


@pytest.mark.parametrize("cell", [LEAKY, {"cell": "own_classes:Pair"}])
def test_padding_changes_nothing_forwards_and_backwards(cell):
    layer = make_layers(Hyperparameters(**cell), 3, 4, bidirectional=True)
    x, lengths = torch.randn(3, 6, 3), torch.tensor([4, 6, 1])
    outputs, (state,) = read(layer, x, lengths=lengths)
    for i, n in enumerate(lengths):
        alone, (last,) = read(layer, x[i : i + 1, :n])
        torch.testing.assert_close(outputs[i, :n], alone[0])
        torch.testing.assert_close(state[:, i], last[:, 0])


def test_a_layer_that_takes_the_lengths_is_told_them():
    layer = make_layers(Hyperparameters(cell="own_classes:Masked"), 3, 4, bidirectional=False)
    x = torch.randn(2, 5, 3)
    padded, _ = read(layer, x, lengths=torch.tensor([3, 5]))
    alone, _ = read(layer, x[:1, :3])
    torch.testing.assert_close(padded[0, :3], alone[0])


@pytest.mark.parametrize("shape", [FORECAST, CLASSES, LABELS], ids=lambda s: s.task)
@pytest.mark.parametrize(
    "values",
    [
        LEAKY,
        {**LEAKY, "num_layers": 2, "bidirectional": True, "dropout": 0.5, "conv_channels": 2},
        {"cell": "own_classes:Pair", "hidden_size": [5, 3]},
    ],
)
def test_stacks_of_it_gradients_and_all_are_models_of_every_task(shape, values):
    model = drawn(shape, **values).train()
    lengths = None if shape.task == "forecast" else torch.tensor([7, 2])
    model(torch.randn(2, 7, shape.features), lengths).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_whole_model_stands_between_level_and_output():
    model = drawn(FORECAST, cell="own_classes:Counting", kernel=3, normalize="last")
    x = torch.randn(4, 7, 3)
    lifted = x.clone()
    lifted[:, :, 0] += 50.0
    moved = (model(lifted) - model(x)).detach()
    torch.testing.assert_close(moved[..., 0], torch.full((4, 4), 50.0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved[..., 1], torch.zeros(4, 4), rtol=0, atol=1e-5)


def test_a_whole_model_gets_known_rows_or_is_refused():
    shape = dataclasses.replace(FORECAST, known_columns=(1,))
    values = {"cell": "own_classes:Planned", "kernel": 3, "normalize": "last"}
    model, x = drawn(shape, **values), torch.randn(3, 11, 3)
    moved = x.clone()
    moved[:, 9, 1] += 1.0
    assert (model(moved) != model(x)).any(dim=2).nonzero()[:, 1].unique().tolist() == [2]
    assert graph_of(model, **values)
    with pytest.raises(TrainingError, match="takes no `coming`"):
        drawn(shape, **values | {"cell": "own_classes:Counting"})(x)


def test_a_whole_model_gets_embeddings_behind_the_numbers():
    shape = dataclasses.replace(FORECAST, known_columns=(1,), categories=((1, 6),))
    values = {"cell": "own_classes:Planned", "kernel": 3, "normalize": "last", "embedding_size": 2}
    model, x = drawn(shape, **values), torch.randn(3, 11, 3)
    x[:, :, 1] = torch.randint(0, 5, (3, 11))
    for row, steps in ((2, [0, 1, 2, 3]), (9, [2])):
        other = x.clone()
        other[:, row, 1] += 1.0
        changed = (model(other) != model(x)).any(dim=2).nonzero()[:, 1].unique().tolist()
        assert changed == steps
    assert graph_of(model, **values)


def test_untrained_counters_are_kept_and_averaged():
    values = {"cell": "own_classes:Counting", "kernel": 3}
    model = drawn(FORECAST, **values)
    average = WeightAverage(model, joined(model), epochs=1, steps=2)
    model.train()
    for _ in range(3):
        model(torch.randn(8, 7, 3) + 5)
        average.update()
    model.eval()
    again = Model(Hyperparameters(hidden_size=5, **values), FORECAST).eval()
    again.load_weights(model.weights())
    x = torch.randn(2, 7, 3)
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    torch.testing.assert_close(average.model.eval()(x), model(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalize", ["none", "standard"])
@pytest.mark.parametrize(
    "values",
    [
        LEAKY,
        {**LEAKY, "gate": "relu", "num_layers": 2, "bidirectional": True, "pooling": "attention"},
        {"cell": "own_classes:Pair", "segment": 3, "conv_channels": 4, "linear_path": True},
        {"cell": "own_classes:Counting", "kernel": 3},
    ],
)
def test_forecasts_are_exported_within_1e_5(values, normalize):
    values = values | {"normalize": normalize}
    model = drawn(FORECAST, **values)
    session = onnxruntime.InferenceSession(graph_of(model, **values))
    x = torch.randn(9, 7, 3)
    (found,) = session.run(None, {"inputs": x.numpy()})
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [CLASSES, LABELS], ids=lambda s: s.task)
def test_a_graph_exports_any_length_and_refuses_a_loop(shape):
    values = {"cell": "own_classes:Pair", "pooling": "last"}
    assert graph_of(drawn(shape, **values), **values)
    refused = exported(drawn(shape, **LEAKY), **LEAKY)
    assert refused.state is OutcomeState.FAILED
    assert "its graph does not read" in refused.reason
    assert "\n" not in refused.reason


def test_sequences_of_one_length_have_a_graph_of_that_length():
    shape = Shape("classify", 2, classes=3, window=7)
    session = onnxruntime.InferenceSession(graph_of(drawn(shape, **LEAKY), **LEAKY))
    assert session.get_inputs()[0].shape[1] == 7


def test_a_whole_model_of_tokens_is_exported():
    values = {"cell": "own_classes:Classes"}
    shape = Shape("classify", 0, vocabulary=6, classes=3)
    assert graph_of(drawn(shape, **values), **values)


def test_what_onnx_has_no_name_for_is_refused_in_one_line():
    values = LEAKY | {"cell": "own_classes:NoGraph"}
    outcome = exported(drawn(FORECAST, **values), **values)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason.startswith("torch has no ONNX of own_classes:NoGraph: ")
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("own_classes:Wide", r"must return \(batch, steps, units\), here \(2, 7, 5\), got \(2, 7"),
        ("own_classes:Flat", r"must return \(batch, horizon, targets\), here \(2, 4, 2\), got"),
        ("own_classes:Nothing", "own_classes has no 'Nothing'"),
        ("not_there:Leaky", "no module 'not_there' is installed"),
        ("own_classes:NoModule", "must be a class of torch.nn.Module, got 'own_classes:NoModule'"),
        ("own_classes:Undeclared", r"own_classes:Undeclared cannot be made of \(inputs=3, units=5"),
    ],
)
def test_a_worker_refuses_what_does_not_fit(cell, message):
    values = {"cell": cell} | ({"kernel": 3} if cell.endswith("Flat") else {})
    with pytest.raises(TrainingError, match=message):
        drawn(FORECAST, **values)(torch.randn(2, 7, 3))


LATE = "mean(where(forecast < truth, 3, 1) * abs(truth - forecast))"
REF = SeriesRef("", Shape("forecast", 1, horizon=2))


def on(folder, metric, **blocks):
    frame = pd.DataFrame({"y": np.sin(np.arange(90) / 4), "k": list("abc") * 30})
    frame.to_csv(folder / "y.csv", index=False)
    data = {"path": str(folder / "y.csv"), "target": "y"}
    raw = {"name": "m", "data": data, "objective": {"metric": metric}} | blocks
    return Experiment.model_validate(raw)


def test_a_function_and_its_expression_are_one_metric():
    rng = np.random.default_rng(0)
    truth, forecast = rng.normal(size=(2, 5, 2, 1))
    by_text, by_name = (
        score(f"minimize {d}", truth, forecast, REF) for d in (LATE, "own_classes:late")
    )
    assert by_text == pytest.approx(by_name)
    assert by_text > score("mae", truth, forecast, REF)
    assert METRICS["maximize own_classes:late"].sign == -1
    assert METRICS[f"minimize {LATE}"].sign == 1
    assert [short_name(m) for m in ("rmse", "minimize own_classes:late", f"minimize {LATE}")] == [
        "rmse", "late", "own_metric",
    ]  # fmt: skip
    with pytest.raises(KeyError):
        METRICS["late"]


def test_quantiles_are_scored_by_their_median():
    shape = Shape("forecast", 1, horizon=2, quantiles=(0.1, 0.5))
    truth = np.ones((3, 2, 1))
    forecast = np.stack([truth - 9, truth + 1], axis=3)
    ref = SeriesRef("", shape)
    assert score("minimize mean(abs(truth - forecast))", truth, forecast, ref) == 1.0
    assert math.isnan(score("minimize mean(1 / (forecast - forecast))", truth, truth, REF))


def test_a_metric_cannot_change_the_next_epoch():
    truth = np.ones((3, 2, 1))
    with pytest.raises(InputError, match="own_classes:writes has no score.*read-only"):
        score("minimize own_classes:writes", truth, truth.copy(), REF)


def test_the_best_epoch_follows_the_metric_and_its_direction(make_ref, make_job):
    ref = make_ref(np.sin(np.arange(80) / 3)[:, None])
    found = {}
    for metric in (f"minimize {LATE}", f"maximize {LATE}"):
        outcome = run_job(make_job(ref, metric=metric, epochs=6), lambda epoch: True)
        assert outcome.state is OutcomeState.COMPLETE, outcome.reason
        scores = [epoch.metric for epoch in outcome.history]
        pick = min if metric.startswith("minimize") else max
        assert outcome.objective == pick(scores)
        found[metric] = scores
    assert len(set(map(tuple, found.values()))) == 1  # the same training, told otherwise


@pytest.mark.parametrize("loss", ["own_classes:fourth", LATE])
def test_a_loss_of_one_s_own_is_what_training_lowers(loss, make_ref, make_job):
    ref = make_ref(np.sin(np.arange(80) / 3)[:, None])
    outcome = run_job(make_job(ref, loss=loss, epochs=8, learning_rate=0.01), lambda epoch: True)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    losses = [epoch.train_loss for epoch in outcome.history]
    assert losses[-1] < 0.9 * losses[0]


def test_classes_have_metrics_and_losses_of_one_s_own(make_sequences, make_job):
    rng = np.random.default_rng(0)
    kinds = [i % 2 for i in range(24)]
    ref = make_sequences(
        "classify", [rng.normal(size=(4 + i % 3, 1)) + k for i, k in enumerate(kinds)], kinds,
        classes=2,
    )  # fmt: skip
    metric = "maximize own_classes:hits"
    job = make_job(ref, metric=metric, loss="own_classes:margin", epochs=5)
    own = run_job(job, lambda epoch: True)
    ours = run_job(
        make_job(ref, metric="accuracy", loss="own_classes:margin", epochs=5), lambda epoch: True
    )
    assert own.state is OutcomeState.COMPLETE, own.reason
    assert own.objective == pytest.approx(ours.objective)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("minimize own_classes:array", r"must come to one number, got an array of shape \(4, 1, 1"),
        ("minimize own_classes:lat", "own_classes has no 'lat'.*did you mean 'late'?"),
        ("minimize not_there:late", "no module 'not_there' is installed"),
        ("minimize own_classes:Leaky", "has no score of these forecasts: TypeError"),
        ("minimize log(mean(truth - truth) - mean(abs(forecast)))", "must come to a finite number"),
    ],
)
def test_a_metric_that_does_not_work_is_refused_with_the_data(metric, message, tmp_path):
    with pytest.raises(DataError, match=f"objective.metric: .*{message}"):
        check_data(on(tmp_path, metric))


@pytest.mark.parametrize(
    ("loss", "kind", "message"),
    [
        ("own_classes:fourth", "forecast", None),
        ("own_classes:margin", "classify", None),
        ("own_classes:flat", "forecast", "has no gradient; calculate with torch alone"),
        ("own_classes:array", "forecast", "must return one number of torch, got"),
        ("own_classes:fourht", "forecast", "did you mean 'fourth'?"),
        ("own_classes:margin", "forecast", "gives no loss for a batch"),
    ],
)
def test_a_loss_is_tried_before_a_search(loss, kind, message):
    problem = inspect_loss(loss, kind).get("problem")
    assert (problem is None) == (message is None)
    assert message is None or message in str(TrainingError(**problem))
