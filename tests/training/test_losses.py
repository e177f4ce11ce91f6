"""Losses, optimizers, averaged weights and what a training costs."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from helpers.models import assert_same_bits, fit_of
from sklearn.metrics import log_loss, mean_pinball_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn, optim
from torch.nn import functional

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import Outcome, PredictJob
from tuner.training import predict, train
from tuner.training.device import TrainingError
from tuner.training.losses import balanced_weights, make_loss
from tuner.training.model import Model, WeightAverage
from tuner.training.optimizers import joined, make_optimizer, make_schedule

CPU = torch.device("cpu")
LEVELS = (0.1, 0.5, 0.9)


def loss_of(data, **hyperparameters):
    return make_loss(Hyperparameters(**hyperparameters), data, CPU)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", functional.mse_loss),
        ("mse", functional.mse_loss),
        ("mae", functional.l1_loss),
        ("huber", functional.huber_loss),
    ],
)
def test_losses_of_values_are_torchs(sine, name, expected):
    outputs, targets = 3 * torch.randn(2, 4, 3, 2)
    assert torch.equal(loss_of(sine, loss=name)(outputs, targets), expected(outputs, targets))


@pytest.mark.parametrize("name", ["auto", "quantile"])
def test_the_loss_of_quantiles_is_scikit_learns(make_ref, name):
    ref = make_ref(np.zeros((40, 2)), horizon=3, quantiles=LEVELS)
    outputs, targets = torch.randn(5, 3, 2, 3), torch.randn(5, 3, 2)
    flat = targets.flatten().numpy()
    expected = [
        mean_pinball_loss(flat, outputs[..., i].flatten().numpy(), alpha=q)
        for i, q in enumerate(LEVELS)
    ]
    loss = loss_of(ref, loss=name)(outputs, targets).item()
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_quantile_loss_is_least_at_the_quantile(make_ref):
    ref = make_ref(np.zeros((40, 1)), quantiles=LEVELS)
    targets = torch.randn(4001, 1, 1, generator=torch.Generator().manual_seed(0))
    quantiles = torch.quantile(targets.flatten(), torch.tensor(LEVELS))
    loss = loss_of(ref)

    def at(values):
        return loss(values.expand(4001, 1, 1, 3), targets)

    for change in torch.eye(3):
        assert at(quantiles) < at(quantiles + 0.05 * change)
        assert at(quantiles) < at(quantiles - 0.05 * change)


@pytest.mark.parametrize("name", ["auto", "cross_entropy"])
def test_cross_entropy_is_scikit_learns(signs, name):
    logits, classes = torch.randn(50, 3), torch.randint(3, (50,))
    expected = log_loss(classes.numpy(), logits.double().softmax(dim=1).numpy(), labels=[0, 1, 2])
    assert loss_of(signs, loss=name)(logits, classes).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_padding_has_no_part_in_the_loss_of_labels(steps, class_weights):
    loss = loss_of(steps, class_weights=class_weights)
    logits, classes = torch.randn(3, 5, 2, requires_grad=True), torch.randint(2, (3, 5))
    classes[0, 2:] = classes[2, 4:] = -1
    padded = loss(logits, classes)
    assert padded.item() == pytest.approx(loss(logits[classes >= 0], classes[classes >= 0]).item())
    padded.backward()
    assert not logits.grad[classes < 0].any()


def test_balanced_weights_are_scikit_learns():
    classes = np.array([0] * 7 + [1] * 2 + [2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=classes)
    assert balanced_weights(classes, 3).tolist() == pytest.approx(expected.tolist())


def test_a_class_that_is_not_trained_on_has_a_finite_weight():
    assert balanced_weights(np.array([0, 0, 2, 2]), 3).tolist() == pytest.approx(
        [2 / 3, 4 / 3, 2 / 3]
    )


def test_class_weights_come_from_the_training_part_alone(make_sequences):
    truth = [0, 0, 0, 1] * 6 + [1] * 8
    ref = make_sequences("classify", [np.zeros((2, 1))] * 32, truth, classes=2)
    assert ref.train_samples().tolist() == list(range(24))
    logits, classes = torch.zeros(2, 2), torch.tensor([0, 1])
    logits[0, 0] = 5  # so that the first class costs next to nothing
    loss = loss_of(ref, class_weights="balanced")(logits, classes).item()
    weights = torch.tensor([24 / 2 / 18, 24 / 2 / 6])
    each = functional.cross_entropy(logits, classes, weights, reduction="none")
    assert loss == pytest.approx(each.mean().item())


def test_class_weights_are_the_same_in_batches_of_every_size(make_sequences):
    truth = [0, 0, 0, 1] * 8
    ref = make_sequences("classify", [np.zeros((2, 1))] * 32, truth, classes=2)
    logits, classes = torch.randn(24, 2), torch.tensor(truth[:24])
    plain, balanced = (loss_of(ref, class_weights=w) for w in ("none", "balanced"))
    alone = plain(logits[3:4], classes[3:4]).item()
    assert balanced(logits[3:4], classes[3:4]).item() == pytest.approx(2 * alone)
    whole = balanced(logits, classes).item()
    for size in (1, 3, 8):
        parts = [
            balanced(*part).item()
            for part in zip(logits.split(size), classes.split(size), strict=True)
        ]
        assert np.mean(parts) == pytest.approx(whole, rel=1e-5)
    same = torch.zeros(24, 2)  # all cost the same, so that the mean weight, 1, is left
    assert balanced(same, classes).item() == pytest.approx(plain(same, classes).item())


def test_of_labels_every_step_counts_for_the_class_weights(make_sequences):
    truth = [[0, 0, 1], [0], [0, 1], [1, 1, 1]]
    sequences = [np.zeros((len(t), 1)) for t in truth]
    ref = make_sequences("label", sequences, truth, classes=2)  # the last one is scored
    weights = balanced_weights(np.array([0, 0, 1, 0, 0, 1]), 2)
    logits, classes = torch.randn(3, 2, 2), torch.randint(2, (3, 2))
    each = functional.cross_entropy(
        logits.flatten(0, 1), classes.flatten(), weights, reduction="none"
    )
    assert loss_of(ref, class_weights="balanced")(logits, classes).item() == pytest.approx(
        each.mean().item()
    )


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (Shape("forecast", 1), "cross_entropy"),
        (Shape("forecast", 1), "quantile"),
        (Shape("forecast", 1, quantiles=LEVELS), "mse"),
        (Shape("classify", 1, classes=2), "mae"),
    ],
    ids=str,
)
def test_a_loss_of_other_outputs_is_refused(sine, shape, name):
    with pytest.raises(TrainingError, match=f"the loss {name} does not fit .*; choose from: "):
        loss_of(dataclasses.replace(sine, shape=shape), loss=name)


PLAIN = {
    "adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.2),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.2),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.1, weight_decay=0.2),
    "sgd": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.2, momentum=0.9),
}


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_every_optimizer_steps_as_torchs_does(name):
    parameters = Hyperparameters(optimizer=name, learning_rate=0.1, weight_decay=0.2)
    weights = [nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2)]
    steppers = make_optimizer(parameters, weights[:1]), PLAIN[name](weights[1:])
    for _ in range(5):
        for weight, optimizer in zip(weights, steppers, strict=True):
            optimizer.zero_grad()
            weight.pow(4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(*weights)


def rates(schedule, losses, epochs=None):
    parameters = Hyperparameters(schedule=schedule, learning_rate=0.4)
    optimizer = make_optimizer(parameters, [nn.Parameter(torch.zeros(1))])
    step = make_schedule(parameters, optimizer, epochs=epochs or len(losses))
    seen = [optimizer.param_groups[0]["lr"]]
    for loss in losses:
        step(loss)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def test_without_a_schedule_the_rate_stays():
    assert rates("none", [1.0] * 20) == [0.4] * 21


def test_the_cosine_falls_to_zero_over_the_epochs():
    seen = rates("cosine", [1.0] * 8)
    assert seen[0] == 0.4
    assert seen[4] == pytest.approx(0.2)
    assert seen[8] == pytest.approx(0, abs=1e-12)
    assert seen == pytest.approx([0.2 * (1 + math.cos(math.pi * k / 8)) for k in range(9)])


def test_the_rate_is_halved_on_a_plateau_of_the_validation_loss():
    falling = [1.0, 0.9, 0.8]
    flat = [0.8] * 6
    assert rates("plateau", falling + flat[:-1]) == [0.4] * 9
    assert rates("plateau", falling + flat)[-1] == 0.2
    assert rates("plateau", falling + flat * 2)[-1] == 0.1


def rows(n=90):
    return np.cumsum(np.random.default_rng(1).normal(size=(n, 1)), axis=0) / 5


def test_the_average_is_the_recursion_of_its_docstring():
    model = Model(Hyperparameters(hidden_size=2), Shape("forecast", 1, window=4))
    average = WeightAverage(model, joined(model), epochs=0.5, steps=10)
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
    assert_same_bits(plain.model.weights(), averaged.model.weights())
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


def test_a_complete_training_reports_size_and_latency(sine, make_job, go_on):
    small, large = (train(make_job(sine, epochs=1, hidden_size=n), go_on) for n in (2, 256))
    # An LSTM of torch: four gates, each with two biases; then a head.
    assert small.n_weights == 4 * (2 * 1 + 2 * 2 + 2 * 2) + 2 + 1
    assert large.n_weights == 4 * 256 * (1 + 256 + 2) + 256 + 1
    assert 0 < small.latency_ms < large.latency_ms < 1000
    again = Outcome.from_json(small.to_json())
    assert (again.n_weights, again.latency_ms) == (small.n_weights, small.latency_ms)
    assert again.cost("weights") == small.n_weights
    assert again.cost("seconds") == small.seconds
    assert again.cost("latency") == small.latency_ms


def test_a_training_that_did_not_end_has_no_costs_that_could_win(sine, make_job):
    pruned = train(make_job(sine, epochs=3), lambda epoch: False)
    assert (pruned.n_weights, pruned.latency_ms) == (None, None)
    assert pruned.cost("weights") == float("inf")


def test_measuring_changes_nothing_that_is_learned(sine, make_job, go_on, monkeypatch):
    job = make_job(sine, epochs=2, dropout=0.5, keep_weights=True)
    measured = train(job, go_on)
    monkeypatch.setattr("tuner.training.trainer.latency_ms", lambda fit: 1.0)
    other = train(job, go_on)
    assert measured.objective == other.objective
    assert_same_bits(measured.weights, other.weights)
