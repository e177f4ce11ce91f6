import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, mean_pinball_loss
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from tuner.data import Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.device import TrainingError
from tuner.training.losses import balanced_weights, make_loss

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
    with pytest.raises(TrainingError, match=f"loss: {name} does not fit .*; choose from: "):
        loss_of(dataclasses.replace(sine, shape=shape), loss=name)
