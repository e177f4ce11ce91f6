"""Categories are embedded: in the window, in rows to come, unknown ones too, in torch and ONNX."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.models import drawn

from tuner.data.prepared import check_data
from tuner.data.reference import Shape
from tuner.experiment import Experiment
from tuner.jobs import TrainJob
from tuner.training import run_job
from tuner.training.layers import with_unknown_categories
from tuner.training.model import Ensemble
from tuner.training.onnx_export import _difference, _serialized, to_onnx

WINDOW, HORIZON, KIND, SERIES = 6, 3, 1, 3
SHAPE = Shape(
    "forecast", 4, horizon=HORIZON, window=WINDOW, target_columns=(0,), known_columns=(KIND, 2),
    categories=((KIND, 5), (SERIES, 40)),
)  # fmt: skip
HEADS = {
    "direct": {},
    "step by step": {"decoder": "recursive"},
    "in segments": {"decoder": "segments", "segment": 2},
    "beside a linear path": {"linear_path": True, "normalize": "last"},
    "after a convolution": {"conv_channels": 3, "pooling": "attention"},
}


def inputs(n=4):
    x = torch.randn(n, WINDOW + HORIZON, 4)
    for column, size in SHAPE.categories:
        x[:, :, column] = torch.randint(0, size, x.shape[:2])
    return x


@pytest.mark.parametrize("head", HEADS)
def test_categories_of_window_and_known_rows_are_read(head):
    model, x = drawn(SHAPE, std=0.5, **HEADS[head]), inputs()
    before = model(x)
    for row, column in ((2, KIND), (2, SERIES), (WINDOW + 1, KIND)):
        other = x.clone()
        other[:, row, column] = (other[:, row, column] + 1) % 5
        assert (model(other) != before).any(dim=2).any(dim=1).all(), (row, column)
    unread = x.clone()
    unread[:, WINDOW:, SERIES] = 7  # it is not known there
    assert torch.equal(model(unread), before)


def test_the_size_of_a_number_says_nothing_of_a_category():
    model, x = drawn(SHAPE, std=0.5, linear_path=True), inputs()
    swapped = x.clone()
    swapped[:, :, SERIES] = 39 - swapped[:, :, SERIES]
    before = model(x)
    with torch.no_grad():
        vectors = model.categories.vectors[1]
        vectors.copy_(vectors.flip(0))
    torch.testing.assert_close(model(swapped), before)


def test_an_embedding_is_no_longer_than_its_categories():
    categories = drawn(SHAPE, embedding_size=8).categories
    assert [tuple(v.shape) for v in categories.vectors] == [(5, 5), (40, 8)]


@pytest.mark.parametrize("head", HEADS)
def test_onnx_says_what_torch_says_also_of_an_ensemble(head):
    models = [drawn(SHAPE, seed, std=0.5, **HEADS[head]) for seed in range(2)]
    for model in (models[0], Ensemble(models)):
        file = _serialized(to_onnx(model))
        fixed = WINDOW if model.linear_path is not None else None
        assert _difference(model, file, WINDOW, fixed=fixed) <= 1e-5


def test_an_unknown_category_covers_all_rows_of_a_window():
    torch.manual_seed(0)
    x = inputs(2000)
    found = with_unknown_categories(x, SHAPE, 0.2, torch.Generator().manual_seed(1))
    for column, size in SHAPE.categories:
        before, after = x[:, :, column], found[:, :, column]
        assert set((after[after != before]).tolist()) == {0.0}
        for number in range(1, size):
            here = before == number
            gone = (here & (after == 0)).sum(dim=1)
            assert ((gone == 0) | (gone == here.sum(dim=1))).all()
        real = before != 0
        assert float((after[real] == 0).float().mean()) == pytest.approx(0.2, abs=0.02)
    numbers = [0, 2]
    assert torch.equal(found[:, :, numbers], x[:, :, numbers])


def panel(path, n_shops=12, n=120):
    """Shops that differ in their level, and in how they answer to a price."""
    rng = np.random.default_rng(0)
    frames = []
    for shop, answer in enumerate(rng.permutation(np.linspace(-4, 4, n_shops))):
        price = rng.normal(size=n)
        units = 20 + 3 * np.sin(answer) + answer * price + 0.3 * rng.normal(size=n)
        frames.append(pd.DataFrame({"shop": f"s{shop}", "units": units, "price": price}))
    pd.concat(frames).to_csv(path, index=False)


def trained(tmp_path, name, rate=0.01, **data):
    """Return the best validation RMSE, and the weights of that epoch."""
    block = {"path": str(tmp_path / "panel.csv"), "target": "units", "id": "shop"}
    block |= {"features": ["price"], "known_future": ["price"]} | data
    experiment = Experiment.model_validate(
        {
            "name": "panel",
            "data": block,
            "task": {"window": 2, "horizon": 1},
            "hyperparameters": {
                "hidden_size": 16, "learning_rate": 0.02, "batch_size": 64, "unknown_rate": rate,
            } | ({"embedding_size": 4} if "categories" in data else {}),
        }
    )  # fmt: skip
    prepared = check_data(experiment).write(tmp_path / name)
    configuration = experiment.configuration({})
    job = TrainJob("0", configuration, 0, 25, 25, "rmse", prepared.folds, keep_weights=True)
    outcome = run_job(job, lambda epoch: True)
    return outcome.objective, outcome.weights


@pytest.mark.parametrize("features", [["price"], ["units", "price"]])
def test_series_identity_improves_forecasts_of_unlike_series(features, tmp_path):
    panel(tmp_path / "panel.csv")
    plain, _ = trained(tmp_path, "plain", features=features)
    known, _ = trained(tmp_path, "known", features=features, categories=["shop"])
    assert plain > 1
    assert known < 0.6  # the noise is 0.3


def test_only_its_share_trains_the_unknown_category(tmp_path):
    panel(tmp_path / "panel.csv", 4)
    keys = {"categories": ["shop"]}
    found = [trained(tmp_path, str(r), r, **keys)[1]["categories.vectors.0"] for r in (0.0, 0.05)]
    never, often = found
    assert np.abs(never[0] - often[0]).max() > 0.05
    assert np.abs(never[0]).max() < 0.5, "what chance gave it: it is never read"
    again = trained(tmp_path, "again", 0.05, **keys)[1]["categories.vectors.0"]
    np.testing.assert_array_equal(again, often)
