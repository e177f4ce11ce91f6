"""The model as an ONNX graph, and how such a graph is read."""

import dataclasses
import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.models import drawn

from tuner.data import Shape
from tuner.experiment import hyperparameters
from tuner.jobs import ExportJob, OutcomeState
from tuner.training import onnx_export as export_module
from tuner.training import onnx_operators as onnx_reading
from tuner.training import run_job
from tuner.training.onnx_export import to_onnx

CELLS = {
    "lstm": {},
    "lstm with projection": {"cell": "lstm", "proj_size": 3},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "rnn with relu": {"cell": "rnn", "nonlinearity": "relu"},
    "peephole": {"cell": "peephole"},
}
LAYERS = {
    "one": {"hidden_size": 8},
    "two that read both ways": {"hidden_size": 8, "num_layers": 2, "bidirectional": True},
    "two of their own widths without bias": {
        "hidden_size": [8, 6], "num_layers": 2, "bias": False, "dropout": 0.5,
    },
}  # fmt: skip
POOLINGS = ("last", "mean", "max", "attention")
VALUES = Shape("forecast", 3, horizon=4, targets=2)
QUANTILES = Shape("forecast", 2, horizon=3, targets=2, quantiles=(0.1, 0.5, 0.9))
MEDIAN = Shape("forecast", 1, horizon=1, quantiles=(0.5,))
KNOWN = Shape("forecast", 3, horizon=4, targets=2, known_columns=(2, 0))
KNOWN_QUANTILES = Shape("forecast", 2, horizon=3, quantiles=(0.1, 0.5), known_columns=(1,))
SHAPES = {
    "forecast": [VALUES, QUANTILES, MEDIAN, KNOWN, KNOWN_QUANTILES],
    "regress": [Shape("regress", 2, targets=2)],
    "classify": [Shape("classify", 3, classes=3), Shape("classify", 0, vocabulary=9, classes=2)],
    "label": [Shape("label", 2, classes=3), Shape("label", 0, vocabulary=9, classes=4)],
    "regress_steps": [Shape("regress_steps", 2, targets=2)],
}


def heads(task):
    for shape, pooling in itertools.product(SHAPES[task], POOLINGS):
        if shape.each_step and pooling != "last":
            continue
        yield shape, {"pooling": pooling}
        if task == "forecast":
            yield shape, {"pooling": pooling, "decoder": "recursive"}


def session_of(model):
    file = to_onnx(model)
    onnx.checker.check_model(file, full_check=True)
    return onnxruntime.InferenceSession(file.SerializeToString())


def difference(model, session, size, steps):
    """How far ONNX is from torch on random sequences, as a share; of steps, on the real ones."""
    shape, lengths, real = model.shape, None, torch.ones(size, steps, dtype=torch.bool)
    x = 3 + torch.randn(size, steps + shape.ahead, shape.features)
    if shape.vocabulary:
        x = torch.randint(0, shape.vocabulary, (size, steps))
    feed = {"tokens" if shape.vocabulary else "inputs": x.numpy()}
    if shape.task != "forecast":
        lengths = torch.randint(1 if not shape.window else steps, steps + 1, (size,))
        lengths[-1] = steps
        feed["lengths"] = lengths.numpy()
        real = torch.arange(steps) < lengths[:, None]
        x = torch.where(real if x.ndim == 2 else real.unsqueeze(2), x, 0)  # whatever pads
    (found,) = session.run(None, feed)
    with torch.inference_mode():
        expected = model(x, lengths).numpy()
    assert found.shape == expected.shape
    if shape.each_step:
        found, expected = found[real.numpy()], expected[real.numpy()]
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("task", SHAPES)
@pytest.mark.parametrize("cell", CELLS)
def test_onnx_and_torch_agree_on_batches_of_any_length(cell, task):
    cases = list(itertools.product(LAYERS, heads(task)))
    first = list(CELLS).index(cell)  # each cell takes other ones, so that all are taken
    for layers, (shape, head) in cases[first % 4 :: 4] or cases:
        model = drawn(shape, **CELLS[cell], **LAYERS[layers], **head)
        session = session_of(model)
        for size, steps in ((1, 1), (3, 9), (33, 40)):
            assert difference(model, session, size, steps) <= 1e-5, (layers, shape, head, size)


def job(shape=VALUES, **values):
    return ExportJob("model.onnx", values, drawn(shape, **values).weights(), shape, steps=12)


def exported(asked):
    return run_job(asked, lambda epoch: True)


def test_an_export_brings_the_file_and_how_far_it_is_from_torch():
    outcome = exported(job(hidden_size=8, decoder="recursive"))
    assert outcome.state is OutcomeState.COMPLETE
    assert 0 < outcome.exported.difference < 1e-5
    assert onnx.load_from_string(outcome.exported.file).ir_version <= 10
    assert "exported" not in outcome.to_json()


def test_exports_are_identical_and_use_no_global_randomness():
    before = torch.random.get_rng_state()
    first, second = (exported(job(hidden_size=8)).exported for _ in range(2))
    torch.manual_seed(1)
    assert first == second
    exported(asked := job(hidden_size=8))
    state = torch.random.get_rng_state()
    exported(asked)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("task", SHAPES)
def test_a_file_that_says_something_else_than_torch_is_no_export(task, monkeypatch):
    other = dataclasses.replace(hyperparameters.CELLS["lstm"], gates=(0, 1, 2, 3))
    monkeypatch.setitem(hyperparameters.CELLS, "lstm", other)
    outcome = exported(job(SHAPES[task][0], hidden_size=8))
    assert outcome.state is OutcomeState.FAILED
    assert outcome.exported is None
    assert "differs from torch by" in str(outcome.reason)


