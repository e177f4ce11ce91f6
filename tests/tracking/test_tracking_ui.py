import json
import math
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest

from tuner.errors import InputError, RunError
from tuner.tracking import SyncCount, SyncState, find_links, open_store, start_ui, sync_study
from tuner.tracking.store import tracking_uri
from tuner.tracking.ui import running_ui, studies_view, study_view, trials_view


@pytest.fixture(scope="module")
def server(shared_folder):
    """The UI's own server, on the store that the tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(shared_folder)
        open_store()
        users = shared_folder / "statistics.py"
        users.write_text("raise ImportError('it is of the user')\n")
        before = set(shared_folder.iterdir())
        with start_ui() as ui:
            base_url, _, page = ui.links[0].url.partition("/#/")
            assert page == "experiments"
            yield base_url
        users.unlink()  # other tests stand in this folder too
        assert set(shared_folder.iterdir()) - before <= {shared_folder / "mlartifacts"}
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(base_url, timeout=2)


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


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


def test_links_open_views_that_are_saved_for_the_uis_menu(
    server, client, make_record, make_trial, monkeypatch
):
    record, state = make_record(make_trial(0)), SyncState()
    sync_study(client, record, state, running=False, artifacts={})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server + "/")
    parent, of_experiment = state.parent, record.experiment.name
    views = [study_view(record, parent.run_id), trials_view(record), studies_view(record)]
    tags = [view.tag for view in views]
    with start_ui(record, of_study=True) as ui:
        expected = [view.link(server, parent.experiment_id, saved=tags) for view in views]
        assert [link.url for link in ui.links] == expected
        assert (ui.server, ui.earlier) == (None, None)
        ui.wait()  # for nothing: it is not ours
    with start_ui(record) as ui:
        assert [link.url for link in ui.links] == expected[1:]
    saved = client.get_experiment_by_name(of_experiment).tags
    assert {tag: saved[tag] for tag in tags} == {v.tag: v.as_saved(record.created) for v in views}

    changed = json.dumps(json.loads(saved[tags[1]]) | {"name": "Mine", "updatedAt": 1})
    client.set_experiment_tag(parent.experiment_id, tags[1], changed)
    client.set_experiment_tag(parent.experiment_id, tags[2], "of an earlier version")
    with start_ui(record):
        after = client.get_experiment_by_name(of_experiment).tags
        assert after == saved | {tags[1]: changed}


def test_an_untracked_study_is_refused_by_name(server, make_record):
    record = make_record()
    refusal = "MLflow has no run of s1; `tuner sync s1` copies it"
    with pytest.raises(InputError, match=refusal), start_ui(record, of_study=True):
        pass
    with start_ui(record) as ui:
        assert [link.url for link in ui.links] == [f"{server}/#/experiments"]


def test_a_store_has_one_ui_which_others_find(server, client, make_record):
    address = running_ui(tracking_uri())
    assert address.base_url == server
    assert psutil.pid_exists(address.pid)
    with start_ui() as ui:
        assert (ui.server, ui.earlier) == (None, address.pid)
        assert ui.links[0].url == f"{server}/#/experiments"
    assert running_ui(tracking_uri()) == address
    assert running_ui("sqlite:////somewhere/else.db") is None
    assert find_links(make_record()) is None


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


@pytest.fixture
def bad_server(tmp_path, monkeypatch):
    """Has other words and another end than MLflow's server."""

    def make(script):
        program = tmp_path / "server"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return make


def test_a_failed_server_is_reported_with_its_last_words(tmp_path, bad_server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store()
    last = "cannot reach postgresql://me:secret@db/runs"
    bad_server(f"echo first; echo '{last}'; exit 3")
    said = "^the MLflow server did not start: cannot reach postgresql://db/runs$"
    with pytest.raises(RunError, match=said), start_ui():
        pass
    bad_server("echo waiting; sleep 60")
    with pytest.raises(RunError, match="did not answer in 0.3 s: waiting"), start_ui(timeout_s=0.3):
        pass
    assert running_ui(tracking_uri()) is None


@pytest.mark.slow
def test_the_ui_keeps_its_port_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store()
    command = ["env", "--default-signal=HUP", sys.executable, "-m", "tuner", "ui"]  # not as nohup
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ports = set()
    for ended_by in (signal.SIGHUP, "the death of its server"):
        with subprocess.Popen(command, **pipes) as ui:
            base_url = ui.stdout.readline().partition("/#/")[0]
            ports.add(base_url)
            processes = psutil.Process(ui.pid).children(recursive=True)
            assert len(processes) >= 2
            if isinstance(ended_by, signal.Signals):
                os.kill(ui.pid, ended_by)
            else:
                os.kill(running_ui(tracking_uri()).pid, signal.SIGKILL)
            _, err = ui.communicate(timeout=120)
        if isinstance(ended_by, signal.Signals):
            assert (ui.returncode, err) == (0, "")
        else:
            assert ui.returncode == 1
            assert err.startswith("tuner: the MLflow server has ended (signal 9): ")
            assert "running on http://127.0.0.1" in err
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert alive == []
        assert running_ui(tracking_uri()) is None
    assert len(ports) == 1
