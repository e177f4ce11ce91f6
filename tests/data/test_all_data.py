"""Training on all data before the test part: what is trained on, and what it is scaled by."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers.examples import examples
from helpers.series_cases import ROWS, Arrays, cases
from helpers.series_files import SPLIT, days, text
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.errors import DataError
from tuner.experiment import Experiment

slowly = settings(max_examples=examples(25), suppress_health_check=[*HealthCheck])


def prepared(case):
    """All data and the opened test part; what was written of the first, and its pipeline."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = case.experiment(folder)
        try:
            opened = open_test_part(experiment, folder / "test")
        except DataError:
            assume(False)
        every = prepare(experiment, folder / "all", all_data=True)
        (ref,) = every.folds
        written = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("all/*/*")}
        return Arrays.of(ref), Arrays.of(opened.folds[0]), written, every.pipeline


def test_a_power_is_fitted_on_training_rows_even_with_all_data(tmp_path, experiment_on):
    rows = "".join(f"{v!r}\n" for v in np.exp(np.random.default_rng(0).normal(size=90)).tolist())
    experiment = experiment_on("y\n" + rows, transform="box_cox", split=SPLIT)
    (alone,) = prepare(experiment, tmp_path / "part").folds
    (every,) = prepare(experiment, tmp_path / "all", all_data=True).folds
    assert alone.transform == every.transform
    assert alone.transform.lambdas
    assert alone.offset != every.offset


@slowly
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_all_rows_before_the_test_set_are_trained_on(case, seed):
    every, test, written, pipeline = prepared(case)
    begins = test.load("evaluate")[:, 0] - test.starts
    assert (every.load("train")[:, 1] - every.starts == begins).all()
    assert (every.load("reach")[:, 1] - every.starts == begins).all()
    readable = np.minimum(test.load("reach")[:, 0] - test.starts, begins)
    assert (every.load("train")[:, 0] - every.starts == readable).all()
    for name in ROWS:
        assert len(every.load(name)) == every.load("reach")[-1, 1]
    series, row = case.coordinates()
    other = case.changed(np.asarray(row >= begins[series]), seed)
    again, _, rewritten, same = prepared(other)
    assert rewritten == written
    assert (again.said, same) == (every.said, pipeline)


@slowly
@given(case=cases(scale="standard"))
def test_scalers_are_refitted_on_training_and_validation_rows(case):
    every, _, _, _ = prepared(case)
    for name in ("inputs", "targets"):
        values = every.scaled(name)
        varies = np.ptp(values, axis=0) > 0
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(values.std(axis=0)[varies], 1, atol=1e-4)


@pytest.mark.parametrize("gap", ["auto", 5])
def test_the_last_rolling_origin_is_trained_on_without_a_gap(tmp_path, experiment_on, gap):
    split = {"validation": {"folds": 3, "size": 8, "gap": gap}, "test": 6}
    experiment = experiment_on(text(days(60)), horizon=3, split=split)
    (ref,) = prepare(experiment, tmp_path / "all", all_data=True).folds
    assert ref.load("train").tolist() == [[0, 54]]
    assert ref.train_samples().tolist() == list(range(2, 52))  # windows of 2; 3 rows ahead
    assert len(prepare(experiment, tmp_path / "folds").folds) == 3


def test_a_series_that_begins_in_validation_trains_once_readable(tmp_path, experiment_on):
    late = days(60).iloc[44:].assign(id="late")  # the validation part begins at row 42
    frame = text(days(60).assign(id="early")) + late.to_csv(index=False, header=False)
    experiment = experiment_on(frame, time="t", id="id", transform="difference", split=SPLIT)
    usual = prepare(experiment, tmp_path / "usual")
    every = prepare(experiment, tmp_path / "all", all_data=True)
    assert usual.folds[0].load("train").tolist() == [[1, 42], [52, 52]]
    assert every.folds[0].load("train").tolist() == [[1, 52], [53, 60]]
    assert np.isfinite(every.pipeline["inputs"]["offset"]).all()


def test_the_parts_are_told_as_they_are_trained_on(experiment_on):
    experiment = experiment_on(text(days(60)), split=SPLIT)
    assert [p.count for p in check_data(experiment).facts.parts] == [42, 10, 8]
    assert [p.count for p in check_data(experiment, all_data=True).facts.parts] == [52, 10, 8]


WORDS = [f"word{i}" for i in range(12)]


@pytest.fixture
def sentences(tmp_path):
    """Each sentence has a word that no other one has."""
    rows = [f"{i},{word},{tag}" for i, own in enumerate(WORDS) for word, tag in ((own, "p"), ("a", "q"))]  # fmt: skip # noqa: E501
    (tmp_path / "s.csv").write_text("\n".join(["id,word,tag", *rows]) + "\n")
    data = {"path": str(tmp_path / "s.csv"), "id": "id", "tokens": "word", "target": "tag"}
    split = {"validation": 3, "test": 2}
    raw = {"name": "s", "data": data | {"split": split}, "task": {"kind": "label"}}
    return Experiment.model_validate(raw)


def test_all_data_trains_on_both_parts_and_their_vocabulary(tmp_path, sentences):
    usual = prepare(sentences, tmp_path / "usual")
    every = prepare(sentences, tmp_path / "all", all_data=True)
    trained, ref = usual.folds[0], every.folds[0]
    assert (len(trained.train_samples()), len(ref.train_samples())) == (7, 10)
    assert ref.train_samples().tolist() == list(range(10))  # all that are not of the test part
    assert ref.evaluate_samples().tolist() == trained.evaluate_samples().tolist()
    validated = {WORDS[int(every.name_of(i))] for i in ref.evaluate_samples().tolist()}
    known, before = set(every.pipeline["vocabulary"]), set(usual.pipeline["vocabulary"])
    assert (len(validated), len(known)) == (3, 1 + 10)
    assert known - before == validated
    assert ref.shape.vocabulary == trained.shape.vocabulary + 3
    assert 1 not in ref.load("tokens")  # none is unknown


def test_numbers_of_sequences_are_scaled_by_both_parts(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{i},{rng.normal()},{i}" for i in range(20) for _ in range(3)]
    (tmp_path / "n.csv").write_text("\n".join(["id,x,y", *rows]) + "\n")
    data = {"path": str(tmp_path / "n.csv"), "id": "id", "target": "y"}
    split = {"validation": 6, "test": 4}
    raw = {"name": "n", "data": data | {"split": split}, "task": {"kind": "regress"}}
    every = prepare(Experiment.model_validate(raw), tmp_path / "all", all_data=True)
    (ref,) = every.folds
    assert len(ref.train_samples()) == 16
    for name in ("inputs", "targets"):
        assert ref.load(name).mean() == pytest.approx(0, abs=1e-6)
        assert ref.load(name).std() == pytest.approx(1, abs=1e-6)
