"""The record of an evaluation on the test set: the scores, and the predictions that they are of."""

import json

import numpy as np
import pytest
from helpers.result_records import make_experiment, make_study

from tuner.coordination.finalists import find_winner
from tuner.executors.base import Executor, Finished
from tuner.jobs import Outcome, OutcomeState, TrainJob
from tuner.journal.records import TestScore
from tuner.report.predictions import predicted_classes, predicted_values
from tuner.results.summary import summarize
from tuner.results.test_score import EvaluatedModels, score_on_test


class Foretold(Executor):
    """Predicts what it is told to, from the truth, the job's number and a seed."""

    n_workers = 1

    def __init__(self, predict):
        self._predict, self._jobs = predict, []

    def submit(self, job):
        self._jobs.append(job)

    def poll(self, timeout_s):
        job = self._jobs.pop(0)
        truth = job.data.truth_of(job.data.evaluate_samples())
        predictions = self._predict(truth, int(job.key.split()[-1]))
        return [Finished(job.key, Outcome(OutcomeState.COMPLETE, predictions=predictions))]

    def answer(self, key, go_on):
        raise AssertionError("no forecast is pruned")

    def withdraw(self):
        return []

    def close(self):
        pass


def off_by_noise(truth, number):
    return truth + np.random.default_rng(number).normal(0, 1, truth.shape)


@pytest.fixture
def opened(tmp_path):
    """Evaluates a study on rows of a file, with predictions that are made up."""

    def run(text, predict=off_by_noise, models=1, **keys):
        path = tmp_path / "made.csv"
        path.write_text(text)
        keys["data"] = {"path": str(path), "target": "y"} | keys.get("data", {})
        space = {"dropout": {"type": "float", "low": 0.0, "high": 0.5}}
        record = make_study(12, experiment=make_experiment(search_space=space, **keys))
        record.data["sha256"] = None  # of no file that was searched on
        metric = record.experiment.objective.metric
        jobs = [
            (TrainJob(f"{i}", {}, i, 1, 1, metric, (), device="cpu"), {}) for i in range(models)
        ]
        tested, executor = EvaluatedModels(jobs), Foretold(predict)
        test = score_on_test(record, find_winner(record), tested, executor, tmp_path / "t")
        test = TestScore.from_json(json.loads(json.dumps(test)))
        return type(record)(**{**vars(record), "test": test})

    return run


def waves(n=200, columns=("y",)):
    t = np.arange(n)
    rows = [repr(float(value)) for value in 10 + 3 * np.sin(t / 2) + t % 7]
    return "\n".join([",".join(columns), *(",".join([row] * len(columns)) for row in rows)])


def rmse(truth, predicted):
    return float(np.sqrt(np.mean((truth - predicted) ** 2)))


def test_what_is_kept_are_the_predictions_that_were_scored(opened):
    record = opened(waves(), task={"window": 6, "season": 12})
    (part,) = predicted_values(record)
    assert rmse(part.truth, part.predicted) == pytest.approx(record.test.mean, rel=1e-5)
    assert len(part.at) == record.test.rows == 30
    assert part.at[0] == "171"
    assert part.band is None
    assert set(part.baselines) == {"last_value", "seasonal_naive"}
    assert set(record.test.baselines) == {*part.baselines, "training_mean"}
    for name, values in part.baselines.items():
        score = record.test.baselines[name]
        assert rmse(part.truth, values) == pytest.approx(score, rel=1e-5)


def test_of_several_models_it_is_the_mean_and_their_range(opened):
    record = opened(waves(), lambda truth, i: truth + i, models=3, task={"window": 6})
    (part,) = predicted_values(record)
    assert (part.predicted - part.truth).tolist() == pytest.approx([1.0] * 30, abs=1e-4)
    assert (part.band[0] - part.truth).tolist() == pytest.approx([0.0] * 30, abs=1e-4)
    assert (part.band[1] - part.truth).tolist() == pytest.approx([2.0] * 30, abs=1e-4)
    assert record.test.predictions["band"] == "range of 3 models"


def test_of_several_steps_and_targets_the_first_is_kept(opened):
    record = opened(
        waves(columns=("y", "z")),
        lambda truth, i: truth + np.arange(3)[:, None] + [0.0, 100.0],
        data={"target": ["y", "z"]},
        task={"window": 6, "horizon": 3},
    )
    (part,) = predicted_values(record)
    assert (part.predicted - part.truth).tolist() == pytest.approx([0.0] * len(part.at), abs=1e-4)
    assert record.test.predictions["horizon"] == 3
    assert record.test.predictions["target"] == "y"


