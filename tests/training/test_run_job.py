import dataclasses
import re

import numpy as np
import pytest
import torch

from tuner.errors import Interrupted
from tuner.jobs import Outcome, OutcomeState, PredictJob
from tuner.training import run_job


def test_a_train_job_is_trained_and_a_predict_job_forecasts(sine, make_job, go_on):
    job = make_job(sine, keep_weights=True)
    trained = run_job(job, go_on)
    assert trained.state is OutcomeState.COMPLETE
    outcome = run_job(PredictJob("p", job.hyperparameters, trained.weights, sine), go_on)
    assert outcome.state is OutcomeState.COMPLETE
    assert outcome.predictions.shape == (len(sine.evaluate_samples()), 1, 1)
    assert np.abs(outcome.predictions - 100).max() < 20  # in the data's units
    assert outcome.objective is None
    assert outcome.peak_memory_mb > 0


def test_an_outcome_survives_the_journal(sine, make_job, go_on):
    outcome = run_job(make_job(sine), go_on)
    again = Outcome.from_json(outcome.to_json())
    assert again.objective == outcome.objective
    assert [e.metric for e in again.history] == [e.metric for e in outcome.history]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hyperparameters": {"hidden_size": 0}}, "ValidationError: .*hidden_size"),
        ({"metric": "speed"}, "KeyError: 'speed'"),
    ],
)
def test_what_a_job_raises_becomes_a_failed_outcome_in_one_line(
    sine, make_job, go_on, change, reason
):
    outcome = run_job(dataclasses.replace(make_job(sine), **change), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.finished_at > 0
    assert "\n" not in outcome.reason
    assert re.match(reason, outcome.reason)


def test_missing_data_fails_the_job(sine, make_job, go_on, tmp_path):
    gone = dataclasses.replace(sine, folder=str(tmp_path / "gone"))
    outcome = run_job(make_job(gone), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason.startswith("FileNotFoundError: ")


def test_weights_of_another_model_fail_the_job(sine, make_job, go_on):
    job = make_job(sine, epochs=1, keep_weights=True)
    weights = run_job(job, go_on).weights
    outcome = run_job(PredictJob("p", {"hidden_size": 9}, weights, sine), go_on)
    assert outcome.state is OutcomeState.FAILED
    assert "size mismatch" in outcome.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Interrupted])
def test_an_interruption_is_passed_on(sine, make_job, error):
    def interrupt(epoch):
        raise error

    with pytest.raises(error):
        run_job(make_job(sine), interrupt)


CUDA_ERROR = """CUDA error: device-side assert triggered
For debugging consider passing CUDA_LAUNCH_BLOCKING=1"""


@pytest.fixture
def cuda(monkeypatch):
    """Stands for a CUDA that is in use; returns what breaks it."""
    broken = []

    def synchronize():
        if broken:
            raise RuntimeError(CUDA_ERROR)

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "empty_cache", synchronize)
    return lambda: broken.append(True)


@pytest.mark.parametrize("error", [RuntimeError(CUDA_ERROR), KeyError("any other")])
def test_a_job_that_fails_as_cuda_breaks_is_not_to_blame(sine, make_job, cuda, error):
    def report(epoch):
        cuda()
        raise error

    with pytest.raises(RuntimeError) as caught:
        run_job(make_job(sine), report)
    expected = (
        "CUDA does not work in this process any more: CUDA error: device-side assert triggered"
    )
    assert str(caught.value) == expected
    assert type(caught.value) is RuntimeError


def test_a_prediction_that_fails_as_cuda_breaks_is_not_to_blame(sine, go_on, cuda):
    cuda()
    with pytest.raises(RuntimeError, match="CUDA does not work in this process any more"):
        run_job(PredictJob("p", {"hidden_size": 9}, {}, sine), go_on)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: no kernel")]
)
def test_a_job_that_fails_while_cuda_works_has_failed(sine, make_job, cuda, error):
    def report(epoch):
        raise error

    outcome = run_job(make_job(sine), report)
    assert outcome.state is OutcomeState.FAILED
    assert outcome.reason == f"{type(error).__name__}: {error}"
