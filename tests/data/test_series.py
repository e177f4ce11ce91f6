import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import SPLIT, days, text
from helpers.series_files import assert_check_refuses as assert_refused

from tuner.data import Shape
from tuner.data.prepared import Dataset, check_data, open_test_part, prepare
from tuner.errors import DataError


def test_the_shape_and_the_facts_tell_what_a_model_sees(tmp_path, experiment_on):
    experiment = experiment_on(
        text(days()), time="t", target=["y", "x"], features=["x"], calendar=["weekday"],
        lags={"y": [2]}, split=SPLIT, horizon=3, task={"quantiles": [0.1, 0.5, 0.9]},
        blocks={"objective": {"metric": "pinball"}},
    )  # fmt: skip
    dataset = check_data(experiment)
    assert isinstance(dataset, Dataset)
    prepared = dataset.write(tmp_path / "arrays")
    names = ("x", "weekday_sin", "weekday_cos", "y_lag_2")
    assert dataset.facts == prepared.facts
    assert (prepared.facts.features, prepared.facts.targets) == (names, ("y", "x"))
    assert (prepared.facts.frequency, prepared.facts.season) == ("D", 7)
    (ref,) = prepared.folds
    assert ref.shape == Shape(
        "forecast", features=4, horizon=3, targets=2, quantiles=(0.1, 0.5, 0.9),
        window=ref.window, target_columns=(-1, 0), lag_columns=((3, 0),),
    )  # fmt: skip
    assert ref.with_window(5).shape.window == 5
    # A target's earlier rows are scaled as the target is.
    inputs, targets = ref.load("inputs"), ref.load("targets")
    np.testing.assert_array_equal(inputs[2:, 3], targets[:-2, 0])
    assert ref.load("inputs").shape == (52, 4)
    assert ref.load("reach").tolist() == [[2, 52]]  # the first rows have no lag


def test_rolling_origins_are_written_in_a_folder_each(tmp_path, experiment_on):
    split = {"validation": {"folds": 3, "size": 6}, "test": 8}
    experiment = experiment_on(text(days()), time="t", split=split, horizon=3)
    prepared = prepare(experiment, tmp_path / "arrays")
    assert [Path(ref.folder).name for ref in prepared.folds] == ["fold0", "fold1", "fold2"]
    assert [(p.name, p.count, p.first, p.last) for p in prepared.facts.parts] == [
        ("training", 44, "2020-01-01", "2020-02-13"),
        ("validation 1", 6, "2020-02-04", "2020-02-09"),
        ("validation 2", 6, "2020-02-10", "2020-02-15"),
        ("validation 3", 6, "2020-02-16", "2020-02-21"),
        ("test", 8, "2020-02-22", "2020-02-29"),
    ]
    for k, ref in enumerate(prepared.folds):
        assert ref.load("train").tolist() == [[0, 32 + 6 * k]]  # a gap of the horizon less one
        assert ref.load("evaluate").tolist() == [[34 + 6 * k, 40 + 6 * k]]
        assert len(ref.load("truth")) == 40 + 6 * k  # nothing of the next fold's
        assert len(ref.evaluate_samples()) == 4
    scales = {ref.scale for ref in prepared.folds}
    assert len(scales) == 3
    opened = open_test_part(experiment, tmp_path / "test")
    (test,) = opened.folds
    assert test.scale == prepared.folds[-1].scale
    assert test.load("train").tolist() == prepared.folds[-1].load("train").tolist()
    assert test.load("evaluate").tolist() == [[52, 60]]
    assert opened.pipeline == prepared.pipeline
    assert prepared.pipeline["outputs"]["scale"] == list(prepared.folds[-1].scale)


@pytest.mark.parametrize(
    ("blocks", "window", "longest"),
    [
        ({}, 6, 6),
        ({"hyperparameters": {"window": 9}}, 6, 9),
        ({"hyperparameters": {"window": 4}}, 6, 6),  # of a search over windows up to 6, perhaps
        ({"search_space": {"window": {"type": "int", "low": 2, "high": 11}}}, 6, 11),
        ({"search_space": {"window": {"type": "categorical", "choices": [5, 12, 8]}}}, 6, 12),
    ],
)
def test_the_longest_window_is_the_longest_that_a_trial_may_read(
    tmp_path, experiment_on, blocks, window, longest
):
    experiment = experiment_on(text(days()), time="t", window=6, split=SPLIT, blocks=blocks)
    (ref,) = prepare(experiment, tmp_path / "arrays").folds
    assert (ref.window, ref.longest_window) == (window, longest)


def test_a_training_part_below_the_longest_window_is_refused(experiment_on):
    def refused(key, **keys):
        experiment = experiment_on(text(days()), time="t", split=SPLIT, horizon=3, **keys)
        assert_refused(experiment, f": {key}: ", "(window 40 + horizon 3), got 42 of 60")

    refused("task.window", window=40)
    refused("hyperparameters.window", blocks={"hyperparameters": {"window": 40}})
    space = {"window": {"type": "int", "low": 1, "high": 40}}
    refused("search_space.window", blocks={"search_space": space})


