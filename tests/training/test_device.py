import gc
import math
import weakref

import pytest
import torch

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import OutcomeState, PredictJob
from tuner.training import run_job, train
from tuner.training import trainer as fit
from tuner.training.device import Generators, pick_device

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


@pytest.mark.parametrize("cell", ["lstm", "gru", "peephole"])
@pytest.mark.parametrize("data", ["sine", "sums"])
def test_mixed_precision_learns(request, make_job, cell, data):
    """On the CPU, to which a job would not take it."""
    ref = request.getfixturevalue(data)
    job = make_job(ref, epochs=1, cell=cell, pooling="attention", decoder="recursive")
    parameters = Hyperparameters(**job.hyperparameters)
    generators = Generators(torch.Generator(), torch.Generator())
    trained = fit.Fit(job, parameters, ref, torch.device("cpu"), generators)
    trained.half, trained.scaler = True, torch.amp.GradScaler("cpu", init_scale=4.0)
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
