"""What columns are divided by, and what errors are."""

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import SPLIT, days, text
from helpers.series_files import assert_check_refuses as assert_refused

from tuner.data.prepared import check_data, prepare
from tuner.data.preprocessing import Scaler

SCALES = ("standard", "minmax", "none")


@pytest.mark.parametrize("kind", SCALES)
def test_constant_columns_are_kept_finite(kind):
    rows = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    scaler = Scaler.fit(kind, rows)
    assert scaler.scale[0] == 1.0
    back = scaler.transform(rows) * scaler.scale + scaler.offset
    np.testing.assert_allclose(back, rows, rtol=1e-6)
    if kind == "minmax":
        assert [scaler.transform(rows).min(), scaler.transform(rows).max()] == [0.0, 1.0]
    if kind == "none":
        np.testing.assert_array_equal(scaler.transform(rows), rows.astype(np.float32))


def test_what_is_far_beyond_the_training_rows_stays_finite():
    scaler = Scaler.fit("standard", np.array([[1e-20], [2e-20]]))
    assert np.isfinite(scaler.transform(np.array([[1e30], [-1e30], [1.5e-20]]))).all()


def long_form(*frames):
    named = [frame.assign(s=f"s{i}") for i, frame in enumerate(frames)]
    return text(pd.concat(named).sort_values("t", kind="stable"))


def test_the_pipeline_scales_as_the_arrays_are_scaled(tmp_path, experiment_on):
    frame = days()
    experiment = experiment_on(text(frame), target=["y", "x"], lags={"x": [1]}, split=SPLIT)
    prepared = prepare(experiment, tmp_path / "arrays")
    (ref,) = prepared.folds
    inputs, outputs = prepared.pipeline["inputs"], prepared.pipeline["outputs"]
    assert inputs["names"] == list(prepared.facts.features) == ["y", "x", "x_lag_1"]
    scaler = Scaler(np.array(inputs["offset"][:2]), np.array(inputs["scale"][:2]))
    expected = scaler.transform(frame[["y", "x"]].to_numpy()[:52])
    np.testing.assert_allclose(ref.load("inputs")[:, :2], expected, rtol=1e-5, atol=1e-6)
    assert (tuple(outputs["offset"]), tuple(outputs["scale"])) == (ref.offset, ref.scale)


def naive(prepared, series=0):
    return float(prepared.folds[0].load("naive")[series, 0])


def test_the_naive_error_is_seasonal_over_training_rows(tmp_path, experiment_on):
    frame = days()
    y = frame["y"].to_numpy()[:42]
    keys = {"split": SPLIT}
    found = naive(prepare(experiment_on(text(frame), time="t", **keys), tmp_path / "a"))
    assert found == pytest.approx(np.abs(y[7:] - y[:-7]).mean())  # days: a week
    found = naive(prepare(experiment_on(text(frame), task={"season": 3}, **keys), tmp_path / "b"))
    assert found == pytest.approx(np.abs(y[3:] - y[:-3]).mean())
    found = naive(prepare(experiment_on(text(frame), **keys), tmp_path / "c"))
    assert found == pytest.approx(np.abs(np.diff(y)).mean())
    found = naive(prepare(experiment_on(text(frame), task={"season": 50}, **keys), tmp_path / "d"))
    assert found == pytest.approx(np.abs(np.diff(y)).mean())
    holed = frame.copy()
    holed.loc[10, "y"] = np.nan
    found = naive(prepare(experiment_on(text(holed), missing="ffill", **keys), tmp_path / "e"))
    assert found == pytest.approx(np.abs(np.diff(y))[np.r_[0:9, 11:41]].mean())
    both = long_form(frame, frame.assign(y=frame["y"] * 10))
    prepared = prepare(experiment_on(both, time="t", id="s", **keys), tmp_path / "f")
    week = np.abs(y[7:] - y[:-7]).mean()
    assert [naive(prepared, i) for i in (0, 1)] == pytest.approx([week, 10 * week])


def test_mase_of_a_series_that_repeats_itself_is_refused(experiment_on):
    frame = days(y=np.tile(np.arange(7.0), 9)[:60])
    mase = {"objective": {"metric": "mase"}}
    experiment = experiment_on(text(frame), time="t", split=SPLIT, blocks=mase)
    assert_refused(experiment, "objective.metric: ", "got 0 for 'y'", "write rmse or mae")
    check_data(experiment_on(text(frame), time="t", split=SPLIT))
    check_data(experiment_on(text(frame), split=SPLIT, blocks=mase))  # without a season it varies
