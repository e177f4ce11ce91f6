"""The class of a series' coming row: what is read, and what is kept apart."""

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.baselines import Baselines, choose
from tuner.data.prepared import check_data, open_test_part
from tuner.errors import DataError
from tuner.experiment import Experiment


def days(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "day": pd.date_range("2024-01-01", periods=n).astype(str),
            "move": rng.choice(["up", "down"], n),
            "price": rng.normal(size=n),
            "note": "x",
        }
    )


def experiment_of(frame, folder, **changes):
    frame.to_csv(folder / "days.csv", index=False)
    data = {"path": str(folder / "days.csv"), "time": "day", "target": "move"}
    data |= changes.pop("data", {})
    task = {"kind": "classify", "window": 3} | changes.pop("task", {})
    return Experiment.model_validate({"name": "t", "data": data, "task": task, **changes})


def ref_of(prepared):
    (ref,) = prepared.folds
    return ref


def test_windows_hold_numbers_and_classes_before_the_target(tmp_path):
    frame = days()
    data = check_data(experiment_of(frame, tmp_path, data={"scale": "none"}))
    assert data.facts.classes == ("down", "up")
    assert data.facts.features == ("price", "move=down", "move=up")
    ref = ref_of(data.write(tmp_path / "arrays"))
    up = (frame["move"] == "up").to_numpy()
    inputs = ref.load("inputs")
    assert inputs[:, 0] == pytest.approx(frame["price"].to_numpy()[: len(inputs)])
    assert inputs[:, 1].tolist() == (~up).astype(float)[: len(inputs)].tolist()
    assert inputs[:, 2].tolist() == up.astype(float)[: len(inputs)].tolist()
    samples = ref.train_samples()
    assert samples.tolist() == list(range(3, 26))  # 40 rows: 26, 8 and 6
    assert ref.truth_of(samples).tolist() == up[3:26].astype(int).tolist()
    assert ref.evaluate_samples().tolist() == list(range(26, 34))
    assert len(inputs) == 34  # there is no test row


def test_parts_share_no_target_and_training_precedes_scoring(tmp_path):
    frames = [days(60, seed).assign(store=name) for seed, name in enumerate(("a", "b"))]
    frame = pd.concat([frames[0], frames[1].iloc[13:]])
    experiment = experiment_of(frame, tmp_path, data={"id": "store"})
    search = ref_of(check_data(experiment).write(tmp_path / "search"))
    test = ref_of(open_test_part(experiment, tmp_path / "test"))
    name_of = check_data(experiment).write_test(tmp_path / "again").name_of
    at = {}
    for ref, part in ((search, "train"), (search, "validation"), (test, "test")):
        samples = ref.train_samples() if part == "train" else ref.evaluate_samples()
        named = name_of if part == "test" else check_data(experiment).write(
            tmp_path / part).name_of  # fmt: skip
        at[part] = {named(int(sample)) for sample in samples}
    assert not at["train"] & at["validation"]
    assert not (at["train"] | at["validation"]) & at["test"]
    dates = {part: {name.split()[1] for name in names} for part, names in at.items()}
    assert max(dates["train"]) < min(dates["validation"])
    assert max(dates["validation"]) < min(dates["test"])
    assert {name.split()[0] for name in at["train"]} == {"a", "b"}


@settings(max_examples=examples(25))
@given(flips=st.sets(st.integers(0, 39)), seed=st.integers(0, 3))
def test_nothing_that_is_learned_moves_with_later_rows(tmp_path_factory, flips, seed):
    folder = tmp_path_factory.mktemp("days")

    def learned(frame, name):
        prepared = check_data(experiment_of(frame, folder)).write(folder / name)
        ref = ref_of(prepared)
        end = int(ref.load("train")[0, 1])
        rows = [ref.load(of)[:end].tolist() for of in ("inputs", "truth")]
        return prepared.pipeline, ref.train_samples().tolist(), rows, len(ref.load("inputs"))

    before = days(seed=seed)
    after = before.copy()
    for row in flips:
        if row >= 26:
            after.loc[row, "price"] += 1e6
            after.loc[row, "move"] = {"up": "down", "down": "up"}[after.loc[row, "move"]]
    assert learned(before, "before") == learned(after, "after")


