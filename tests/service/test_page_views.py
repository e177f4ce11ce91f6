"""The views of the page as a strict reader has them; a browser has them in tests/browser."""

import re
import time

import pytest
from helpers.made_up_service import MadeUpService, make_rows, make_study
from helpers.pages import Page
from helpers.result_records import make_study as make_finished
from helpers.result_records import values_test
from starlette.testclient import TestClient

from tuner.errors import ExperimentError, InputError
from tuner.report.rendering import with_std
from tuner.results.summary import summarize
from tuner.service import pages
from tuner.service.access import Access, TokenFile
from tuner.service.app import make_app
from tuner.service.datasets import Column, Dataset
from tuner.service.routes import page as page_routes

HOSTILE = "<img src=x onerror=alert('&\"')>"
DATA = Dataset.model_validate(
    {
        "id": "a" * 64,
        "name": "sales.csv",
        "bytes": 100,
        "rows": 1440,
        "columns": [{"name": "month", "kind": "times"}, {"name": "sold", "kind": "numbers"}],
        "uploaded": "2026-11-30T08:00:00.000+00:00",
    }
)
EXPERIMENT = f"""\
name: sales
data:
  path: dataset:{"a" * 64}
  target: sold
  time: month
task: {{kind: forecast, window: 12, horizon: 1}}
budget:
  trials: 10
  epochs: 5
"""


@pytest.fixture
def service():
    made = MadeUpService()
    made.add(make_study("alpha", state="done", trials=30), make_rows(30))
    made.add(make_study("beta"), make_rows(12))
    made.add(make_study("waits", state="queued", position=1, priority=3))
    made.data["a" * 64] = DATA
    return made


@pytest.fixture
def browse(service, settings):
    client = TestClient(make_app(service, Access(), settings), base_url="http://127.0.0.1:8080")
    return client.get


def read(answer):
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def test_the_list_has_state_progress_best_and_curve(browse, service):
    page = read(browse("/page/view"))
    best = min(row["value"] for row in service.rows["alpha"] if row["value"] is not None)
    for words in ("alpha", "done", "30 of 30", f"{best:.4g}", "1 of 2 workers", "1 queued"):
        assert words in page.text, words
    assert page.tags.count("svg") == 2
    assert "priority 3" in page.text
    assert page.text.index("waits") < page.text.index("beta") < page.text.index("alpha")


def test_the_list_is_filtered_by_name_and_state(browse):
    assert "beta" not in read(browse("/page/view?q=alpha")).text
    page = read(browse("/page/view?state=queued"))
    assert "alpha" not in page.text
    assert "No study matches" in read(browse("/page/view?q=nothing")).text
    assert "alpha" in read(browse("/page/view?state=no-state")).text


def test_views_say_what_a_study_waits_for(browse, service):
    for query in ("", "?study=beta"):
        assert "no worker" not in read(browse(f"/page/view{query}")).text
    service.known["beta"]["waits"] = "waits for workers: there is no worker"
    assert "The queue waits for workers: there is no worker." in read(browse("/page/view")).text
    assert "It waits for workers: there is no" in read(browse("/page/view?study=beta")).text
    service.known["alpha"]["waits"] = "waits for clients: none has come since noon"
    assert "waits for clients" in read(browse("/page/view")).text


def test_a_list_of_no_studies_says_how_to_begin(settings):
    app = make_app(MadeUpService(), Access(), settings)
    page = read(TestClient(app, base_url="http://127.0.0.1").get("/"))
    assert "There is no study yet" in page.text
    assert "?new=1" in page.urls


def test_a_study_has_its_curve_best_configuration_and_files(browse, service):
    page = read(browse("/page/view?study=alpha"))
    best = service.known["alpha"]["best"]
    assert f"to {best['score']:.4g} in trial {best['trial']}" in page.text
    assert str(best["params"]["hidden_size"]) in page.text
    for file in ("report", "model", "best?format=yaml"):
        assert f"v1/studies/alpha/{file}" in page.urls
    assert "data-events" not in browse("/page/view?study=alpha").text
    assert 'data-events="v1/studies/beta/events?after=7"' in browse("/page/view?study=beta").text