def long_form(*frames):
    named = [frame.assign(s=f"s{i}") for i, frame in enumerate(frames)]
    return text(pd.concat(named).sort_values("t", kind="stable"))


def test_a_series_may_lack_a_part(tmp_path, experiment_on):
    whole = days()
    experiment = experiment_on(
        long_form(whole, whole[:30], whole[44:], whole[55:]), time="t", id="s", split=SPLIT
    )
    prepared = prepare(experiment, tmp_path / "arrays")
    assert [(p.name, p.count) for p in prepared.facts.parts] == [
        ("training", 72), ("validation", 18), ("test", 21),
    ]  # fmt: skip
    assert prepared.facts.notes == (
        ("series", "4"),
        ("scored", "16 of 18 rows in validation; 19 of 21 rows in test"),
        ("without windows", "s2, s3 in training; s1, s3 in validation; s1 in test"),
    )
    (ref,) = prepared.folds
    assert ref.load("train").tolist() == [[0, 42], [52, 82], [82, 82], [90, 90]]
    assert ref.load("evaluate").tolist() == [[42, 52], [82, 82], [82, 90], [90, 90]]
    assert len(ref.load("truth")) == 90
    assert ref.evaluate_samples().tolist() == [*range(42, 52), *range(84, 90)]
    (test,) = open_test_part(experiment, tmp_path / "test").folds
    assert test.load("evaluate").tolist() == [[52, 60], [90, 90], [98, 106], [106, 111]]
    assert len(test.evaluate_samples()) == 8 + 8 + 3
    np.testing.assert_array_equal(test.load("truth")[106:111, 0], whole["y"][55:])


def test_one_scaler_serves_all_series(tmp_path, experiment_on):
    low, high = days(), days()
    high["y"] += 1000
    experiment = experiment_on(long_form(low, high), time="t", id="s", split=SPLIT)
    (ref,) = prepare(experiment, tmp_path / "arrays").folds
    rows = np.concatenate([low["y"][:42], high["y"][:42]])
    assert (ref.offset, ref.scale) == (
        (pytest.approx(rows.mean()),), (pytest.approx(rows.std()),),
    )  # fmt: skip


def test_rows_that_were_filled_in_are_read_and_are_no_targets(tmp_path, experiment_on):
    frame = days()
    frame.loc[[20, 47], "y"] = np.nan
    frame.loc[25, "x"] = np.nan
    experiment = experiment_on(
        text(frame.drop(30)), time="t", missing="ffill", split=SPLIT, horizon=2
    )
    prepared = prepare(experiment, tmp_path / "arrays")
    (ref,) = prepared.folds
    assert np.flatnonzero(~ref.load("known")).tolist() == [20, 30, 47]
    assert ref.train_samples().tolist() == [
        t for t in range(2, 41) if not {t, t + 1} & {20, 30, 47}
    ]  # fmt: skip
    assert ref.evaluate_samples().tolist() == [42, 43, 44, 45, 48, 49, 50]
    truth = ref.load("truth")[:, 0]
    assert truth[[20, 30]].tolist() == truth[[19, 29]].tolist()
    assert prepared.facts.notes == (
        ("filled in", "3 values and 1 row, ffill"),
        ("scored", "9 of 10 rows in validation"),
    )
    assert prepared.facts.rows == 59


def test_empty_rows_are_not_counted_as_inserted_rows(experiment_on):
    frame = days()
    frame.loc[[20, 47, 59], ["y", "x"]] = np.nan
    experiment = experiment_on(text(frame.drop([30, 31])), time="t", missing="ffill", split=SPLIT)
    notes = check_data(experiment).facts.notes
    assert notes[:2] == (
        ("without target", "the last row, neither trained on nor scored"),
        ("filled in", "6 values and 2 rows, ffill"),
    )
    resampled = experiment_on(
        text(frame.drop([30, 31])), time="t", missing="ffill", resample="2D", split=SPLIT
    )
    notes = dict(check_data(resampled).facts.notes)
    assert notes["filled in"] == "6 values and 1 row, ffill"


def test_final_rows_without_a_target_are_noted_and_not_scored(experiment_on):
    frame = days()
    frame.loc[55:, "y"] = np.nan
    experiment = experiment_on(text(frame), time="t", missing="ffill", split=SPLIT)
    notes = dict(check_data(experiment).facts.notes)
    assert notes["without target"] == "the last 5 rows, neither trained on nor scored"
    assert notes["scored"] == "3 of 8 rows in test"


def test_a_feature_that_is_constant_in_the_training_part_is_told(experiment_on):
    frame = days().assign(x=[5.0] * 50 + [6.0] * 10)
    notes = check_data(experiment_on(text(frame), time="t", split=SPLIT)).facts.notes
    told = "'x' is 5 in all of the training part, and 6 later: what that means was never learned"
    assert notes == (("constant", f"{told}; leave it out of data.features"),)


