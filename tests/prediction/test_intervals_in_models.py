"""Folders of ensembles, refitted models and intervals: what predicts is what was tested."""

import dataclasses
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import HereExecutor, drawn, months, rewrite
from safetensors.numpy import load_file

from tuner.data.baselines import Baselines
from tuner.data.prepared import check_data, open_test_part
from tuner.errors import ModelError
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState, PredictJob, train_job
from tuner.prediction import PredictionWarning, load_model
from tuner.results import export as model_folder
from tuner.results.export import write_model
from tuner.results.retraining import Calibration, Training, calibrate, coverage_of
from tuner.results.test_score import predictions_record
from tuner.training import run_job

LEVELS = [0.5, 0.8]
# How many models there are, and whether they are trained again on all rows.
MODELS = [
    (1, False), (3, True),
    pytest.param(1, True, marks=pytest.mark.slow), pytest.param(3, False, marks=pytest.mark.slow),
]  # fmt: skip


def trained(folder, n_models=1, refit=True, rows=None, data=(), task=()):
    """A training of drawn weights, with the intervals that its validation rows give."""
    (months() if rows is None else rows).to_csv(folder / "sales.csv", index=False)
    block = {"path": str(folder / "sales.csv"), "time": "month", "target": "sales", **dict(data)}
    asked = {"window": 6, "horizon": 2, "intervals": LEVELS, **dict(task)}
    raw = {"name": "made", "data": block, "task": asked, "hyperparameters": {"hidden_size": 4}}
    experiment = Experiment.model_validate(raw)

    def made(all_data, seed):
        data = check_data(experiment, all_data=all_data).write(folder / f"arrays{seed}")
        score = None if all_data else 0.5
        first, *others = (
            Outcome(OutcomeState.COMPLETE, objective=score, best_epoch=2, weights=weights)
            for weights in (drawn(experiment, data, seed + i) for i in range(n_models))
        )
        return Training(experiment, data, first, others=tuple(others))

    training = made(False, 0)
    job = train_job(experiment, training.data.folds, "training 0", {}, 0)
    found = calibrate(experiment, job, training.weights, HereExecutor(1))
    training = dataclasses.replace(training, intervals=found)
    return dataclasses.replace(training, refit=made(True, 10)) if refit else training


def write(training, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folder, "LocalExecutor", HereExecutor)
        write_model(training, folder / "model")
    return folder / "model"


def predicted_by(weights, ref):
    first, *others = weights
    job = PredictJob("p", {"hidden_size": 4}, first, ref, others=tuple(others))
    return run_job(job, lambda epoch: True).predictions


CASES = {
    "values": {},
    "logarithms": {"data": {"transform": "log"}},
    "differences": {"data": {"transform": "difference"}},
    "quantiles": {"task": {"quantiles": [0.1, 0.5]}},
    "two targets": {"data": {"target": ["sales", "price"]}},
}


@pytest.mark.parametrize(("n_models", "refit"), MODELS)
@pytest.mark.parametrize("case", CASES)
def test_a_folder_predicts_the_tested_values_and_intervals(case, n_models, refit, tmp_path):
    training = trained(tmp_path, n_models, refit, **CASES[case])
    folder = write(training, tmp_path)
    targets = training.experiment.data.targets
    test = open_test_part(training.experiment, tmp_path / "test", all_data=refit)
    (ref,) = test.folds
    predicted = predicted_by(training.model.weights, ref)
    truth = ref.truth_of(ref.evaluate_samples())
    shares = coverage_of(training.intervals, predicted, ref, truth)

    found = load_model(folder).predict(tmp_path / "sales.csv", all_windows=True)
    n = len(predicted)
    found = found.iloc[-2 * (n + 2) : -4]  # without the two windows that end behind the file
    points = predicted if predicted.ndim == 3 else predicted[..., 1]
    for i, target in enumerate(targets):
        np.testing.assert_allclose(found[target], points[:, :, i].ravel(), rtol=1e-4)
    for level, share in zip(LEVELS, shares, strict=True):
        inside, widths = [], []
        for i, target in enumerate(targets):
            lower, upper = (found[f"{target}_{end}_{level:g}"] for end in ("lower", "upper"))
            assert (lower < found[target]).all()
            assert (found[target] < upper).all()
            inside.append((lower <= truth[:, :, i].ravel()) & (truth[:, :, i].ravel() <= upper))
            widths.append(upper - lower)
        assert np.mean(inside) == pytest.approx(share["coverage"])
        assert np.mean(widths) == pytest.approx(share["width"], rel=1e-4)
    assert (found[f"{targets[0]}_upper_0.8"] >= found[f"{targets[0]}_upper_0.5"]).all()
    assert list(found) == load_model(folder).columns


