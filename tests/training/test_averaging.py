"""The average of the weights is what is scored and kept; no step of the optimizer sees it."""

import dataclasses

import numpy as np
import pytest
import torch

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import PredictJob
from tuner.training import predict, train
from tuner.training.device import Generators
from tuner.training.model import Model, WeightAverage
from tuner.training.trainer import Fit

CPU = torch.device("cpu")


def rows(n=90):
    return np.cumsum(np.random.default_rng(1).normal(size=(n, 1)), axis=0) / 5


def fit_of(job):
    parameters = Hyperparameters(**job.hyperparameters)
    torch.manual_seed(0)
    return Fit(
        job,
        parameters,
        job.folds[0],
        CPU,
        Generators(*(torch.Generator().manual_seed(0) for _ in range(2))),
    )


def test_the_average_is_the_recursion_of_its_docstring():
    model = Model(Hyperparameters(hidden_size=2), Shape("forecast", 1, window=4))
    average = WeightAverage(model, epochs=0.5, steps=10)
    expected = model.head.bias.detach().double().clone()
    for k in range(1, 101):
        with torch.no_grad():
            model.head.bias.fill_(float(k))
        average.update()
        expected += max(1 / 6, 3 / (3 + k)) * (k - expected)
    torch.testing.assert_close(average.model.head.bias.double(), expected, rtol=1e-5, atol=0)
    # The mean age of what it consists of is epochs * steps.
    assert expected.item() == pytest.approx(100 - 5, abs=0.01)


@pytest.mark.parametrize("options", [{}, {"linear_path": True, "normalize": "last"}], ids=str)
def test_the_weights_in_training_are_those_without_an_average(make_ref, make_job, options):
    ref = make_ref(rows())
    fits, losses = [], []
    for epochs in (0.0, 2.0):
        fits.append(fit_of(make_job(ref, weight_averaging=epochs, dropout=0.3, **options)))
        losses.append([fits[-1].train_epoch() for _ in range(3)])
    assert losses[0] == losses[1]
    plain, averaged = fits
    for name, array in plain.model.weights().items():
        assert array.tobytes() == averaged.model.weights()[name].tobytes(), name
    assert plain.trained is plain.model
    assert plain.evaluate() != averaged.evaluate()


@pytest.mark.parametrize("validates", [True, False])
def test_what_is_kept_is_what_was_scored(make_ref, make_job, go_on, validates):
    ref = make_ref(rows())
    job = make_job(ref, epochs=4, keep_weights=True, weight_averaging=1.5, hidden_size=4)
    outcome = train(dataclasses.replace(job, validates=validates), go_on)
    found = predict(PredictJob("p", job.hyperparameters, outcome.weights, ref)).predictions
    truth = ref.truth_of(ref.evaluate_samples())
    if validates:
        assert np.sqrt(((found - truth) ** 2).mean()) == pytest.approx(outcome.objective)
        return
    last = train(dataclasses.replace(job, patience=4), go_on).history[-1]
    assert np.sqrt(((found - truth) ** 2).mean()) == pytest.approx(last.metric)


def test_an_average_of_noisy_steps_is_nearer_to_what_is_learned(make_ref, make_job, go_on):
    rng = np.random.default_rng(0)
    series = np.zeros((600, 1))
    for t in range(1, 600):
        series[t] = 0.8 * series[t - 1] + rng.normal()
    ref = make_ref(series)
    scores = {
        epochs: np.mean(
            [
                e.metric
                for e in train(
                    make_job(
                        ref, epochs=20, patience=20, weight_averaging=epochs,
                        learning_rate=0.03, batch_size=8, hidden_size=8,
                    ),
                    go_on,
                ).history[10:]
            ]
        )
        for epochs in (0.0, 2.0)
    }  # fmt: skip
    assert scores[2.0] < 0.98 * scores[0.0]
