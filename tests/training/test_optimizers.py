import math

import pytest
import torch
from torch import nn, optim

from tuner.experiment.hyperparameters import Hyperparameters
from tuner.training.trainer import make_optimizer, make_schedule

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
