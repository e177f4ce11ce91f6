"""A file that cannot be made, or not be written, costs that file alone."""

import contextlib
import dataclasses
from pathlib import Path

import pytest
from helpers.mlflow_runs import Spy, runs_of, sync

from tuner.cli import studies as commands
from tuner.cli.main import run
from tuner.tracking import MlflowTracker, SyncCount

WHY = "ValueError: no such colour"
BAD = ValueError("no such\ncolour")


def text_of(client, record, name):
    run_id = runs_of(client, record)[0].info.run_id
    return Path(client.download_artifacts(run_id, name)).read_text()


def names_of(client, record):
    run_id = runs_of(client, record)[0].info.run_id
    return {a.path for a in client.list_artifacts(run_id)}


def test_a_failed_file_costs_no_other_and_is_retried(client, make_record, make_trial):
    record = make_record(make_trial(0), test={"verdict": "better"})
    files = {"report.html": BAD, "best.yaml": "x: 1\n", "pictures/a.png": BAD, "odd": "\ud800"}
    drawn = []

    def draw():
        drawn.append(len(drawn))
        return dict(files)

    odd = "odd (UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in position 0: "
    odd += "surrogates not allowed)"
    lacking = (f"report.html, pictures/a.png ({WHY})", odd)
    assert sync(client, record, artifacts=draw) == SyncCount(created=1, lacking=lacking)
    parent, _ = runs_of(client, record)
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "done")
    assert parent.data.tags["verdict"] == "better"
    assert parent.data.metrics["best_objective"] == 10.0
    assert parent.inputs.dataset_inputs
    assert names_of(client, record) == {"best.yaml"}

    spy = Spy(client)
    assert sync(spy, record, artifacts=draw) == SyncCount(unchanged=1, lacking=lacking)
    assert (spy.writes, len(drawn)) == ([], 2)
    files |= {"report.html": "<p>", "pictures/a.png": b"\x89", "odd": "ü"}
    for _ in range(2):
        assert sync(client, record, artifacts=draw) == SyncCount(unchanged=1)
    assert len(drawn) == 3
    assert names_of(client, record) == {"best.yaml", "report.html", "pictures", "odd"}
    assert text_of(client, record, "report.html") == "<p>"


def test_a_file_that_fails_later_keeps_its_old_version(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record, artifacts=lambda: {"report.html": "before"})
    later = dataclasses.replace(record, trials=(*record.trials, make_trial(1)))
    assert sync(client, later, artifacts=lambda: {"report.html": BAD}).lacking
    assert text_of(client, record, "report.html") == "before"
    assert not sync(client, later, artifacts=lambda: {"report.html": "after"}).lacking
    assert text_of(client, record, "report.html") == "after"


def test_drawing_that_fails_as_a_whole_costs_the_files_alone(client, make_record, make_trial):
    def draw():
        raise BAD

    record = make_record(make_trial(0), test={"verdict": "better"})
    assert sync(client, record, artifacts=draw).lacking == (f"its files ({WHY})",)
    parent, _ = runs_of(client, record)
    assert (parent.info.status, parent.data.tags["verdict"]) == ("FINISHED", "better")


def test_a_store_without_files_still_gets_the_studys_end(client, make_record, make_trial):
    whole = Spy(client)
    sync(whole, make_record(make_trial(0), test={}), artifacts={"best.yaml": "x: 1\n"})
    at = whole.writes.index("log_artifact")
    record = make_record(make_trial(0), test={"verdict": "better"})
    with pytest.raises(ConnectionError):
        sync(Spy(client, at, after=False), record, artifacts={"best.yaml": "x: 1\n"})
    parent, _ = runs_of(client, record)
    assert (parent.info.status, parent.data.tags["verdict"]) == ("FINISHED", "better")
    sync(client, record, artifacts={"best.yaml": "x: 1\n"})
    assert text_of(client, record, "best.yaml") == "x: 1\n"


def fails(record):
    raise BAD


@pytest.mark.parametrize("done", [True, False])
def test_a_tracker_names_missing_files_once_and_copies_the_rest(
    client, make_record, make_trial, monkeypatch, done
):
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)
    record, told = make_record(make_trial(0), test={"verdict": "better"}), []
    tracker = MlflowTracker(
        lambda: record,
        "s1",
        told.append,
        lambda record: {"experiment.yaml": "a: 1\n", "best.yaml": BAD},
        lambda record: {"report.html": BAD, "pictures/a.png": b"\x89"},
    )
    assert tracker.close(done)  # what follows a complete copy, as the model does, comes
    lacking = "best.yaml, report.html" if done else "best.yaml"
    adds = "`tuner sync s1` adds what is lacking once that is mended"
    assert told == [f"MLflow has all but {lacking} ({WHY}); {adds}"]
    parent, children = runs_of(client, record)
    assert parent.info.status == ("FINISHED" if done else "KILLED")
    assert parent.data.tags["verdict"] == "better"
    assert set(children) == {"0"}
    there = {"experiment.yaml", "pictures"} if done else {"experiment.yaml"}
    assert names_of(client, record) == there


def test_failing_artifact_makers_cost_a_tracker_only_their_files(client, make_record, make_trial):
    record, told = make_record(make_trial(0)), []
    tracker = MlflowTracker(
        lambda: record, "s1", told.append, fails, lambda record: {"report.html": "<p>"}
    )
    assert tracker.close(done=True)
    assert len(told) == 1
    assert told[0].startswith(f"MLflow has all but its files ({WHY}); ")
    assert runs_of(client, record)[0].info.status == "FINISHED"
    assert names_of(client, record) == {"report.html"}


def test_sync_reports_missing_files_until_they_are_made(
    client, make_record, make_trial, monkeypatch, capsys
):
    record, modelled = make_record(make_trial(0), test={"verdict": "better"}), []
    monkeypatch.setattr(commands, "locate", lambda study, journal: "here")
    monkeypatch.setattr(commands, "quiet_journal", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(commands, "read_study", lambda *_: record)
    monkeypatch.setattr(commands, "_log_winner", lambda *_: modelled.append(1))
    files = {"report.html": BAD, "best.yaml": "x: 1\n"}
    monkeypatch.setattr(commands, "final_artifacts", lambda record: dict(files))
    assert run(["sync", "s1"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("MLflow agrees with the journal but for some files: 1 created, ")
    assert second == f"without report.html ({WHY}); run `tuner sync s1` again once that is mended"
    assert names_of(client, record) == {"best.yaml"}
    assert modelled == [1]  # the model is logged all the same
    files["report.html"] = "<p>"
    assert run(["sync", "s1"]) == 0
    (only,) = capsys.readouterr().out.splitlines()
    assert only.startswith("MLflow agrees with the journal: 0 created, ")
    assert names_of(client, record) == {"best.yaml", "report.html"}
