"""A search of a table that a program holds: kept beside the journal, resumed, predicted with."""

import math
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner import Experiment, InputError, RunError, load_study, search
from tuner.studies import keep_frame
from tuner.tables.table import RawTable

VALUES = {
    "name": "waves",
    "data": {"time": "time", "target": "y", "split": {"validation": 15, "test": 12}},
    "task": {"window": 6, "horizon": 3},
    "search_space": {"hidden_size": {"type": "int", "low": 2, "high": 8}},
    "budget": {"trials": 2, "epochs": 3},
    "finalists": {"top": 1, "repeats": 2},
}
QUIET = {"tracking": False, "progress": False, "workers": 2}


def waves(n_rows=90):
    t = np.arange(n_rows)
    y = 10 + 3 * np.sin(t / 2) + np.random.default_rng(0).normal(0, 0.3, n_rows)
    return pd.DataFrame({"y": y}, index=pd.date_range("2020-01-01", periods=n_rows, freq="D"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def study(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return search(VALUES, data=waves(), **QUIET)


def test_a_table_is_kept_once_and_its_search_resumes(study, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (kept,) = (folder / "studies/data").iterdir()
    assert kept.name.startswith("waves-")
    again = search(VALUES, data=waves(), **QUIET)
    assert [*(folder / "studies/data").iterdir()] == [kept]
    pd.testing.assert_frame_equal(again.trials, study.trials)
    more = search(VALUES, data=waves(), trials=3, **QUIET)
    assert len(more.trials) == 3
    pd.testing.assert_frame_equal(more.trials[:2], study.trials)
    exported = Experiment.load(more.export(folder / "best.yaml"))
    assert Path(exported.data.path) == kept


def test_other_values_are_another_study(study, folder, monkeypatch):
    monkeypatch.chdir(folder)
    changed = waves()
    changed.iloc[3, 0] += 1e-9
    with pytest.raises(InputError, match="waves-tpe-0"):
        search(VALUES, data=changed, **QUIET)


def test_the_model_is_at_hand_and_forecasts_a_table(study):
    found = study.predict(waves())
    assert list(found) == ["time", "step", "y"]
    assert found.time[0] == waves().index[-1] + pd.Timedelta(days=1)
    assert found.step.tolist() == [1, 2, 3]
    assert study.model is study.model
    again = pickle.loads(pickle.dumps(study.model)).predict(waves())
    pd.testing.assert_frame_equal(again, found)


def test_predictions_match_the_test_rows_and_recorded_score(study):
    found = study.predictions
    assert list(found) == ["time", "step", "y_true", "y"]
    assert len(found) == (12 - 3 + 1) * 3
    assert found.time.min() == waves().index[-12]
    truth = waves().y.loc[found.time].to_numpy()
    np.testing.assert_array_equal(found.y_true, truth)
    rmse = math.sqrt(((found.y - found.y_true) ** 2).mean())
    assert rmse == pytest.approx(study.test["refit"]["scores"][0], rel=1e-5)
    # and it is what `predict` says of the rows before, which is no test of the scaling alone
    last = study.predict(waves()[:-3])
    np.testing.assert_allclose(found.y[-3:], last.y, rtol=1e-5)


def test_predictions_of_a_closed_test_part_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    values = VALUES | {"budget": {"trials": 1, "epochs": 1}, "finalists": {"top": 0}}
    closed = search(values, data=waves(), study="closed", open_test=False, **QUIET)
    with pytest.raises(
        RunError, match="'closed' was not evaluated on the test set yet; .*open_test"
    ):
        _ = closed.predictions


def test_a_loaded_study_trains_its_model_on_request(study, folder, monkeypatch):
    monkeypatch.chdir(folder)
    read = load_study(study.name)
    pd.testing.assert_frame_equal(read.predict(waves()), study.predict(waves()))


def test_classes_of_sequences_are_predicted_beside_the_true_ones(folder, monkeypatch):
    monkeypatch.chdir(folder)
    draw = np.random.default_rng(1)
    of = np.repeat(np.arange(40), 5)
    x = draw.normal(size=200) + 3 * (of % 2)
    table = pd.DataFrame({"of": of, "x": x, "kind": np.where(of % 2, "up", "down")})
    table = table.sample(frac=1, random_state=0)  # the rows of a sequence stand anywhere
    values = {
        "name": "kinds",
        "data": {"id": "of", "target": "kind", "split": {"validation": 8, "test": 8}},
        "task": {"kind": "classify"},
        "budget": {"trials": 1, "epochs": 2},
        "finalists": {"top": 0},
    }
    found = search(values, data=table, **QUIET)
    rows = found.predictions
    assert len(rows) == 8
    assert list(rows) == ["of", "kind_true", "kind", "p_down", "p_up"]
    assert (rows.kind_true == np.where(rows["of"].astype(int) % 2, "up", "down")).all()
    accuracy = (rows.kind_true == rows.kind).mean()
    assert accuracy == pytest.approx(found.test["scores"][0])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": {"windw": 3}}, r"experiment: task\.windw: .*did you mean 'window'"),
        ({"data": {"target": "y", "time": "time"}}, r"experiment: data\.path: "),
        ({"budget": {"trials": 0}}, r"experiment: budget\.trials: .*got 0"),
        ({"search_space": "no_such.yaml"}, r"no_such\.yaml: no such search space"),
    ],
)
def test_what_is_wrong_in_a_dict_is_one_line_with_its_key(change, says):
    with pytest.raises(InputError, match=says) as refused:
        Experiment.from_dict(VALUES | {"data": {"path": "waves.csv", "target": "y"}} | change)
    assert "\n" not in str(refused.value)


def test_a_dict_is_not_changed_and_means_what_its_file_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = VALUES | {"data": {**VALUES["data"], "path": "waves.csv"}}
    before = repr(values)
    made = Experiment.from_dict(values)
    assert repr(values) == before
    (tmp_path / "waves.yaml").write_text(made.to_yaml())
    assert Experiment.load("waves.yaml") == made
    assert made.data.path == str(tmp_path / "waves.csv")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([1, 2, 3], "must be a pandas DataFrame, got a list"),
        (pd.DataFrame({"y": []}), "no rows"),
        (pd.DataFrame({"y": [1, "a"]}), "column 'y' must hold one kind of values"),
        (pd.DataFrame([[1, 2]], columns=["y", "y"]), "got 'y' twice"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "several levels"),
    ],
)
def test_a_table_no_file_can_hold_is_refused(table, says, tmp_path):
    with pytest.raises(InputError, match=says) as refused:
        keep_frame(table, tmp_path / "data", "t")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data").exists() or not [*(tmp_path / "data").iterdir()]