def test_a_finished_search_has_its_verdict_and_test_score(browse, service):
    record = make_finished(finalists=3, test=values_test())
    service.records["alpha"] = record
    summary, page = summarize(record), read(browse("/page/view?study=alpha"))
    assert summary.verdict[1:] in page.text
    assert with_std(summary.test.judged) in page.text
    assert "on the test set" not in read(browse("/page/view?study=beta")).text
    service.records.clear()
    assert "Best configuration" in read(browse("/page/view?study=alpha")).text


@pytest.mark.parametrize(
    ("state", "has", "lacks"),
    [
        ("running", "cancel", "resume"),
        ("queued", "cancel", "extend"),
        ("cancelled", "resume", "cancel"),
        ("failed", "resume", "cancel"),
        ("done", "extend", "resume"),
    ],
)
def test_a_study_has_the_buttons_of_its_state(browse, service, state, has, lacks):
    service.add(make_study("it", state=state), make_rows(3))
    text = browse("/page/view?study=it").text
    assert f'data-post="v1/studies/it/{has}"' in text
    assert f'data-post="v1/studies/it/{lacks}"' not in text


@pytest.mark.parametrize("state", pages.STATES)
def test_only_what_has_ended_is_deleted_or_predicts(browse, service, state):
    service.add(make_study("it", state=state), make_rows(3))
    service.add(make_study("away", state=state, kind="external"), make_rows(3))
    for name in ("it", "away"):
        text = browse(f"/page/view?study={name}").text
        has_ended = state in ("done", "cancelled", "failed")
        assert (f'data-delete="v1/studies/{name}"' in text) == has_ended
        predicts = (name, state) == ("it", "done")
        assert (f'data-url="v1/studies/{name}/predict"' in text) == predicts
    assert read(browse("/page/view?study=it"))


def test_a_study_that_failed_shows_why(browse, service):
    service.add(make_study("bad", state="failed", error="data.path: no such column"))
    assert "data.path: no such column" in read(browse("/page/view?study=bad")).text
    assert "data.path: no such column" in read(browse("/page/view")).text


def test_a_default_that_won_is_the_best(browse, service):
    rows = make_rows(3)
    service.add(make_study("a", state="done"), rows)
    best = {"trial": None, "score": 0.25, "params": {"hidden_size": 32}}
    service.known["a"]["best"] = best
    for view in ("/page/view", "/page/view?study=a"):
        text = read(browse(view)).text
        assert "the untuned default" in text
        assert "None" not in text


def numbers(page_text):
    return [int(n) for n in re.findall(r'<th scope="row" class="number">(\d+)</th>', page_text)]


def test_trials_are_paged_in_every_order(browse, service):
    service.add(make_study("long", state="done", trials=250), make_rows(250))
    seen, url = [], "?study=long&order=number"
    for _ in range(3):
        text = browse(f"/page/view{url}").text
        seen += numbers(text)
        following = re.search(r'href="([^"]*)#trials-title" rel="next"', text)
        url = following[1].replace("&amp;", "&") if following else None
    assert url is None
    assert seen == list(range(250))
    assert numbers(browse("/page/view?study=long&order=-number").text)[0] == 249
    best = [r for r in service.rows["long"] if r["value"] is not None]
    best.sort(key=lambda row: row["value"])
    assert numbers(browse("/page/view?study=long").text)[:5] == [r["number"] for r in best[:5]]
    failed = numbers(browse("/page/view?study=long&status=failed&order=number").text)
    assert failed == [r["number"] for r in service.rows["long"] if r["status"] == "failed"]


def test_a_running_study_begins_with_its_newest_trial(browse):
    assert numbers(browse("/page/view?study=beta").text)[0] == 11


def test_the_order_of_trials_is_no_matter_of_colour(browse):
    text = browse("/page/view?study=alpha&order=score").text
    assert text.count('aria-sort="ascending"') == 1
    assert 'aria-sort="descending"' in browse("/page/view?study=alpha&order=-number").text


def test_a_hundred_thousand_trials_are_a_small_page(browse, service):
    service.add(make_study("huge", trials=100_000), make_rows(100_000))
    began = time.process_time()  # other processes may be busy
    text = browse("/page/view?study=huge&order=score").text
    seconds = time.process_time() - began
    assert len(text.encode()) + sum(len(f.content) for f in pages.static_files().values()) < 300e3
    assert seconds < 2
    assert len(numbers(text)) == pages.PAGE_SIZE


