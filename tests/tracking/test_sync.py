"""A copy in MLflow: runs, files, and completing what is there."""

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from helpers.mlflow_runs import PARENT, Spy, runs_of, snapshot, sync, writes_of_sync

from tuner.cli import studies as commands
from tuner.cli.app import run
from tuner.errors import InputError
from tuner.jobs import OutcomeState
from tuner.journal.records import TestScore
from tuner.journal.storage import Role
from tuner.tracking import MlflowTracker, SyncCount, SyncState, open_store


def test_the_data_set_is_an_input_of_the_studys_run(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record)
    sync(client, record)
    parent, _ = runs_of(client, record)
    (used,) = parent.inputs.dataset_inputs
    data = used.dataset
    assert data.name == "air.csv"
    assert data.digest == ("ab" * 32)[:36]  # as much of the sha256 as MLflow holds
    assert json.loads(data.source) == {"uri": Path("air.csv").absolute().as_uri()}
    assert json.loads(data.profile) == {"num_rows": 144}
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]


def test_a_copy_killed_after_any_write_is_completed_once(client, make_record, make_trial):
    trials = [make_trial(0), make_trial(1, OutcomeState.FAILED, reason="out of memory")]
    artifacts = {"best.yaml": "x: 1\n", "pictures/a.png": b"\x89"}
    whole = Spy(client)
    sync(whole, make_record(*trials), artifacts=artifacts)
    assert len(whole.writes) > 8
    for n in range(len(whole.writes) - 1):  # the experiment is there by now
        record, state = make_record(*trials), SyncState()
        with pytest.raises(ConnectionError):
            sync(Spy(client, n), record, state, artifacts=artifacts)
        count = sync(client, record, state, artifacts=artifacts)
        assert count.replaced == 0
        parent, children = runs_of(client, record)
        assert parent.info.status == "KILLED"
        assert {n: r.info.status for n, r in children.items()} == {"0": "FINISHED", "1": "FAILED"}
        assert len(client.get_metric_history(children["0"].info.run_id, "rmse")) == 3
        assert children["0"].data.metrics["objective"] == 10.0
        assert writes_of_sync(client, record, artifacts=artifacts) == []


def test_a_trial_trained_again_after_a_fault_replaces_its_run(client, make_record, make_trial):
    record = make_record(make_trial(0), make_trial(1))
    state = SyncState()
    sync(client, record, state)
    again = make_trial(1, objective=3.0, epochs=5, finished_at=1_700_009_000.0)
    record = dataclasses.replace(record, trials=(record.trials[0], again))
    assert sync(client, record, state) == SyncCount(replaced=1, unchanged=1)
    _, children = runs_of(client, record)
    assert children["1"].data.metrics["objective"] == 3.0
    assert len(client.get_metric_history(children["1"].info.run_id, "rmse")) == 5


def test_copies_that_met_by_accident_are_reduced_to_one(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record, state := SyncState())
    state.children.clear()
    state.copied.clear()
    sync(client, record, state)  # a second writer that does not know of the first
    sync(client, record)
    assert set(runs_of(client, record)[1]) == {"0"}


