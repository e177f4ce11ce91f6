"""Copies trials: those that have ended, and live those that run.

A run is created with the tags that find it again, filled in batches, and ended. So a copy that
was killed anywhere is recognized and completed by the next one. The run of a trial in progress
lacks the digest of an outcome; it bears the attempt that it shows instead, and another attempt
gets a run of its own in its place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.tracking.layout import StudyState, attempt_tag, outcome_digest, trial_layout
from tuner.tracking.live import Attempt, TrialKey
from tuner.tracking.state import Child, SyncState
from tuner.tracking.writing import create_run, log

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["copy_attempt", "copy_trial", "end_abandoned"]


def copy_trial(
    client: MlflowClient, record: StudyRecord, trial: TrialRecord, state: SyncState
) -> str:
    """Copy a trial that has ended, unless it has been; return what was done, as in SyncCount."""
    assert trial.outcome is not None
    assert state.parent is not None
    key, outcome = trial.key, trial.outcome
    mark = (outcome.state, outcome.finished_at, outcome.objective, len(outcome.history))
    if state.copied.get(key) == mark:
        return "unchanged"
    digest, known = outcome_digest(outcome), state.children.get(key)
    if known is not None and known.digest == digest and known.ended:
        state.copied[key] = mark
        return "unchanged"
    did, run_id, n_copied, tags = "created", None, 0, True
    if known is not None and known.digest == digest:
        did, run_id = "completed", known.run_id
    elif known is not None and not known.ended and known.attempt == attempt_tag(outcome.history):
        run_id, n_copied = known.run_id, known.n_epochs  # it was copied live
    elif known is not None:
        did = "replaced"
        client.delete_run(known.run_id)
    layout = trial_layout(record, trial, state.parent.run_id, n_copied=n_copied)
    if run_id is None:
        run_id, tags = create_run(client, state.parent.experiment_id, layout), False
    log(client, run_id, layout.params, layout.tags if tags else {}, layout.points)
    client.set_terminated(run_id, layout.status, layout.end_ms)
    state.children[key] = Child(run_id, digest, ended=True)
    state.copied[key] = mark
    return did


def copy_attempt(
    client: MlflowClient,
    record: StudyRecord,
    trial: TrialRecord,
    attempt: Attempt,
    state: SyncState,
) -> None:
    """Copy what a trial in progress has come to since the last call."""
    assert state.parent is not None
    known, tag = state.children.get(trial.key), attempt_tag(attempt.epochs)
    if known is not None and (known.ended or known.attempt != tag):
        client.delete_run(known.run_id)
        known = None
    n_copied = known.n_epochs if known else 0
    if len(attempt.epochs) == n_copied:
        return
    layout = trial_layout(record, trial, state.parent.run_id, attempt, n_copied)
    if known is None:
        run_id = create_run(client, state.parent.experiment_id, layout)
        log(client, run_id, layout.params, {}, layout.points)
    else:
        run_id = known.run_id
        log(client, run_id, {}, {}, layout.points)
    state.children[trial.key] = Child(run_id, None, False, tag, len(attempt.epochs))


def end_abandoned(
    client: MlflowClient,
    record: StudyRecord,
    live: Mapping[TrialKey, Attempt],
    state: SyncState,
) -> None:
    """End the runs of trials that were in progress and are not any more: a process was killed.

    They are trained again, and get a new run then.
    """
    open_runs = {k: c for k, c in state.children.items() if not c.ended and k not in live}
    if not open_runs:
        return
    trials = (*record.trials, *record.finalists)
    ended = {t.key for t in trials if t.outcome is not None}
    for key, child in open_runs.items():
        if key not in ended:
            client.set_tag(child.run_id, "state", StudyState.INTERRUPTED, synchronous=True)
            client.set_terminated(child.run_id, "KILLED")
            state.children[key] = dataclasses.replace(child, ended=True)
