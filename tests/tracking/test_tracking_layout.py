import dataclasses
import math
from pathlib import Path

import pytest
from helpers.mlflow_runs import PARENT, Spy, runs_of, sync

from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import Status
from tuner.journal.storage import Role
from tuner.tracking import SyncCount, SyncState


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


def test_the_study_is_the_parent_run(client, make_record, four_trials):
    record = make_record(*four_trials)
    sync(client, record, artifacts={"experiment.yaml": record.experiment.to_yaml()})
    parent, _ = runs_of(client, record)
    assert parent.info.run_name == "s1"
    assert parent.info.start_time == 1_699_999_200_000
    tags = parent.data.tags
    assert tags["role"] == "study"
    assert tags["strategy"] == "woa"
    assert tags["seed"] == "0"
    assert tags["data_sha256"] == "ab" * 32
    assert tags["version_torch"] == "2.13.0"
    params = parent.data.params
    assert params["strategy.population"] == "4"
    assert params["budget.epochs"] == "100"
    assert tags["budget.trials"] == "4"
    assert params["objective.metric"] == "rmse"
    assert params["search_space.hidden_size"].startswith('{"type": "int", "low": 8')
    (artifact,) = client.list_artifacts(parent.info.run_id)
    text = Path(client.download_artifacts(parent.info.run_id, artifact.path)).read_text()
    assert text == record.experiment.to_yaml()


def test_mlflow_shows_pruned_and_failed_trials_as_such(client, make_record, four_trials):
    record = make_record(*four_trials)
    sync(client, record)
    _, children = runs_of(client, record)
    assert {n: (r.info.status, r.data.tags["state"]) for n, r in children.items()} == {
        "0": ("FINISHED", "complete"),
        "1": ("KILLED", "pruned"),
        "2": ("FAILED", "failed"),
        "3 = 0": ("FINISHED", "complete"),
    }
    assert children["2"].data.tags["failure_reason"] == "loss is nan"
    assert "failure_reason" not in children["1"].data.tags
    assert "objective" not in children["1"].data.metrics
    assert children["3 = 0"].data.tags["repeat_of"] == "0"
    assert "repeat_of" not in children["0"].data.tags


def test_finalists_are_child_runs_with_a_role_of_their_own(client, make_record, make_trial):
    finalists = [
        make_trial(i, role=Role.FINALIST, configuration=3, repeat=i, objective=5.0) for i in (0, 1)
    ]
    record = make_record(make_trial(0), finalists=finalists)
    sync(client, record)
    _, children = runs_of(client, record)
    assert set(children) == {"0", "finalist 3 repeat 0", "finalist 3 repeat 1"}
    assert children["finalist 3 repeat 1"].data.tags["role"] == "finalist"
    assert children["finalist 3 repeat 1"].data.tags["configuration"] == "3"


def test_default_trainings_are_child_runs_with_all_values(client, make_record, make_trial):
    default = make_trial(0, role=Role.BASELINE, repeat=0, params={"hidden_size": 32})
    record = make_record(make_trial(0), finalists=[default])
    sync(client, record)
    _, children = runs_of(client, record)
    assert set(children) == {"0", "default repeat 0"}
    tags, params = children["default repeat 0"].data.tags, children["default repeat 0"].data.params
    assert (tags["role"], tags["repeat"], params["hidden_size"]) == ("baseline", "0", "32")
    assert "configuration" not in tags
    assert params["learning_rate"] == "0.001"


def test_the_verdict_is_a_tag_of_the_study(client, make_record, make_trial):
    record = make_record(make_trial(0), test={"verdict": "the search paid"})
    sync(client, record)
    assert runs_of(client, record)[0].data.tags["verdict"] == "the search paid"
    older = make_record(make_trial(0), test={"mean": 1.0})
    sync(client, older)
    assert "verdict" not in runs_of(client, older)[0].data.tags


def test_trials_that_still_run_are_left_out(client, make_record, make_trial):
    record = make_record(make_trial(0), make_trial(1, None), make_trial(2))
    sync(client, record, running=True)
    parent, children = runs_of(client, record)
    assert set(children) == {"0", "2"}
    assert parent.info.status == "RUNNING"
    assert all(r.info.status != "RUNNING" for r in children.values())


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