CHANGES = {
    "a trial more": lambda r, trial: {"trials": (*r.trials, trial(1))},
    "another outcome": lambda r, trial: {"trials": (trial(0, finished_at=1_700_000_001.0),)},
    "other params": lambda r, trial: {"trials": (trial(0, params={"hidden_size": 9}),)},
    "a finalist": lambda r, trial: {"finalists": (trial(0, role=Role.FINALIST, repeat=0),)},
    "evaluated on the test set": lambda r, trial: {"test": TestScore.from_json({"mean": 1.0})},
    "the end": lambda r, trial: {"ended": "done"},
    "data elsewhere": lambda r, trial: {"data": {**r.data, "path": "b.csv"}},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_files_are_drawn_again_only_of_a_record_that_has_changed(
    client, make_record, make_trial, change
):
    record, drawn = make_record(make_trial(0)), []

    def draw():
        drawn.append(f"report {len(drawn)}")
        return {"report.html": drawn[-1]}

    def copy(client=client):
        sync(client, record, artifacts=draw)
        run_id = runs_of(client, record)[0].info.run_id
        return Path(client.download_artifacts(run_id, "report.html")).read_text()

    twin = Spy(client)
    sync(twin, make_record(make_trial(0)), artifacts={"report.html": "<p>"})
    with pytest.raises(ConnectionError):
        copy(Spy(client, twin.writes.index("log_artifact"), after=False))
    assert [copy(), copy()] == ["report 1", "report 1"]
    record = dataclasses.replace(record, **change(record, make_trial))
    assert [copy(), copy()] == ["report 2", "report 2"]
    assert len(drawn) == 3


def test_a_reverted_file_is_right_after_a_kill_at_any_point(client, make_record, make_trial):
    for n in range(4):
        record = make_record(make_trial(0))
        sync(client, record, artifacts={"best.yaml": "1"})
        with contextlib.suppress(ConnectionError):
            sync(Spy(client, n, after=True), record, artifacts={"best.yaml": "2"})
        sync(client, record, artifacts={"best.yaml": "1"})
        run_id = runs_of(client, record)[0].info.run_id
        assert Path(client.download_artifacts(run_id, "best.yaml")).read_text() == "1", n


def test_a_foreign_run_beside_the_studys_is_left_alone(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record)
    parent, _ = runs_of(client, record)
    before, experiment = snapshot(client, record), parent.info.experiment_id
    ours = {"study_id": record.id, "mlflow.parentRunId": parent.info.run_id}
    made = [
        client.create_run(experiment, tags=ours | tags).info.run_id
        for tags in (
            {"note": "trained again by hand"},
            {"role": "analysis", "trial": "7", "state": "done"},
            {"role": "study"},
            {"role": "trial", "trial": "0"},
            {"role": "trial", "trial": "none", "state": "done"},
        )
    ]
    spy = Spy(client)
    assert sync(spy, record) == SyncCount(unchanged=1)
    assert spy.writes == []
    assert {client.get_run(run_id).info.lifecycle_stage for run_id in made} == {"active"}
    for run_id in made:
        client.delete_run(run_id)
    assert snapshot(client, record) == before


def test_an_older_copy_keeps_its_params_and_gets_tags(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record)
    run_id = runs_of(client, record)[0].info.run_id
    client.delete_tag(run_id, "budget.trials")
    client.log_param(run_id, "budget.trials", "3")
    sync(client, record)
    data = client.get_run(run_id).data
    assert (data.params["budget.trials"], data.tags["budget.trials"]) == ("3", "4")
    assert writes_of_sync(client, record) == []


def test_the_study_is_running_interrupted_resumed_and_done(client, make_record, make_trial):
    one = make_record(make_trial(0), id="phases")
    all_four = make_record(*(make_trial(i) for i in range(4)), id="phases")
    finalists = [make_trial(i, role=Role.FINALIST, configuration=3, repeat=i) for i in (0, 1)]
    whole = dataclasses.replace(all_four, finalists=tuple(finalists), ended="done")
    defaults = [make_trial(i, role=Role.BASELINE, repeat=i) for i in (0, 1)]
    compared = dataclasses.replace(all_four, finalists=tuple(defaults))
    seen = []
    for record, running in ((one, True), (one, False), (one, True), (compared, False)):
        sync(client, record, running=running)
        parent = runs_of(client, record)[0]
        seen.append((parent.info.status, parent.data.tags["state"]))
    assert seen == [
        ("RUNNING", "running"),
        ("KILLED", "interrupted"),
        ("RUNNING", "running"),
        ("KILLED", "interrupted"),  # its finalists were not trained
    ]
    sync(client, whole)
    parent = runs_of(client, whole)[0]
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", "done")
    assert parent.info.end_time == 1_700_000_300_000


def test_a_study_ended_by_the_clock_is_done(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record, done=True)
    assert runs_of(client, record)[0].info.status == "FINISHED"
    assert writes_of_sync(client, record) == []


def test_mlflow_settings_of_other_programs_confuse_nothing(
    client, make_record, make_trial, monkeypatch
):
    other = make_record(make_trial(0))
    sync(client, other)
    foreign = runs_of(client, other)[1]["0"].info.run_id
    settings = {
        "RUN_ID": foreign,
        "PARENT_RUN_ID": foreign,
        "ACTIVE_MODEL_ID": f"m-{foreign}",
        "EXPERIMENT_NAME": "elsewhere",
        "ENABLE_ASYNC_LOGGING": "true",
        "ENABLE_SYSTEM_METRICS_LOGGING": "true",
        "REGISTRY_URI": "foo://x",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    record = make_record(make_trial(0), make_trial(1))
    sync(open_store(), record)
    assert set(runs_of(client, record)[1]) == {"0", "1"}
    assert client.get_experiment_by_name("elsewhere") is None
    assert client.get_run(foreign).data.tags["study_id"] == other.id


def test_an_active_run_of_this_process_stays_active(client, make_record, make_trial):
    import mlflow

    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        mlflow.set_experiment("of the user")
        with mlflow.start_run() as run:
            mlflow.set_active_model(name="theirs")
            record = make_record(make_trial(0))
            sync(client, record)
            assert mlflow.active_run().info.run_id == run.info.run_id
        assert set(runs_of(client, record)[1]) == {"0"}
        theirs = client.get_run(run.info.run_id)
        assert (theirs.data.metrics, theirs.data.params) == ({}, {})
        model = mlflow.get_logged_model(mlflow.get_active_model_id())
        assert not model.metrics
    finally:
        mlflow.clear_active_model()
        mlflow.set_tracking_uri(None)


def test_a_deleted_experiment_is_refused_with_its_remedy(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record)
    experiment = client.get_experiment_by_name(record.experiment.name)
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match=f"restore -x {experiment.experiment_id}"):
        sync(client, record)


WHY = "ValueError: no such colour"
BAD = ValueError("no such\ncolour")


def text_of(client, record, name):
    run_id = runs_of(client, record)[0].info.run_id
    return Path(client.download_artifacts(run_id, name)).read_text()


def names_of(client, record):
    run_id = runs_of(client, record)[0].info.run_id
    return {a.path for a in client.list_artifacts(run_id)}


def test_a_failed_file_costs_no_other_and_is_retried(client, make_record, make_trial):
    record = make_record(make_trial(0), test={"verdict": "better"}, ended="done")
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

    record = make_record(make_trial(0), test={"verdict": "better"}, ended="done")
    assert sync(client, record, artifacts=draw).lacking == (f"its files ({WHY})",)
    parent, _ = runs_of(client, record)
    assert (parent.info.status, parent.data.tags["verdict"]) == ("FINISHED", "better")


def test_a_store_without_files_still_gets_the_studys_end(client, make_record, make_trial):
    whole = Spy(client)
    sync(whole, make_record(make_trial(0), test={}), artifacts={"best.yaml": "x: 1\n"})
    at = whole.writes.index("log_artifact")
    record = make_record(make_trial(0), test={"verdict": "better"}, ended="done")
    with pytest.raises(ConnectionError):
        sync(Spy(client, at, after=False), record, artifacts={"best.yaml": "x: 1\n"})
    parent, _ = runs_of(client, record)
    assert (parent.info.status, parent.data.tags["verdict"]) == ("FINISHED", "better")
    sync(client, record, artifacts={"best.yaml": "x: 1\n"})
    assert text_of(client, record, "best.yaml") == "x: 1\n"


@pytest.mark.parametrize("done", [True, False])
def test_a_tracker_names_missing_files_once_and_copies_the_rest(
    client, make_record, make_trial, monkeypatch, done
):
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)
    record, told = make_record(make_trial(0), test={"verdict": "better"}), []
    tracker = MlflowTracker(
        lambda: record,
        "tuner sync s1",
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


def test_sync_reports_missing_files_until_they_are_made(
    client, make_record, make_trial, monkeypatch, capsys
):
    record, modelled = make_record(make_trial(0), test={"verdict": "better"}), []
    monkeypatch.setattr(commands, "locate", lambda study, journal: "here")
    monkeypatch.setattr(commands, "lock_for_reading", lambda *_: contextlib.nullcontext())
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


def test_a_trial_is_one_finished_child_run(client, make_record, four_trials):
    record = make_record(*four_trials)
    sync(client, record)
    parent, children = runs_of(client, record)
    run = children["0"]
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1_699_999_997_000
    assert run.info.end_time == 1_700_000_000_000
    configuration = record.experiment.configuration({"hidden_size": 8})
    assert "learning_rate" in configuration
    others = {"trial": "0", "study": "s1", "strategy": "woa"}
    assert run.data.params == {k: str(v) for k, v in configuration.items()} | others
    tags = {k: v for k, v in run.data.tags.items() if k != "outcome_digest"}
    assert tags == {
        "mlflow.runName": "trial 0 of s1",
        "attempt": "1699999998000",
        PARENT: parent.info.run_id,
        "study_id": record.id,
        "study": "s1",
        "role": "trial",
        "trial": "0",
        "state": "complete",
        "strategy": "woa",
        "seed": "1000",
        "generation": "0",
        "individual": "0",
    }
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (0, 2.0, 1_699_999_998_000),
        (1, 1.0, 1_699_999_999_000),
        (2, 2.0 / 3, 1_700_000_000_000),
    ]
    assert run.data.metrics == {
        "train_loss": 1.0 / 3,
        "val_loss": 2.0 / 3,
        "rmse": 10.0,
        "objective": 10.0,
        "training_seconds": 3.0,
    }


