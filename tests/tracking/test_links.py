"""Links to MLflow's pages, and saved views."""

import base64
import contextlib
import dataclasses
import json
import os
import sqlite3
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from helpers.gateway import Gateway
from helpers.mlflow_runs import runs_of, sync

from tuner.cli.studies import links_as_json
from tuner.jobs import OutcomeState
from tuner.journal.storage import Role
from tuner.tracking import find_links, has_study, open_store, start_ui
from tuner.tracking.store import RestServer, tracking_uri
from tuner.tracking.ui import (
    Address,
    announced,
    find_study_link,
    running_ui,
    save_view,
    studies_view,
    study_view,
    trials_view,
)

WORKFLOW = "workflowType=machine_learning"


@pytest.fixture(scope="module")
def server(shared_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        open_store()
        with start_ui() as ui:
            yield ui.links[0].url.partition("/#/")[0]


@pytest.fixture
def gateway(server, monkeypatch):
    gateway = Gateway(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gateway.url)
    yield gateway
    gateway.close()


@pytest.fixture
def record(server, client, make_record, make_trial):
    """Seven trials, of which 6 is the best of the search and 4 the winner; 0 was pruned."""
    first = make_trial(0, OutcomeState.PRUNED)
    others = [make_trial(number) for number in range(1, 7)]
    retrained = {6: 9.0, 5: 8.0, 4: 3.0}
    finalists = [
        make_trial(n, role=Role.FINALIST, configuration=configuration, repeat=0, objective=score)
        for n, (configuration, score) in enumerate(retrained.items())
    ]
    experiment = {"finalists": {"top": 3, "repeats": 1, "baseline": False}}
    record = make_record(first, *others, finalists=finalists, experiment=experiment)
    sync(client, record, running=True)
    return record


def expected(client, record, base_url, numbers):
    parent, children = runs_of(client, record)
    runs = f"{base_url}/#/experiments/{parent.info.experiment_id}/runs"
    best = {f"trial {n}": f"{runs}/{children[str(n)].info.run_id}?{WORKFLOW}" for n in numbers}
    return runs, parent.info.run_id, best


def test_links_lead_to_the_study_its_trials_and_the_best(server, client, record):
    links = find_links(record)  # on the SQLite store, of which a UI runs
    runs, parent, best = expected(client, record, server, [4, 5, 6, 3, 2])
    assert links.study == f"{runs}/{parent}?{WORKFLOW}"
    assert links.trials.startswith(f"{runs}?{WORKFLOW}&searchFilter=tags.")
    assert (dict(links.best), list(links.best)) == (best, [f"trial {n}" for n in (4, 5, 6, 3, 2)])
    assert find_study_link(record.experiment.name, record.id) == links.study
    assert links.report is None, "the search runs"
    record = dataclasses.replace(record, ended="done")
    sync(client, record)
    assert find_links(record).report == f"{runs}/{parent}/artifacts/report.html?{WORKFLOW}"
    with start_ui(record, of_study=True) as ui:
        assert find_links(record).trials == ui.links[0].url, "the view that is saved now"


def test_what_mlflow_lacks_has_no_link(server, client, record, make_record, make_trial):
    assert find_links(make_record(make_trial(0))) is None, "its experiment"
    assert find_study_link(record.experiment.name, "no-id") is None
    assert find_study_link("no-experiment", record.id) is None
    name = {"name": record.experiment.name}
    assert find_links(make_record(make_trial(0), experiment=name)) is None, "the study"
    _, children = runs_of(client, record)
    client.delete_run(children["5"].info.run_id)
    assert list(find_links(record).best) == [f"trial {n}" for n in (4, 6, 3, 2)], "a trial"


def test_a_server_gets_the_credentials_and_the_links_do_not(gateway, client, record, monkeypatch):
    pair = base64.b64encode(b"me:pass word").decode()
    _, _, best = expected(client, record, gateway.url, [4, 5, 6, 3, 2])
    given = {
        "user": {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pass word"},
        "token": {"MLFLOW_TRACKING_TOKEN": "a-token"},
        "uri": {"MLFLOW_TRACKING_URI": gateway.url.replace("//", "//me:pass%20word@") + "/"},
    }
    for how, settings in given.items():
        gateway.authorization = "Bearer a-token" if how == "token" else f"Basic {pair}"
        assert find_links(record) is None
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            assert find_links(record).best == best, how


def test_a_redirect_does_not_take_the_credentials_along(record, monkeypatch):
    asked = []

    class Login(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path.partition("?")[0], self.headers["Authorization"]))
            self.send_response(302)
            self.send_header("Location", "/login")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Login) as login:
        thread = threading.Thread(target=login.serve_forever, args=(0.05,))
        thread.start()
        uri = f"http://127.0.0.1:{login.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
        assert find_links(record) is None
        login.shutdown()
        thread.join()
    assert asked == [("/api/2.0/mlflow/experiments/get-by-name", "Bearer a-token")]


