"""Trials in progress: their curves move in MLflow, and no run is left running without its trial."""

import dataclasses
import time

import pytest
from helpers.mlflow_runs import Spy, runs_of, sync, writes_of_sync

from tuner.jobs import Epoch
from tuner.journal.storage import Role, TrialKey
from tuner.tracking import MlflowTracker, SyncCount, SyncState
from tuner.tracking.layout import Attempt

T = 1_700_000_000.0


def attempt_of(trial, n_epochs):
    """What a trial with an outcome had come to after so many epochs."""
    outcome = trial.outcome
    return Attempt(outcome.finished_at - outcome.seconds, outcome.history[:n_epochs])


def of_trial(number, attempt):
    return {"running": True, "live": {TrialKey(Role.TRIAL, number): attempt}}


def in_progress(trial):
    return dataclasses.replace(trial, outcome=None, status="running")


def steps(client, record, name, key="rmse"):
    _, children = runs_of(client, record)
    return [m.step for m in client.get_metric_history(children[name].info.run_id, key)]


@pytest.fixture
def study(make_record, make_trial):
    """A study with a trial in progress, the same when it has ended, and that trial."""
    ended = make_trial(1, epochs=5)
    running = make_record(make_trial(0), in_progress(ended), id="live-" + make_record().id)
    return running, dataclasses.replace(running, trials=(running.trials[0], ended)), ended


def test_the_curve_of_a_trial_grows_while_it_trains(client, study):
    running, ended, trial = study
    state = SyncState()
    for n in (1, 2, 4):
        sync(client, running, state, **of_trial(1, attempt_of(trial, n)))
        assert steps(client, running, "1") == list(range(n))
    run = runs_of(client, running)[1]["1"]
    assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")
    assert run.data.params["hidden_size"] == "9"
    assert sync(client, ended, state, running=True) == SyncCount(created=1, unchanged=1)
    after = runs_of(client, ended)[1]["1"]
    assert after.info.run_id == run.info.run_id
    assert (after.info.status, after.data.tags["state"]) == ("FINISHED", "complete")


def test_what_was_copied_live_is_not_written_again(client, study):
    running, ended, trial = study
    state = SyncState()
    sync(client, running, state, **of_trial(1, attempt_of(trial, 3)))
    written = []

    class Counts(Spy):
        def __getattr__(self, name):
            if name == "log_batch":
                return lambda run_id, **batch: (
                    written.extend((m.key, m.step) for m in batch["metrics"]),
                    self.client.log_batch(run_id, **batch),
                )
            return super().__getattr__(name)

    sync(Counts(client), running, state, **of_trial(1, attempt_of(trial, 3)))
    assert written == []
    sync(Counts(client), ended, state, running=True)
    assert sorted(step for key, step in written if key == "rmse") == [3, 4]


def test_a_retry_replaces_the_run_before(client, study):
    running, ended, trial = study
    state = SyncState()
    lost = Attempt(T - 50, tuple(Epoch(e, 9.0, 9.0, 9.0, T - 49 + e) for e in range(4)))
    sync(client, running, state, **of_trial(1, lost))
    first = runs_of(client, running)[1]["1"].info.run_id
    sync(client, running, state, **of_trial(1, attempt_of(trial, 1)))
    assert runs_of(client, running)[1]["1"].info.run_id != first
    assert steps(client, running, "1") == [0]
    sync(client, running, state, **of_trial(1, lost))
    assert sync(client, ended, state) == SyncCount(replaced=1, unchanged=1)
    assert steps(client, ended, "1") == [0, 1, 2, 3, 4]


def test_no_run_is_left_running_whose_trial_is_not(client, study):
    running, ended, trial = study
    sync(client, running, **of_trial(1, attempt_of(trial, 2)))
    # Its coordinator is killed; the next one, or a sync, knows nothing of it.
    sync(client, running, running=True)
    run = runs_of(client, running)[1]["1"]
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "interrupted")
    assert writes_of_sync(client, running, running=True) == []
    assert sync(client, ended) == SyncCount(replaced=1, unchanged=1)
    assert runs_of(client, ended)[1]["1"].info.status == "FINISHED"


@pytest.mark.slow
def test_copying_takes_a_small_share_of_a_processor(
    client, make_record, make_trial, wait_for, monkeypatch
):
    monkeypatch.setattr("tuner.tracking.tracker._LONG_PAUSE_S", 60)
    record, reads = make_record(make_trial(0)), []

    def read():
        until = time.thread_time() + 0.6
        while time.thread_time() < until:  # a long journal
            pass
        reads.append(record)
        return record

    tracker = MlflowTracker(read, "tuner sync s1", pytest.fail)
    wait_for(lambda: len(reads) == 1)
    until = time.monotonic() + 3  # three times the shortest pause
    while time.monotonic() < until:
        tracker.wake()
        time.sleep(0.01)
    assert len(reads) == 1
    assert tracker.close(done=True)  # before the minute is over
    assert time.monotonic() < until + 30
    assert len(reads) == 2


def test_a_tracker_copies_live_and_ends_on_closing(
    client, make_record, make_trial, wait_for, monkeypatch
):
    monkeypatch.setattr("tuner.tracking.tracker._SHORT_S", 60)
    record = make_record(in_progress(make_trial(0)))
    tracker = MlflowTracker(lambda: record, "tuner sync s1", pytest.fail)
    tracker.live.began(TrialKey(Role.TRIAL, 0), T)
    for e in range(3):
        tracker.live.epoch(TrialKey(Role.TRIAL, 0), Epoch(e, 1.0, 1.0, 5.0, T + e + 0.12345))
    tracker.wake()
    experiment = record.experiment.name

    def children():
        found = client.get_experiment_by_name(experiment)
        there = found and client.search_runs([found.experiment_id])  # not yet right after it
        return runs_of(client, record)[1] if there else {}

    wait_for(lambda: "0" in children() and steps(client, record, "0") == [0, 1, 2])
    assert children()["0"].info.start_time == T * 1000
    assert tracker.close(done=False)
    assert children()["0"].info.status == "KILLED"