def test_quantiles_are_kept_as_the_middle_and_the_outermost(opened):
    levels = (0.1, 0.5, 0.9)
    record = opened(
        waves(),
        lambda truth, i: truth[..., None] + [-2.0, 0.0, 2.0],
        task={"window": 6, "quantiles": list(levels)},
    )
    (part,) = predicted_values(record)
    assert (part.predicted - part.truth).tolist() == pytest.approx([0.0] * 30, abs=1e-4)
    assert (part.band[1] - part.band[0]).tolist() == pytest.approx([4.0] * 30, abs=1e-4)
    assert record.test.predictions["band"] == "quantiles 0.1 to 0.9"


def test_a_long_test_part_is_thinned_evenly(opened):
    record = opened(waves(5000), data={"split": {"validation": 100, "test": 4500}})
    kept = record.test.predictions
    assert (kept["every"], kept["total"]) == (3, 4500)
    assert len(kept["at"]) == len(kept["truth"]) == len(kept["predicted"]) == 1500
    assert kept["at"][:3] == ["501", "504", "507"]
    assert len(json.dumps(record.test.raw)) < 150_000


def test_predictions_beyond_all_bounds_are_kept_as_none(opened):
    def wild(truth, number):
        predicted = truth.copy()
        predicted[3] = np.inf
        return predicted

    record = opened(waves(), wild, task={"window": 6})
    assert record.test.mean is None
    assert record.test.predictions["predicted"][3] is None
    assert np.isnan(predicted_values(record)[0].predicted[3])


def test_several_series_are_kept_apart(opened):
    rows = [f"{shop},2026-01-{day:02},{day + len(shop)}" for shop in ("a b", "c") for day in
            range(1, 31)]  # fmt: skip
    record = opened(
        "\n".join(["shop,day,y", *rows]),
        data={"id": "shop", "time": "day", "split": {"validation": 6, "test": 5}},
        task={"window": 3},
    )
    first, second = predicted_values(record)
    assert (first.name, second.name) == ("a b", "c")
    assert first.at[0] == "a b 2026-01-26"
    assert first.times()[1] == "time"
    assert second.truth.tolist() == [27, 28, 29, 30, 31]


CLASSES = {"data": {"id": "i", "target": "y", "features": ["x"]}, "task": {"kind": "classify"}}


def sequences(n_classes):
    rows = [f"{i},{step},{'abcdefghij'[i % n_classes % 10]}{i % n_classes // 10}"
            for i in range(10 * n_classes) for step in range(3)]  # fmt: skip
    return "\n".join(["i,x,y", *rows])


def off_by_one_sometimes(truth, number):
    probabilities = np.zeros((len(truth), truth.max() + 1))
    wrong = np.arange(len(truth)) % 4 == number
    probabilities[np.arange(len(truth)), (truth + wrong) % probabilities.shape[1]] = 1.0
    return probabilities


def test_the_confusion_matrix_counts_what_every_model_said(opened):
    record = opened(sequences(12), off_by_one_sometimes, models=2, **CLASSES)
    kept = predicted_classes(record)
    counts = np.array(kept["confusion"])
    assert counts.sum() == 2 * kept["total"] == 2 * record.test.rows
    assert counts.trace() / counts.sum() == pytest.approx(record.test.mean)
    assert kept["classes"] == sorted(f"{'abcdefghij'[i % 10]}{i // 10}" for i in range(12))
    below = np.diagonal(np.roll(counts, -1, axis=1))
    assert below.sum() == counts.sum() - counts.trace()  # row true, column predicted


def test_more_classes_than_a_picture_can_show_are_not_kept(opened):
    record = opened(sequences(70), off_by_one_sometimes, **CLASSES)
    assert record.test.predictions == {}
    assert predicted_classes(record) is None


def test_values_of_sequences_are_kept_beside_the_training_mean(opened):
    rows = [f"{i},{step},{i}" for i in range(40) for step in range(3)]
    record = opened(
        "\n".join(["i,x,y", *rows]),
        data={"id": "i", "target": "y", "features": ["x"]},
        task={"kind": "regress"},
    )
    (part,) = predicted_values(record)
    mean = record.test.baselines["training_mean"]
    assert rmse(part.truth, part.baselines["training_mean"]) == pytest.approx(mean, rel=1e-5)
    assert rmse(part.truth, part.predicted) == pytest.approx(record.test.mean, rel=1e-3)


def test_every_part_of_the_data_is_named(opened):
    record = opened(waves(), task={"window": 6})
    assert [(p["name"], p["count"]) for p in record.test.parts] == [
        ("training", 130),
        ("validation", 40),
        ("test", 30),
    ]


def test_scripts_are_not_given_what_only_pictures_need(opened):
    record = opened(waves(), task={"window": 6})
    shown = summarize(record).to_json()["test"]
    assert record.test.raw.keys() - shown.keys() == {"parts", "predictions", "verdict"}
    assert record.test.verdict == summarize(record).verdict
