import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from helpers.mlflow_runs import Spy, runs_of, snapshot, sync

from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.jobs import OutcomeState
from tuner.journal.storage import Role
from tuner.tracking import SyncCount, SyncState, open_store


def test_a_second_sync_writes_nothing(client, make_record, make_trial, four_trials):
    finalist = make_trial(0, role=Role.FINALIST, configuration=0, repeat=0)
    record = make_record(*four_trials, finalists=[finalist], test={"rmse": 1.0})
    artifacts = {"experiment.yaml": "a: 1\n", "best.yaml": "b: 2\n", "pictures/a.png": b"\x89"}
    state = SyncState()
    assert sync(client, record, state, artifacts=artifacts) == SyncCount(created=5)
    before = snapshot(client, record)
    spy = Spy(client)
    assert sync(spy, record, state, artifacts=artifacts) == SyncCount(unchanged=5)
    assert sync(spy, record, artifacts=artifacts) == SyncCount(unchanged=5)  # knowing nothing
    assert spy.writes == []
    assert snapshot(client, record) == before


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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_copy_killed_at_any_write_is_completed_once(client, make_record, make_trial, after):
    trials = [make_trial(0), make_trial(1, OutcomeState.FAILED, reason="out of memory")]
    artifacts = {"best.yaml": "x: 1\n", "pictures/a.png": b"\x89"}
    whole = Spy(client)
    sync(whole, make_record(*trials), artifacts=artifacts)
    assert len(whole.writes) > 8
    for n in range(len(whole.writes) - 1):  # the experiment is there by now
        record, state = make_record(*trials), SyncState()
        with pytest.raises(ConnectionError):
            sync(Spy(client, n, after), record, state, artifacts=artifacts)
        count = sync(client, record, state, artifacts=artifacts)
        assert count.replaced == 0
        parent, children = runs_of(client, record)
        assert parent.info.status == "KILLED"
        assert {n: r.info.status for n, r in children.items()} == {"0": "FINISHED", "1": "FAILED"}
        assert len(client.get_metric_history(children["0"].info.run_id, "rmse")) == 3
        assert children["0"].data.metrics["objective"] == 10.0
        spy = Spy(client)
        sync(spy, record, artifacts=artifacts)
        assert spy.writes == []


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
    "the test part opened": lambda r, trial: {"test": {"mean": 1.0}},
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


def with_budget(record, **budget):
    raw = record.experiment.to_dict()
    raw["budget"] = {"epochs": 100, **budget}
    return dataclasses.replace(record, experiment=Experiment.model_validate(raw))


def test_the_tag_of_a_raised_budget_is_updated(client, make_record, make_trial):
    record = with_budget(make_record(make_trial(0)), trials=3, timeout=60, retries=1)

    def budget():
        data = runs_of(client, record)[0].data
        return [{k: v for k, v in d.items() if "budget" in k} for d in (data.params, data.tags)]

    sync(client, record, running=True)
    fixed = {"budget.epochs": "100", "budget.patience": "15"}
    first = {"budget.trials": "3", "budget.timeout": "60.0", "budget.retries": "1"}
    assert budget() == [fixed, first]
    extended = with_budget(record, trials=5, retries=1)  # without a limit of time
    assert sync(client, extended) == SyncCount(unchanged=1)
    assert budget() == [fixed, {"budget.trials": "5", "budget.retries": "1"}]
    spy = Spy(client)
    sync(spy, extended)
    assert spy.writes == []


def test_an_older_copy_keeps_its_params_and_gets_tags(client, make_record, make_trial):
    record = make_record(make_trial(0))
    sync(client, record)
    run_id = runs_of(client, record)[0].info.run_id
    client.delete_tag(run_id, "budget.trials")
    client.log_param(run_id, "budget.trials", "3")
    sync(client, record)
    data = client.get_run(run_id).data
    assert (data.params["budget.trials"], data.tags["budget.trials"]) == ("3", "4")
    spy = Spy(client)
    sync(spy, record)
    assert spy.writes == []


def test_two_studies_of_one_name_never_meet(client, make_record, make_trial):
    mine, yours = make_record(make_trial(0)), make_record(make_trial(0), make_trial(1))
    assert (mine.name, mine.experiment.name) == (yours.name, yours.experiment.name)
    sync(client, mine)
    before = snapshot(client, mine)
    sync(client, yours)
    sync(client, mine)
    assert snapshot(client, mine) == before
    assert set(runs_of(client, yours)[1]) == {"0", "1"}


def test_the_study_is_running_interrupted_resumed_and_done(client, make_record, make_trial):
    one = make_record(make_trial(0), id="phases")
    all_four = make_record(*(make_trial(i) for i in range(4)), id="phases")
    finalists = [make_trial(i, role=Role.FINALIST, configuration=3, repeat=i) for i in (0, 1)]
    whole = dataclasses.replace(all_four, finalists=tuple(finalists))
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
    spy = Spy(client)
    sync(spy, record)
    assert spy.writes == []


def test_mlflow_settings_of_other_programs_confuse_nothing(
    client, make_record, make_trial, monkeypatch
):
    other = make_record(make_trial(0))
    sync(client, other)
    foreign = runs_of(client, other)[1]["0"].info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", foreign)
    monkeypatch.setenv("MLFLOW_PARENT_RUN_ID", foreign)
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", f"m-{foreign}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
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
