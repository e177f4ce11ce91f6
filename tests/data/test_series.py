"""Several series in one file: reading, scaling, static and known columns."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import (
    SPLIT,
    assert_check_refuses,
    assert_read_refuses,
    dated,
    days,
    read,
    text,
    written,
)

from tuner.data import Shape
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.data.preprocessing import Scaler
from tuner.errors import DataError


def test_the_shape_and_the_facts_tell_what_a_model_sees(tmp_path, experiment_on):
    experiment = experiment_on(
        text(days()), time="t", target=["y", "x"], features=["x"], calendar=["weekday"],
        lags={"y": [2]}, split=SPLIT, horizon=3, task={"quantiles": [0.1, 0.5, 0.9]},
        blocks={"objective": {"metric": "pinball"}},
    )  # fmt: skip
    dataset = check_data(experiment)
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


LONG = "t,shop,y\n" + "".join(
    f"2020-01-{day:02},{shop},{day}{shop}\n" for day in range(1, 8) for shop in (7, 3)
)


def test_series_in_long_form_are_told_apart_by_their_id(tmp_path):
    series = read(written(tmp_path, LONG), time="t", id="shop")
    assert series.names == ("7", "3")  # as they come
    assert series.bounds.tolist() == [[0, 7], [7, 14]]
    assert series.features == ["y"]  # the id is none
    assert series.frame["y"].tolist() == [d * 10 + s for s in (7, 3) for d in range(1, 8)]
    assert series.frequency == "D"
    assert series.lines.tolist() == [*range(0, 14, 2), *range(1, 14, 2)]
    assert series.place(8) == "line 5 (2020-01-02) of series '3'"
    assert_read_refuses(tmp_path / "series.csv", "may appear twice", "data.id", time="t")


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n  \n\n"])
def test_white_space_around_an_id_is_no_part_of_it(tmp_path, end):
    text = "y, shop\n1, Rome \n2,Paris  \n3,Rome\n4,Paris "
    series = read(written(tmp_path, text + end), id="shop")
    assert series.names == ("Rome", "Paris")
    assert series.frame["y"].tolist() == [1, 3, 2, 4]
    path = written(tmp_path, "shop,y\n  Rome,1\nRome\t,2\n")
    assert read(path, id="shop").names == ("Rome",)
    path = written(tmp_path, "y,shop\n1,Rome\n2,  \n3,Rome\n")
    assert_read_refuses(path, "data.id", "got none in line 3", id="shop")
    parquet = tmp_path / "series.parquet"
    pd.DataFrame({"shop": ["Rome ", " Rome"], "y": [1, 2]}).to_parquet(parquet)
    assert read(parquet, id="shop").names == ("Rome",)


def test_blanks_alone_are_missing_and_around_numbers_ignored(tmp_path):
    path = written(tmp_path, "y,x, z\n 1, 2 , 5\n3,  , 6 \n ,4,7")
    series = read(path, missing="ffill")
    assert series.features == ["y", "x", "z"]
    np.testing.assert_array_equal(series.frame, [[1, 2, 5], [3, np.nan, 6], [np.nan, 4, 7]])


def test_series_in_long_form_are_checked_each_by_itself(tmp_path):
    def refused(old, new, *parts, **keys):
        assert old in LONG
        path = written(tmp_path, LONG.replace(old, new))
        assert_read_refuses(path, *parts, **{"time": "t", "id": "shop", **keys})

    refused("2020-01-02,3", "2020-01-02,", "data.id", "'shop'", "got none in line 5", "fill it in")
    refused("2020-01-04,3", "2020-01-02,3", "must rise", "2020-01-02 in line 9 of series '3'")
    refused("2020-01-02,3", "2020-01-01,3", "twice", "line 3 and in line 5 of series '3'")
    refused("2020-01-04,3,43\n", "", "no gaps", "1 missing at frequency D", "before line 10 of")
    refused("2020-01-04,3,43", "2020-01-04,3,", "nan in line 9 (2020-01-04) of series '3'")
    refused("shop", "store", "no column 'shop'", "data.id", "choose from: t, store, y")
    hourly = "".join(f"2020-01-01 {hour:02}:30,5,1\n" for hour in range(4))
    refused("t,shop,y\n", "t,shop,y\n" + hourly, "one frequency", "h in '5' and D in '7'",
            "data.resample")  # fmt: skip
    odd = "2020-01-01 00:00,5,1\n2020-01-01 08:00,5,1\n"
    refused("t,shop,y\n", f"t,shop,y\n{odd}", "one frequency", "D in '7' and another in '5'")
    refused("2020-01-04,3", "2020-01-03 12:00,3", "evenly spaced", "line 9 (2020-01-03 12:00:00)")


def test_several_series_are_not_to_be_read_without_their_times(tmp_path):
    """Each would be cut by its own rows: one trained on what is later than another's test."""
    for broken in (
        LONG.replace("2020-01-04,3,43\n", ""),
        LONG.replace("2020-01-04,3", "2020-01-03 12:00,3"),
        LONG.replace("2020-01-04,3", "soon,3"),
        LONG + "".join(f"2020-01-01 {hour:02}:30,5,1\n" for hour in range(4)),
    ):
        path = written(tmp_path, broken)
        with pytest.raises(DataError, match=r"data\.time: .*; (write|add)") as caught:
            read(path, time="t", id="shop")
        assert "leave data.time out" not in str(caught.value)


