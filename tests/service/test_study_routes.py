"""Studies over HTTP: a whole service, with workers that train nothing."""

import hashlib
import io
import json
import tarfile
import time

import optuna
import pytest
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.journal.record_json import record_from_text
from tuner.service.access import Access, TokenFile
from tuner.service.app import make_app
from tuner.service.service import Service
from tuner.tracking import tracking_uri

SOON_S = 60
pytestmark = pytest.mark.usefixtures("quick_baselines")


@pytest.fixture
def waves():
    return WAVES.encode()


@pytest.fixture
def served(settings, waves):
    """A client of a running service without tokens, whose trials take no time."""
    service = Service(settings, lambda n_workers: ThreadPool(n_workers))
    assert service.start()
    app = make_app(service, Access(), settings)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        client.service = service
        client.dataset = upload(client, waves)
        yield client
    service.stop()


def upload(client, content, name="waves.csv", **keys):
    dataset = hashlib.sha256(content).hexdigest()
    answer = client.put(f"/v1/datasets/{dataset}?name={name}", content=content, **keys)
    assert answer.status_code in (200, 201), answer.text
    return dataset


def experiment(dataset, **changes):
    return waves_experiment(f"dataset:{dataset}", **SHORT | changes)


def submit(client, status=201, changes=None, headers=None, **body):
    raw = experiment(client.dataset, **(changes or {}))
    body = {"experiment": raw, "tracking": False} | body
    answer = client.post("/v1/studies", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def done(client, name="waves-random-0", state="done", **keys):
    deadline = time.monotonic() + SOON_S
    while (study := client.get(f"/v1/studies/{name}", **keys).json())["state"] != state:
        assert time.monotonic() < deadline, study
        time.sleep(0.01)
    return study


def test_a_search_is_submitted_watched_and_read(served):
    study = submit(served)
    assert (study["name"], study["kind"], study["owner"]) == ("waves-random-0", "search", "local")
    assert study["datasets"] == [served.dataset]
    study = done(served)
    assert study["trained"] == study["trials"] == 6
    url = "/v1/studies/waves-random-0"
    summary = served.get(f"{url}/summary").json()
    assert (summary["study"], summary["state"]) == ("waves-random-0", "done")
    trials = served.get(f"{url}/trials").json()
    assert trials["items"] == summary["all_trials"]
    assert trials["total"] == 6
    best = summary["best"]
    assert best["is_default"]  # it is shown as the winner, as here
    won = {"trial": best["trial"], "score": best["mean"], "params": best["params"]}
    assert study["best"] == won
    record, state = record_from_text(served.get(f"{url}/record").text)
    assert (record.name, state) == ("waves-random-0", "done")
    assert "waves-random-0" in served.get(f"{url}/report").text


def test_the_same_submission_is_the_same_study(served):
    first = submit(served)
    again = submit(served, status=200)
    assert (again["name"], again["submitted"]) == (first["name"], first["submitted"])
    assert len(served.get("/v1/studies").json()["items"]) == 1
    refused = submit(served, status=409, changes={"task": {"window": 7, "season": 5}})
    assert "task.window=6, got 7" in refused["detail"]


def test_the_best_has_the_path_that_the_client_wrote(served):
    raw = experiment(served.dataset)
    raw["data"]["path"] = "data/waves.csv"
    body = {"experiment": raw, "datasets": {"data/waves.csv": served.dataset}, "tracking": False}
    assert served.post("/v1/studies", json=body).status_code == 201
    done(served)
    best = served.get("/v1/studies/waves-random-0/best").text
    assert "path: data/waves.csv" in best
    as_json = served.get("/v1/studies/waves-random-0/best?format=json").json()
    assert as_json["data"]["path"] == "data/waves.csv"
    assert as_json["recorded"]["data_sha256"] == served.dataset
    for part in ("record", "summary", "report", "best"):
        text = served.get(f"/v1/studies/waves-random-0/{part}").text
        assert str(served.service.settings.root.resolve()) not in text


def test_an_experiment_may_be_yaml(served):
    text = json.dumps(experiment(served.dataset))
    answer = served.post("/v1/studies", json={"experiment": text, "tracking": False})
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"data": {"path": "/etc/passwd"}}, "data.path"),
        ({"data": {"path": "../waves.csv"}}, "data.path"),
        ({"data": {"path": ["a"]}}, "data.path"),
        ({"data": {"path": "dataset:" + "g" * 64}}, "data.path"),
        ({"search_space": "spaces/lstm.yaml"}, "search_space"),
        ({"hyperparameters": {"cell": "os:system"}}, "hyperparameters.cell"),
        ({"hyperparameters": {"loss": "os.path:join"}}, "hyperparameters.loss"),
        ({"objective": {"metric": "minimize os:system"}}, "objective.metric"),
        ({"budget": {"trials": 100_001, "epochs": 2}}, "budget.trials"),
        ({"budget": {"trials": -1}}, "budget.trials"),
    ],
)
def test_a_submission_that_breaks_a_rule_is_refused(served, changes, key):
    refused = submit(served, status=422, changes=changes)
    assert refused["key"] == key
    assert key in refused["detail"]
    assert served.get("/v1/studies").json()["items"] == []


