"""Samples, devices and ensembles."""

import gc
import math
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers.examples import examples
from helpers.models import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import OutcomeState, PredictJob
from tuner.training import run_job, train
from tuner.training import trainer as fit
from tuner.training.device import Generators, pick_device
from tuner.training.model import Ensemble, mean_outputs
from tuner.training.onnx_export import to_onnx
from tuner.training.optimizers import SeparateSteps, trained_weights
from tuner.training.samples import Sequences, Windows, open_samples, split, unfold

CPU = torch.device("cpu")


# Windows


@given(st.integers(1, 30), st.integers(1, 4), st.data())
def test_an_unfolded_window_equals_a_slice_and_shares_its_memory(n_rows, n_columns, data):
    length = data.draw(st.integers(1, n_rows))
    rows = torch.arange(n_rows * n_columns, dtype=torch.float32).view(n_rows, n_columns)
    windows = unfold(rows, length)
    assert windows.shape == (n_rows - length + 1, length, n_columns)
    assert windows.untyped_storage().data_ptr() == rows.untyped_storage().data_ptr()
    for i, window in enumerate(windows):
        assert torch.equal(window, rows[i : i + length])


@settings(max_examples=examples(30))
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.data())
def test_a_batch_holds_the_rows_before_and_after_its_starts(
    make_ref, window, horizon, n_features, n_targets, data
):
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(24, n_features)), rng.normal(size=(24, n_targets))
    windows = Windows(make_ref(targets, inputs, window=window, horizon=horizon), CPU)
    starts = data.draw(st.lists(st.integers(window, 24 - horizon), min_size=1, max_size=9))
    index = windows.index(np.array(starts))
    (past, lengths), future = windows.inputs(index), windows.targets(index)
    assert windows.longest == window
    assert lengths is None
    for i, t in enumerate(starts):
        assert np.array_equal(past[i], inputs[t - window : t].astype(np.float32))
        assert np.array_equal(future[i], targets[t : t + horizon].astype(np.float32))


def test_windows_on_the_cpu_are_read_from_the_mapped_file_itself(sine, monkeypatch):
    arrays = {name: sine.load(name) for name in ("inputs", "targets")}
    monkeypatch.setattr(type(sine), "load", lambda self, name: arrays[name])
    windows = Windows(sine, CPU)
    assert windows._read.untyped_storage().data_ptr() == arrays["inputs"].ctypes.data
    assert windows._future.untyped_storage().data_ptr() == arrays["targets"].ctypes.data


def test_an_index_takes_four_bytes_or_eight_where_needed(sine):
    windows = Windows(sine, CPU)
    assert windows.index(np.array([9, 2**31 - 1])).dtype == torch.int32
    assert windows.index(np.array([9, 2**31])).tolist() == [9, 2**31]
    assert len(windows.index(np.empty(0, np.int64))) == 0


def test_a_window_before_the_first_row_is_refused(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.inputs(windows.index(np.array([sine.window - 1])))


def test_a_window_whose_horizon_passes_the_end_is_refused(sine):
    windows = Windows(sine, CPU)
    with pytest.raises((IndexError, RuntimeError)):
        windows.targets(windows.index(np.array([120])))


@given(st.integers(0, 30), st.integers(1, 40))
def test_an_index_is_split_as_torch_splits_it(n, size):
    index = torch.arange(n)
    parts = [part.tolist() for part in split(index, size)]
    assert parts == [part.tolist() for part in torch.split(index, size) if len(part)]


# Sequences


@settings(max_examples=examples(30))
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.data())
def test_a_batch_is_padded_to_its_longest_sequence_only(make_sequences, lengths, data):
    rng = np.random.default_rng(0)
    sequences = [rng.normal(size=(n, 2)).astype(np.float32) for n in lengths]
    samples = Sequences(
        make_sequences("regress", sequences, rng.normal(size=(len(lengths), 1))), CPU
    )
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=9))
    x, real = samples.inputs(samples.index(np.array(chosen)))
    longest = max(lengths[k] for k in chosen)
    assert samples.longest == max(lengths)
    assert x.shape == (len(chosen), longest, 2)
    if real is None:
        assert {lengths[k] for k in chosen} == {longest}
    else:
        assert len(set(real.tolist())) > 1
        assert real.tolist() == [lengths[k] for k in chosen]
    for i, k in enumerate(chosen):
        assert np.array_equal(x[i, : lengths[k]], sequences[k])
        assert not x[i, lengths[k] :].any()


def test_tokens_are_padded_with_the_token_that_pads(words):
    samples = Sequences(words, CPU)
    tokens, bounds = words.load("tokens"), words.load("bounds")
    x, lengths = samples.inputs(samples.index(np.arange(20)))
    assert x.dtype == torch.int64
    for row, length, (first, end) in zip(x, lengths, bounds[:20], strict=True):
        assert row[:length].tolist() == tokens[first:end].tolist()
        assert not row[length:].any()