@pytest.mark.parametrize(
    ("features", "read"),
    [
        (["price"], ["price"]),
        (["move"], ["move=down", "move=up"]),
        (["move", "price"], ["move=down", "move=up", "price"]),
    ],
)
def test_earlier_classes_are_read_if_the_target_is_a_feature(tmp_path, features, read):
    data = check_data(experiment_of(days(), tmp_path, data={"features": features}))
    assert list(data.facts.features) == read


def test_a_class_may_be_a_number_and_is_no_number_to_read(tmp_path):
    frame = days().assign(move=lambda f: np.where(f["move"] == "up", 1, -1))
    data = check_data(experiment_of(frame, tmp_path))
    assert data.facts.classes == ("-1", "1")
    assert data.facts.features == ("price", "move=-1", "move=1")


def test_a_row_without_a_class_is_read_but_not_scored(tmp_path):
    frame = days()
    frame.loc[[10, 30], "move"] = None
    with pytest.raises(DataError, match="column 'move' .* must hold|column 'move' must hold"):
        check_data(experiment_of(frame, tmp_path))
    experiment = experiment_of(frame, tmp_path, data={"missing": "ffill"})
    ref = ref_of(check_data(experiment).write(tmp_path / "arrays"))
    assert 10 not in ref.train_samples()
    assert 11 in ref.train_samples()
    assert 30 not in ref.evaluate_samples()
    assert ref.load("inputs")[10, 1:].tolist() == ref.load("inputs")[9, 1:].tolist()


def test_class_baselines_are_majority_last_and_linear(tmp_path):
    rng = np.random.default_rng(1)
    price = rng.normal(size=400)
    move = np.where(np.roll(price, 2) > 0, "up", "down")  # said by a row two before
    frame = pd.DataFrame({"price": price, "move": move})
    experiment = experiment_of(frame, tmp_path, data={"time": None})
    ref = ref_of(check_data(experiment).write(tmp_path / "arrays"))
    plain = Baselines(ref, None, choose("accuracy", ref, None))
    samples = ref.evaluate_samples()
    found = plain.predict(samples)
    assert found.keys() == {"class_frequencies", "last_class", "linear"}
    up = (move == "up").astype(int)
    assert found["last_class"].argmax(axis=1).tolist() == up[samples - 1].tolist()
    shares = np.bincount(up[ref.train_samples()]) / len(ref.train_samples())
    assert found["class_frequencies"] == pytest.approx(np.tile(shares, (len(samples), 1)))
    scores = plain.scores("accuracy")
    assert scores["linear"] > 0.9
    assert max(scores["last_class"], scores["class_frequencies"]) < 0.7


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"move": "up"}, "data.target: column 'move' must hold two classes or more, got only 'up'"),
        ({"move": 1.5}, "data.target: .* got 1.5 in line 2; write a class there, or write task"),
        ({"move": ["up"] * 34 + ["down"] * 6}, "data.target: every class must occur in what is"),
    ],
)
def test_a_column_that_is_no_class_to_learn_is_refused(tmp_path, changed, told):
    with pytest.raises(DataError, match=told):
        check_data(experiment_of(days().assign(**changed), tmp_path))


def test_auroc_of_a_part_with_one_class_is_refused(tmp_path):
    frame = days()
    frame.loc[26:33, "move"] = "up"
    experiment = experiment_of(frame, tmp_path, objective={"metric": "auroc"})
    with pytest.raises(DataError, match=r"data.split.validation: auroc needs at least 2 classes"):
        check_data(experiment)


def test_the_window_survives_writing_and_reading(tmp_path):
    experiment = experiment_of(days(), tmp_path, task={"window": 12})  # as is the default
    again = Experiment.model_validate(experiment.to_dict())
    assert again.task.of_coming_class
    assert again.to_dict() == experiment.to_dict()
    assert "horizon" not in again.to_dict()["task"]
