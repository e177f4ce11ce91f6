"""Makes MLflow agree with a study's record: the one way there, live and afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tuner.coordination.records import Status, StudyRecord
from tuner.coordination.seeds import Role
from tuner.tracking.dataset import dataset_digest, dataset_input
from tuner.tracking.files import Files, keep_files
from tuner.tracking.layout import CHANGING, RunLayout, StudyState, study_layout
from tuner.tracking.live import Attempt, TrialKey
from tuner.tracking.state import Parent, SyncState, read_store
from tuner.tracking.trials import copy_attempt, copy_trial, end_abandoned
from tuner.tracking.writing import log

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["SyncCount", "sync_study"]

_NONE: Mapping[TrialKey, Attempt] = MappingProxyType({})


@dataclass(frozen=True)
class SyncCount:
    """What one sync did with the trials that have an outcome, and what it could not make."""

    created: int = 0
    completed: int = 0  # a copy that was killed, brought to its end
    replaced: int = 0  # trained again since it was copied
    unchanged: int = 0
    lacking: tuple[str, ...] = ()  # files, as `NAMES (WHY)`; the rest is there


def sync_study(
    client: MlflowClient,
    record: StudyRecord,
    state: SyncState,
    *,
    running: bool,
    artifacts: Files | Callable[[], Files],
    done: bool | None = None,
    live: Mapping[TrialKey, Attempt] = _NONE,
) -> SyncCount:
    """Make MLflow agree with a study's record; where it does already, write nothing.

    Args:
        client: of the store.
        record: the study as its journal has it.
        state: what earlier calls for this study learned; a new one reads it from MLflow.
        running: whether a coordinator is at work on the study.
        artifacts: files by name, kept with the study's run; where it takes time to make them, a
            function that does, called unless the run has those of this very record. One that
            cannot be made, an exception in its place, costs no other, and is tried again.
        done: whether a study that does not run came to its end; by default the record says so.
        live: how far the trials have come that train at this moment.

    Raises:
        InputError: the MLflow experiment has been deleted.
        Exception: MLflow's own; `state` is then forgotten, so that the call can be repeated.
    """
    try:
        if state.parent is None:
            read_store(client, record, state)
        assert state.parent is not None
        assert state.parent.study_id == record.id, "one SyncState is for one study"
        counts: Counter[str] = Counter()
        for trial in (*record.trials, *record.finalists):
            if trial.outcome is not None:
                counts[copy_trial(client, record, trial, state)] += 1
            elif (attempt := live.get(trial.key)) is not None and attempt.epochs:
                copy_attempt(client, record, trial, attempt, state)
        end_abandoned(client, record, live, state)
        news = counts.total() > counts["unchanged"]
        if done is None and not news and state.parent.status == "FINISHED":
            done = True  # as its coordinator said, who also knows whether the time was used up
        layout = study_layout(record, _study_state(record, running, done), state.parent.best)
        _update_parent(client, record, state.parent, layout)
        lacking = keep_files(client, record, state, artifacts)  # last: nothing waits for them
    except BaseException:
        state.forget()
        raise
    return SyncCount(**counts, lacking=lacking)


def _study_state(record: StudyRecord, running: bool, done: bool | None) -> StudyState:
    if running:
        return StudyState.RUNNING
    if done is None and record.ended is not None:
        done = record.ended == "done"
    if done is None:
        top, repeats = record.experiment.finalists.top, record.experiment.finalists.repeats
        n_trained = sum(t.outcome is not None for t in record.trained)
        retrained = [t for t in record.finalists if t.role is Role.FINALIST]
        n_finalists = sum(t.outcome is not None for t in retrained)
        n_trials = record.experiment.n_trials
        done = record.test is not None or (
            n_trials is not None
            and n_trained >= n_trials
            and n_finalists >= min(top, record.count(Status.COMPLETE)) * repeats
        )
    return StudyState.DONE if done else StudyState.INTERRUPTED


def _update_parent(
    client: MlflowClient,
    record: StudyRecord,
    parent: Parent,
    layout: RunLayout,
) -> None:
    """Write what the study's run lacks, and take away what is no longer so."""
    for tag in (CHANGING & parent.tags.keys()) - layout.tags.keys():
        client.delete_tag(parent.run_id, tag)
        del parent.tags[tag]
    tags = {k: v for k, v in layout.tags.items() if parent.tags.get(k) != v}
    params = {k: v for k, v in layout.params.items() if k not in parent.params}
    scores = [p for p in layout.scores if parent.metrics.get(p.key) != p.value]
    log(client, parent.run_id, params, tags, (*layout.points, *scores))
    parent.metrics |= {p.key: p.value for p in scores}
    parent.tags |= tags
    parent.params |= params
    parent.best |= {(p.step, p.value) for p in layout.points}
    if (digest := dataset_digest(record)) not in parent.datasets:
        client.log_inputs(parent.run_id, [dataset_input(record)])
        parent.datasets.add(digest)
    if layout.status == "RUNNING":
        if parent.status != "RUNNING":
            client.update_run(parent.run_id, status="RUNNING")
    elif (parent.status, parent.end_ms) != (layout.status, layout.end_ms):
        client.set_terminated(parent.run_id, layout.status, layout.end_ms)
        parent.end_ms = layout.end_ms
    parent.status = layout.status
