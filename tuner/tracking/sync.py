"""Makes MLflow agree with a study's record: the one way there, live and afterwards.

A run is created with the tags that find it again, filled in one batch, and ended. So a copy that
was killed anywhere is recognized (its run is not ended) and completed by the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError
from tuner.search.records import Status, StudyRecord, TrialRecord
from tuner.tracking.layout import (
    DIGEST,
    PARENT,
    STUDY_ROLE,
    Point,
    RunLayout,
    StudyState,
    outcome_digest,
    study_layout,
    text_digest,
    trial_layout,
)
from tuner.tracking.store import artifact_root, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["SyncCount", "SyncState", "sync_study"]

_Key = tuple[str, int]  # a trial's role and number


@dataclass(frozen=True)
class SyncCount:
    """What one sync did with the trials that have an outcome."""

    created: int = 0
    completed: int = 0  # a copy that was killed, brought to its end
    replaced: int = 0  # trained again since it was copied
    unchanged: int = 0


@dataclass
class _Parent:
    """A study's run as MLflow has it."""

    study_id: str
    experiment_id: str
    run_id: str
    status: str
    end_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    best: set[tuple[int, float]]  # the points of best_objective: step and value


@dataclass(frozen=True)
class _Child:
    """A trial's run as MLflow has it."""

    run_id: str
    digest: str | None
    ended: bool


@dataclass
class SyncState:
    """What MLflow holds of one study, as far as is known: read once, then kept up to date."""

    parent: _Parent | None = None
    children: dict[_Key, _Child] = field(default_factory=dict)
    copied: dict[_Key, tuple[Any, ...]] = field(default_factory=dict)

    def forget(self) -> None:
        """Have the next sync read MLflow anew."""
        self.parent = None
        self.children.clear()
        self.copied.clear()


def sync_study(
    client: MlflowClient,
    record: StudyRecord,
    state: SyncState,
    *,
    running: bool,
    artifacts: Mapping[str, str],
    done: bool | None = None,
) -> SyncCount:
    """Make MLflow agree with a study's record; where it does already, write nothing.

    Args:
        client: of the store.
        record: the study as its journal has it.
        state: what earlier calls for this study learned; a new one reads it from MLflow.
        running: whether a coordinator is at work on the study.
        artifacts: texts by file name, kept with the study's run.
        done: whether a study that does not run came to its end; by default the record says so.

    Raises:
        InputError: the MLflow experiment has been deleted.
        Exception: MLflow's own; `state` is then forgotten, so that the call can be repeated.
    """
    try:
        if state.parent is None:
            _read_store(client, record, state)
        assert state.parent is not None
        assert state.parent.study_id == record.id, "one SyncState is for one study"
        counts = Counter(
            _copy_trial(client, record, trial, state)
            for trial in (*record.trials, *record.finalists)
            if trial.outcome is not None
        )
        news = counts.total() > counts["unchanged"]
        if done is None and not news and state.parent.status == "FINISHED":
            done = True  # as its coordinator said, who also knows whether the time was used up
        layout = study_layout(record, _study_state(record, running, done))
        _update_parent(client, state.parent, layout, artifacts)
    except BaseException:
        state.forget()
        raise
    return SyncCount(**counts)


def _study_state(record: StudyRecord, running: bool, done: bool | None) -> StudyState:
    if running:
        return StudyState.RUNNING
    if done is None and record.ended is not None:
        done = record.ended == "done"
    if done is None:
        top, repeats = record.experiment.finalists.top, record.experiment.finalists.repeats
        n_trained = sum(t.outcome is not None for t in record.trained)
        n_finalists = sum(t.outcome is not None for t in record.finalists)
        done = record.test is not None or (
            n_trained >= record.experiment.budget.trials
            and n_finalists >= min(top, record.count(Status.COMPLETE)) * repeats
        )
    return StudyState.DONE if done else StudyState.INTERRUPTED


def _copy_trial(
    client: MlflowClient, record: StudyRecord, trial: TrialRecord, state: SyncState
) -> str:
    """Copy one trial, unless it has been; return what was done, in the words of SyncCount."""
    assert trial.outcome is not None
    assert state.parent is not None
    key, outcome = (str(trial.role), trial.number), trial.outcome
    mark = (outcome.state, outcome.finished_at, outcome.objective, len(outcome.history))
    if state.copied.get(key) == mark:
        return "unchanged"
    digest, known = outcome_digest(outcome), state.children.get(key)
    if known is not None and known.digest == digest and known.ended:
        state.copied[key] = mark
        return "unchanged"
    layout = trial_layout(record, trial, state.parent.run_id)
    if known is not None and known.digest == digest:
        did, run_id = "completed", known.run_id
    else:
        did = "replaced" if known else "created"
        if known is not None:
            client.delete_run(known.run_id)
        run_id = _create_run(client, state.parent.experiment_id, layout)
    _log(client, run_id, layout.params, {}, layout.points)
    client.set_terminated(run_id, layout.status, layout.end_ms)
    state.children[key] = _Child(run_id, digest, ended=True)
    state.copied[key] = mark
    return did