def test_targets_are_values_classes_or_the_classes_of_all_steps(sums, signs, steps):
    chosen = np.array([5, 0, 7])
    values, classes, labels = (
        samples.targets(samples.index(chosen))
        for samples in (open_samples(ref, CPU) for ref in (sums, signs, steps))
    )
    assert values.dtype == torch.float32
    assert np.array_equal(values[:, 0], sums.load("targets")[chosen])
    assert classes.tolist() == signs.load("truth")[chosen].tolist()
    for row, (first, end) in zip(labels, steps.load("bounds")[chosen], strict=True):
        assert row[: end - first].tolist() == steps.load("truth")[first:end].tolist()
        assert (row[end - first :] == -1).all()
    assert labels[labels >= 0].tolist() == steps.truth_of(chosen).tolist()


def test_sequences_on_the_cpu_are_read_from_the_mapped_file(signs, monkeypatch):
    inputs, load = signs.load("inputs"), type(signs).load
    monkeypatch.setattr(
        type(signs), "load", lambda self, name: inputs if name == "inputs" else load(self, name)
    )
    assert Sequences(signs, CPU)._rows.untyped_storage().data_ptr() == inputs.ctypes.data


without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
with_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@without_cuda
def test_cuda_on_a_machine_without_it_fails_the_job_and_says_why(sine, make_job, go_on):
    outcome = run_job(make_job(sine, device="cuda"), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason.startswith("device: cuda: torch finds no CUDA GPU on this machine; ")
    prediction = run_job(PredictJob("p", {}, {}, sine, device="cuda"), go_on)
    assert prediction.reason == outcome.reason


@without_cuda
def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")


def test_mixed_precision_changes_nothing_on_the_cpu(sine, make_job, go_on):
    first, second = (
        train(make_job(sine, device="cpu", mixed_precision=mixed), go_on).objective
        for mixed in (False, True)
    )
    assert first == second


@pytest.mark.parametrize(
    ("cell", "data"), [("lstm", "sums"), ("gru", "sine"), ("peephole", "sums")]
)
def test_mixed_precision_learns(request, make_job, cell, data):
    """On the CPU, to which a job would not take it."""
    ref = request.getfixturevalue(data)
    job = make_job(ref, epochs=1, cell=cell, pooling="attention", decoder="recursive")
    parameters = Hyperparameters(**job.hyperparameters)
    generators = Generators(torch.Generator(), torch.Generator())
    trained = fit.Fit(job, parameters, ref, torch.device("cpu"), generators)
    trained.half = True
    trained.steps = SeparateSteps(trained_weights(trained.model), parameters, half=True)
    trained.steps.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = [trained.train_epoch() for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert math.isfinite(trained.evaluate()[1])
    assert all(p.dtype == torch.float32 for p in trained.model.parameters())


@with_cuda
@pytest.mark.parametrize("cell", ["lstm", "peephole"])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("data", ["sine", "sums"])
def test_a_gpu_learns_too(request, make_job, go_on, cell, mixed, data):
    ref = request.getfixturevalue(data)
    job = make_job(
        ref,
        epochs=30,
        device="cuda",
        mixed_precision=mixed,
        cell=cell,
        pooling="attention",
        keep_weights=True,
    )
    before = torch.cuda.memory_allocated()
    outcome = train(job, go_on)
    assert outcome.state is OutcomeState.COMPLETE, outcome.reason
    assert outcome.history[-1].train_loss < 0.5 * outcome.history[0].train_loss
    assert torch.cuda.memory_allocated() <= before
    predicted = run_job(PredictJob("p", job.hyperparameters, outcome.weights, ref), go_on)
    assert predicted.state is OutcomeState.COMPLETE, predicted.reason


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "cosine"},
        {"schedule": "plateau", "optimizer": "sgd"},
        {"cell": "peephole", "optimizer": "rmsprop"},
        {"decoder": "recursive", "pooling": "attention"},
    ],
    ids=str,
)
@pytest.mark.parametrize("end", ["complete", "pruned", "failed"])
def test_the_memory_of_a_trial_is_given_back_with_its_last_epoch(
    sine, make_job, monkeypatch, options, end
):
    fits = []
    made = fit.Fit.__init__

    def remember(self, *arguments):
        made(self, *arguments)
        fits.extend([weakref.ref(self.model), weakref.ref(self.samples), weakref.ref(self)])

    def report(epoch):
        if end == "failed":
            raise MemoryError
        return end == "complete"

    monkeypatch.setattr(fit.Fit, "__init__", remember)
    gc.disable()
    try:
        outcome = train(make_job(sine, sine, epochs=2, **options), report)
        assert outcome.state.value == end
        assert fits
        assert all(reference() is None for reference in fits)
    finally:
        gc.enable()


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
    found = [drawn(shape, seed, **values) for seed in range(n)]
    for model in found:
        model.load_weights({name: scale * array for name, array in model.weights().items()})
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
        real = np.arange(7) < lengths.numpy()[:, None]
        found, expected = found[real], expected[real]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


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
        return found

    single = [predict(weights) for weights in (first, *others)]
    together = predict(first, *others)
    of_values = np.mean(single, axis=0)
    expected = np.exp(np.mean(np.log(single), axis=0)) if transform == "log" else of_values
    np.testing.assert_allclose(together, expected, rtol=1e-5)
    if transform == "log":
        assert np.abs(together - of_values).max() > 1e-2, "the mean in units is another one"
