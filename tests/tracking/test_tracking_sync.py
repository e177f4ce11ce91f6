from __future__ import annotations

import dataclasses

import pytest
from tracking_helpers import Spy, runs_of, snapshot, sync

from tuner.errors import InputError
from tuner.jobs import OutcomeState
from tuner.search.seeds import Role
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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_copy_killed_at_any_write_is_completed_without_duplicates(
    client, make_record, make_trial, after
):
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
    seen = []
    for record, running in ((one, True), (one, False), (one, True), (all_four, False)):
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


def test_a_study_that_the_clock_ended_is_done_when_its_coordinator_says_so(
    client, make_record, make_trial
):
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
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    record = make_record(make_trial(0), make_trial(1))
    sync(open_store(), record)
    assert set(runs_of(client, record)[1]) == {"0", "1"}
    assert client.get_experiment_by_name("elsewhere") is None
    assert client.get_run(foreign).data.tags["study_id"] == other.id


def test_a_deleted_experiment_is_an_error_that_says_how_to_bring_it_back(
    client, make_record, make_trial
):
    record = make_record(make_trial(0))
    sync(client, record)
    experiment = client.get_experiment_by_name(record.experiment.name)
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(InputError, match=f"restore -x {experiment.experiment_id}"):
        sync(client, record)
