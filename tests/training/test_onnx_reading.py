"""ONNX models with a level, a linear path, segments and convolutions, and all pairs of them."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, OutcomeState
from tuner.training import onnx_operators as onnx_reading
from tuner.training import run_job
from tuner.training.model import Model
from tuner.training.onnx_export import to_onnx

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


def drawn(shape, **values):
    torch.manual_seed(len(values))
    model = Model(Hyperparameters(**{"hidden_size": 8} | values), shape).eval()
    for name, parameter in model.named_parameters():
        if "linear_path" in name or name.startswith("head"):
            nn.init.normal_(parameter, std=0.3)
    return model


def session_of(model):
    file = to_onnx(model)
    onnx.checker.check_model(file, full_check=True)
    return onnxruntime.InferenceSession(file.SerializeToString())


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_windows_are_forecast_as_torch_does(pair):
    for shape, one, other in itertools.product(FORECASTS, *(KEYS[key] for key in pair)):
        model = drawn(shape, **one, **other)
        session = session_of(model)
        for size in (1, 33):
            x = 3 + torch.randn(size, shape.window, shape.features)
            (found,) = session.run(None, {"inputs": x.numpy()})
            expected = model(x).detach().numpy()
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5, (one, other)


@pytest.mark.parametrize("segment", [1, 2, 4])
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention"])
def test_sequences_are_read_like_torch_whatever_the_padding(pooling, channels, segment):
    for shape, both in itertools.product(SEQUENCES, (False, True)):
        length = 1 if shape.task == "label" or shape.vocabulary else segment
        options = {} if shape.task == "label" else {"pooling": pooling}
        model = drawn(shape, segment=length, conv_channels=channels, bidirectional=both, **options)
        session = session_of(model)
        for size, steps in ((1, 1), (4, 9), (20, 12)):
            lengths = torch.randint(1, steps + 1, (size,))
            lengths[0] = steps
            x = torch.randn(size, steps, shape.features)
            if shape.vocabulary:
                x = torch.randint(0, shape.vocabulary, (size, steps))
            real = torch.arange(steps) < lengths[:, None]
            kept = real if x.ndim == 2 else real.unsqueeze(2)
            clean = torch.where(kept, x, 0)
            feed = {"inputs" if x.ndim == 3 else "tokens": x.numpy(), "lengths": lengths.numpy()}
            (found,) = session.run(None, feed)
            expected = model(clean, lengths).detach().numpy()
            if shape.task == "label":
                found, expected = found[real.numpy()], expected[real.numpy()]
            assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5, shape


ONE_LENGTH = [Shape("regress", 2, targets=2, window=9), Shape("classify", 3, classes=3, window=9)]


@pytest.mark.parametrize("shape", ONE_LENGTH, ids=lambda shape: shape.task)
def test_sequences_of_one_length_are_read_as_torch_does(shape):
    for other in ({}, {"segment": 4, "pooling": "mean"}, {"conv_channels": 3, "segment": 2}):
        session = session_of(model := drawn(shape, linear_path=True, **other))
        assert session.get_inputs()[0].shape[1:] == [9, shape.features]
        for size in (1, 20):
            x, lengths = torch.randn(size, 9, shape.features), np.full(size, 9)
            (found,) = session.run(None, {"inputs": x.numpy(), "lengths": lengths})
            expected = model(x).detach().numpy()
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5, other
        outcome = exported(shape, linear_path=True, **other)
        assert outcome.state is OutcomeState.COMPLETE, outcome.reason
        assert outcome.exported.difference < 1e-5


def exported(shape, **values):
    weights = drawn(shape, **values).weights()
    job = ExportJob("model.onnx", {"hidden_size": 8} | values, weights, shape, steps=shape.window)
    return run_job(job, lambda epoch: True)


def test_an_export_is_checked_on_its_linear_path_windows():
    options = {"linear_path": True, "normalize": "standard", "segment": 2, "conv_channels": 2}
    for shape in FORECASTS:
        outcome = exported(shape, decoder="segments", **options)
        assert outcome.state is OutcomeState.COMPLETE, outcome.reason
        assert outcome.exported.difference < 1e-5


def test_an_export_that_takes_off_another_level_is_refused(monkeypatch):
    monkeypatch.setattr(onnx_reading, "SPREAD", 1.0)
    outcome = exported(FORECASTS[0], normalize="standard")
    assert outcome.state is OutcomeState.FAILED
    assert "differs from torch by" in outcome.reason
