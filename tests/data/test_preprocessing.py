"""Transforms, scales and preparations that are searched."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuner.data import SeriesRef
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.data.preprocessing import Transform
from tuner.data.reference import hold_arrays, read_arrays, to_units
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.pipeline_steps import parse_transform

ONE = np.array([[0, 400]])


def values(n_rows, n_targets, seed):
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(3, 1, (n_rows, n_targets)))


steps = st.lists(
    st.one_of(st.just("difference"), st.integers(2, 9).map(lambda n: {"seasonal_difference": n})),
    max_size=3,
)
compositions = st.tuples(st.sampled_from([[], ["log"], ["box_cox"]]), steps).map(
    lambda parts: parse_transform([*parts[0], *parts[1]])
)


@settings(max_examples=examples(150))
@given(
    transform=compositions,
    lengths=st.lists(st.integers(40, 70), min_size=1, max_size=3),
    horizon=st.integers(1, 30),
    n_targets=st.integers(1, 3),
    n_quantiles=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_transformed_comes_back(transform, lengths, horizon, n_targets, n_quantiles, seed):
    truth = values(sum(lengths), n_targets, seed)
    ends = np.cumsum(lengths)
    bounds = np.column_stack([ends - lengths, ends])
    of = Transform.of(transform).fitted(truth)
    done = of.forward(truth, bounds)
    lost = of.lost_rows
    rows = np.concatenate([np.arange(a + lost, b) for a, b in bounds])
    assert np.isfinite(done[rows]).all()
    assert np.isnan(np.delete(done, rows, axis=0)).all()

    samples = np.concatenate([np.arange(a + lost, b - horizon + 1) for a, b in bounds])
    if not len(samples):
        return
    ahead = samples[:, None] + np.arange(horizon)
    outputs, expected = done[ahead], truth[ahead]
    if n_quantiles:
        outputs, expected = (
            np.repeat(array[..., None], n_quantiles, axis=-1) for array in (outputs, expected)
        )
    history = truth[samples[:, None] + np.arange(-lost, 0)]
    found = of.inverse(outputs, history)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    scaled = to_units((outputs - 2.0) / 3.0, (2.0,) * n_targets, (3.0,) * n_targets,
                      transform=of, history=history)  # fmt: skip
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    of_samples = np.full((len(samples), n_targets), 2.0), np.full((len(samples), n_targets), 3.0)
    own = to_units((outputs - 2.0) / 3.0, *of_samples, transform=of, history=history)
    np.testing.assert_array_equal(own, scaled)


@settings(max_examples=examples(60))
@given(transform=compositions, at=st.integers(1, 79), seed=st.integers(0, 2**32 - 1))
def test_no_row_follows_from_later_ones_or_from_another_series(transform, at, seed):
    truth = values(80, 2, seed)
    other = truth.copy()
    other[at:] = values(80 - at, 2, seed + 1)
    bounds = np.array([[0, 33], [33, 80]])
    of = Transform.of(transform).fitted(truth[:5])
    before, after = of.forward(truth, bounds), of.forward(other, bounds)
    np.testing.assert_array_equal(before[:at], after[:at])
    alone = of.forward(truth[33:], np.array([[0, 47]]))
    np.testing.assert_array_equal(before[33:], alone)


@pytest.mark.parametrize("name", ["log", "box_cox"])
@given(
    pair=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    power=st.sampled_from([-1.0, -0.3, 0.0, 1e-9, 0.5, 2.0]),
)
def test_a_level_and_its_inverse_rise(name, pair, power):
    of = Transform(name, lambdas=(power,) * (name == "box_cox"))
    low, high = sorted(pair)
    values = of.from_level(np.array([[[low]], [[high]]]))
    assert not np.isnan(values).any()
    assert (values >= 0).all()
    assert values[0] <= values[1]
    levels = of.to_level(np.exp([[low], [high]]))
    assert levels[0] <= levels[1]


def test_a_power_is_that_of_box_and_cox():
    truth = values(400, 2, 0)
    of = Transform.of("box_cox").fitted(truth)
    for column, power, of_column in zip(truth.T, of.lambdas, of.forward(truth, ONE).T, strict=True):
        expected, fitted = stats.boxcox(column)
        assert power == pytest.approx(fitted, abs=1e-5)
        np.testing.assert_allclose(of_column, expected, rtol=1e-3)
        np.testing.assert_allclose(of_column, ((column**power) - 1) / power, rtol=1e-6)


@pytest.mark.parametrize("column", [[5.0] * 9, [5.0, 5.0, 7.0], [3.0, 3.0 + 1e-15, 3.0]])
def test_too_few_values_leave_the_shape(column):
    assert Transform.of("box_cox").fitted(np.array(column)[:, None]).lambdas == (1.0,)


@pytest.mark.parametrize("column", [[1e-30, 1.0, 1e29], [1e9 + n for n in range(9)], [1, 2, 1e29]])
def test_a_power_is_within_bounds_and_undone_whatever_the_values(column):
    truth = np.array(column)[:, None]
    of = Transform.of("box_cox").fitted(truth)
    assert -1 <= of.lambdas[0] <= 2
    found = of.from_level(of.to_level(truth))
    np.testing.assert_allclose(found, truth, rtol=1e-6)


def test_a_difference_sums_from_the_last_value():
    rng = np.random.default_rng(0)
    outputs, last = rng.normal(size=(50, 7, 2)), rng.normal(size=(50, 1, 2))
    found = Transform.of("difference").inverse(outputs, last)
    np.testing.assert_array_equal(found, last + outputs.cumsum(axis=1))


def test_a_season_longer_than_the_horizon_reads_one_before():
    history = np.arange(24.0).reshape(1, 12, 2)
    found = Transform.of({"seasonal_difference": 12}).inverse(np.zeros((1, 5, 2)), history)
    np.testing.assert_array_equal(found, history[:, :5])
    longer = Transform.of({"seasonal_difference": 12}).inverse(np.ones((1, 14, 2)), history)
    np.testing.assert_array_equal(longer[:, 12:], history[:, :2] + 2)


@pytest.mark.parametrize(
    ("written", "shortest"),
    [
        ([], "none"), (["none"], "none"), (["log"], "log"), ("log", "log"),
        ([{"seasonal_difference": 7}], {"seasonal_difference": 7}),
        (["log", "none", "difference"], ["log", "difference"]),
        (["difference", "difference"], ["difference", "difference"]),
    ],
)  # fmt: skip
def test_a_transform_has_one_shortest_form(written, shortest):
    assert parse_transform(written) == shortest


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("sqrt", "got 'sqrt'; choose from: none, log, "),
        (["log", "box_cox"], "got log and box_cox; keep one"),
        (["log", "log"], "got log and log; keep one"),
        (["difference", "log"], "got it after difference; write it first"),
        ([{"seasonal_difference": 3}, "box_cox"], "got it after seasonal_difference; write it"),
        ("seasonal_difference", "got none; write {seasonal_difference: 12}"),
        (
            {"seasonal_difference": 1},
            "from 2 to 100000, got 1; write {seasonal_difference: 12}, or",
        ),
        ({"seasonal_difference": True}, "got True"),
        ({"seasonal_difference": "12"}, "got '12'"),
        ({"lag": 12}, "got lag; write {seasonal_difference: 12}"),
        ({}, "got nothing; write"),
        (None, "got None"),
        (["difference"] * 9, "at most 8 steps, got 9; leave some out"),
    ],
)
def test_what_is_no_transform_is_refused(written, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        parse_transform(written)


SPACE = {
    "transform": ["none", "log", ["box_cox", {"seasonal_difference": 7}, "difference"]],
    "scale": ["standard", "none"],
    "calendar": [[], ["weekday"]],
    "lags": [{}, {"x": [3], "y": [5]}],
}
TRIALS = [
    {},
    {"transform": "log", "scale": "none"},
    {"transform": "[box_cox, {seasonal_difference: 7}, difference]", "lags": "{x: [3], y: [5]}"},
    {"lags": "{x: [3], y: [5]}", "calendar": "[weekday]"},
]


def panel(seed=0):
    """Three series by day, of which the last begins shortly before the validation part."""
    rng = np.random.default_rng(seed)
    frames = []
    for i, begin in enumerate((0, 30, 93)):
        n = 150 - begin
        frame = pd.DataFrame(rng.uniform(1, 9, (n, 2)) * 10**i, columns=["y", "x"])
        frame.insert(0, "s", f"s{i}")
        frame.insert(0, "t", pd.date_range("2024-01-01", periods=150)[begin:])
        frame.loc[frame.index[:2] if i == 1 else [], "x"] = np.nan
        frames.append(frame)
    return pd.concat(frames)


def on(frame, folder, **keys):
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "panel.csv", index=False)
    space = {n: {"type": "categorical", "choices": c} for n, c in keys.pop("space", SPACE).items()}
    data = {
        "path": str(folder / "panel.csv"), "time": "t", "id": "s", "target": "y",
        "missing": "ffill", "features": ["y"], "scale_by": "series",
        "split": {"validation": 25, "test": 20},
    } | keys.pop("data", {})  # fmt: skip
    return Experiment.model_validate(
        {
            "name": "p", "data": data, "task": {"window": 4, "horizon": 3},
            "search_space": space | {"window": {"type": "int", "low": 2, "high": 6}}, **keys,
        }
    )  # fmt: skip


def refs_of(data):
    return [ref for ref in data.folds if isinstance(ref, SeriesRef)]


@pytest.mark.parametrize("validation", [25, {"folds": 3, "size": 9}])
def test_all_are_scored_in_the_data_s_unit_on_the_same_rows(tmp_path, validation):
    experiment = on(panel(), tmp_path, data={"split": {"validation": validation, "test": 20}})
    searched = prepare(experiment, tmp_path / "search")
    opened = open_test_part(experiment, tmp_path / "test")
    for data in (searched, opened):
        for k, own in enumerate(refs_of(data)):
            scored = own.evaluate_samples()
            assert len(scored) > 10
            assert {0, 1, 2} == set(own.series_of(scored).tolist()) or data is searched
            for params in TRIALS:
                ref = refs_of(data.of(params))[k]
                for window in (2, 6):
                    of = ref.with_window(window)
                    np.testing.assert_array_equal(of.evaluate_samples(), scored)
                    trained = of.train_samples()
                    assert len(trained)
                    read = np.concatenate([trained, scored])[:, None] + np.arange(-window, 3)
                    assert np.isfinite(of.load("inputs")[read]).all()
                    assert np.isfinite(of.load("targets")[read[:, window:]]).all()
                np.testing.assert_array_equal(ref.truth_of(scored), own.truth_of(scored))
                np.testing.assert_array_equal(ref.naive_errors(scored), own.naive_errors(scored))
                targets = ref.load("targets")[scored[:, None] + np.arange(3)]
                np.testing.assert_allclose(
                    ref.to_units(targets, scored), ref.truth_of(scored), rtol=2e-4
                )


def test_each_is_made_when_it_is_asked_for_and_once(tmp_path):
    data = prepare(on(panel(), tmp_path), tmp_path / "search")
    assert [p.name for p in (tmp_path / "search").iterdir()] == ["fold0"]
    made = [data.of(params) for params in TRIALS]
    assert [p.name for p in sorted((tmp_path / "search").iterdir())] == [
        "fold0", "preparation1", "preparation2", "preparation3",
    ]  # fmt: skip
    assert len({m.folds[0].folder for m in made}) == len(TRIALS)
    assert made[0].folds == data.folds
    for params, of in zip(TRIALS, made, strict=True):
        assert data.of({**params, "hidden_size": 3}) is of
        assert of.of(params) is of
        assert len(of.pipeline["inputs"]["names"]) == of.folds[0].shape.features
        assert of.facts.features == tuple(of.pipeline["inputs"]["names"])
    assert made[3].facts.features == ("y", "weekday_sin", "weekday_cos", "x_lag_3", "y_lag_5")


def test_a_fixed_preparation_is_that_of_the_search(tmp_path):
    searched = prepare(on(panel(), tmp_path), tmp_path / "search")
    recorded = {
        "study": "s", "seed": 1, "score": 1.0, "metric": "rmse", "rows": 9, "versions": {},
        "data_sha256": "0", "command": "c",
        "preparations": {n: [str(c) for c in SPACE[n]] for n in ("transform", "lags")},
    }  # fmt: skip
    experiment = on(panel(), tmp_path)
    for i, params in enumerate(TRIALS):
        data = experiment.prepared_as(params).data.model_dump(exclude_unset=True)
        fixed = on(panel(), tmp_path, space={}, data=data, recorded=recorded)
        alone, of = prepare(fixed, tmp_path / f"alone{i}"), searched.of(params)
        assert alone.pipeline == of.pipeline
        for one, other in zip(refs_of(alone), refs_of(of), strict=True):
            assert dataclasses.replace(one, folder="") == dataclasses.replace(other, folder="")
            arrays, others = read_arrays(one.folder), read_arrays(other.folder)
            assert arrays.keys() == others.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(array, others[name], name)


def test_no_preparation_knows_what_the_test_part_holds(tmp_path):
    before, other = panel(), panel()
    later = other["t"] >= pd.Timestamp("2024-05-10")
    assert 0 < later.sum() == 3 * 20
    other.loc[later, ["y", "x"]] *= 7.5
    written = []
    for name, frame in (("before", before), ("after", other)):
        experiment = on(frame, tmp_path / name)
        data = prepare(experiment, tmp_path / name / "search")
        said = [(data.of(p).pipeline, dataclasses.replace(data.of(p).folds[0], folder=""))
                for p in TRIALS]  # fmt: skip
        files = {str(p.relative_to(tmp_path / name)): p.read_bytes()
                 for p in tmp_path.glob(f"{name}/search/**/*.npy")}  # fmt: skip
        written.append((said, files))
    assert written[0] == written[1]
    assert len(written[0][1]) == 10 * len(TRIALS)


def test_a_remote_worker_holds_the_arrays_of_its_job(tmp_path):
    data = prepare(on(panel(), tmp_path), tmp_path / "search")
    try:
        for params in TRIALS:
            (ref,) = refs_of(data.of(params))
            held = dataclasses.replace(ref, folder=f"/nowhere/{ref.folder}")
            hold_arrays({held.folder: read_arrays(ref.folder)})
            samples = held.evaluate_samples()
            np.testing.assert_array_equal(samples, ref.evaluate_samples())
            outputs = np.ones((len(samples), 3, 1))
            np.testing.assert_array_equal(
                held.to_units(outputs, samples), ref.to_units(outputs, samples)
            )
    finally:
        hold_arrays({})


def test_each_series_is_scaled_by_its_own_training_part(tmp_path):
    frame = panel()
    frame = frame[(frame["s"] != "s2") | (frame["t"] > "2024-04-25")]
    frame["flag"] = (frame["s"] == "s1").astype(float)
    experiment = on(frame, tmp_path, space={}, data={"features": ["y", "flag"]})
    data = prepare(experiment, tmp_path / "search")
    (ref,) = refs_of(data)
    for i, (begin, end) in enumerate(ref.load("train")):
        values = ref.load("truth")[begin:end, 0]
        if i == 2:  # it begins after the training part
            assert begin == end
            assert ref.load("offsets")[i, 0] == ref.offset[0]
            continue
        assert ref.load("offsets")[i, 0] == pytest.approx(values.mean())
        assert ref.load("scales")[i, 0] == pytest.approx(values.std())
        scaled = ref.load("inputs")[begin:end]
        assert scaled[:, 0].mean() == pytest.approx(0, abs=1e-6)
        assert scaled[:, 0].std() == pytest.approx(1, abs=1e-6)
    flags = {float(ref.load("inputs")[first, 1]) for first, _ in ref.load("reach")}
    assert len(flags) == 2  # what is the same in a whole series still tells series apart


@pytest.mark.parametrize(
    ("change", "space", "text"),
    [
        (
            lambda f: f.assign(y=f["y"].where(f["t"] != "2024-05-29", -1.0)), {},
            r"search_space.transform: log needs values above 0, got -1.0 in column 'y', "
            r"line 151 \(2024-05-29\) of series 's0'; leave the choice log out",
        ),
        (
            lambda f: f, {"transform": ["none", {"seasonal_difference": 150}]},
            r"search_space.transform: no series reaches back so far, got 150 rows of differences "
            r"and at most 150 rows; leave the choice {seasonal_difference: 150} out",
        ),
        (
            lambda f: f, {"lags": [{}, {"y": [150]}]},
            r"search_space.lags: no series reaches back so far, got 150 for 'y' and at most 150 "
            r"rows; leave the choice {y: \[150\]} out",
        ),
        (lambda f: f, {"lags": [{}, {"z": [1]}]}, r"data.lags: no column 'z' in the file"),
        (
            lambda f: f, {"calendar": [[], ["hour"]]},
            r"search_space.calendar: the hour is the same in every row at frequency D, which "
            r"tells a model nothing, got 'hour'; leave the choice \[hour\] out",
        ),
        (
            lambda f: f, {"transform": ["none", {"seasonal_difference": 99}]},
            r"search_space.window: the training part needs 9 rows \(window 6 \+ horizon 3\), got "
            r"1 of 150 \(the first 57 have no difference, lag or known value\); make",
        ),
    ],
)  # fmt: skip
def test_a_choice_that_the_data_does_not_bear_is_refused(tmp_path, change, space, text):
    experiment = on(change(panel()), tmp_path, space=SPACE | space)
    with pytest.raises(DataError, match=text):
        check_data(experiment)


@pytest.mark.parametrize("transform", ["box_cox", ["log", "difference"]])
def test_values_without_power_or_logarithm_are_refused(tmp_path, experiment_on, transform):
    for row in (0, 25, 39):
        rows = "".join(f"{0.0 if i == row else 1.0 + i}\n" for i in range(40))
        name = transform if isinstance(transform, str) else "log"
        with pytest.raises(
            DataError, match=f"data.transform: {name} needs values above 0, got 0"
        ) as e:
            check_data(experiment_on("y\n" + rows, transform=transform))
        assert f"line {row + 2}; write transform: none" in str(e.value)


def test_a_scale_is_searched_for_sequences_too(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "x": rng.uniform(1, 9, 120)})
    frame["kind"] = np.where(frame["s"] % 2, "a", "b")
    frame.to_csv(tmp_path / "s.csv", index=False)
    experiment = Experiment.model_validate(
        {
            "name": "s", "task": {"kind": "classify"},
            "data": {"path": str(tmp_path / "s.csv"), "id": "s", "target": "kind"},
            "search_space": {"scale": {"type": "categorical", "choices": ["none", "minmax"]}},
        }
    )  # fmt: skip
    data = prepare(experiment, tmp_path / "search")
    for scale in ("none", "minmax"):
        of = data.of({"scale": scale})
        assert of.pipeline["scale"] == scale
        rows = of.folds[0].load("inputs")
        assert (rows.max() <= 1.5) == (scale == "minmax")
        np.testing.assert_array_equal(
            of.folds[0].evaluate_samples(), data.folds[0].evaluate_samples()
        )