def test_the_common_frequency_is_the_one_that_fits_every_series(tmp_path):
    days = pd.date_range("2020-01-01", periods=40, freq="D")
    rows = [f"{t},a,1\n" for t in days[::2]] + [f"{t},b,1\n" for t in days]
    path = written(tmp_path, "t,s,y\n" + "".join(rows))
    assert read(path, time="t", id="s", missing="ffill").frequency == "D"
    assert_read_refuses(path, "19 missing at frequency D", "of series 'a'", time="t", id="s")


def test_lagged_columns_are_read_and_need_not_be_features(tmp_path):
    path = written(tmp_path, "t,a,y,s\n2020,1,2,a\n2021,3,4,a\n2022,5,6,a\n")
    series = read(path, features=["y"], lags={"a": [1]})
    assert (series.features, list(series.frame)) == (["y"], ["y", "a"])
    assert_read_refuses(path, "data.lags", "no column 'aa'", "mean 'a'?", lags={"aa": [1]})
    assert_read_refuses(path, "data.lags", "'t', which is the time", time="t", lags={"t": [1]})
    assert_read_refuses(
        path, "data.lags", "'s' must hold numbers", "'a' in line 2", lags={"s": [1]}
    )


def test_what_is_missing_stays_missing_where_that_is_allowed(tmp_path):
    path = written(tmp_path, "x,y\n1,2\n,3\n4,\n")
    assert read(path, missing="ffill").frame.isna().to_numpy().sum() == 2
    path = written(tmp_path, "x,y\n1,2\n,3\n-inf,1\n")
    assert_read_refuses(path, "data.features", "-inf in line 4", "correct it", missing="ffill")


def test_resampled_times_may_repeat_but_not_fall(tmp_path):
    path = written(tmp_path, dated(["2020-01-01", "2020-01-01", "2020-01-02 07:00", "2020-03-01"]))
    assert read(path, time="t", resample="1D").frequency is None
    path = written(tmp_path, dated(["2020-01-02", "2020-01-01", "2020-01-03"]))
    assert_read_refuses(path, "times must rise", time="t", resample="1D")


def test_only_the_first_rows_of_each_series_are_copied(tmp_path):
    series = read(written(tmp_path, LONG), time="t", id="shop").until(np.array([2, 3]))
    assert series.frame["y"].tolist() == [17, 27, 13, 23, 33]
    assert series.bounds.tolist() == [[0, 2], [2, 5]]
    assert series.times_of(1)[-1] == pd.Timestamp("2020-01-03")
    assert (series.lines.tolist(), len(series.inserted)) == ([0, 2, 1, 3, 5], 5)
    assert series.rows == 14  # of the file


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


def test_the_naive_error_is_seasonal_over_training_rows(tmp_path, experiment_on):
    frame = days()
    y = frame["y"].to_numpy()[:42]
    holed = frame.assign(y=frame["y"].mask(frame.index == 10))
    both = long_form(frame, frame.assign(y=frame["y"] * 10))

    def lagged(n):
        return np.abs(y[n:] - y[:-n]).mean()

    for i, (rows, keys, expected) in enumerate(
        (
            (text(frame), {"time": "t"}, [lagged(7)]),  # days: a week
            (text(frame), {"task": {"season": 3}}, [lagged(3)]),
            (text(frame), {}, [lagged(1)]),
            (text(frame), {"task": {"season": 50}}, [lagged(1)]),
            (text(holed), {"missing": "ffill"}, [np.abs(np.diff(y))[np.r_[0:9, 11:41]].mean()]),
            (both, {"time": "t", "id": "s"}, [lagged(7), 10 * lagged(7)]),
        )
    ):
        prepared = prepare(experiment_on(rows, split=SPLIT, **keys), tmp_path / str(i))
        assert prepared.folds[0].load("naive")[:, 0] == pytest.approx(expected)


