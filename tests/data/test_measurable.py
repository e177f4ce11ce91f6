"""A metric without a sense for the data is refused before anything is trained."""

import pytest

from tuner.data.prepared import check_data
from tuner.errors import DataError
from tuner.experiment import Experiment

STEADY = [float(i % 5 + 1) for i in range(60)]


def check(folder, metric, values):
    path = folder / "s.csv"
    path.write_text("y\n" + "".join(f"{v}\n" for v in values))
    block = {"path": str(path), "target": "y", "split": {"validation": 10, "test": 10}}
    raw = {"name": "s", "data": block, "objective": {"metric": metric}, "task": {"window": 3}}
    check_data(Experiment.model_validate(raw))


@pytest.mark.parametrize(
    ("metric", "where", "value", "text"),
    [
        ("mape", slice(45, 46), 0.0, "mape divides by the values, got 0 for 'y' in the validation"),
        ("mape", slice(59, 60), 0.0, "mape divides by the values, got 0 for 'y' in the test part"),
        ("r2", slice(40, 50), 7.0, "r2 compares with the variance, got a constant for 'y' in the"),
        ("r2", slice(50, 60), 7.0, "in the test part; write rmse or mae"),
        ("mase", slice(0, 40), 7.0, "mase divides by the error of the naive forecast"),
    ],
)
def test_a_metric_that_has_no_score_of_the_values_is_refused(tmp_path, metric, where, value, text):
    values = list(STEADY)
    check(tmp_path, metric, values)
    values[where] = [value] * len(values[where])
    with pytest.raises(DataError, match=": objective.metric: ") as refused:
        check(tmp_path, metric, values)
    assert text in str(refused.value)
    check(tmp_path, "rmse", values)


def test_zeros_that_are_only_trained_on_do_not_matter(tmp_path):
    check(tmp_path, "mape", [0.0, *STEADY[1:]])


def notes(folder, k):
    path = folder / "k.csv"
    rows = [f"{y},{value}" for y, value in zip(STEADY, k, strict=True)]
    path.write_text("\n".join(["y,k", *rows]) + "\n")
    block = {"path": str(path), "target": "y", "split": {"validation": 10, "test": 10}}
    facts = check_data(Experiment.model_validate({"name": "s", "data": block})).facts
    return [text for what, text in facts.notes if what == "constant"]


def test_a_feature_that_moves_only_after_training_gets_a_note(tmp_path):
    told = "'k' is 5 in all of the training part"
    remedy = "; leave it out of data.features"
    assert notes(tmp_path, [5.0] * 60) == [f"{told}: it tells a model nothing{remedy}"]
    moved = [5.0] * 45 + [7.0] * 15
    learned = ", and 7 later: what that means was never learned"
    assert notes(tmp_path, moved) == [f"{told}{learned}{remedy}"]
    in_test = [5.0] * 50 + [7.0] * 10  # the test part is not looked at
    assert notes(tmp_path, in_test) == notes(tmp_path, [5.0] * 60)
    assert notes(tmp_path, [4.0, *[5.0] * 59]) == []
