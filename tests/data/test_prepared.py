"""Prepared data."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from helpers.refusals import assert_refused

from tuner.data import SeriesRef, Shape
from tuner.data.prepared import open_test_part, prepare
from tuner.experiment import Experiment

AIR_PASSENGERS = Path(__file__).parents[2] / "experiments/data/air_passengers.csv"
N, TRAIN, TEST = 40, 25, 34  # rows; where training ends; where the test begins
SPLIT = {"validation": TEST - TRAIN, "test": N - TEST}
ARRAYS = ("inputs", "targets", "truth")
FILES = (*ARRAYS, "known", "train", "evaluate", "reach", "naive")


def values(seed=0):
    return np.random.default_rng(seed).uniform(1.0, 100.0, (N, 3))  # x, y, z


def table(rows):
    return "x,y,z\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist())


def the_ref(prepared):
    (ref,) = prepared.folds
    return ref


def arrays(ref):
    inputs, targets, truth = (ref.load(name) for name in ARRAYS)
    return inputs, targets, truth


def part(ref, name):
    """The rows of a part of the one series."""
    ((start, end),) = ref.load(name).tolist()
    return [start, end]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_air_passengers_are_prepared_as_documented(tmp_path):
    data = {"path": str(AIR_PASSENGERS), "time": "month", "target": "passengers",
            "transform": "log"}  # fmt: skip
    experiment = Experiment.model_validate({"name": "air", "data": data})
    prepared = prepare(experiment, tmp_path / "arrays")
    facts, ref = prepared.facts, the_ref(prepared)
    assert [(p.name, p.count, p.unit) for p in facts.parts] == [
        ("training", 93, "row"), ("validation", 29, "row"), ("test", 22, "row"),
    ]  # fmt: skip
    assert (facts.parts[1].first, facts.test.last) == ("1956-10-01", "1960-12-01")
    assert (facts.rows, facts.frequency, facts.season) == (144, "MS", 12)
    assert (facts.features, facts.targets) == (("passengers",), ("passengers",))
    assert [part(ref, name) for name in ("train", "evaluate", "reach")] == [
        [0, 93], [93, 122], [0, 122],
    ]  # fmt: skip
    inputs, targets, truth = arrays(ref)
    assert inputs.shape == targets.shape == truth.shape == (122, 1)
    assert (inputs.dtype, targets.dtype, truth.dtype) == (np.float32, np.float32, np.float64)
    assert len(ref.train_samples()) == 93 - 12
    assert len(ref.evaluate_samples()) == 29
    test = the_ref(open_test_part(experiment, tmp_path / "test", sha256=facts.sha256))
    assert part(test, "evaluate") == [122, 144]
    assert len(test.evaluate_samples()) == 22
    assert test.load("truth")[[0, -1], 0].tolist() == [112.0, 432.0]


def test_the_test_rows_are_in_no_file_and_no_result(tmp_path, experiment_on):
    sentinel = 123456.789
    rows = values()
    rows[TEST:] = sentinel
    experiment = experiment_on(table(rows), split=SPLIT, scale="none")
    prepared = prepare(experiment, tmp_path / "arrays")
    for array in arrays(the_ref(prepared)):
        assert len(array) == TEST
        assert not np.isclose(array, sentinel).any()
    for file in contents(tmp_path / "arrays").values():
        assert np.float64(sentinel).tobytes() not in file
        assert np.float32(sentinel).tobytes() not in file
    assert repr(sentinel) not in repr(prepared)
    opened = the_ref(open_test_part(experiment, tmp_path / "test"))
    assert np.isclose(opened.load("truth")[TEST:], sentinel).all()


def test_the_test_part_is_opened_on_the_scalers_of_the_search(tmp_path, experiment_on):
    rows = values()
    rows[TEST:] *= 1e4
    experiment = experiment_on(table(rows), target=["z", "x"], split=SPLIT, transform="log")
    prepared = prepare(experiment, tmp_path / "arrays")
    ref = the_ref(prepared)
    opened = the_ref(open_test_part(experiment, tmp_path / "test", sha256=prepared.facts.sha256))
    assert part(opened, "evaluate") == [TEST, N]
    assert part(opened, "train") == part(ref, "train")
    assert dataclasses.replace(opened, folder=ref.folder) == ref
    for a, b in zip(arrays(ref), arrays(opened), strict=True):
        np.testing.assert_array_equal(a, b[:TEST])
        assert len(b) == N
    for folder in ("arrays", "test"):
        assert set(contents(tmp_path / folder)) == {f"fold0/{name}.npy" for name in FILES}


def test_a_file_that_changed_since_the_search_is_refused(tmp_path, experiment_on):
    experiment = experiment_on(table(values()), split=SPLIT)
    prepared = prepare(experiment, tmp_path / "arrays")
    path = prepared.facts.path
    path.write_text(table(values(1)))
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    old = prepared.facts.sha256
    assert_refused(
        lambda: open_test_part(experiment, tmp_path / "test", sha256=old),
        "data.path: ", old[:12], new[:12], "bring the file", where=path,
    )  # fmt: skip
    assert not (tmp_path / "test").exists()


def test_training_columns_are_standardized_like_the_target(tmp_path, experiment_on):
    experiment = experiment_on(table(values()), split=SPLIT, transform="log")
    ref = the_ref(prepare(experiment, tmp_path / "arrays"))
    inputs, targets, truth = arrays(ref)
    np.testing.assert_allclose(inputs[:TRAIN].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:TRAIN].std(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(inputs[:, 1], targets[:, 0])  # x, y, z
    logs = np.log(values()[:TRAIN, 1])
    assert ref.offset == (pytest.approx(logs.mean()),)
    assert ref.scale == (pytest.approx(logs.std()),)
    raw = values()[:TEST, 0]
    expected = (raw - raw[:TRAIN].mean()) / raw[:TRAIN].std()  # a feature that is no target
    np.testing.assert_allclose(inputs[:, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(truth[:, 0], values()[:TEST, 1])


def test_no_window_contains_the_row_that_has_no_difference(tmp_path, experiment_on):
    experiment = experiment_on(table(values()), window=3, split=SPLIT, transform="difference")
    ref = the_ref(prepare(experiment, tmp_path / "arrays"))
    assert [part(ref, name) for name in ("train", "reach")] == [[1, TRAIN], [1, TEST]]
    inputs = ref.load("inputs")
    assert np.isnan(inputs[0, 1])
    assert np.isfinite(inputs[1:]).all()
    assert ref.train_samples()[0] - 3 == 1


def test_the_arrays_are_mapped_and_cannot_be_written_to(tmp_path, experiment_on):
    ref = the_ref(prepare(experiment_on(table(values()), split=SPLIT), tmp_path / "arrays"))
    for array in arrays(ref):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_an_absurd_forecast_becomes_infinite_and_raises_nothing(tmp_path, experiment_on):
    experiment = experiment_on(table(values()), split=SPLIT, transform="log")
    ref = the_ref(prepare(experiment, tmp_path / "arrays"))
    assert np.isinf(ref.to_units(np.full((1, 1, 1), 1e30, np.float32), np.array([5]))).all()


def test_rows_that_windows_forecast_are_counted_once(tmp_path):
    ranges = {"evaluate": [[4, 10], [22, 23]], "reach": [[0, 10], [10, 30]]}
    arrays = {"known": np.ones(30, bool)} | ranges
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", np.asarray(array))
    for horizon, count in ((1, 7), (3, 6), (6, 6), (7, 0)):
        ref = SeriesRef(str(tmp_path), Shape("forecast", 1, horizon=horizon))
        assert ref.count_of(ref.evaluate_samples()) == count
