"""Every cell, tuner's own and those that people bring, keeps to the same rules."""

import pytest
import torch

from tuner.data import Shape
from tuner.experiment.hyperparameters import CELLS, Hyperparameters
from tuner.training import Model

EVERY = {cell: {"cell": cell} for cell in CELLS}
EVERY |= {
    "a loop": {"cell": "own_classes:Leaky", "leak": 0.3, "gate": "tanh"},
    "a layer of torch": {"cell": "own_classes:Pair"},
    "told the lengths": {"cell": "own_classes:Masked"},
}
SHAPES = [
    Shape("forecast", 2, horizon=3, targets=1, window=8, target_columns=(1,)),
    Shape("forecast", 2, horizon=2, quantiles=(0.1, 0.5), window=8, target_columns=(0,)),
    Shape("regress", 2, targets=2),
    Shape("classify", 2, classes=3),
    Shape("regress_steps", 2, targets=1),
    Shape("label", 0, vocabulary=7, classes=3),
]
every = pytest.mark.parametrize("cell", EVERY)
of_every_task = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.task)


def made(cell, shape, **values):
    torch.manual_seed(3)
    return Model(Hyperparameters(hidden_size=6, **EVERY[cell], **values), shape).eval()


def inputs(shape, size, steps=8):
    torch.manual_seed(4)
    if shape.vocabulary:
        return torch.randint(1, shape.vocabulary, (size, steps))
    return torch.randn(size, steps, shape.features)


@every
@of_every_task
def test_an_output_does_not_depend_on_others_in_its_batch(cell, shape):
    model = made(cell, shape, bidirectional=True, num_layers=2)
    x = inputs(shape, 4)
    lengths = None if shape.task == "forecast" else torch.tensor([8, 3, 5, 8])
    together = model(x, lengths)
    for i in range(4):
        n = 8 if lengths is None else int(lengths[i])
        alone = model(x[i : i + 1, :n], None if lengths is None else lengths[i : i + 1])
        torch.testing.assert_close(
            together[i, :n] if shape.each_step else together[i], alone[0], rtol=1e-5, atol=1e-6
        )


@every
@of_every_task
def test_kept_and_loaded_weights_predict_bit_for_bit(cell, shape):
    model, x = made(cell, shape), inputs(shape, 3)
    torch.manual_seed(99)
    again = Model(Hyperparameters(hidden_size=6, **EVERY[cell]), shape).eval()
    assert not torch.equal(again(x), model(x))
    again.load_weights(model.weights())
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


@every
def test_a_one_way_label_ignores_later_steps(cell):
    if cell == "told the lengths":
        pytest.skip("it reads a mean of all steps")
    shape = SHAPES[-1]
    model, x = made(cell, shape), inputs(shape, 2)
    later = x.clone()
    later[:, 5:] = 1
    torch.testing.assert_close(model(later)[:, :5], model(x)[:, :5])


@every
def test_the_same_seed_gives_the_same_first_weights(cell):
    one, other = (made(cell, SHAPES[0]).weights() for _ in range(2))
    assert list(one) == list(other)
    assert all((one[name] == other[name]).all() for name in one)
