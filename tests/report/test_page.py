"""The result as a page and as plain text, and errors by group."""

import dataclasses
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.pages import Page
from helpers.result_records import (
    COMPLETE,
    FAILED,
    STUDIES,
    make_experiment,
    make_study,
    pictures_of,
    values_test,
)
from sklearn.metrics import f1_score, recall_score, root_mean_squared_error

from tuner.data.baselines import Baselines, baseline_name
from tuner.data.prepared import open_test_part, prepare
from tuner.experiment import Experiment
from tuner.journal.records import TestScore
from tuner.progress.display import lines_by_part
from tuner.report.page import draw_all, final_artifacts, is_report, report
from tuner.report.plotting import Picture
from tuner.report.predictions import close_up, forecast_picture, step_picture
from tuner.results.summary import summarize
from tuner.results.test_score import breakdown, predictions_record
from tuner.results.verdict import best_baseline, left_out_in_words

HOSTILE = "<script>alert('&\"')</script>"


def read(record, pictures=()):
    """Return a page and what is read of it; it is drawn where `pictures` is None."""
    text = report(record, pictures)
    return text, Page(text)


DRAWN = ("usual", "classes", "several series")  # the pictures of all: test_pictures.py


@pytest.mark.parametrize("name", STUDIES)
def test_every_kind_of_study_has_a_page_that_is_whole_by_itself(name):
    text, page = read(STUDIES[name](), pictures_of(name) if name in DRAWN else ())
    assert page.tags.count("html") == page.tags.count("h1") == 1
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert len(set(page.ids)) == len(page.ids)
    for url in page.urls:
        assert url.startswith("data:image/png;base64,") or url[1:] in page.ids, url
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", text)


def test_the_same_record_gives_the_same_page():
    assert report(make_study(), ()) == report(make_study(), ())  # pictures: test_pictures.py


def test_what_people_wrote_is_shown_and_never_run():
    space = {"dropout": {"type": "categorical", "choices": [0.1, 0.2]}}
    experiment = make_experiment(
        search_space=space, data={"path": f"/{HOSTILE}.csv", "target": HOSTILE}
    )
    record = make_study(12, experiment=experiment, state=lambda n: FAILED if n == 3 else COMPLETE)
    failed = record.trials[3]
    failed = dataclasses.replace(
        failed, outcome=dataclasses.replace(failed.outcome, reason=HOSTILE), lost=(HOSTILE,)
    )
    record = dataclasses.replace(
        record,
        name=HOSTILE,
        id=HOSTILE,
        created=HOSTILE,
        trials=(*record.trials[:3], failed, *record.trials[4:]),
        versions={HOSTILE: HOSTILE},
        baselines={HOSTILE: 21.0},
        data={"path": f"/{HOSTILE}", "rows": 3, "sha256": HOSTILE},
        test=TestScore.from_json(values_test(at=[f"{HOSTILE} {i}" for i in range(30)])
        | {"opened_at": HOSTILE, "baselines": {HOSTILE: 1.0}, "from": HOSTILE, "to": HOSTILE}
        | {"parts": [{"name": HOSTILE, "count": 1, "unit": HOSTILE, "first": HOSTILE,
                      "last": HOSTILE}]}),
    )  # fmt: skip
    text, page = read(record, pictures=None)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) > 12
    assert "<script>" not in text


def test_a_report_is_known_from_any_other_file(tmp_path):
    file = tmp_path / "report.html"
    name = make_study().name
    assert not is_report(file, name)
    for other in (b"<html></html>", b"\xff\xfe\x00", b""):
        file.write_bytes(other)
        assert not is_report(file, name)
    file.write_text(report(make_study(), ()))
    assert is_report(file, name)
    assert not is_report(file, "another")


@pytest.mark.parametrize("drawn", [None, b"PNG"])
def test_the_words_about_a_picture_are_words(drawn):
    page = read(make_study(), [Picture("x", HOSTILE, HOSTILE, drawn)])[1]
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 2


def test_the_verdict_is_the_summarys():
    record = make_study(finalists=3, test=values_test())
    sentence = summarize(record).verdict
    assert sentence[1:] in read(record)[1].text


def test_scores_of_finalists_baselines_and_test_are_all_there():
    best = make_study().ranked()[0].number
    record = make_study(finalists=3, test=values_test(configuration=best))
    text = read(record)[1].text
    for finalist in summarize(record).finalists:
        for value in (finalist.search_score, finalist.mean, *finalist.scores):
            assert f"{value:.4g}" in text
    for value in (26, 25, 0.5, 1):
        assert f" {value} " in text


def test_the_default_is_listed_with_finalists_and_winner():
    record = STUDIES["default"]()
    text = read(record)[1].text
    assert "default LSTM – 26 0.79 – 26, 27, 26.5, 25.5, 25 " in text
    assert "default LSTM 26 ± 0.79 0.6 " in text
    assert "0.6 default LSTM on the test set" in text
    paid = "the search paid: 17 % below the default LSTM (RMSE), and 50 % below last value; "
    assert f"{paid}1 repeat is too few to rule out luck." in text
    assert "on 5 seeds of its own" in text
    assert "hidden_size 32, dropout 0.0" in text
    assert f"First and second: {summarize(record).first_and_second}." in text