def test_an_experiment_of_another_kind_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="must be a path, a dict or an Experiment, got a int"):
        search(3)
    assert not [*tmp_path.iterdir()]


@settings(max_examples=examples(40))
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    kind=st.sampled_from(["plain", "named", "times", "periods", "category", "text"]),
)
def test_a_table_comes_back_as_it_was(values, kind, tmp_path_factory):
    frame = pd.DataFrame({"y": values})
    if kind == "named":
        frame.index = pd.Index(range(5, 5 + len(frame)), name="week")
    if kind == "times":
        frame.index = pd.date_range("2020-01-01", periods=len(frame))
    if kind == "periods":
        frame.index = pd.period_range("2020-01", periods=len(frame), freq="M")
    if kind == "category":
        frame["of"] = pd.Categorical(["a"] * len(frame))
    if kind == "text":
        frame["of"] = "01"
    folder = tmp_path_factory.mktemp("kept")
    path = keep_frame(frame, folder, "t")
    assert keep_frame(frame.copy(), folder, "t") == path
    read, held = RawTable.read(path).frame, RawTable.from_frame(frame).frame
    assert list(read) == list(held)
    np.testing.assert_array_equal(read["y"], frame["y"])
    if kind in ("times", "periods"):
        assert next(iter(held)) == "time"
        assert pd.DatetimeIndex(read["time"])[0].year == 2020
    if len({*values}) > 1:
        assert keep_frame(frame.iloc[::-1], folder, "t") != path or values == values[::-1]
