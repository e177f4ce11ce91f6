"""What MLflow holds of a study, as far as is known: read once, then kept up to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.coordination.records import StudyRecord
from tuner.coordination.seeds import Role
from tuner.errors import InputError
from tuner.tracking.layout import ATTEMPT, DIGEST, PARENT, STUDY_ROLE, StudyState, study_layout
from tuner.tracking.live import TrialKey
from tuner.tracking.store import artifact_root
from tuner.tracking.uris import is_server
from tuner.tracking.writing import create_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["Child", "Parent", "SyncState", "read_store"]


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
    metrics: dict[str, float] = field(default_factory=dict)  # the newest value of each


@dataclass(frozen=True)
class Child:
    """A trial's run as MLflow has it."""

    run_id: str
    digest: str | None  # of the outcome; None while the trial runs
    ended: bool
    attempt: str | None = None  # that it shows, of a trial which runs or did when it was created
    n_epochs: int = 0  # of the attempt that were copied, at least


@dataclass
class SyncState:
    """What MLflow holds of one study."""

    parent: Parent | None = None
    children: dict[TrialKey, Child] = field(default_factory=dict)
    copied: dict[TrialKey, tuple[Any, ...]] = field(default_factory=dict)

    def forget(self) -> None:
        """Have the next sync read MLflow anew."""
        self.parent = None
        self.children.clear()
        self.copied.clear()


def read_store(client: MlflowClient, record: StudyRecord, state: SyncState) -> None:
    """Find the study's runs in MLflow, or create its parent; leave one run to each of them."""
    experiment_id = _experiment_id(client, record.experiment.name)
    found: dict[TrialKey, Run] = {}
    for run in sorted(_search(client, experiment_id, record.id), key=_preference):
        if (key := _key(run.data.tags)) is None:
            continue  # somebody's who wanted it with the study
        if found.setdefault(key, run) is not run:  # two copied at once, or an answer got lost
            client.delete_run(run.info.run_id)
    parent = found.pop((STUDY_ROLE, 0), None)
    if parent is None:
        layout = study_layout(record, StudyState.RUNNING)
        parent = client.get_run(create_run(client, experiment_id, layout))
    run_id = parent.info.run_id
    for key, run in found.items():
        if run.data.tags.get(PARENT) != run_id:
            client.set_tag(run.info.run_id, PARENT, run_id, synchronous=True)
        state.children[key] = Child(
            run.info.run_id,
            run.data.tags.get(DIGEST),
            _ended(run),
            run.data.tags.get(ATTEMPT),
        )
    state.parent = Parent(
        study_id=record.id,
        experiment_id=experiment_id,
        run_id=run_id,
        status=parent.info.status,
        end_ms=parent.info.end_time,
        tags=dict(parent.data.tags),
        params=dict(parent.data.params),
        best={(m.step, m.value) for m in client.get_metric_history(run_id, "best_objective")},
        metrics=dict(parent.data.metrics),
        datasets={made_of.dataset.digest for made_of in parent.inputs.dataset_inputs},
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


def _key(tags: Mapping[str, str]) -> TrialKey | None:
    """Return which run of the study this is; None where it is not one of ours.

    Ours have all of these tags from the moment that they are created.
    """
    role, number = tags.get("role", ""), tags.get("trial", "")
    if "state" not in tags:
        return None
    if role == STUDY_ROLE:
        return role, 0
    if role in [*Role] and PARENT in tags and number.isdecimal():
        return role, int(number)
    return None


def _preference(run: Run) -> tuple[bool, int, str]:
    """Of two runs for one trial, keep the one that ended, then the older."""
    return (not _ended(run), run.info.start_time, run.info.run_id)


def _ended(run: Run) -> bool:
    return run.info.status not in ("RUNNING", "SCHEDULED")