KEYS = {"time": "t", "id": "shop", "static": ["size", "type"], "categories": ["type"]}


def shops(**columns):
    frames = [
        days(60).assign(shop=shop, size=size, type=kind)
        for shop, size, kind in (("n", 10, "big"), ("s", 4, "small"), ("w", 7, "big"))
    ]
    return pd.concat(frames).reset_index(drop=True).assign(**columns)


def said_once(frame):
    """The same with empty cells behind the first row of each series."""
    later = frame.groupby("shop").cumcount() > 0
    return frame.assign(**{name: frame[name].mask(later) for name in ("size", "type")})


def fold(experiment, folder):
    (ref,) = check_data(experiment).write_test(folder).folds
    return ref


@pytest.mark.parametrize(
    "keys", [{}, {"resample": "2D", "aggregate": "sum"}, {"known_future": ["x"]}]
)
def test_what_the_first_row_says_is_repeated_for_every_step(experiment_on, tmp_path, keys):
    asked = KEYS | keys
    full = fold(experiment_on(text(shops()), **asked), tmp_path / "full")
    once = fold(experiment_on(text(said_once(shops())), **asked), tmp_path / "once")
    assert full.shape == once.shape
    np.testing.assert_array_equal(full.load("inputs"), once.load("inputs"))
    place = check_data(experiment_on(text(shops()), **asked)).facts.features.index("size")
    sizes = [set(full.load("inputs")[a:b, place].tolist()) for a, b in full.load("reach")]
    assert [len(of) for of in sizes] == [1, 1, 1]
    assert len(set.union(*sizes)) == 3


def test_sums_of_longer_steps_leave_it_as_it_is(experiment_on, tmp_path):
    plain = experiment_on(text(shops()), scale="none", **KEYS)
    summed = experiment_on(text(shops()), scale="none", resample="2D", aggregate="sum", **KEYS)
    found = []
    for name, experiment in (("plain", plain), ("summed", summed)):
        place = check_data(experiment).facts.features.index("size")
        found.append(set(fold(experiment, tmp_path / name).load("inputs")[:, place].tolist()))
    assert found == [{10.0, 4.0, 7.0}] * 2


def coming(n=6, n_rows=60, **columns):
    """Days of which the last ones have no target yet."""
    frame = days(n_rows, **columns)
    frame.loc[n_rows - n :, "y"] = np.nan
    return frame


def test_rows_behind_the_last_target_are_no_part_of_any_part(experiment_on):
    keys = {"time": "t", "known_future": ["x"], "features": ["y", "x"]}
    short = check_data(experiment_on(text(coming().iloc[:-6]), **keys))
    long = check_data(experiment_on(text(coming()), name="long.csv", **keys))
    assert long.facts.parts == short.facts.parts
    assert dict(long.facts.notes)["known ahead"] == "x; 6 rows without target, which predict reads"
    assert dict(short.facts.notes)["known ahead"] == "x"


