"""Experiments over HTTP: what is proposed and checked is what the commands print."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from tuner.cli.app import run
from tuner.data.prepared import check_data
from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.planning.check import check_experiment
from tuner.service.access import Access, Owner, TokenFile
from tuner.service.app import make_app
from tuner.service.confined import Confined
from tuner.service.datasets import DatasetStore
from tuner.service.experiments import Experiments, InitBody
from tuner.service.problems import Problem
from tuner.service.submissions import parse_experiment

CSV = "date,sales,price,store\n" + "".join(
    f"{2000 + i // 12}-{i % 12 + 1:02d}-01,{20 + i * 7 % 11},{i % 5},a\n" for i in range(150)
)
SHA = hashlib.sha256(CSV.encode()).hexdigest()


@pytest.fixture
def service(settings, shared):
    store = DatasetStore(settings.root, settings.limits)
    store.confined = shared
    shared._root = settings.root
    made = SimpleNamespace(datasets=store, experiments=Experiments(store, settings))
    made.used_by = lambda owner, dataset: []
    return made


@pytest.fixture
def client(service, settings):
    app = make_app(service, Access(), settings)
    client = TestClient(app, base_url="http://127.0.0.1:8080")
    assert client.put(f"/v1/datasets/{SHA}?name=sales.csv", content=CSV).status_code == 201
    return client


def raw(path=f"dataset:{SHA}", **blocks):
    data = {"path": path, "target": "sales", "time": "date"}
    space = {"hidden_size": {"type": "int", "low": 4, "high": 16}}
    return {"name": "sales", "data": data, "search_space": space} | blocks


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with the same file."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "sales.csv").write_text(CSV)
    return folder


OPTIONS = [
    ({}, []),
    ({"target": "price"}, ["--target", "price"]),
    ({"features": ["sales", "price"]}, ["--features", "sales,price"]),
    ({"no_time": True, "horizon": 3}, ["--no-time", "--horizon", "3"]),
    ({"time": "date", "resample": "3MS"}, ["--time", "date", "--resample", "3MS"]),
    ({"read": {"decimal": ".", "skip_rows": 0}}, ["--read", "decimal=.", "--read", "skip_rows=0"]),
]


@pytest.mark.parametrize(("body", "options"), OPTIONS)
def test_init_proposes_what_the_command_writes(client, here, capsys, body, options):
    answer = client.post("/v1/experiments:init", json={"dataset": SHA} | body)
    assert answer.status_code == 200, answer.text
    proposed = answer.json()
    assert run(["init", "sales.csv", *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    written = (here / "sales.yaml").read_text()
    assert proposed["yaml"] == written.replace("path: sales.csv", f"path: dataset:{SHA}")
    assert [f"wrote sales.yaml: {proposed['does']}", *proposed["notes"]] == printed[:-1]


def test_what_init_proposes_passes_the_check(client):
    proposed = client.post("/v1/experiments:init", json={"dataset": SHA}).json()
    answer = client.post("/v1/experiments:check", json={"experiment": proposed["yaml"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["experiment"]["data"]["path"] == f"dataset:{SHA}"


REFUSED = [
    ({"target": "sale"}, "data.target", "did you mean 'sales'?"),
    ({"horizon": 0}, "horizon", "must be from 1 to 10000"),
    ({"no_time": True, "time": "date"}, "no_time", "contradicts"),
    ({"read": {"foo": 1}}, "read", "no key 'foo'"),
    ({"read": {"decimal": "x"}}, "read.decimal", "must be '.' or ','"),
    ({"task": "guess"}, "task", "must be one of forecast"),
    ({"dataset": "x"}, "dataset", "match"),
    ({"output": "/etc/x.yaml"}, "output", "unknown key"),
]


@pytest.mark.parametrize(("body", "key", "rule"), REFUSED)
def test_init_refuses_an_option_in_one_line_with_its_key(client, body, key, rule):
    answer = client.post("/v1/experiments:init", json={"dataset": SHA} | body)
    problem = answer.json()
    assert (answer.status_code, problem["key"]) == (422, key)
    assert rule in problem["detail"]
    assert "\n" not in problem["detail"]


def test_a_check_finds_what_the_command_finds(client, here):
    answer = client.post(
        "/v1/experiments:check",
        json={"experiment": raw("sales.csv"), "datasets": {"sales.csv": SHA}},
    )
    assert answer.status_code == 200, answer.text
    experiment = Experiment.from_dict(raw("sales.csv"))
    local = check_experiment(experiment, check_data(experiment).facts).to_json()
    local["rows"] = [list(row) for row in local["rows"]]
    local["space"] = [list(row) for row in local["space"]]
    found = answer.json()
    assert {k: v for k, v in found["check"].items() if k != "fixed"} == {
        k: v for k, v in local.items() if k != "fixed"
    }
    assert found["experiment"] == experiment.to_dict() | {
        "data": experiment.to_dict()["data"] | {"path": "sales.csv"}
    }


def test_messages_of_a_check_name_the_file_as_the_client_did(client, settings):
    data = raw("mine/b.csv")["data"] | {"target": "sale"}
    body = {"experiment": raw(data=data), "datasets": {"mine/b.csv": SHA}}
    answer = client.post("/v1/experiments:check", json=body)
    assert (answer.status_code, answer.json()["key"]) == (422, "data.target")
    assert answer.json()["detail"].startswith("b.csv: data.target: no column 'sale' in the file")
    assert str(settings.root) not in answer.text


def test_a_message_about_a_test_file_has_no_folder_of_the_server(client, settings):
    other = CSV.replace("sales", "sold")
    sha = client.post("/v1/datasets?name=later.csv", content=other).json()["id"]
    data = raw()["data"] | {"split": {"test_file": f"dataset:{sha}"}}
    answer = client.post("/v1/experiments:check", json={"experiment": raw(data=data)})
    assert (answer.status_code, answer.json()["key"]) == (422, "data.split.test_file")
    assert str(settings.root) not in answer.text
    assert "later.csv" in answer.json()["detail"]


def test_an_experiment_is_checked_without_its_data(client, service, monkeypatch):
    monkeypatch.setattr(Confined, "run", None)
    answer = client.post("/v1/experiments:check", json={"experiment": raw(), "data": False})
    assert (answer.status_code, answer.json()["check"]) == (200, None)
    wrong = raw(budget={"trials": 0})
    answer = client.post("/v1/experiments:check", json={"experiment": wrong, "data": False})
    assert (answer.status_code, answer.json()["key"]) == (422, "budget.trials")


def test_data_that_was_right_is_not_read_again(client, service, settings, monkeypatch):
    ana, calls = Owner("local"), []
    original = Confined.run
    monkeypatch.setattr(
        Confined, "run", lambda self, *a, **k: calls.append(a[0]) or original(self, *a, **k)
    )

    def check(**blocks):
        found = parse_experiment(raw(**blocks), {}, ana, service.datasets, settings)
        service.experiments.check_data(ana, found[1], {"experiment": found[0]})

    check()
    check(seed=3, name="other", strategy={"name": "pso"}, budget={"trials": 5})
    assert calls == ["check"]
    check(task={"window": 6})
    assert calls == ["check"] * 2
    for _ in range(2):  # what is wrong is read again: it is not remembered
        with pytest.raises(InputError, match="part needs as many rows"):
            check(task={"window": 6, "horizon": 60})
    assert calls == ["check"] * 4


def test_a_check_waits_for_no_other_request(service, settings, client, monkeypatch):
    """Of the same data too: a thread that waits would be one less for others."""
    ana, both = Owner("local"), threading.Barrier(2)
    monkeypatch.setattr(Confined, "run", lambda self, *a, **k: both.wait(30))
    experiment, spec = parse_experiment(raw(), {}, ana, service.datasets, settings)[::-1]
    with ThreadPoolExecutor(2) as threads:
        calls = [
            threads.submit(service.experiments.check_data, ana, experiment, {"experiment": spec})
            for _ in range(2)
        ]
        assert [call.result() for call in calls] == [None, None]


def test_a_check_that_takes_too_much_is_given_up(client, monkeypatch):
    monkeypatch.setattr(Confined, "_ask", lambda self, *given: b"")  # it was killed
    answer = client.post("/v1/experiments:check", json={"experiment": raw()})
    assert answer.status_code == 422
    assert "MiB of memory" in answer.json()["detail"]
    assert answer.json()["detail"].startswith("sales.csv: ")


def test_an_owner_checks_own_data_alone(service, settings, tokens, as_):
    client = TestClient(
        make_app(service, Access(TokenFile(tokens[0])), settings), base_url="http://127.0.0.1:8080"
    )
    path = f"/v1/datasets/{SHA}?name=sales.csv"
    assert client.put(path, content=CSV, headers=as_("ana")).status_code == 201
    requests = {"init": {"dataset": SHA}, "check": {"experiment": raw()}}
    for verb, body in requests.items():
        path = f"/v1/experiments:{verb}"
        assert client.post(path, json=body, headers=as_("ana", "read")).status_code == 200
        assert client.post(path, json=body, headers=as_("ben")).status_code == 404
        assert client.post(path, json=body).status_code == 401
    with pytest.raises(Problem, match="no such dataset"):
        service.experiments.propose(Owner("ben"), InitBody(dataset=SHA))
