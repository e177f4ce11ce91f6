"""Copies a study's record to MLflow, live and afterwards.

A run is created with tags that identify it, filled in batches, and terminated. So the next copy
recognizes and completes one that was killed. The run of a trial in progress has the tag of its
attempt instead of the digest of an outcome; another attempt replaces the run.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import InputError, one_line
from tuner.jobs import Outcome
from tuner.journal.records import StudyRecord, StudyState, TrialRecord
from tuner.journal.storage import Role, TrialKey
from tuner.tracking.layout import (
    ATTEMPT,
    CHANGING,
    DIGEST,
    PARENT,
    STUDY_ROLE,
    Attempt,
    Point,
    RunLayout,
    attempt_tag,
    batches,
    outcome_digest,
    record_digest,
    storable,
    study_layout,
    text_digest,
    trial_layout,
)
from tuner.tracking.store import artifact_root, is_server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Run


Files = Mapping[str, str | bytes | Exception]
"""Texts and pictures by file name; an exception is the reason why a file is missing."""

_FILES_OF = "files_of"  # tag: digest of the record whose files the run has
_ALL = "its files"  # name for those of a function that failed
_LONGEST_LIST = 300  # characters of an exception's text


def all_made(make: Callable[[], Files]) -> Files:
    """Return the files that a function makes, or its exception in their place."""
    try:
        return make()
    except Exception as error:
        return {_ALL: error}


@dataclass
class Parent:
    """A study's run as MLflow has it."""

    study_id: str
    experiment_id: str
    run_id: str
    status: str
    end_ms: int | None
    tags: dict[str, str]
    params: dict[str, str]
    best: set[tuple[int, float]]  # the points of best_objective: step and value
    datasets: set[str]  # the digests of its inputs
    metrics: dict[str, float]  # the newest value of each


@dataclass(frozen=True)
class Child:
    """A trial's run as MLflow has it."""

    run_id: str
    digest: str | None  # of the outcome; None while the trial runs
    ended: bool
    attempt: str | None = None  # of a trial that ran when the run was created
    n_epochs: int = 0  # copied of the attempt, at least


@dataclass
class SyncState:
    """What MLflow holds of one study."""

    parent: Parent | None = None
    children: dict[TrialKey, Child] = field(default_factory=dict)
    copied: dict[TrialKey, tuple[Any, ...]] = field(default_factory=dict)

    def forget(self) -> None:
        """Forget all, so that the next sync reads MLflow."""
        self.parent = None
        self.children.clear()
        self.copied.clear()


@dataclass(frozen=True)
class SyncCount:
    """What a sync did with the trials that have an outcome."""

    created: int = 0
    completed: int = 0  # copies that had been killed
    replaced: int = 0  # trained again since it was copied
    unchanged: int = 0
    lacking: tuple[str, ...] = ()  # files that could not be made, as `NAMES (REASON)`


def sync_study(
    client: MlflowClient,
    record: StudyRecord,
    state: SyncState,
    *,
    running: bool,
    artifacts: Files | Callable[[], Files],
    done: bool | None = None,
    live: Mapping[TrialKey, Attempt] | None = None,
) -> SyncCount:
    """Make MLflow agree with a study's record; write only what differs.

    Args:
        client: of the store.
        record: the study.
        state: of earlier calls for this study; a new one is read from MLflow.
        running: whether the search runs.
        artifacts: files of the study's run by name, with an exception for one that failed; or a
            function that makes them, called unless the run has those of an equal record.
        done: whether a search that does not run is finished; by default as in the record.
        live: the trainings in progress.

    Raises:
        InputError: the MLflow experiment has been deleted.
        Exception: of MLflow; `state` is then reset, so that the call can be repeated.
    """
    copy, live = _Copy(client, record, state), live or {}
    try:
        if state.parent is None:
            copy.find_runs()
        assert copy.parent.study_id == record.id, "one SyncState is for one study"
        counts: Counter[str] = Counter()
        for trial in (*record.trials, *record.finalists):
            if trial.outcome is not None:
                counts[copy.trial(trial, trial.outcome)] += 1
            elif (attempt := live.get(trial.key)) is not None and attempt.epochs:
                copy.attempt(trial, attempt)
        copy.end_abandoned(live)
        news = counts.total() > counts["unchanged"]
        if done is None and not news and copy.parent.status == "FINISHED":
            done = True  # as reported at its end
        if running:
            study_state = StudyState.RUNNING
        elif done is None:
            study_state = record.state()
        else:
            study_state = StudyState.DONE if done else StudyState.INTERRUPTED
        copy.study(study_layout(record, study_state, copy.parent.best))
        lacking = copy.files(artifacts)
    except BaseException:
        state.forget()
        raise
    return SyncCount(**counts, lacking=lacking)