def test_values_after_the_last_target_reach_no_array(experiment_on, tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i, frame in enumerate((coming(), coming())):
        frame.loc[54:, "x"] = rng.uniform(1, 1e9, 6) if i else np.nan
        keys = {"known_future": ["x"], "name": f"{i}.csv", "time": "t"}
        prepared = check_data(experiment_on(text(frame), horizon=3, **keys))
        made.append(prepared.write_test(tmp_path / str(i)).folds[0])
    for name in ("inputs", "targets", "truth", "known", "train", "evaluate", "reach"):
        np.testing.assert_array_equal(made[0].load(name), made[1].load(name))


def test_calendar_and_lags_of_known_columns_are_known(experiment_on, tmp_path):
    experiment = experiment_on(
        text(days()), time="t", known_future=["x"], calendar=["weekday"],
        lags={"x": [1], "y": [7]},
    )  # fmt: skip
    prepared = check_data(experiment).write(tmp_path)
    (ref,) = prepared.folds
    names = [prepared.facts.features[i] for i in ref.shape.known_columns]
    assert names == ["x", "weekday_sin", "weekday_cos", "x_lag_1"]


def test_the_calendar_is_not_known_ahead_unless_that_is_said(experiment_on, tmp_path):
    experiment = experiment_on(text(days()), time="t", calendar=["weekday"])
    (ref,) = check_data(experiment).write(tmp_path).folds
    assert ref.shape.known_columns == ()
    assert ref.shape.ahead == 0


@pytest.mark.parametrize(("after", "words"), [(0, "of the same row"), (2, "of the row 2 before")])
def test_a_known_column_that_is_the_target_in_disguise_is_noted(after, words, experiment_on):
    frame = days()
    frame["x"] = 3 * frame["y"].shift(after).bfill() - 7
    keys = {"time": "t", "known_future": ["x"], "horizon": 3}
    notes = dict(check_data(experiment_on(text(frame), **keys)).facts.notes)
    assert f"'x' tells 'y' {words} exactly" in notes["suspect"]
    frame["x"] += np.random.default_rng(0).normal(size=60)
    assert "suspect" not in dict(check_data(experiment_on(text(frame), **keys)).facts.notes)


def changed(rows, column, value, frame=None):
    frame = days() if frame is None else frame
    frame.loc[rows, column] = value
    return frame


CUT = {"time": "t", "split": SPLIT}
LONG_WINDOW = {"window": {"type": "int", "low": 1, "high": 40}}
HOLES = CUT | {"missing": "ffill", "features": ["x"], "horizon": 2}
R2 = {"blocks": {"objective": {"metric": "r2"}}}
WORDS = days(60, day=["Easter" if i == 9 else "no" for i in range(60)])
REFUSED = [
    (days(), CUT | {"horizon": 3, "window": 40}, ": task.window: ", "(window 40 + horizon 3)"),
    (days(), CUT | {"blocks": {"hyperparameters": {"window": 42}}}, ": hyperparameters.window: ",
     "(window 42 + horizon 1), got 42 of 60"),
    (days(), CUT | {"horizon": 3, "blocks": {"search_space": LONG_WINDOW}},
     ": search_space.window: ", "(window 40 + horizon 3), got 42 of 60"),
    (changed(slice(42, 51), "y", np.nan), HOLES, "data.split.validation: ",
     "no window in the validation part has 2 rows"),
    (changed(slice(52, 59), "y", np.nan), HOLES, "data.split.test: ",
     "2 known targets after them in one series"),
    (changed(slice(1, 41), "y", np.nan), HOLES, "data.split: ", "no window in the training part",
     "make the part larger"),
    (days(), R2 | {"split": SPLIT | {"validation": 1}},
     "data.split.validation: r2 needs at least 2 values, got 1; make the"),
    (days(), R2 | {"split": SPLIT | {"test": 1}}, "data.split.test: r2 needs at least 2 values"),
    (changed(75, "size", 5, shops()), KEYS, "data.static: column 'size' must be the same in all "
     "rows of a series, got 5 in line 77 (2020-01-16) of series 's' and 4 in its first row"),
    (changed(179, "type", "small", shops()), KEYS, "got 'small' in line 181", "and 'big' in its f"),
    (changed(60, "size", np.nan, shops()), KEYS, "data.static: column 'size' must hold a value in "
     "the first row of each series, got none in line 62 (2020-01-01) of series 's'; fill it in"),
    (shops(), KEYS | {"categories": []}, "data.static: column 'type' must hold numbers",
     "write data.categories: [type]"),
    (changed(20, "y", np.nan, coming()), {"time": "t", "known_future": ["x"]},
     "data.target: column 'y' must hold a finite number"),
    (WORDS, {"time": "t", "known_future": ["day"]},
     "data.known_future: column 'day' must hold numbers, got 'no'"),
    (WORDS, {"time": "t", "known_future": ["dya"]},
     "data.known_future: no column 'dya' in the file; did you mean"),
]  # fmt: skip


@pytest.mark.parametrize("row", REFUSED, ids=[row[2] for row in REFUSED])
def test_a_file_of_series_that_does_not_fit_is_refused(row, experiment_on):
    frame, keys, *parts = row
    assert_check_refuses(experiment_on(text(frame), **keys), *parts)
