"""Nothing that a client gets names a place of the server."""

import json
import tempfile
import time
from pathlib import Path

import pytest
from helpers.simulated_study import SHORT, WAVES, waves_experiment
from helpers.thread_pool import ThreadPool
from starlette.testclient import TestClient

from tuner.errors import InputError, JournalError, RunError, StudyError
from tuner.executors.base import Finished, Lost, Returned
from tuner.jobs import Outcome, OutcomeState
from tuner.service.access import Access
from tuner.service.app import make_app
from tuner.service.hiding import for_clients, public, public_event
from tuner.service.service import Service
from tuner.service.settings import Settings

ROOT = Path("/srv/tuner")
URL = "postgresql+psycopg://ana@db.internal:5432/tuner"
REFUSED = 'connection to server at "10.0.0.5", port 5432 failed: FATAL: no role "ana"'
MLFLOW = "https://mlflow.internal:5000/team"
HOME = Path.home()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/tuner/datasets/ana/0/y.csv: no column 'y'", "y.csv: no column 'y'"),
        ("file:///srv/tuner/mlruns/1/x is gone", "x is gone"),
        (f"{HOME}/.netrc: Permission denied", ".netrc: Permission denied"),
        (f"{Path.cwd()}/a/b.py: line 3", "b.py: line 3"),
        (f"{tempfile.gettempdir()}/tuner-1/data.npy is gone", "data.npy is gone"),
        (f"{URL}: study 'a' is external", "the journal: study 'a' is external"),
        (f"--journal: {URL}: does not answer", "the journal: does not answer"),
        ("sqlite:////data/my journal.db: is full", "the journal: is full"),
        (f"`tuner sync a --journal {URL}` copies", "`tuner sync a the journal` copies"),
        (f"the journal's database does not answer ({REFUSED}); waiting", None),
        (
            f"the MLflow server at {MLFLOW} does not answer (refused); `tuner sync a` completes",
            None,
        ),
        (
            f"the MLflow server at {MLFLOW}: Error at mlflow.internal; `tuner sync a` completes",
            None,
        ),
        (f"no MLflow server at {MLFLOW}: something else answers; check it", None),
        (f"the MLflow store {URL}: {REFUSED}; `tuner sync a` completes", None),
        ("the MLflow store /data/mlflow.db takes too long to answer; later", None),
        ("data.path: must be dataset:ID, got '/etc/passwd'", "/etc/passwd"),
        ("budget.trials: must be at most 9; write 9", "budget.trials: must be at most 9; write 9"),
        ("ratio a/b, see https://example.com/root/x", "ratio a/b, see https://example.com/root/x"),
    ],
)
def test_a_text_for_clients_names_no_place_of_the_server(text, shown):
    found = for_clients(text, ROOT)
    for hidden in ("/srv", "internal", "10.0.0.5", "ana@", '"ana"', "/data", str(Path.cwd())):
        assert hidden not in found
    assert (shown or text.rpartition("; ")[2]) in found


@pytest.mark.parametrize(
    "error",
    [
        RunError(f"cannot be written: {REFUSED}", where=URL, remedy="mend that"),
        JournalError(f"does not answer: {REFUSED}", where=f"--journal: {URL}"),
        JournalError(f"{URL}: holds no studies", where="--journal", remedy="check the URL"),
        StudyError(f"{URL}: study 'a' was not made by tuner", remedy="give another name"),
        InputError("no such file", where="/srv/tuner/a/b.csv", got="'/srv/tuner/x'", key="a"),
    ],
)
def test_an_error_for_clients_names_no_place_in_any_field(error):
    shown = public(error, ROOT)
    assert type(shown) is type(error)
    for text in (str(shown), str(vars(shown))):
        for hidden in ("/srv", "internal", "10.0.0.5", "ana", "psycopg"):
            assert hidden not in text.replace("no role", "")


def test_the_reason_of_a_trial_names_no_folder_of_the_server():
    reason = f"OSError: no space: '{tempfile.gettempdir()}/tuner-1/weights.npz'"
    failed = Finished("trial 3", Outcome(state=OutcomeState.FAILED, reason=reason))
    shown = "OSError: no space: 'weights.npz'"
    assert public_event(failed).outcome.reason == shown
    assert public_event(Lost("trial 3", reason)).reason == shown
    assert public_event(Returned("trial 3")) == Returned("trial 3")


ROUTES = (
    *("", "/summary", "/record", "/trials", "/best", "/best?format=json", "/report", "/model"),
    *("/events", "/nothing"),
)
PAGES = ("/", "/page/view?study=waves-random-0", "/page/links?study=waves-random-0", "/ready")


@pytest.mark.usefixtures("quick_baselines")
@pytest.mark.parametrize("journal", [None, "sqlite:///{}/kept journals/all.db"])
def test_no_answer_about_a_search_names_a_place_of_the_server(tmp_path, monkeypatch, journal):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@localhost:9/hidden")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "kept journals").mkdir()
    settings = Settings(root=tmp_path / "root", journal=journal and journal.format(tmp_path))
    service = Service(settings, ThreadPool)
    assert service.start()
    answers = {}
    try:
        with TestClient(
            make_app(service, Access(), settings), base_url="http://127.0.0.1:8080"
        ) as client:
            dataset = client.post("/v1/datasets?name=waves.csv", content=WAVES.encode()).json()
            raw = waves_experiment(f"dataset:{dataset['id']}", **SHORT)
            answers["submit"] = client.post("/v1/studies", json={"experiment": raw})
            space = {"x": {"type": "float", "low": 0, "high": 1}}
            outside = {"name": "outside", "space": space, "direction": "minimize", "trials": 1}
            answers["create"] = client.post("/v1/external-studies", json=outside)
            [trial] = client.post("/v1/external-studies/outside/ask", json={"client": "a"}).json()[
                "trials"
            ]
            told = {"lease": trial["lease"], "value": 1.0}
            url = f"/v1/external-studies/outside/trials/{trial['number']}/tell"
            answers["tell"] = client.post(url, json=told)
            answers["tell wrongly"] = client.post(url, json=told | {"lease": "x"})
            deadline = time.monotonic() + 60
            while client.get("/v1/studies/waves-random-0").json()["state"] != "done":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for name in ("waves-random-0", "outside"):
                for route in ROUTES:
                    url = f"/v1/studies/{name}{route}"
                    answers[url] = client.get(url)
                answers[f"extend {name}"] = client.post(f"/v1/studies/{name}/extend", json={})
            for url in ("/v1/studies", "/v1/queue", "/v1/datasets", "/v1/me", "/metrics", *PAGES):
                answers[url] = client.get(url)
    finally:
        service.stop()
    notes = [
        event["text"]
        for line in answers["/v1/studies/waves-random-0/events"].text.splitlines()
        if line.startswith("data: ") and (event := json.loads(line[6:]))["event"] == "note"
    ]
    assert any("MLflow" in note for note in notes), notes
    hidden = (str(tmp_path), "sqlite", "kept journals", "localhost:9", "secret", str(Path.cwd()))
    for what, answer in answers.items():
        for text in hidden:
            assert text not in answer.text, (what, text)