N_TRAIN, N_VALIDATION, N_TEST = 40, 18, 14
SHOPS = ("a", "b", "c")
OF_SHOPS = {
    "id": "shop", "scale_by": "series", "features": ["sales", "price"],
    "split": {"validation": N_VALIDATION, "test": N_TEST},
}  # fmt: skip


def shops():
    """Sales of shops of different sizes, which all change more once the training part ends."""
    frames = []
    for i, shop in enumerate(SHOPS):
        rows = months(N_TRAIN + N_VALIDATION + N_TEST, seed=i)
        swing = np.where(np.arange(len(rows)) < N_TRAIN, 1, 5) * 50**i
        frames.append(rows.assign(shop=shop, sales=1000 * 50**i + rows["sales"] * swing))
    return pd.concat(frames, ignore_index=True)


def own_scales(rows, n=N_TRAIN):
    """The deviation of the first rows of each shop, by hand."""
    return {s: float(np.std(of["sales"].to_numpy()[:n])) for s, of in rows.groupby("shop")}


@pytest.mark.parametrize(("n_models", "refit"), MODELS)
def test_radii_of_scaled_series_are_those_of_calibration(n_models, refit, tmp_path):
    rows = shops()
    training = trained(tmp_path, n_models, refit, rows, OF_SHOPS)
    folder = write(training, tmp_path)
    scales = own_scales(rows)
    assert own_scales(rows, N_TRAIN + N_VALIDATION)["a"] > 2 * scales["a"]  # of a refit: another

    # The radii are the residuals of the validation part over these, ranked.
    (ref,) = training.data.folds
    predicted = predicted_by(training.weights, ref)
    n = N_VALIDATION - 1  # windows of each shop, of two months each
    truth = np.concatenate([
        np.lib.stride_tricks.sliding_window_view(
            of["sales"].to_numpy()[N_TRAIN : N_TRAIN + N_VALIDATION], 2
        )
        for _, of in rows.groupby("shop")
    ])  # fmt: skip
    assert predicted.shape == (n * len(SHOPS), 2, 1)
    by = np.repeat([scales[shop] for shop in SHOPS], n)[:, None]
    off = np.sort(np.abs(predicted[:, :, 0] - truth) / by, axis=0)
    ranks = [math.ceil(level * (len(off) + 1)) for level in LEVELS]
    radii = off[np.array(ranks) - 1]  # (levels, steps)
    record = json.loads((folder / "pipeline.json").read_text())["intervals"]
    np.testing.assert_allclose(np.array(record["radii"])[:, :, 0], radii, rtol=1e-6)
    np.testing.assert_allclose(record["scales"], [[scales[shop]] for shop in SHOPS])

    # What the folder says, and what is said of the test rows, is these times the shop's scale.
    new = rows[rows["shop"] == "b"].assign(shop="new")
    with pytest.warns(PredictionWarning, match="not trained on new"):
        found = load_model(folder).predict(pd.concat([rows, new]), all_windows=True)
    scales["new"] = own_scales(new, 6)["new"]
    for level, of_level in zip(LEVELS, radii, strict=True):
        expected = found["shop"].map(scales) * of_level[found["step"] - 1]
        for end, sign in (("upper", 1), ("lower", -1)):
            width = sign * (found[f"sales_{end}_{level:g}"] - found["sales"])
            np.testing.assert_allclose(width, expected, rtol=1e-6)

    test = open_test_part(training.experiment, tmp_path / "test", all_data=refit)
    (of_test,) = test.folds
    truth = of_test.truth_of(of_test.evaluate_samples())
    shares = coverage_of(training.intervals, truth, of_test, truth)
    widths = [2 * r.mean() * np.mean([scales[shop] for shop in SHOPS]) for r in radii]
    assert [share["width"] for share in shares] == pytest.approx(widths)
    calibration = Calibration(training.intervals, None)
    plain = Baselines(of_test, 12, None)
    drawn_of = predictions_record(test, truth, [truth], plain, None, calibration)
    drawn_scales = [scales[SHOPS[i]] for i in drawn_of["series"]]
    half = (np.array(drawn_of["upper"]) - drawn_of["lower"]) / 2
    np.testing.assert_allclose(half, radii[-1, 0] * np.array(drawn_scales), rtol=1e-5)


