from __future__ import annotations

import json
import math
import socket
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tuner.errors import InputError, RunError
from tuner.jobs import OutcomeState
from tuner.tracking import SyncCount, SyncState, open_store, runs_link, start_ui, sync_study


@pytest.fixture(scope="module")
def server(shared_folder):
    """The UI's own server, on the store that the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        open_store()
        before = set(shared_folder.iterdir())
        with start_ui() as link:
            base_url, _, page = link.partition("/#/")
            assert page == "experiments"
            yield base_url
        assert set(shared_folder.iterdir()) - before <= {shared_folder / "mlartifacts"}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(base_url, timeout=2)


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_a_study_is_copied_over_http_as_it_is_to_a_file(
    server, make_record, make_trial, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client, state = open_store(), SyncState()
    odd = {"hidden_size": 8, "note": "", "a[0]": "ü" * 7000}
    record = make_record(
        make_trial(0, epochs=600, params=odd),
        make_trial(1, OutcomeState.PRUNED),
        make_trial(2, OutcomeState.FAILED, reason="loss is nan\n" * 900),
    )
    artifacts = {"experiment.yaml": "ä: 1\n"}
    done = sync_study(client, record, state, running=False, artifacts=artifacts)
    assert done == SyncCount(created=3)
    again = sync_study(client, record, SyncState(), running=False, artifacts=artifacts)
    assert again == SyncCount(unchanged=3)
    runs = client.search_runs([state.parent.experiment_id])
    assert sorted(r.info.status for r in runs) == ["FAILED", "FINISHED", "KILLED", "KILLED"]
    first = next(r for r in runs if r.info.run_name == "0")
    assert len(client.get_metric_history(first.info.run_id, "train_loss")) == 600
    assert first.data.params["note"] == ""
    path = client.download_artifacts(state.parent.run_id, "experiment.yaml")
    assert Path(path).read_text(encoding="utf-8") == "ä: 1\n"


def test_a_nan_travels_over_http_twice(server, make_record, make_trial, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client = open_store()
    trial = make_trial(0, objective=math.inf)
    record = make_record(trial)
    sync_study(client, record, state := SyncState(), running=False, artifacts={})
    (child,) = state.children.values()
    client.update_run(child.run_id, status="RUNNING")  # as a killed copy leaves it
    count = sync_study(client, record, SyncState(), running=False, artifacts={})
    assert count == SyncCount(completed=1)
    assert math.isnan(client.get_run(child.run_id).data.metrics["objective"])


def test_artifacts_of_a_local_study_show_in_the_ui(server, client, make_record, make_trial):
    record, state = make_record(make_trial(0)), SyncState()
    sync_study(client, record, state, running=False, artifacts={"best.yaml": "x: 1\n"})
    run_id = state.parent.run_id
    listed = json.loads(get(f"{server}/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}"))
    assert [f["path"] for f in listed["files"]] == ["best.yaml"]
    assert get(f"{server}/get-artifact?path=best.yaml&run_uuid={run_id}") == "x: 1\n"


def test_with_a_server_in_use_the_link_is_to_it(server, client, make_record, monkeypatch):
    record, state = make_record(), SyncState()
    sync_study(client, record, state, running=False, artifacts={})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server + "/")
    with start_ui(record.experiment.name) as link:
        assert link == runs_link(server, state.parent.experiment_id)
    with (
        pytest.raises(InputError, match=f"did you mean '{record.experiment.name}'"),
        start_ui(record.experiment.name + "x"),
    ):
        pass


def test_without_a_store_the_ui_says_what_to_do_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `tuner run"), start_ui():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_refused(client):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"--port: {port} .*in use; give another"),
            start_ui(port=port),
        ):
            pass


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").write_text("this is no database, however long one looks at it " * 40)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="did not start: .+"), start_ui():
        pass


def test_links_carry_every_facet_that_the_ui_wants():
    link = runs_link("http://127.0.0.1:5000/", "7", "abc", ascending=False)
    page, _, query = link.partition("?")
    assert page == "http://127.0.0.1:5000/#/experiments/7/runs"
    assert dict(urllib.parse.parse_qsl(query)) == {
        "workflowType": "machine_learning",
        "searchFilter": "tags.`mlflow.parentRunId` = 'abc' and tags.role = 'trial'",
        "orderByKey": "metrics.`objective`",
        "orderByAsc": "false",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": "W10=",
        "compareRunsMode": "CHART",
    }
    assert (
        runs_link("http://x", "7") == "http://x/#/experiments/7/runs?workflowType=machine_learning"
    )