def test_a_target_that_is_constant_in_the_training_part_is_told(experiment_on):
    def notes(**changes):
        frame = days()
        frame.loc[:41, "y"] = 5.0
        for row, value in changes.items():
            frame.loc[int(row[1:]), "y"] = value
        experiment = experiment_on(text(frame), time="t", missing="ffill", split=SPLIT)
        return tuple(note for note in check_data(experiment).facts.notes if note[0] == "constant")

    told = (("constant", "'y' is 5 in all of the training part: nothing can be learned"),)
    assert notes() == told  # though the other parts differ
    assert notes(_7=np.nan) == told
    assert notes(_7=5.1) == ()


def test_leading_rows_are_not_read(tmp_path, experiment_on):
    frame = days()
    frame.loc[:4, "x"] = np.nan
    experiment = experiment_on(text(frame), time="t", missing="interpolate", split=SPLIT)
    prepared = prepare(experiment, tmp_path / "arrays")
    (ref,) = prepared.folds
    assert (ref.load("reach").tolist(), ref.load("train").tolist()) == ([[5, 52]], [[5, 42]])
    assert ref.train_samples()[0] == 7
    assert prepared.facts.parts[0].count == 37
    assert prepared.facts.notes == (("filled in", "0 values and 0 rows, interpolate"),)


def test_resampled_rows_are_what_is_split(tmp_path, experiment_on):
    frame = days(120)[1:]
    experiment = experiment_on(text(frame), time="t", resample="2D", aggregate="sum", split=SPLIT)
    prepared = prepare(experiment, tmp_path / "arrays")
    assert prepared.facts.rows == 119
    assert sum(p.count for p in prepared.facts.parts) == 59  # without the first day
    assert (prepared.facts.frequency, prepared.facts.notes) == (
        "2D", (("resampled", "59 rows of 2D, sum"),),
    )  # fmt: skip
    (ref,) = prepared.folds
    assert ref.load("truth")[0, 0] == pytest.approx(frame["y"][1:3].sum())


def test_parts_in_which_no_target_is_known_are_refused(experiment_on):
    def refused(rows, *parts):
        frame = days()
        frame.loc[rows, "y"] = np.nan
        experiment = experiment_on(
            text(frame), time="t", missing="ffill", split=SPLIT, features=["x"], horizon=2
        )
        assert_refused(experiment, *parts)

    refused(slice(42, 51), "data.split.validation: ", "no window in the validation part has 2 rows")
    refused(slice(52, 59), "data.split.test: ", "2 known targets after them in one series")
    refused(slice(1, 41), "data.split: ", "no window in the training part", "make the part larger")


def test_r2_of_one_value_is_refused(experiment_on):
    r2 = {"objective": {"metric": "r2"}}
    for name in ("validation", "test"):
        experiment = experiment_on(text(days()), split=SPLIT | {name: 1}, blocks=r2)
        assert_refused(
            experiment, f"data.split.{name}: r2 needs at least 2 values, got 1; make the"
        )


def test_data_problems_are_refused_before_anything_is_written(tmp_path, experiment_on):
    frame = days()
    frame.loc[57, "y"] = -1.0  # in the test part
    experiment = experiment_on(text(frame), time="t", transform="log", split=SPLIT)
    with pytest.raises(DataError, match="line 59"):
        prepare(experiment, tmp_path / "arrays")
    assert not (tmp_path / "arrays").exists()


def test_the_pipeline_holds_what_a_forecast_of_new_rows_needs(tmp_path, experiment_on):
    experiment = experiment_on(
        text(days(120)), time="t", features=["y"], missing="ffill", resample="1D", horizon=2,
        aggregate="last", calendar=["weekday"], lags={"x": [1]}, transform="log", scale="minmax",
        split=SPLIT, task={"season": 5, "quantiles": [0.5]},
    )  # fmt: skip
    pipeline = prepare(experiment, tmp_path / "arrays").pipeline
    assert json.loads(json.dumps(pipeline)) == pipeline
    for side in ("inputs", "outputs"):
        scaler = pipeline.pop(side)
        assert len(scaler["names"]) == len(scaler["offset"]) == len(scaler["scale"])
    assert pipeline == {
        "task": "forecast", "time": "t", "id": None, "missing": "ffill", "resample": "1D",
        "aggregate": "last", "calendar": ["weekday"], "lags": {"x": [1]}, "transform": "log",
        "decompose": "none", "scale": "minmax", "scale_by": "all", "lambdas": [], "series": None,
        "features": ["y"], "targets": ["y"], "window": 2, "horizon": 2,
        "quantiles": [0.5], "frequency": "D", "day_first": None, "holidays": None,
        "season": 5, "wide": None, "read": {},
    }  # fmt: skip


def test_the_facts_hold_no_values(experiment_on):
    facts = check_data(experiment_on(text(days()), time="t", split=SPLIT)).facts
    for field in dataclasses.fields(facts):
        assert not isinstance(getattr(facts, field.name), np.ndarray | pd.DataFrame)