def test_a_folder_keeps_all_weights_and_says_which_model_it_is(tmp_path):
    training = trained(tmp_path, n_models=3)
    folder = write(training, tmp_path)
    kept = load_file(folder / "weights.safetensors")
    for i, weights in enumerate(training.model.weights):
        for name, array in weights.items():
            np.testing.assert_array_equal(kept[f"models.{i}.{name}"], array)
    assert len(kept) == 3 * len(training.model.weights[0])
    record = json.loads((folder / "pipeline.json").read_text())
    assert (record["models"], record["trained_on"]) == (3, "training and validation")
    text = (folder / "README.md").read_text()
    assert "It is the mean of 3 models, each trained again on training and validation set" in text
    assert "for 3 epochs" in text
    assert re.search(r"validation rmse\s+of 0.5, 0.5, 0.5 was scored", text)
    assert "tuner train experiment.yaml --ensemble --all-data" in text


def test_a_forecast_without_intervals_has_no_columns_of_them(tmp_path):
    folder = write(trained(tmp_path, task={"intervals": []}), tmp_path)
    assert json.loads((folder / "pipeline.json").read_text())["intervals"] is None
    assert load_model(folder).columns == ["month", "step", "sales"]


RADII = [[[1.0], [2.0]], [[3.0], [4.0]]]
GIVEN = {"levels": LEVELS, "radii": RADII}
SCALES = [[1.0], [2.0], [3.0]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of one series, and of several on their own scales."""
    one, several = (tmp_path_factory.mktemp(name) for name in ("one", "several"))
    write(trained(one, refit=False), one)
    write(trained(several, refit=False, rows=shops(), data=OF_SHOPS), several)
    return one / "model", several / "model"


def test_radii_are_added_on_the_scale_of_each_series(folders):
    for folder, rows, scales, expected in (
        (folders[0], months(), {}, [3, 4]),
        (folders[1], shops(), {"scales": SCALES}, [3, 4, 6, 8, 9, 12]),
    ):
        rewrite(folder, intervals=GIVEN | scales)
        found = load_model(folder).predict(rows)
        np.testing.assert_allclose(found["sales_upper_0.8"] - found["sales"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        "REMOVED", [0.8], {"levels": LEVELS},
        *(GIVEN | {"levels": wrong} for wrong in ([0.8, 0.5], [0.5, 1.0], 0.5, ["0.5", 0.8])),
        {"levels": [], "radii": []}, {"levels": [0.5], "radii": RADII},
        *(GIVEN | {"radii": wrong} for wrong in (
            [[1.0, 2.0], [3.0, 4.0]], [RADII[0], [[3.0], [4.0, 5.0]]], [RADII[0], [[3.0], ["4.0"]]],
            [[[-1.0], [2.0]], RADII[1]], [[[5.0], [2.0]], RADII[1]], [RADII[0], [[1e99], [4.0]]])),
        *(GIVEN | {"scales": wrong} for wrong in ([[1.0]], [])),
    ],
    ids=repr,
)  # fmt: skip
def test_intervals_that_no_model_has_are_refused(given, folders):
    rewrite(folders[0], intervals=given)
    with pytest.raises(ModelError, match="intervals: "):
        load_model(folders[0])


@pytest.mark.parametrize(
    "scales",
    [
        "REMOVED", None, 1.0, [], [1.0, 2.0, 3.0], SCALES[:2], [*SCALES, [4.0]],
        *([*SCALES[:2], wrong] for wrong in ([3.0, 4.0], ["3.0"], [True], [0.0], [-3.0], [1e99])),
    ],
    ids=repr,
)  # fmt: skip
def test_scales_that_no_model_of_several_series_has_are_refused(scales, folders):
    rewrite(folders[1], intervals=GIVEN | ({} if scales == "REMOVED" else {"scales": scales}))
    with pytest.raises(ModelError, match="intervals: "):
        load_model(folders[1])


def test_a_column_of_the_same_name_is_no_interval(tmp_path):
    rows = months().rename(columns={"price": "sales_lower_0.5"})
    folder = write(trained(tmp_path, rows=rows, data={"target": ["sales"]}), tmp_path)
    columns = load_model(folder).columns
    assert len(set(columns)) == len(columns)