def test_the_verdict_is_a_tag_of_the_study(client, make_record, make_trial):
    record = make_record(make_trial(0), test={"verdict": "the search paid"})
    sync(client, record)
    assert runs_of(client, record)[0].data.tags["verdict"] == "the search paid"
    older = make_record(make_trial(0), test={"mean": 1.0})
    sync(client, older)
    assert "verdict" not in runs_of(client, older)[0].data.tags


@pytest.mark.parametrize(("metric", "expected"), [("rmse", [5, 5, 5, 2]), ("r2", [5, 5, 7, 7])])
def test_the_best_so_far_moves_in_the_order_of_trials(
    client, make_record, make_trial, metric, expected
):
    trials = [
        make_trial(0, objective=5.0),
        make_trial(1, OutcomeState.PRUNED),
        make_trial(2, objective=7.0),
        make_trial(3, objective=2.0),
        make_trial(4, objective=1.0),
    ]
    options = {"experiment": {"objective": {"metric": metric}}, "id": f"best{metric}"}
    state = SyncState()
    late = [make_trial(2, None) if t.number == 2 else t for t in trials]
    sync(client, make_record(*late, **options), state, running=True)
    record = make_record(*trials[:4], **options)
    sync(client, record, state, running=True)
    parent, _ = runs_of(client, record)
    history = client.get_metric_history(parent.info.run_id, "best_objective")
    assert [(m.step, m.value) for m in history] == list(enumerate(expected))


