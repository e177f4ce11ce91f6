import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tuner.tracking import MlflowTracker, open_store


def runs_of(client, record):
    experiment = client.get_experiment_by_name(record.experiment.name)
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], order_by=["start_time ASC"]))


def test_a_search_is_copied_while_it_runs(client, make_record, make_trial, capfd, wait_for):
    record, warnings = make_record(), []
    records = [record]
    at_end = {"best.yaml": "x: 1\n", "pictures/history.png": b"\x89PNG"}
    tracker = MlflowTracker(
        lambda: records[-1],
        "tuner sync s1",
        warnings.append,
        artifacts_at_end_of=lambda record: at_end,
    )
    wait_for(lambda: len(runs_of(client, record)) == 1)
    records.append(make_record(make_trial(0), id=record.id))
    tracker.wake()
    finished = ["RUNNING", "FINISHED"]  # the study and its trial
    wait_for(lambda: [run.info.status for run in runs_of(client, record)] == finished)
    records.append(make_record(make_trial(0), make_trial(1), id=record.id))
    assert tracker.close(done=True)
    parent, *children = runs_of(client, record)
    assert parent.info.status == "FINISHED"
    assert len(children) == 2
    names = {a.path for a in client.list_artifacts(parent.info.run_id)}
    assert names == {"experiment.yaml", "best.yaml", "pictures"}
    assert warnings == []
    assert capfd.readouterr() == ("", "")
    path = client.download_artifacts(parent.info.run_id, "pictures/history.png")
    assert Path(path).read_bytes() == b"\x89PNG"


def test_an_interrupted_search_is_killed_in_mlflow(client, make_record, make_trial, monkeypatch):
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)
    record = make_record(make_trial(0))
    assert MlflowTracker(lambda: record, "tuner sync s1", pytest.fail).close(done=False)
    assert runs_of(client, record)[0].info.status == "KILLED"


def test_the_end_is_prepared_once_after_the_first_copy(client, make_record, make_trial, wait_for):
    record, prepared = make_record(), []

    def before_end():
        prepared.append(len(runs_of(client, record)))
        raise ImportError("no matplotlib")  # is said at the end, of what needs it

    tracker = MlflowTracker(lambda: record, "tuner sync s1", pytest.fail, before_end=before_end)
    wait_for(lambda: prepared == [1])
    record = make_record(make_trial(0), id=record.id)
    tracker.wake()
    wait_for(lambda: len(runs_of(client, record)) == 2)
    assert tracker.close(done=True)
    assert prepared == [1]


def test_an_end_that_has_come_is_not_prepared(make_record, monkeypatch):
    reading = threading.Event()

    def read():
        reading.wait(60)
        return record

    record, prepared = make_record(), []
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)
    tracker = MlflowTracker(
        read, "tuner sync s1", pytest.fail, before_end=lambda: prepared.append(1)
    )
    closing = threading.Thread(target=tracker.close, args=(False,))
    closing.start()
    while not tracker._closing.is_set():
        time.sleep(0.01)
    reading.set()
    closing.join()
    assert prepared == []


def test_closing_twice_says_the_same(make_record):
    record = make_record()
    tracker = MlflowTracker(lambda: record, "tuner sync s1", pytest.fail)
    assert tracker.close(done=True)
    assert tracker.close(done=False)
    tracker.wake()


def test_a_copy_goes_on_when_mlflow_is_back(client, make_record, make_trial, wait_for, monkeypatch):
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)  # it may not know yet that it is
    record, warnings, failures = make_record(make_trial(0)), [], [OSError("disk full")]

    def read():
        if failures:
            raise failures.pop()
        return record

    tracker = MlflowTracker(read, "tuner sync s1", warnings.append)
    wait_for(lambda: len(runs_of(client, record)) == 2)  # without a wake
    assert tracker.close(done=True)
    assert warnings == [
        "the MLflow store mlflow.db: disk full; the search continues, and `tuner sync s1` "
        "completes the copy later",
        "MLflow answers again, and has all of it",
    ]


def test_waking_never_waits(make_record):
    record, gate = make_record(), threading.Event()

    def read():
        gate.wait(10)
        return record

    tracker = MlflowTracker(read, "tuner sync s1", pytest.fail)
    begun = time.monotonic()
    for _ in range(1000):
        tracker.wake()
    assert time.monotonic() - begun < 5
    gate.set()
    assert tracker.close(done=True)


def test_importing_tracking_imports_neither_mlflow_nor_torch():
    code = "import sys, tuner.tracking; print({'mlflow', 'torch'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "set()\n"


def test_opening_a_store_imports_no_torch_and_prints_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import sys; from tuner.tracking import open_store; open_store()"
    code += "; assert 'torch' not in sys.modules"
    output = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (output.returncode, output.stdout, output.stderr) == (0, b"", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["mlflow.db"]


def test_the_store_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/my.db")
    assert open_store().tracking_uri == "sqlite:///elsewhere/my.db"
    assert (tmp_path / "elsewhere/my.db").exists()