def test_a_dataset_of_nobody_is_not_found(served):
    data = {"data": {"path": f"dataset:{'0' * 64}", "target": "y"}}
    assert submit(served, status=404, changes=data)["status"] == 404


def test_studies_are_listed_in_pages(served):
    for seed in range(5):
        submit(served, changes={"seed": seed})
    found, cursor = [], ""
    while cursor is not None:
        page = served.get(f"/v1/studies?limit=2{cursor}").json()
        found += [study["seed"] for study in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert found == [4, 3, 2, 1, 0]
    assert [s["seed"] for s in served.get("/v1/studies?q=RANDOM-3").json()["items"]] == [3]
    for seed in range(5):
        done(served, f"waves-random-{seed}")
    assert served.get("/v1/studies?state=queued").json()["items"] == []
    assert len(served.get("/v1/studies?state=done").json()["items"]) == 5


def test_a_study_can_be_extended_over_http(served):
    submit(served)
    done(served)
    answer = served.post("/v1/studies/waves-random-0/extend", json={"trials": 9})
    assert (answer.status_code, answer.json()["trials"]) == (202, 9)
    assert done(served)["trained"] == 9
    refused = served.post("/v1/studies/waves-random-0/resume")
    assert refused.status_code == 409


def test_a_study_that_has_ended_can_be_deleted(served):
    submit(served)
    done(served)
    used = served.delete(f"/v1/datasets/{served.dataset}")
    assert (used.status_code, "waves-random-0" in used.json()["detail"]) == (409, True)
    assert served.delete("/v1/studies/waves-random-0").status_code == 204
    assert served.get("/v1/studies/waves-random-0").status_code == 404
    left = list(served.service.settings.root.rglob("*waves-random-0*"))
    assert left == []
    assert served.delete(f"/v1/datasets/{served.dataset}").status_code == 204
    submit(served, status=404)


def test_what_does_not_exist_yet_is_a_conflict(served):
    submit(served, changes={"budget": {"trials": 6, "epochs": 2}})
    done(served)
    for part in ("model",):  # threads write none
        answer = served.get(f"/v1/studies/waves-random-0/{part}")
        assert answer.status_code == 409
        assert "has no model" in answer.json()["detail"]
    answer = served.post("/v1/studies/waves-random-0/predict", json={"rows": [{"y": 1.0}]})
    assert answer.status_code == 409


@pytest.mark.parametrize("what", ["record", "summary", "report", "best"])
def test_a_study_without_a_record_has_none_yet(served, what, monkeypatch):
    monkeypatch.setattr("tuner.service.searches.MOST_RUNNING", 0)
    submit(served)
    answer = served.get(f"/v1/studies/waves-random-0/{what}")
    assert (answer.status_code, answer.json()["detail"]) == (
        409,
        "study 'waves-random-0' has no record yet; wait for it",
    )
    place = served.service.records.place_of("local", "waves-random-0")
    with place.open(print) as storage:  # as the search does first, before it knows its data
        optuna.create_study(study_name=place.study, storage=storage)
    assert served.get(f"/v1/studies/waves-random-0/{what}").status_code == 409
    assert "no record yet" in served.get(f"/v1/studies/waves-random-0/{what}").json()["detail"]


def test_runs_of_mlflow_are_in_the_folder_of_the_service(
    served, tmp_path, monkeypatch, no_mlflow_settings
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    submit(served, tracking=True)
    done(served)
    assert (served.service.settings.root / "mlflow.db").exists()
    assert list(elsewhere.iterdir()) == []
    served.service.stop()
    assert tracking_uri() == f"sqlite:///{elsewhere}/mlflow.db"


def test_a_service_without_a_scheduler_is_not_ready(served, monkeypatch):
    assert served.get("/ready").status_code == 200
    monkeypatch.setattr(served.service.searches, "failed", "no search is started any more")
    answer = served.get("/ready")
    assert (answer.status_code, answer.json()["detail"]) == (503, "no search is started any more")
    assert served.get("/health").status_code == 200


def test_owners_do_not_see_each_other(settings, tokens, as_, waves):
    service = Service(settings, lambda n_workers: ThreadPool(n_workers))
    assert service.start()
    app = make_app(service, Access(TokenFile(tokens[0])), settings)
    try:
        client = TestClient(app, base_url="http://127.0.0.1:8080")
        client.dataset = upload(client, waves, headers=as_("ana"))
        submit(client, headers=as_("ana"))
        done(client, headers=as_("ana"))
        submit(client, status=404, headers=as_("ben"))  # not even the data
        assert client.get("/v1/studies", headers=as_("ben")).json()["items"] == []
        for part in ("", "/summary", "/record", "/trials", "/best", "/report", "/model"):
            url = f"/v1/studies/waves-random-0{part}"
            assert client.get(url, headers=as_("ben")).status_code == 404
            assert client.get(url).status_code == 401
        for verb in ("cancel", "resume"):
            url = f"/v1/studies/waves-random-0/{verb}"
            assert client.post(url, headers=as_("ben")).status_code == 404
            assert client.post(url, headers=as_("ana", "read")).status_code == 403
        upload(client, waves, headers=as_("ben"))
        submit(client, headers=as_("ben"))
        done(client, headers=as_("ben"))
    finally:
        service.stop()


@pytest.mark.slow
def test_a_real_search_gives_a_model(settings, waves, tmp_path):
    from tuner.prediction import load_model

    service = Service(settings)
    assert service.start()
    try:
        app = make_app(service, Access(), settings)
        client = TestClient(app, base_url="http://127.0.0.1:8080")
        client.dataset = upload(client, waves)
        submit(client)
        done(client)
        content = client.get("/v1/studies/waves-random-0/model").content
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            tar.extractall(tmp_path / "model", filter="data")
        model = load_model(tmp_path / "model")
        rows = [{"y": float(line)} for line in waves.decode().split()[1:]]
        answer = client.post("/v1/studies/waves-random-0/predict", json={"rows": rows}).json()
        import pandas as pd

        assert answer["rows"] == model.predict(pd.DataFrame(rows)).to_dict("records")
    finally:
        service.stop()


def test_data_that_run_refuses_is_refused_before_queueing(served):
    data = experiment(served.dataset)["data"] | {"target": "z"}
    problem = submit(served, 422, {"data": data})
    assert problem["detail"] == (
        "waves.csv: data.target: no column 'z' in the file; choose from: y"
    )
    assert problem["key"] == "data.target"
    long = {"task": {"window": 6, "horizon": 40}}
    assert submit(served, 422, long)["key"] == "data.split.validation"
    assert served.get("/v1/studies").json()["items"] == []


@pytest.mark.parametrize("path", ["studies", "studies/a/trials", "queue", "datasets", "me"])
def test_an_unknown_parameter_is_refused(client, path):
    answer = client.get(f"/v1/{path}?sort=score")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("query: sort: unknown parameter")


def test_a_probe_may_send_any_parameter(client):
    assert client.get("/health?from=balancer").status_code == 200