def test_a_cell_without_an_operator_is_traced(monkeypatch):
    options = {"cell": "gru", "hidden_size": 8, "num_layers": 2}
    expected = exported(job(**options)).exported
    other = dataclasses.replace(hyperparameters.CELLS["gru"], operator="", gates=())
    monkeypatch.setitem(hyperparameters.CELLS, "gru", other)
    shape = dataclasses.replace(VALUES, window=12)
    outcome = exported(job(shape, **options))
    assert outcome.exported is not None, outcome.reason
    assert outcome.exported.file != expected.file


def test_amplified_rounding_errors_do_not_forbid_an_export():
    asked = job(cell="rnn", hidden_size=24)
    recurrent = {n: 5 * w if "weight_hh" in n else 0.1 * w for n, w in asked.weights.items()}
    chaotic = recurrent | {n: w for n, w in asked.weights.items() if n.startswith("head")}
    asked = ExportJob("model.onnx", asked.hyperparameters, chaotic, VALUES, steps=200)
    outcome = exported(asked)
    assert outcome.exported is not None, outcome.reason
    assert outcome.exported.difference > 1e-3


def test_a_model_that_no_file_can_hold_is_not_exported(monkeypatch):
    monkeypatch.setattr(export_module, "LARGEST_ONNX", 1000)
    outcome = exported(job(hidden_size=8))
    assert outcome.state is OutcomeState.FAILED
    assert "an ONNX file holds 2 GB; make hidden_size or embedding_size" in str(outcome.reason)


FORECASTS = [
    Shape("forecast", 1, horizon=4, window=11, target_columns=(0,)),
    Shape("forecast", 3, horizon=2, window=7, target_columns=(1,)),
    Shape(
        "forecast", 4, horizon=5, targets=2, quantiles=(0.1, 0.5, 0.9), window=9,
        target_columns=(2, 0), lag_columns=((1, 1),),
    ),
]  # fmt: skip
KEYS = {
    "normalize": [{"normalize": kind} for kind in ("last", "mean", "standard")],
    "linear_path": [{"linear_path": True}],
    "segment": [{"segment": 4}, {"segment": 7}],
    "conv_channels": [{"conv_channels": 3}, {"conv_channels": 2, "conv_kernel": 4}],
    "decoder": [{"decoder": "segments"}, {"decoder": "recursive"}],
    "pooling": [{"pooling": pooling} for pooling in ("mean", "max", "attention")],
    "layers": [
        {"cell": "peephole", "bidirectional": True},
        {"cell": "gru", "num_layers": 2},
        {"cell": "lstm", "proj_size": 3, "hidden_size": [8, 5]},
        {"cell": "rnn", "bias": False},
    ],
}
PAIRS = list(itertools.combinations(KEYS, 2))
SEQUENCES = [
    Shape("regress", 2, targets=2),
    Shape("classify", 3, classes=3),
    Shape("classify", 0, vocabulary=9, classes=2),
    Shape("label", 2, classes=3),
]


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_windows_are_forecast_as_torch_does(pair):
    for shape, one, other in itertools.product(FORECASTS, *(KEYS[key] for key in pair)):
        model = drawn(shape, std=0.3, **one, **other)
        session = session_of(model)
        for size in (1, 33):
            assert difference(model, session, size, shape.window) <= 1e-5, (one, other)


@pytest.mark.parametrize("segment", [1, 2, 4])
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_sequences_are_read_like_torch_whatever_the_padding(pooling, channels, segment):
    for shape, both in itertools.product(SEQUENCES, (False, True)):
        options = {"conv_channels": channels, "bidirectional": both}
        if shape.task != "label":
            options |= {"pooling": pooling, "segment": 1 if shape.vocabulary else segment}
        model = drawn(shape, std=0.3, **options)
        session = session_of(model)
        for size, steps in ((1, 1), (4, 9), (20, 12)):
            assert difference(model, session, size, steps) <= 1e-5, shape


ONE_LENGTH = [Shape("regress", 2, targets=2, window=9), Shape("classify", 3, classes=3, window=9)]


@pytest.mark.parametrize("shape", ONE_LENGTH, ids=lambda shape: shape.task)
def test_sequences_of_one_length_are_read_as_torch_does(shape):
    for other in ({}, {"segment": 4, "pooling": "mean"}, {"conv_channels": 3, "segment": 2}):
        model = drawn(shape, std=0.3, linear_path=True, **other)
        session = session_of(model)
        assert session.get_inputs()[0].shape[1:] == [9, shape.features]
        for size in (1, 20):
            assert difference(model, session, size, 9) <= 1e-5, other
        outcome = exported_reader(shape, linear_path=True, **other)
        assert outcome.state is OutcomeState.COMPLETE, outcome.reason
        assert outcome.exported.difference < 1e-5


def exported_reader(shape, **values):
    weights = drawn(shape, std=0.3, **values).weights()
    job = ExportJob("model.onnx", {"hidden_size": 5} | values, weights, shape, steps=shape.window)
    return run_job(job, lambda epoch: True)


def test_an_export_that_takes_off_another_level_is_refused(monkeypatch):
    monkeypatch.setattr(onnx_reading, "SPREAD", 1.0)
    outcome = exported_reader(FORECASTS[0], normalize="standard")
    assert outcome.state is OutcomeState.FAILED
    assert "differs from torch by" in outcome.reason
