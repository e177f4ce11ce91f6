"""Each step, series, target and class of the test part has its own score."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.result_records import make_study, values_test
from sklearn.metrics import f1_score, recall_score, root_mean_squared_error

from tuner.data.baselines import Baselines
from tuner.data.prepared import open_test_part, prepare
from tuner.experiment import Experiment
from tuner.progress.display import lines_by_part
from tuner.report.predictions import by_part, close_up, forecast_picture, step_picture
from tuner.results.predictions import predictions_record
from tuner.results.summary import summarize
from tuner.results.test_score import breakdown


def opened(folder, *, metric="rmse", horizon=3, series=2, targets=("y",), n=60):
    places = [(i, t) for i in range(series) for t in range(n)]
    rows = [f"s{i},{t},{10 * i + t * t % 11}.5,{t * t % 13}\n" for i, t in places]
    (folder / "data.csv").write_text("of,t,y,z\n" + "".join(rows))
    values = {
        "name": "by",
        "data": {"path": str(folder / "data.csv"), "id": "of", "target": [*targets]},
        "task": {"window": 4, "horizon": horizon, "season": 7},
        "objective": {"metric": metric},
    }
    experiment = Experiment.from_dict(values)
    prepare(experiment, folder / "search")
    return open_test_part(experiment, folder / "test")


@pytest.mark.parametrize("metric", ["rmse", "mae", "mase", "r2", "smape"])
def test_the_parts_add_up_and_each_is_its_own_score(metric, tmp_path):
    test = opened(tmp_path, metric=metric, targets=("y", "z"))
    (ref,) = test.folds
    samples = ref.evaluate_samples()
    truth = ref.truth_of(samples)
    error = np.arange(1.0, 4)[:, None] * (1 + ref.series_of(samples)[:, None, None])
    models = [truth + error, truth - error]
    by = breakdown(metric, test, truth, models)
    assert [row["name"] for row in by["step"]] == [1, 2, 3]
    assert [row["name"] for row in by["series"]] == ["s0", "s1"]
    assert [row["name"] for row in by["target"]] == ["y", "z"]
    if metric in ("rmse", "mae"):
        in_first = ref.series_of(samples) == 0
        known = root_mean_squared_error if metric == "rmse" else (lambda a, b: np.abs(a - b).mean())
        expected = known(truth[in_first].reshape(-1, 2), models[0][in_first].reshape(-1, 2))
        assert by["series"][0]["score"] == pytest.approx(expected)
        assert by["series"][1]["score"] == pytest.approx(2 * expected)
        scores = [row["score"] for row in by["step"]]
        assert scores == pytest.approx([scores[0], 2 * scores[0], 3 * scores[0]])
    assert sum(row["rows"] for row in by["step"]) == truth.size
    assert sum(row["rows"] for row in by["series"]) == truth.size
    if metric == "mase":
        both = [row["score"] for row in by["target"]]
        whole = np.mean(np.abs(models[0] - truth) / ref.naive_errors(samples)[:, None])
        assert np.mean(both) == pytest.approx(whole)


def test_a_forecast_that_is_not_finite_has_no_score(tmp_path):
    test = opened(tmp_path)
    truth = test.folds[0].truth_of(test.folds[0].evaluate_samples())
    wrong = truth.copy()
    wrong[0, 2] = math.inf
    by = breakdown("rmse", test, truth, [truth, wrong])
    assert [row["score"] for row in by["step"]] == [0.0, 0.0, None]


def test_what_has_one_part_has_no_breakdown(tmp_path):
    test = opened(tmp_path, horizon=1, series=1)
    truth = test.folds[0].truth_of(test.folds[0].evaluate_samples())
    assert breakdown("rmse", test, truth, [truth]) == {}


def test_classes_have_the_scores_of_scikit_learn():
    draw = np.random.default_rng(0)
    truth, said = draw.integers(0, 3, 200), draw.dirichlet(np.ones(3), 200)
    shape = SimpleNamespace(classes=3, task="classify")
    ref = SimpleNamespace(shape=shape, has_weights=False)
    test = SimpleNamespace(folds=[ref], facts=SimpleNamespace(classes=("a", "b", "c")))
    (by,) = breakdown("accuracy", test, truth, [said]).values()
    assert [row["name"] for row in by] == ["a", "b", "c"]
    f1 = f1_score(truth, said.argmax(1), average=None)
    assert [row["f1"] for row in by] == pytest.approx(f1.tolist())
    recall = recall_score(truth, said.argmax(1), average=None)
    assert [row["recall"] for row in by] == pytest.approx(recall.tolist())
    assert [row["rows"] for row in by] == np.bincount(truth).tolist()


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_close_up_has_every_last_row_once(horizon, tmp_path):
    test = opened(tmp_path, horizon=horizon, series=1, n=2000)
    (ref,) = test.folds
    truth = ref.truth_of(ref.evaluate_samples())
    record = predictions_record(test, truth, [truth + 1, truth + 3], Baselines(ref, 7, None))
    close = record["close"]
    assert len(close["at"]) == len(set(close["at"])) == 240
    assert close["at"][-1] == "s0 2000" or close["at"][-1] == "2000"
    place = [int(name.split()[-1]) - 1 for name in close["at"]]
    assert place == list(range(1760, 2000))
    assert close["truth"] == [t * t % 11 + 0.5 for t in place]
    assert close["predicted"] == [value + 2 for value in close["truth"]]
    assert close["lower"] == [value + 1 for value in close["truth"]]
    assert all(len(values) == 240 for values in close["baselines"].values())


def test_few_forecasts_of_one_step_need_no_close_up(tmp_path):
    test = opened(tmp_path, horizon=1)
    (ref,) = test.folds
    truth = ref.truth_of(ref.evaluate_samples())
    assert "close" not in predictions_record(test, truth, [truth], Baselines(ref, 7, None))


BY = {
    "step": [{"name": i, "rows": 9, "score": i / 10} for i in range(1, 25)],
    "series": [{"name": f"shop {i}", "rows": 9, "score": float(i)} for i in range(40)],
}


def test_a_terminal_shows_some_steps_and_the_worst_series():
    steps, series = lines_by_part(BY, "minimize")
    assert steps.endswith("1: 0.1, 4: 0.4, 8: 0.8, 11: 1.1, 14: 1.4, 17: 1.7, 21: 2.1, 24: 2.4")
    assert "shop 39: 39, shop 38: 38" in series
    assert series.endswith("and 35 more (--json)")
    assert "shop 0: 0, shop 1: 1" in lines_by_part(BY, "maximize")[1]
    assert lines_by_part({}, "minimize") == []


def test_the_page_has_a_table_of_series_and_a_picture_of_steps():
    record = make_study(finalists=2, test=values_test() | {"by": BY})
    page = by_part(summarize(record))
    assert page.index("shop 39") < page.index("shop 38")
    assert "And 10 more, which are better" in page
    assert step_picture(record).png is not None
    assert summarize(record)["test"]["by"] == BY
    old = make_study(finalists=2, test=values_test())  # without `by`
    assert by_part(summarize(old)) == ""
    assert step_picture(old) is None


def test_a_close_up_is_what_is_drawn_where_there_is_one():
    close = {
        "at": [str(i) for i in range(20)], "series": [0] * 20, "truth": [1.0] * 20,
        "predicted": [2.0] * 20, "baselines": {"last_value": [1.5] * 20},
    }  # fmt: skip
    test = values_test(n=30, horizon=4)
    test["predictions"]["close"] = close
    picture = forecast_picture(make_study(finalists=2, test=test))
    assert "The last 20 rows: every row once, forecast 1 to 4 steps ahead." in picture.about
    assert [part.truth.tolist() for part in close_up(make_study(test=test))] == [[1.0] * 20]