def _update_parent(
    client: MlflowClient, parent: _Parent, layout: RunLayout, artifacts: Mapping[str, str]
) -> None:
    """Write what the study's run lacks."""
    wanted = dict(layout.tags)
    for name, text in artifacts.items():
        tag = f"artifact {name}"
        wanted[tag] = text_digest(text)
        if parent.tags.get(tag) != wanted[tag]:
            client.log_text(parent.run_id, text, name)
    tags = {k: v for k, v in wanted.items() if parent.tags.get(k) != v}
    params = {k: v for k, v in layout.params.items() if k not in parent.params}
    points = [p for p in layout.points if (p.step, p.value) not in parent.best]
    _log(client, parent.run_id, params, tags, points)
    parent.tags |= tags
    parent.params |= params
    parent.best |= {(p.step, p.value) for p in points}
    if layout.status == "RUNNING":
        if parent.status != "RUNNING":
            client.update_run(parent.run_id, status="RUNNING")
    elif (parent.status, parent.end_ms) != (layout.status, layout.end_ms):
        client.set_terminated(parent.run_id, layout.status, layout.end_ms)
        parent.end_ms = layout.end_ms
    parent.status = layout.status


def _read_store(client: MlflowClient, record: StudyRecord, state: SyncState) -> None:
    """Find the study's runs in MLflow, or create its parent; leave one run to each of them."""
    experiment_id = _experiment_id(client, record.experiment.name)
    found: dict[_Key, Run] = {}
    for run in sorted(_search(client, experiment_id, record.id), key=_preference):
        tags = run.data.tags
        role = tags["role"]
        key = (role, 0 if role == STUDY_ROLE else int(tags["trial"]))
        if found.setdefault(key, run) is not run:  # two copied at once, or an answer got lost
            client.delete_run(run.info.run_id)
    parent = found.pop((STUDY_ROLE, 0), None)
    if parent is None:
        layout = study_layout(record, StudyState.RUNNING)
        parent = client.get_run(_create_run(client, experiment_id, layout))
    run_id = parent.info.run_id
    for key, run in found.items():
        if run.data.tags.get(PARENT) != run_id:
            client.set_tag(run.info.run_id, PARENT, run_id)
        state.children[key] = _Child(run.info.run_id, run.data.tags.get(DIGEST), _ended(run))
    state.parent = _Parent(
        study_id=record.id,
        experiment_id=experiment_id,
        run_id=run_id,
        status=parent.info.status,
        end_ms=parent.info.end_time,
        tags=dict(parent.data.tags),
        params=dict(parent.data.params),
        best={(m.step, m.value) for m in client.get_metric_history(run_id, "best_objective")},
    )


def _experiment_id(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        here = None if is_server(client.tracking_uri) else artifact_root().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=here))
        except Exception:  # another study of the experiment may have been quicker
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise InputError(
            f"experiment {name!r} has been deleted in MLflow; bring it back with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`, or rename yours"
        )
    return str(experiment.experiment_id)


def _search(client: MlflowClient, experiment_id: str, study_id: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], f"tags.study_id = '{study_id}'", max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _preference(run: Run) -> tuple[bool, int, str]:
    """Of two runs for one trial, keep the one that ended, then the older."""
    return (not _ended(run), run.info.start_time, run.info.run_id)


def _ended(run: Run) -> bool:
    return run.info.status not in ("RUNNING", "SCHEDULED")


def _create_run(client: MlflowClient, experiment_id: str, layout: RunLayout) -> str:
    run = client.create_run(
        experiment_id, start_time=layout.start_ms, tags=dict(layout.tags), run_name=layout.name
    )
    return str(run.info.run_id)


def _log(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    points: Iterable[Point],
) -> None:
    """Write one batch, which MLflow's client divides into requests within its limits."""
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[Metric(p.key, p.value, p.time_ms, p.step) for p in points],
        params=[Param(key, value) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
        synchronous=True,
    )
