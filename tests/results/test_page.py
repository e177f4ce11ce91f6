"""The report: one page that needs nothing else, of every kind of study."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest
from helpers.result_records import (
    COMPLETE,
    FAILED,
    STUDIES,
    make_experiment,
    make_study,
    pictures_of,
    values_test,
)

from tuner.report.artifacts import final_artifacts
from tuner.report.markup import figure
from tuner.report.page import is_report, report
from tuner.report.pictures import study_pictures
from tuner.report.plotting import Picture
from tuner.results.summary import summarize

VOID = {"meta", "img", "br"}
HOSTILE = "<script>alert('&\"')</script>"


class Page(HTMLParser):
    """Reads a page strictly: every element is closed where it should be."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.urls, self.texts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "srcset", "data", "action"):
                self.urls.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def read(record, pictures=()):
    """Return a page and what is read of it; it is drawn where `pictures` is None."""
    text = report(record, pictures)
    return text, Page(text)


@pytest.mark.parametrize("name", STUDIES)
def test_every_kind_of_study_has_a_page_that_is_whole_by_itself(name):
    text, page = read(STUDIES[name](), pictures_of(name))
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
        test=values_test(at=[f"{HOSTILE} {i}" for i in range(30)])
        | {"opened_at": HOSTILE, "baselines": {HOSTILE: 1.0}, "from": HOSTILE, "to": HOSTILE}
        | {"parts": [{"name": HOSTILE, "count": 1, "unit": HOSTILE, "first": HOSTILE,
                      "last": HOSTILE}]},
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
    page = Page(figure(Picture("x", HOSTILE, HOSTILE, drawn)))
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) == 2


def test_the_verdict_is_the_summarys():
    record = make_study(finalists=3, test=values_test())
    sentence = summarize(record)["verdict"]
    assert sentence[1:] in read(record)[1].text


def test_scores_of_finalists_baselines_and_test_are_all_there():
    best = make_study().ranked()[0].number
    record = make_study(finalists=3, test=values_test(configuration=best))
    text = read(record)[1].text
    for finalist in summarize(record)["finalists"]:
        for value in (finalist["search_score"], finalist["mean"], *finalist["scores"]):
            assert f"{value:.4g}" in text
    for value in (26, 25, 0.5, 1):
        assert f" {value} " in text


def test_the_default_is_listed_with_finalists_and_winner():
    record = STUDIES["default"]()
    text = read(record)[1].text
    assert "default LSTM – 26 0.79 – 26, 27, 26.5, 25.5, 25 " in text
    assert "default LSTM 26 ± 0.79 0.6 " in text
    assert "0.6 default LSTM on the test part" in text
    paid = "the search paid: 17 % below the default LSTM (RMSE), and 50 % below last value; "
    assert f"{paid}1 repeat is too few to rule out luck." in text
    assert "on 5 seeds of its own" in text
    assert "hidden_size 32, dropout 0.0" in text
    assert f"First and second: {summarize(record)['first_and_second']}." in text


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
        ("usual", "The test part was opened once, after 36 trials."),
        ("default failed", "Of the default LSTM, 3 trainings failed."),
        ("default failed", "default LSTM – – –"),
        ("default failed", "training 0 of the default"),
        ("reopened", "The test part was opened 2 times, after 20 and 36 trials: the newest score"),
        ("reopened", "was opened first at 2026-01-02T04:00:00+00:00, after 20 trials"),
        ("reopened", "was opened again at 2026-01-03T04:00:00+00:00, after 36 trials"),
        ("reopened", "Its rows were no longer unseen then."),
        ("no trial", "No verdict: no trial is complete."),
        ("all failed", "No verdict: no trial is complete, and 12 failed."),
        ("running", "This search has not come to its end: 7 of 40 trials are trained."),
        ("running", "7 of at most 40 trials were trained: "),
        ("no number of trials", "This search was interrupted: 12 trials are trained."),
        ("no number of trials", " 12 trials were trained: "),
        ("usual", "The test part was opened once: at 2026-01-02T04:00:00"),
        ("constant", "No configuration has been retrained on fresh seeds yet."),
        ("constant", "No verdict yet: the test part has not been opened."),
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
    text = read(dataclasses.replace(record, test=values_test(configuration=other)))[1].text
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
    assert {n: f for n, f in files.items() if n.endswith(".png")} == study_pictures(record)
    assert files["report.html"] == report(record)
    assert {"experiment.yaml", "best.yaml", "result.json"} <= set(files)
    assert "predictions" not in files["result.json"]
