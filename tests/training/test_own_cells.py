"""Cells and models of one's own: read as tuner's are, kept whole, and exported where torch can."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState
from tuner.training import Model, run_job
from tuner.training.device import TrainingError
from tuner.training.model import WeightAverage
from tuner.training.recurrent import make_layers, read

LEAKY = {"cell": "own_classes:Leaky", "leak": 0.8, "gate": "tanh"}
FORECAST = Shape("forecast", 3, horizon=4, targets=2, window=7, target_columns=(0, 2))
CLASSES = Shape("classify", 2, classes=3)
LABELS = Shape("label", 2, classes=3)


def drawn(shape, **values):
    torch.manual_seed(0)
    return Model(Hyperparameters(**{"hidden_size": 5} | values), shape).eval()


def exported(model, **values):
    job = ExportJob("model", {"hidden_size": 5} | values, model.weights(), model.shape, 7)
    return run_job(job, lambda epoch: True)


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
    assert model.own is not None
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
    outcome = exported(model, **values)
    assert outcome.exported is not None, outcome.reason
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
    outcome = exported(model, **values)
    assert outcome.exported is not None, outcome.reason


def test_untrained_counters_are_kept_and_averaged():
    values = {"cell": "own_classes:Counting", "kernel": 3}
    model = drawn(FORECAST, **values)
    average = WeightAverage(model, epochs=1, steps=2)
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
    outcome = exported(model, **values)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    assert outcome.exported is not None
    assert outcome.exported.difference <= 1e-5
    session = onnxruntime.InferenceSession(outcome.exported.file)
    x = torch.randn(9, 7, 3)
    (found,) = session.run(None, {"inputs": x.numpy()})
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("shape", [CLASSES, LABELS], ids=lambda s: s.task)
def test_a_graph_exports_any_length_and_refuses_a_loop(shape):
    values = {"cell": "own_classes:Pair", "pooling": "last"}
    outcome = exported(drawn(shape, **values), **values)
    assert outcome.exported is not None, outcome.reason
    assert outcome.exported.difference <= 1e-5
    refused = exported(drawn(shape, **LEAKY), **LEAKY)
    assert refused.state is OutcomeState.FAILED
    assert refused.reason is not None
    assert "its graph does not read" in refused.reason
    assert "\n" not in refused.reason


def test_sequences_of_one_length_have_a_graph_of_that_length():
    shape = Shape("classify", 2, classes=3, window=7)
    outcome = exported(drawn(shape, **LEAKY), **LEAKY)
    assert outcome.exported is not None, outcome.reason
    session = onnxruntime.InferenceSession(outcome.exported.file)
    assert session.get_inputs()[0].shape[1] == 7


def test_a_whole_model_of_tokens_is_exported():
    values = {"cell": "own_classes:Classes"}
    shape = Shape("classify", 0, vocabulary=6, classes=3)
    outcome = exported(drawn(shape, **values), **values)
    assert outcome.exported is not None, outcome.reason


def test_what_onnx_has_no_name_for_is_refused_in_one_line():
    values = LEAKY | {"cell": "own_classes:NoGraph"}
    outcome = exported(drawn(FORECAST, **values), **values)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason is not None
    assert outcome.reason.startswith("torch has no ONNX of own_classes:NoGraph: ")
    assert "\n" not in outcome.reason


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("own_classes:Wide", r"must put out \(batch, steps, units\), here \(2, 7, 5\), got \(2, 7"),
        ("own_classes:Flat", r"must put out \(batch, horizon, targets\), here \(2, 4, 2\), got"),
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