def test_an_unchanged_view_is_not_sent_again(browse, service):
    first = browse("/page/view?study=beta")
    tag = first.headers["etag"]
    again = browse("/page/view?study=beta", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    service.add(make_study("beta"), make_rows(13))
    changed = browse("/page/view?study=beta", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag


def test_hostile_names_are_text_in_every_view(browse, service, monkeypatch):
    rows = make_rows(6, params=(HOSTILE,))
    rows[0] |= {"status": "failed", "value": None, "reason": HOSTILE}
    names = {"experiment": HOSTILE, "strategy": HOSTILE, "metric": HOSTILE, "error": HOSTILE}
    service.add(make_study(HOSTILE, **names), rows)
    service.known[HOSTILE]["position"] = HOSTILE
    column = Column.model_construct(name=HOSTILE, kind=HOSTILE)
    named = {"name": HOSTILE, "columns": (column,), "uploaded": HOSTILE}
    service.data["a" * 64] = DATA.model_copy(update=named)
    service.proposal = {"yaml": f"name: {HOSTILE}</textarea><script>", "notes": [HOSTILE]}
    monkeypatch.setattr(page_routes, "find_study_link", lambda *_: "http://h/#/a?b=\"'<img>")
    asked = {"study": HOSTILE, "cursor": HOSTILE, "order": HOSTILE, "status": HOSTILE}
    data = "a" * 64
    answers = [
        browse("/page/view"),
        browse("/page/view", params={"q": HOSTILE, "state": HOSTILE}),
        browse("/page/view", params=asked),
        browse("/page/view", params={"new": HOSTILE, "dataset": data, "features": HOSTILE}),
        browse("/page/view?new=1"),
        browse("/", params={"study": f"{HOSTILE}2"}),
        browse("/page/links", params={"study": HOSTILE}),
    ]
    service.proposal = InputError(HOSTILE, where=HOSTILE)
    answers.append(browse("/page/view", params={"new": "1", "dataset": data, "target": HOSTILE}))
    for answer in answers:
        page = Page(answer.text)  # no attribute on...
        assert "img" not in page.tags
        scripts = page.tags.count("script")
        assert scripts == (1 if "<!doctype" in answer.text else 0)
        assert "<img" not in answer.text
        assert not any(str(url).startswith("javascript:") for url in page.urls)
    assert sum(HOSTILE in Page(answer.text).text for answer in answers) >= 6


def test_nothing_in_the_page_is_inline(browse, service):
    for url in ("/", "/?study=alpha", "/?new=1", f"/?new=1&dataset={'a' * 64}"):
        answer = browse(url)
        policy, text = answer.headers["content-security-policy"], answer.text
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert "<style" not in text
        assert " style=" not in text
        assert not re.findall(r"<script(?! src=)", text)
        for link in Page(text).urls:
            assert not re.match(r"(https?:)?//", link or ""), link


def test_files_of_the_page_may_be_kept_only_under_their_tag(browse):
    for name, file in pages.static_files().items():
        kept = browse(f"/static/{name}?v={file.tag}")
        assert "immutable" in kept.headers["cache-control"]
        assert "immutable" not in browse(f"/static/{name}?v=other").headers["cache-control"]
        assert f"static/{name}?v={file.tag}" in browse("/").text
    assert browse("/static/page.py").status_code == 404
    assert browse("/static/..%2Fpages.py").status_code == 404


def test_the_shell_of_a_service_with_tokens_holds_no_data(service, settings, tokens, as_):
    app = make_app(service, Access(TokenFile(tokens[0])), settings)
    client = TestClient(app, base_url="http://127.0.0.1:8080")
    for known in service.known.values():
        known["owner"] = "ana"
    shell = client.get("/?study=alpha").text
    assert "alpha" not in Page(shell).text
    assert shell == client.get("/").text
    for url in ("/page/view", "/page/view?study=alpha", "/page/links?study=alpha"):
        assert client.get(url).status_code == 401
        assert client.get(url, headers=as_("ana")).status_code == 200
    assert client.get("/page/view?study=alpha", headers=as_("ben")).status_code == 404
    assert "alpha" not in Page(client.get("/page/view", headers=as_("ben")).text).text
    readers = client.get("/page/view?study=beta", headers=as_("ana", "read")).text
    assert "data-post" not in readers
    assert "data-post" in client.get("/page/view?study=beta", headers=as_("ana")).text


def test_a_study_has_a_link_to_mlflow_by_its_id(browse, monkeypatch):
    asked = []
    monkeypatch.setattr(
        page_routes, "find_study_link", lambda *key: asked.append(key) or "http://m/#/x"
    )
    assert read(browse("/page/links?study=alpha")).urls == ["http://m/#/x"]
    assert asked == [("air_passengers", "a1")]
    monkeypatch.setattr(page_routes, "find_study_link", lambda *key: None)
    assert read(browse("/page/links?study=alpha")).urls == []
    assert browse("/page/links?study=nothing").status_code == 404


def test_a_study_that_is_not_there_is_a_page_too(browse):
    answer = browse("/?study=nothing")
    assert answer.status_code == 404
    assert "no study 'nothing'" in Page(answer.text).text
    assert browse("/page/view?study=nothing").headers["content-type"] == "application/problem+json"


def test_a_proposal_is_shown_with_its_notes_and_yaml(browse, service):
    service.proposal = {"yaml": EXPERIMENT, "notes": ["target: sold; choose with --target"]}
    page = read(browse(f"/page/view?new=1&dataset={'a' * 64}"))
    assert "target: sold; choose with Target" in page.text
    assert "kind: forecast" in page.text
    assert "1,440 rows" in page.text


def test_options_of_a_proposal_are_those_of_the_form(browse, service):
    url = f"/page/view?new=1&dataset={'a' * 64}"
    read(browse(url + "&target=sold&horizon=12&no_time=true&features=&order=score"))
    asked = service.asked.model_dump(exclude_unset=True)
    assert asked == {"dataset": "a" * 64, "target": "sold", "horizon": 12, "no_time": True}
    page = read(browse(url + "&horizon=ten"))
    assert "horizon: must be a whole number" in page.text
    assert "Experiment, as YAML" not in page.text
    assert browse(f"/page/view?new=1&dataset={'b' * 64}").status_code == 404


def checked(service, settings, yaml, **changes):
    client = TestClient(make_app(service, Access(), settings), base_url="http://127.0.0.1")
    answer = client.post("/page/check", json={"yaml": yaml, **changes})
    read(answer)
    return re.findall(r'data-line="(\d+)".*?<code>(.*?)</code>', answer.text), answer.text


def test_a_check_marks_the_line_of_each_error(service, settings):
    wrong = EXPERIMENT.replace("trials: 10", "trials: ten").replace("horizon: 1", "horizon: -1")
    wrong = wrong.replace("  epochs: 5", "  epoch: 5")
    found, text = checked(service, settings, wrong)
    assert found == [("6", "task.horizon"), ("8", "budget.trials"), ("9", "budget.epoch")]
    assert "3 errors" in text
    assert "unknown key" in text
    assert checked(service, settings, EXPERIMENT)[0] == []
    assert "No error" in checked(service, settings, EXPERIMENT)[1]
    assert "Nothing is wrong" in checked(service, settings, EXPERIMENT, data=True)[1]
    path = EXPERIMENT.replace("dataset:", "/etc/")
    assert checked(service, settings, path)[0] == [("3", "data.path")]


@pytest.mark.parametrize(
    ("key", "rule", "line"),
    [
        ("budget.trials", "must be a whole number", 8),
        ("data", "is required", 2),
        ("data.split.test", "must be smaller", 2),
        ("nowhere.at.all", "is required", 1),
        (None, "is not YAML: line 3, column 7: mapping values are not allowed here", 3),
        (None, "is empty", None),
    ],
)
def test_an_error_is_located_by_its_key(key, rule, line):
    error = ExperimentError(rule, where="experiment", key=key, got="x", remedy="write it")
    (found,) = pages.located(error, EXPERIMENT)
    assert (found["line"], found["key"]) == (line, key)
    assert found["text"] == f"{rule}, got x; write it"