def test_a_default_that_is_a_finalist_is_named_where_it_stands():
    space = {"dropout": {"type": "categorical", "choices": [0.0, 0.3]}}
    experiment = make_experiment(search_space=space)
    record = make_study(6, experiment=experiment, finalists=3)
    number = record.ranked()[0].number
    assert record.trials[number].params == {"dropout": 0.0}
    text = read(record)[1].text
    assert f"trial {number}, the default LSTM" in text
    assert f"The default LSTM is trial {number}, and was not trained again." in text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("usual", "too few repeats to tell (3; five or more are needed: the same command with "
                  "--set finalists.repeats=5)"),
        ("usual", "Evaluated on the test set once, after 36 trials."),
        ("default failed", "Of the default LSTM, 3 trainings failed."),
        ("default failed", "default LSTM – – –"),
        ("default failed", "default repeat 0"),
        ("reopened", "Evaluated on the test set 2 times, after 20 and 36 trials: the newest score"),
        ("reopened", "on the test set first, at 2026-01-02T04:00:00+00:00, after 20 trials"),
        ("reopened", "on the test set again, at 2026-01-03T04:00:00+00:00, after 36 trials"),
        ("reopened", "Its rows were no longer unseen then."),
        ("no trial", "No verdict: no trial is complete."),
        ("all failed", "No verdict: no trial is complete, and 12 failed."),
        ("running", "This search has not finished: 7 of 40 trials are trained."),
        ("running", "7 of at most 40 trials were trained: "),
        ("no number of trials", "This search was interrupted: 12 trials are trained."),
        ("no number of trials", " 12 trials were trained: "),
        ("usual", "was evaluated on the test set once, at 2026-01-02T04:00:00"),
        ("constant", "No configuration has been retrained on fresh seeds yet."),
        ("constant", "No verdict yet: the winner has not been evaluated on the test set."),
        ("folds", "the mean over 3 folds"),
        ("classes", "More is better."),
        ("all failed", "it diverged: val_loss is nan"),
    ],
)  # fmt: skip
def test_the_page_says_how_things_stand(name, says):
    assert says in read(STUDIES[name]())[1].text


def test_an_interrupted_search_says_so():
    text = read(make_study(12, ended="interrupted"))[1].text
    assert "This search was interrupted: 12 of 40 trials are trained." in text
    assert "This search" not in read(make_study())[1].text


def test_anothers_test_score_is_not_the_winners():
    record = make_study()
    other = record.ranked()[3].number
    test = TestScore.from_json(values_test(configuration=other))
    text = read(dataclasses.replace(record, test=test))[1].text
    assert f"Of trial {other}, which no longer wins: " in text
    assert f"the winner (trial {record.best.number}) {record.best.value:.4g} –" in text


def test_the_protocol_names_the_rows_of_every_part():
    parts = [
        {"name": "training", "count": 1170, "unit": "row", "first": "1949-01", "last": "1956-09"},
        {"name": "test", "count": 22, "unit": "row", "first": "1959-03", "last": "1960-12"},
    ]
    text = read(make_study(test=values_test(parts=parts)))[1].text
    assert "training 1,170 rows 1949-01 … 1956-09" in text
    assert "test 22 rows 1959-03 … 1960-12" in text
    assert "data.split: validation 0.2, test 0.15" in read(make_study())[1].text


def test_how_to_reproduce_it_is_a_file_and_commands():
    record = make_study()
    text, page = read(record)
    assert "tuner run experiment.yaml --study made-pso-0" in page.text
    assert "tuner export made-pso-0 -o best.yaml" in page.text
    assert "".join(record.experiment.to_yaml().split()) in "".join(page.text.split())
    assert "torch 2.13.0" in page.text
    assert "ab" * 32 in page.text


def test_every_searched_value_of_the_winner_is_named():
    record = make_study()
    text = read(record)[1].text
    for name, value in record.best.params.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        assert f"{name} {shown} " in text


def test_the_artifacts_are_the_texts_the_report_and_its_pictures():
    record = make_study(test=values_test())
    files = final_artifacts(record)
    assert {n: f for n, f in files.items() if n.endswith(".png")} == {
        f"pictures/{p.name}.png": p.png for p in draw_all(record) if p.png is not None
    }
    assert files["report.html"] == report(record)
    assert {"experiment.yaml", "best.yaml", "result.json"} <= set(files)
    assert "predictions" not in files["result.json"]


@pytest.mark.parametrize(
    ("name", "metric", "called"),
    [
        ("last_value", "rmse", "last value"),
        ("linear", "rmse", "linear regression"),
        ("linear", "pinball", "linear regression"),
        ("linear", "auroc", "logistic regression"),
        ("class_frequencies", "accuracy", "majority class"),
        ("class_frequencies", "f1", "majority class"),
        ("class_frequencies", "cross_entropy", "class frequencies"),
        ("seasonal_arima", "mae", "seasonal ARIMA"),
        ("what_comes_later", "mae", "what comes later"),
    ],
)
def test_plain_predictions_have_names_that_people_know(name, metric, called):
    assert baseline_name(name, metric) == called


def test_the_best_is_that_with_the_best_finite_score():
    scores = {"a": 3.0, "b": math.nan, "c": 1.0, "d": None, "e": 1.0}
    assert best_baseline("rmse", scores) == ("c", 1.0)
    assert best_baseline("r2", scores) == ("a", 3.0)
    assert best_baseline("rmse", {"a": math.inf, "b": None}) is None


def test_what_is_left_out_for_one_reason_is_one_line():
    left_out = {"linear": "too wide", "exponential_smoothing": "no", "seasonal_arima": "no"}
    assert left_out_in_words(left_out, "rmse") == [
        "without linear regression: too wide",
        "without exponential smoothing and seasonal ARIMA: no",
    ]


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
    page = report(record, ())
    assert page.index("shop 39") < page.index("shop 38")
    assert "And 10 more, which are better" in page
    assert step_picture(record).png is not None
    assert summarize(record).test.by == BY
    old = make_study(finalists=2, test=values_test())  # without `by`
    assert "Where it errs" not in report(old, ())
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
