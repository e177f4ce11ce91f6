"""Several models that speak with one voice: in torch, as ONNX, and where a job predicts."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from scipy.special import log_softmax, softmax

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import ExportJob, PredictJob
from tuner.training import onnx_operators as onnx_layers
from tuner.training import run_job
from tuner.training.model import Ensemble, Model, mean_outputs
from tuner.training.onnx_export import to_onnx

SHAPES = {
    "values": Shape("forecast", 3, horizon=4, targets=2),
    "quantiles": Shape("forecast", 2, horizon=3, targets=2, quantiles=(0.1, 0.5, 0.9)),
    "regress": Shape("regress", 2, targets=2),
    "classes": Shape("classify", 3, classes=3),
    "tokens": Shape("classify", 0, vocabulary=9, classes=2),
    "labels": Shape("label", 2, classes=3),
}


def models(shape, n=3, scale=3.0, **values):
    """Models that differ, and say something."""
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        model = Model(Hyperparameters(hidden_size=5, **values), shape).eval()
        model.load_weights({name: scale * array for name, array in model.weights().items()})
        found.append(model)
    return found


def inputs(shape):
    x = torch.randn(6, 7, shape.features)
    if shape.vocabulary:
        x = torch.randint(0, shape.vocabulary, (6, 7))
    return x, None if shape.task == "forecast" else torch.tensor([7, 1, 3, 7, 2, 5])


@pytest.mark.parametrize("name", SHAPES)
def test_an_ensemble_averages_values_and_probabilities(name):
    shape = SHAPES[name]
    several, (x, lengths) = models(shape), inputs(shape)
    with torch.inference_mode():
        said = np.stack([model(x, lengths).double().numpy() for model in several])
        found = Ensemble(several)(x, lengths).double().numpy()
    assert np.ptp(said, axis=0).max() > 0.1, "the models differ"
    if shape.classes:
        np.testing.assert_allclose(np.exp(found), softmax(said, axis=-1).mean(axis=0), rtol=1e-5)
    else:
        np.testing.assert_allclose(found, said.mean(axis=0), rtol=1e-4, atol=1e-6)
    if shape.quantiles:
        assert (np.diff(found, axis=-1) > 0).all()


def test_tiny_probabilities_have_a_logarithm():
    logits = torch.tensor([[0.0, 300.0], [0.0, 500.0]])
    found = mean_outputs([logits, logits - 7], classes=True).numpy()
    np.testing.assert_allclose(found, log_softmax(logits.numpy(), axis=-1), rtol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("name", "decoder"),
    [(name, "direct") for name in SHAPES] + [("values", "recursive"), ("quantiles", "recursive")],
)
def test_one_graph_says_what_the_ensemble_does(name, decoder):
    shape = SHAPES[name]
    several = models(shape, decoder=decoder)
    file = to_onnx(Ensemble(several))
    onnx.checker.check_model(file, full_check=True)
    x, lengths = inputs(shape)
    feed = {"tokens" if shape.vocabulary else "inputs": x.numpy()}
    if lengths is not None:
        feed["lengths"] = lengths.numpy()
    assert {i.name for i in file.graph.input} == set(feed), "the models share their inputs"
    (found,) = onnxruntime.InferenceSession(file.SerializeToString()).run(None, feed)
    with torch.inference_mode():
        expected = Ensemble(several)(x, lengths).numpy()
    if shape.task == "label":
        real = np.arange(7) < lengths.numpy()[:, None]  # type: ignore[union-attr]
        found, expected = found[real], expected[real]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_an_export_of_several_models_is_checked_against_torch(name, monkeypatch):
    shape = SHAPES[name]
    first, *others = (model.weights() for model in models(shape, scale=1.0))
    job = ExportJob("model.onnx", {"hidden_size": 5}, first, shape, steps=9, others=tuple(others))
    outcome = run_job(job, lambda epoch: True)
    assert outcome.exported is not None, outcome.reason
    assert outcome.exported.difference < 1e-5
    alone = run_job(ExportJob("m", {"hidden_size": 5}, first, shape, steps=9), lambda epoch: True)
    assert alone.exported is not None
    assert len(outcome.exported.file) > 2 * len(alone.exported.file)
    monkeypatch.setitem(onnx_layers._GATES, "LSTM", (0, 1, 2, 3))
    assert "differs from torch by" in str(run_job(job, lambda epoch: True).reason)


@pytest.mark.parametrize("transform", ["none", "log"])
def test_a_job_predicts_the_mean_before_the_scaling_is_undone(tmp_path, transform):
    from tuner.data.prepared import prepare
    from tuner.experiment import Experiment

    values = 20 + 5 * np.sin(np.arange(60) / 3)
    (tmp_path / "y.csv").write_text("y\n" + "".join(f"{v!r}\n" for v in values.tolist()))
    data = {"path": str(tmp_path / "y.csv"), "target": "y", "transform": transform}
    experiment = Experiment.model_validate({"name": "y", "data": data, "task": {"window": 4}})
    (ref,) = prepare(experiment, tmp_path / "arrays").folds
    first, *others = (model.weights() for model in models(ref.shape))

    def predict(*weights):
        job = PredictJob("p", {"hidden_size": 5}, weights[0], ref, others=tuple(weights[1:]))
        found = run_job(job, lambda epoch: True).predictions
        assert found is not None
        return found

    single = [predict(weights) for weights in (first, *others)]
    together = predict(first, *others)
    of_values = np.mean(single, axis=0)
    expected = np.exp(np.mean(np.log(single), axis=0)) if transform == "log" else of_values
    np.testing.assert_allclose(together, expected, rtol=1e-5)
    if transform == "log":
        assert np.abs(together - of_values).max() > 1e-2, "the mean in units is another one"