def test_layer_widths_are_params(client, make_record, make_trial):
    record = make_record(make_trial(0, params={"hidden_size_1": 8, "hidden_size_2": 4}))
    sync(client, record)
    shown = runs_of(client, record)[1]["0"].data.params
    names = ("hidden_size", "hidden_size_1", "num_layers")
    assert [shown[name] for name in names] == ["[8, 4]", "8", "2"]


def test_baselines_and_test_score_are_metrics_of_the_study(client, make_record, make_trial):
    record = make_record(make_trial(0))
    state = SyncState()
    sync(client, record, state)
    run = runs_of(client, record)[0]
    assert run.data.metrics["baseline_last_value"] == 1.0
    assert not any(key.startswith("test_") for key in run.data.metrics)
    default = {"name": "default LSTM", "is_winner": False, "mean": 8.0}
    scores = {"mean": 9.0, "default": default, "baselines": {"linear": 7.0, "none": None}}
    opened = {"opened_at": "2026-01-02T04:00:00+00:00", "refit": {"mean": 5.0}, **scores}
    for _ in range(2):
        sync(client, dataclasses.replace(record, test=TestScore.from_json(opened)), state)
    metrics = client.get_run(run.info.run_id).data.metrics
    tested = {key: value for key, value in metrics.items() if key.startswith("test_")}
    assert tested == {
        "test_score": 9.0,
        "test_default": 8.0,
        "test_baseline_linear": 7.0,
        "test_refit_score": 5.0,
    }
    assert len(client.get_metric_history(run.info.run_id, "test_score")) == 1