@pytest.mark.parametrize(
    ("variable", "value", "verify"),
    [
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "/ca.pem", "/ca.pem"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "true", False),
        ("MLFLOW_TRACKING_CLIENT_CERT_PATH", "/me.pem", True),
    ],
)
def test_a_server_is_verified_as_mlflow_does(monkeypatch, variable, value, verify):
    asked = []

    def request(session, *_, **options):
        asked.append((options["verify"], session.cert))
        raise OSError

    monkeypatch.setattr("requests.Session.request", request)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere.pem")
    monkeypatch.setenv(variable, value)
    with pytest.raises(OSError):  # noqa: PT011 - of the request
        RestServer("https://mlflow.example.org", 1).ask("experiments/search")
    assert asked == [(verify, value if verify is True else None)]


def test_an_absent_slow_or_foreign_server_is_given_up_in_time(gateway, record, monkeypatch):
    def seconds(**options):
        begun = time.monotonic()
        assert find_links(record, **options) is None
        return time.monotonic() - begun

    gateway.status = 500
    assert seconds(timeout_s=60) < 30
    gateway.status, gateway.delay_s = None, 1.5  # seven answers, each in time, together too late
    assert 2 <= seconds() < 8
    gateway.silent = True
    assert 2 <= seconds() < 20
    gateway.close()
    assert seconds(timeout_s=60) < 30
    for uri in ("databricks", "http://127.0.0.1:1", "gopher://x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert seconds(timeout_s=60) < 30


def test_a_store_without_a_ui_is_looked_into_for_the_study(
    tmp_path, monkeypatch, client, record, make_record
):
    assert has_study(record)
    assert not has_study(make_record())
    monkeypatch.chdir(tmp_path)
    assert not has_study(record)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    assert not has_study(record)
    (tmp_path / "mlflow.db").unlink()
    sqlite3.connect(tmp_path / "mlflow.db").close()
    assert not has_study(record)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert not has_study(record)


def test_a_running_ui_is_known_to_its_user_while_it_answers(
    server, shared_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    uri = tracking_uri()
    assert running_ui(uri) is None
    address = Address(server, 1)
    with announced(uri, address):
        (file,) = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        assert running_ui(uri) == address
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(shared_folder)
        assert running_ui(f"sqlite:///{tmp_path / 'link' / 'mlflow.db'}") == address
        assert running_ui(f"sqlite:///{tmp_path / 'mlflow.db'}") is None
        for planted in ("[]", "{", json.dumps({"base_url": "ftp://x", "pid": 1}), '{"pid": 1}'):
            file.write_text(planted)
            assert running_ui(uri) is None
        file.write_text(json.dumps({"base_url": "http://127.0.0.1:1", "pid": 1}))
        assert running_ui(uri) is None, "nobody answers"
        file.unlink()
        os.mkfifo(file)
        assert running_ui(uri) is None
        file.unlink()
    with contextlib.ExitStack() as longer:
        with announced(uri, address):
            longer.enter_context(announced(uri, Address(server, 2)))
        assert running_ui(uri) == Address(server, 2), "the first to end was not the last to begin"
    assert running_ui(uri) is None
    assert list(tmp_path.glob("*.json")) == []


def test_a_default_that_wins_is_there_by_its_name(server, client, make_record, make_trial):
    trial, retrained = make_trial(0), {"role": Role.FINALIST, "configuration": 0}
    own = [make_trial(n + 1, role=Role.BASELINE, repeat=n, objective=0.1) for n in range(2)]
    finalists = [make_trial(0, **retrained, repeat=0, objective=3.0), *own]
    experiment = {"finalists": {"top": 1, "repeats": 1}}
    record = make_record(trial, finalists=finalists, experiment=experiment)
    sync(client, record, running=True)
    parent, children = runs_of(client, record)
    links = find_links(record).best
    assert list(links) == ["default LSTM", "trial 0"]
    assert children["default repeat 0"].info.run_id in links["default LSTM"]
    shown = links_as_json(record)["best"]
    assert [(b["trial"], b["name"]) for b in shown] == [(None, "default LSTM"), (0, "trial 0")]


SERVER = "http://127.0.0.1:5000/"


def query(link):
    page, _, text = link.partition("?")
    return page, dict(urllib.parse.parse_qsl(text, keep_blank_values=True))


def test_a_plain_link_carries_every_facet_of_the_ui(make_record):
    record = make_record()
    page, facets = query(study_view(record, "abc").link(SERVER, "7"))
    assert page == "http://127.0.0.1:5000/#/experiments/7/runs"
    common = {
        "workflowType": "machine_learning",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": "W10=",
    }
    best_first = {"orderByKey": "metrics.`objective`", "orderByAsc": "true"}
    trained = "tags.role = 'trial' and tags.repeat_of IS NULL"
    of_study = f"tags.`mlflow.parentRunId` = 'abc' and {trained}"
    assert facets == common | best_first | {"searchFilter": of_study, "compareRunsMode": "CHART"}
    _, facets = query(trials_view(record).link(SERVER, "7"))
    assert facets == common | best_first | {"searchFilter": trained}
    _, facets = query(studies_view(record).link(SERVER, "7"))
    nested = {"orderByKey": "attributes.start_time", "orderByAsc": "false", "searchFilter": ""}
    assert facets == common | nested


def test_the_best_are_first_also_where_more_is_better(make_record):
    record = make_record(
        experiment={
            "task": {"kind": "classify"},
            "data": {"path": "a.csv", "id": "name", "target": "y"},
            "objective": {"metric": "accuracy"},
        }
    )
    assert record.experiment.objective.direction == "maximize"
    for view in (trials_view(record), study_view(record, "abc")):
        assert not view.ascending
        assert json.loads(json.loads(view.as_saved(record.created))["state"])["orderByAsc"] is False


def test_a_saved_view_has_the_searched_columns_and_axes(make_record):
    record = make_record()
    view = study_view(record, "abc")
    _, facets = query(view.link(SERVER, "7", saved=[view.tag]))
    assert facets == {
        "workflowType": "machine_learning",
        "viewStateShareKey": "tuner-abc",
        "compareRunsMode": "CHART",
    }
    saved = json.loads(view.as_saved(record.created))
    assert view.tag == "mlflow.sharedViewState.tuner-abc"
    assert (saved["name"], saved["createdAt"]) == ("s1", 1_699_999_200_000)
    state = json.loads(saved["state"])
    assert state["searchFilter"] == view.search
    assert state["selectedColumns"] == ["metrics.`objective`", "params.`hidden_size`"]
    (chart,), (section,) = state["compareRunCharts"], state["compareRunSections"]
    assert chart["type"] == "PARALLEL"
    assert (chart["selectedParams"], chart["selectedMetrics"]) == (["hidden_size"], ["objective"])
    assert chart["metricSectionId"] == section["uuid"]


def test_a_view_of_a_wide_search_space_fits_into_a_tag(make_record):
    many = {
        name: {"type": "float", "low": 0.1, "high": 0.2}
        for name in ("learning_rate", "dropout", "weight_decay", "gradient_clip")
    }
    record = make_record(experiment={"search_space": many})
    wide = record.experiment.search_space
    for i in range(60):
        wide[f"a_hyperparameter_with_a_long_name_{i}"] = wide["dropout"]
    assert len(study_view(record, "f" * 32).as_saved(record.created)) < 5000


def test_who_may_only_read_gets_links_without_saved_views(make_record):
    class Client:
        def set_experiment_tag(self, *_):
            raise PermissionError

    record, experiment = make_record(), SimpleNamespace(experiment_id="7", tags={})
    view = trials_view(record)
    assert not save_view(Client(), experiment, view, record.created)
    experiment.tags[view.tag] = view.as_saved(record.created)
    assert save_view(Client(), experiment, view, record.created), "somebody else has saved it"


def test_a_study_of_one_configuration_has_its_trials_as_an_axis(make_record):
    record = make_record(experiment={"search_space": {}})
    assert study_view(record, "abc").axes == ("trial",)