@dataclass(frozen=True)
class _Copy:
    """Writes a record's runs, and notes in the state what MLflow has."""

    client: MlflowClient
    record: StudyRecord
    state: SyncState

    @property
    def parent(self) -> Parent:
        """The study's run, which exists."""
        assert self.state.parent is not None
        return self.state.parent

    def find_runs(self) -> None:
        """Find the study's runs in MLflow, or create the parent; delete duplicates."""
        client, record = self.client, self.record
        experiment_id = _experiment_id(client, record.experiment.name)
        found: dict[TrialKey | None, Run] = {}  # None: the study's own
        for run in sorted(_search(client, experiment_id, record.id), key=_preference):
            if not _is_ours(run.data.tags):
                continue  # a user's own
            key = _key(run.data.tags)
            if found.setdefault(key, run) is not run:  # copied twice, or a response was lost
                client.delete_run(run.info.run_id)
        parent = found.pop(None, None)
        if parent is None:
            layout = study_layout(record, StudyState.RUNNING)
            parent = client.get_run(self._create_run(experiment_id, layout))
        run_id = parent.info.run_id
        for key, run in found.items():
            assert key is not None
            child_id, tags = run.info.run_id, run.data.tags
            if tags.get(PARENT) != run_id:
                client.set_tag(child_id, PARENT, run_id, synchronous=True)
            child = Child(child_id, tags.get(DIGEST), _ended(run), tags.get(ATTEMPT))
            self.state.children[key] = child
        self.state.parent = Parent(
            study_id=record.id,
            experiment_id=experiment_id,
            run_id=run_id,
            status=parent.info.status,
            end_ms=parent.info.end_time,
            tags=dict(parent.data.tags),
            params=dict(parent.data.params),
            best={(m.step, m.value) for m in client.get_metric_history(run_id, "best_objective")},
            datasets={made_of.dataset.digest for made_of in parent.inputs.dataset_inputs},
            metrics=dict(parent.data.metrics),
        )

    def trial(self, trial: TrialRecord, outcome: Outcome) -> str:
        """Copy a trial that has ended, unless it has been; return the field of SyncCount."""
        key, known = trial.key, self.state.children.get(trial.key)
        mark = (outcome.state, outcome.finished_at, outcome.objective, len(outcome.history))
        if self.state.copied.get(key) == mark:
            return "unchanged"
        digest = outcome_digest(outcome)
        if known is not None and known.digest == digest and known.ended:
            self.state.copied[key] = mark
            return "unchanged"
        did, run_id, n_copied, tags = "created", None, 0, True
        if known is not None and known.digest == digest:
            did, run_id = "completed", known.run_id
        elif (
            known is not None and not known.ended and known.attempt == attempt_tag(outcome.history)
        ):
            run_id, n_copied = known.run_id, known.n_epochs  # it was copied live
        elif known is not None:
            did = "replaced"
            self.client.delete_run(known.run_id)
        layout = trial_layout(self.record, trial, self.parent.run_id, n_copied=n_copied)
        if run_id is None:
            run_id, tags = self._create_run(self.parent.experiment_id, layout), False
        self._log(run_id, layout.params, layout.tags if tags else {}, layout.points)
        self.client.set_terminated(run_id, layout.status, layout.end_ms)
        self.state.children[key] = Child(run_id, digest, ended=True)
        self.state.copied[key] = mark
        return did

    def attempt(self, trial: TrialRecord, attempt: Attempt) -> None:
        """Copy the new epochs of a trial in progress."""
        known, tag = self.state.children.get(trial.key), attempt_tag(attempt.epochs)
        if known is not None and (known.ended or known.attempt != tag):
            self.client.delete_run(known.run_id)
            known = None
        n_copied = known.n_epochs if known else 0
        if len(attempt.epochs) == n_copied:
            return
        layout = trial_layout(self.record, trial, self.parent.run_id, attempt, n_copied)
        run_id = known.run_id if known else self._create_run(self.parent.experiment_id, layout)
        self._log(run_id, {} if known else layout.params, {}, layout.points)
        self.state.children[trial.key] = Child(run_id, None, False, tag, len(attempt.epochs))

    def end_abandoned(self, live: Mapping[TrialKey, Attempt]) -> None:
        """Terminate the runs of trials whose process was killed; their retrainings get new runs."""
        trials, children = (*self.record.trials, *self.record.finalists), self.state.children
        ended = {t.key for t in trials if t.outcome is not None}
        for key, child in list(children.items()):
            if not child.ended and key not in live and key not in ended:
                self.client.set_tag(child.run_id, "state", StudyState.INTERRUPTED, synchronous=True)
                self.client.set_terminated(child.run_id, "KILLED")
                children[key] = replace(child, ended=True)

    def study(self, layout: RunLayout) -> None:
        """Write what the study's run lacks, and delete outdated tags."""
        client, parent = self.client, self.parent
        for tag in (CHANGING & parent.tags.keys()) - layout.tags.keys():
            client.delete_tag(parent.run_id, tag)
            del parent.tags[tag]
        tags = {k: v for k, v in layout.tags.items() if parent.tags.get(k) != v}
        params = {k: v for k, v in layout.params.items() if k not in parent.params}
        scores = [p for p in layout.scores if parent.metrics.get(p.key) != p.value]
        self._log(parent.run_id, params, tags, (*layout.points, *scores))
        parent.metrics |= {p.key: p.value for p in scores}
        parent.tags |= tags
        parent.params |= params
        parent.best |= {(p.step, p.value) for p in layout.points}
        dataset = _dataset_input(self.record)
        if dataset.dataset.digest not in parent.datasets:
            client.log_inputs(parent.run_id, [dataset])
            parent.datasets.add(dataset.dataset.digest)
        if layout.status == "RUNNING":
            if parent.status != "RUNNING":
                client.update_run(parent.run_id, status="RUNNING")
        elif (parent.status, parent.end_ms) != (layout.status, layout.end_ms):
            client.set_terminated(parent.run_id, layout.status, layout.end_ms)
            parent.end_ms = layout.end_ms
        parent.status = layout.status

    def files(self, artifacts: Files | Callable[[], Files]) -> tuple[str, ...]:
        """Log the artifacts, as for `sync_study`, that the study's run lacks.

        Returns:
            Those that could not be made, as `NAMES (REASON)` for each reason.
        """
        run_id, known, tags = self.parent.run_id, self.parent.tags, dict[str, str]()
        digest = None
        if not isinstance(artifacts, Mapping):
            outcomes = {key: child.digest for key, child in self.state.children.items()}
            digest = record_digest(self.record, outcomes)
            if known.get(_FILES_OF) == digest:
                return ()
            artifacts = all_made(artifacts)
        contents, lacking = _sorted_out(artifacts)
        for name, content in contents.items():
            tag, file_digest = f"artifact {name}", text_digest(content)
            if known.get(tag) != file_digest:
                tags[tag] = file_digest
        if digest is not None and not lacking:
            tags[_FILES_OF] = digest  # otherwise the next sync tries again
        if replaced := dict.fromkeys(tags.keys() & known.keys() - {_FILES_OF}, ""):
            self._log(run_id, {}, replaced, [])  # valid again once the file is there
        for name, content in contents.items():
            if f"artifact {name}" in tags:
                self._log_file(run_id, name, content)
        self._log(run_id, {}, tags, [])
        known |= tags
        return tuple(f"{', '.join(names)} ({why})" for why, names in lacking.items())

    def _create_run(self, experiment_id: str, layout: RunLayout) -> str:
        tags, name = dict(layout.tags), layout.name
        run = self.client.create_run(experiment_id, layout.start_ms, tags, run_name=name)
        return str(run.info.run_id)

    def _log(
        self,
        run_id: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        points: Iterable[Point],
    ) -> None:
        """Log params, tags and metric points in as few requests as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        # The client would link the points to the process's active model
        # (`MLFLOW_ACTIVE_MODEL_ID`), and a store without that model refuses them.
        store = self.client._tracking_client.store
        for batch in batches(points, params, tags):
            store.log_batch(
                run_id,
                metrics=[Metric(p.key, p.value, p.time_ms, p.step) for p in batch.points],
                params=[Param(key, value) for key, value in batch.params.items()],
                tags=[RunTag(key, value) for key, value in batch.tags.items()],
            )

    def _log_file(self, run_id: str, name: str, content: bytes) -> None:
        folder, _, file_name = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / file_name
            path.write_bytes(content)
            self.client.log_artifact(run_id, str(path), folder or None)


def _dataset_input(record: StudyRecord) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    path = Path(record.data["path"]).absolute()
    dataset = Dataset(
        name=storable(path.name)[:500],
        digest=str(record.data["sha256"])[:36],  # as much as fits
        source_type="local",
        source=json.dumps({"uri": path.as_uri()}),
        profile=json.dumps({"num_rows": record.data["rows"]}),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def _sorted_out(files: Files) -> tuple[dict[str, bytes], dict[str, list[str]]]:
    """Return the contents of files by name, and the names of failed ones by reason."""
    contents: dict[str, bytes] = {}
    lacking: dict[str, list[str]] = {}
    for name, file in files.items():
        try:
            if isinstance(file, Exception):
                raise file
            contents[name] = file.encode() if isinstance(file, str) else file
        except Exception as error:  # also of encoding
            why = f"{type(error).__name__}: {one_line(error)[:_LONGEST_LIST]}"
            lacking.setdefault(why, []).append(name)
    return contents, lacking


def _experiment_id(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        here = None if is_server(client.tracking_uri) else artifact_root().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=here))
        except Exception:  # another study may have created it
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        remedy = (
            f"bring it back with `mlflow experiments restore -x {experiment.experiment_id}`, or "
            "rename yours"
        )
        raise InputError(f"experiment {name!r} has been deleted in MLflow", remedy=remedy)
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


def _is_ours(tags: Mapping[str, str]) -> bool:
    """Return whether a run has the tags of a study or a trial."""
    role = tags.get("role")
    is_trial = role in [*Role] and PARENT in tags and tags.get("trial", "").isdecimal()
    return "state" in tags and (role == STUDY_ROLE or is_trial)


def _key(tags: Mapping[str, str]) -> TrialKey | None:
    """Return the trial of a run; None for the study's own."""
    role = tags["role"]
    return None if role == STUDY_ROLE else TrialKey(Role(role), int(tags["trial"]))


def _preference(run: Run) -> tuple[bool, int, str]:
    """Return a sort key: of two runs for one trial the ended one is first, then the older."""
    return (not _ended(run), run.info.start_time, run.info.run_id)


def _ended(run: Run) -> bool:
    return run.info.status not in ("RUNNING", "SCHEDULED")