def test_long_histories_are_copied_whole(client, make_record, make_trial):
    record = make_record(make_trial(0, epochs=700))
    sync(client, record)
    run = runs_of(client, record)[1]["0"]
    for key in ("train_loss", "val_loss", "rmse"):
        history = client.get_metric_history(run.info.run_id, key)
        assert [m.step for m in history] == list(range(700))


def test_odd_params_and_long_texts_are_made_to_fit(client, make_record, make_trial):
    odd = {"hidden_size": 8, "a/b[0]: c?": "ü" * 7000, "..": True, "note": "", "none": None}
    trial = make_trial(0, OutcomeState.FAILED, params=odd, reason="why\n" * 3000)
    record = make_record(trial)
    sync(client, record)
    run = runs_of(client, record)[1]["0"]
    assert run.data.params["a_b_0__ c_"] == "ü" * 5999 + "…"
    assert run.data.params["_."] == "True"
    assert len(run.data.tags["failure_reason"]) == 8000
    assert sync(client, record) == SyncCount(unchanged=1)


def test_a_metric_that_is_not_finite_does_not_spoil_the_charts(client, make_record, make_trial):
    trial = make_trial(0, OutcomeState.FAILED, reason="diverged")
    last = dataclasses.replace(trial.outcome.history[-1], train_loss=math.nan, metric=math.inf)
    outcome = dataclasses.replace(trial.outcome, history=(*trial.outcome.history[:-1], last))
    record = make_record(dataclasses.replace(trial, outcome=outcome))
    with pytest.raises(ConnectionError):
        sync(Spy(client, die_at=3), record)  # after the trial's log_batch
    sync(client, record)
    run = runs_of(client, record)[1]["0"]
    assert math.isnan(run.data.metrics["train_loss"])
    assert math.isnan(run.data.metrics["rmse"])


def test_a_lost_trial_has_no_times(client, make_record, make_trial):
    lost = dataclasses.replace(
        make_trial(0),
        outcome=Outcome(OutcomeState.FAILED, reason="worker killed 3 times"),
        status=Status.FAILED,
    )
    record = make_record(lost)
    sync(client, record)
    run = runs_of(client, record)[1]["0"]
    assert run.info.status == "FAILED"
    assert run.info.start_time == run.info.end_time == 1_699_999_200_000


def test_fold_scores_are_a_curve_and_layer_widths_params(client, make_record, four_trials):
    trial = four_trials[0]
    history = [
        dataclasses.replace(epoch, fold=k, fold_score=10.0 + k)
        for k, epoch in enumerate(trial.outcome.history)
    ]
    outcome = dataclasses.replace(trial.outcome, history=tuple(history))
    params = {"hidden_size_1": 8, "hidden_size_2": 4}
    record = make_record(dataclasses.replace(trial, outcome=outcome, params=params))
    sync(client, record)
    _, children = runs_of(client, record)
    scores = client.get_metric_history(children["0"].info.run_id, "fold_score")
    assert [(m.step, m.value) for m in scores] == [(0, 10.0), (1, 11.0), (2, 12.0)]
    shown = children["0"].data.params
    assert (shown["hidden_size"], shown["hidden_size_1"], shown["num_layers"]) == (
        "[8, 4]",
        "8",
        "2",
    )


def test_baselines_and_test_score_are_metrics_of_the_study(client, make_record, make_trial):
    record = make_record(make_trial(0))
    state = SyncState()
    sync(client, record, state)
    run = runs_of(client, record)[0]
    assert run.data.metrics["baseline_last_value"] == 1.0
    assert not any(key.startswith("test_") for key in run.data.metrics)
    scores = {"mean": 9.0, "default": {"mean": 8.0}, "baselines": {"linear": 7.0, "none": None}}
    opened = {"opened_at": "2026-01-02T04:00:00+00:00", "refit": {"mean": 5.0}, **scores}
    for _ in range(2):
        sync(client, dataclasses.replace(record, test=opened), state)
    metrics = client.get_run(run.info.run_id).data.metrics
    tested = {key: value for key, value in metrics.items() if key.startswith("test_")}
    assert tested == {
        "test_score": 9.0,
        "test_default": 8.0,
        "test_baseline_linear": 7.0,
        "test_refit_score": 5.0,
    }
    assert len(client.get_metric_history(run.info.run_id, "test_score")) == 1
