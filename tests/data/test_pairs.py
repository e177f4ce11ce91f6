"""Pairs of texts: what is read, what is to be said, and what is kept apart."""

import numpy as np
import pandas as pd
import pytest

from tuner.data import PairsRef
from tuner.data.baselines import Baselines, choose
from tuner.data.metrics import score
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.experiment.metrics import METRICS


def experiment_of(frame, folder, **changes):
    frame.to_csv(folder / "pairs.csv", index=False)
    data = {"path": str(folder / "pairs.csv"), "text": "a", "target": "b"}
    data |= {"split": {"validation": 3, "test": 3}} | changes.pop("data", {})
    return Experiment.model_validate(
        {"name": "t", "data": data, "task": {"kind": "translate"}, **changes}
    )


def pairs(n=20):
    return pd.DataFrame({"a": [f"x{i}" for i in range(n)], "b": [f"{i}"[::-1] for i in range(n)]})


def test_pairs_are_written_as_documented(tmp_path):
    data = check_data(experiment_of(pairs(), tmp_path))
    prepared = data.write(tmp_path / "arrays")
    (ref,) = prepared.folds
    assert isinstance(ref, PairsRef)
    target = prepared.pipeline["target_vocabulary"]
    assert (ref.shape.classes, ref.shape.horizon) == (len(target) + 4, 2)
    assert len(ref.load("truth")) == 17  # there is no test pair

    def text(row):
        return "".join("?" if n == 1 else target[n - 2] for n in row.tolist() if n)

    for sample in [*ref.train_samples(), *ref.evaluate_samples()]:
        i = int(prepared.name_of(int(sample)))
        assert text(ref.load("truth")[sample]) in (str(i)[::-1], "?" * len(str(i)))
        assert text(ref.load("copied")[sample])[0] == "?"  # no target holds an x
    assert not set(ref.train_samples()) & set(ref.evaluate_samples())
    (test,) = open_test_part(experiment_of(pairs(), tmp_path), tmp_path / "test").folds
    assert len(test.evaluate_samples()) == 3
    assert len(test.load("truth")) == 20


def test_later_parts_change_nothing_that_is_learned(tmp_path):
    def learned(frame, name):
        prepared = prepare(experiment_of(frame, tmp_path), tmp_path / name)
        (ref,) = prepared.folds
        train = ref.train_samples()
        said = [[n for n in row if n] for row in ref.load("truth")[train].tolist()]
        return prepared.pipeline, ref.shape, said, train.tolist()

    frame = pairs()
    data = check_data(experiment_of(frame, tmp_path))
    others = np.concatenate([data.draw.validation, data.draw.test])
    changed = frame.copy()
    changed.loc[others, "b"] = "a strange and long one"
    changed.loc[others, "a"] = "another"
    assert learned(frame, "before") == learned(changed, "after")


def test_step_baselines_are_the_most_frequent_and_a_copy(tmp_path):
    words = ["yes", "no", "perhaps"] * 10
    frame = pd.DataFrame({"a": words, "b": [w if w != "perhaps" else "no" for w in words]})
    data = {"level": "word", "split": {"validation": 9, "test": 3}}
    (ref,) = prepare(experiment_of(frame, tmp_path, data=data), tmp_path / "arrays").folds
    plain = Baselines(ref, None, choose("exact_match", ref, None))
    scores, truth = plain.scores("exact_match"), ref.truth_of(ref.evaluate_samples())
    assert scores.keys() == {"most_frequent", "copy"}
    trained = ref.truth_of(ref.train_samples())[:, 0]
    most = np.bincount(trained).argmax()
    assert scores["most_frequent"] == pytest.approx((truth[:, 0] == most).mean())
    read = ref.load("copied")[ref.evaluate_samples()][:, 0]
    assert scores["copy"] == pytest.approx((read == truth[:, 0]).mean())
    assert plain.left_out == {"linear": "a linear model says no texts"}


def test_only_an_entirely_right_text_is_a_match():
    ref = PairsRef("", None)  # type: ignore[arg-type]
    truth = np.array([[2, 3, 0], [2, 3, 4], [1, 0, 0], [2, 0, 0]])
    said = np.array([[2, 3], [2, 3], [1, 0], [3, 0]])
    said[2] = [2, 0]  # what is unknown is never said
    assert score("exact_match", truth, said, ref) == 0.25
    assert METRICS["exact_match"].maximize


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"text": None, "id": "a"}}, "data.text: is required by translate"),
        ({"data": {"target": ["b", "a"]}}, "data.target: translate predicts one column"),
        ({"objective": {"metric": "accuracy"}}, "objective.metric: measures classes, .* exact_m"),
        ({"hyperparameters": {"pooling": "attention"}}, "hyperparameters.pooling: is what a text"),
        (
            {"hyperparameters": {"decoder": "recursive"}},
            "hyperparameters.decoder: translate has no",
        ),
        ({"hyperparameters": {"class_weights": "balanced"}}, "hyperparameters.class_weights"),
        ({"hyperparameters": {"loss": "mse"}}, "hyperparameters.loss: does not fit texts: write"),
        (
            {"task": {"kind": "classify"}, "hyperparameters": {"beam": 3}},
            "hyperparameters.beam: is",
        ),
    ],
)
def test_what_does_not_go_with_texts_is_refused(tmp_path, changes, told):
    changed = dict(changes)
    with pytest.raises(ValueError, match=told):
        experiment_of(pairs(), tmp_path, **changed) if "task" not in changed else (
            Experiment.model_validate(
                {"name": "t", "data": {"path": "p.csv", "text": "a", "target": "b"}, **changed}
            )
        )


def test_a_pair_without_a_target_is_refused(tmp_path):
    frame = pairs()
    frame.loc[3, "b"] = None
    with pytest.raises(DataError, match="data.target: column 'b' must hold a value .* in line 5"):
        check_data(experiment_of(frame, tmp_path))
