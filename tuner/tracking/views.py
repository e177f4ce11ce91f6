"""What MLflow's UI shows of an experiment's runs: which, in what order, with what beside them.

A link brings a view in one of two ways. Saved as a tag of the experiment, as the UI itself saves
what its menu *Views* lists, it has columns and charts. Written out in the link it is the list
alone: there are no query keys for the rest.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tuner.coordination.records import StudyRecord
from tuner.coordination.seeds import Role

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

__all__ = ["WORKFLOW", "View", "save_view", "studies_view", "study_view", "trials_view"]

WORKFLOW = "workflowType=machine_learning"  # in every link, or the UI is one for language models
_TAG = "mlflow.sharedViewState."
_TRAINED = f"tags.role = '{Role.TRIAL}' and tags.repeat_of IS NULL"  # each configuration once
_CHARTS = "Model metrics"  # the UI's own name of the section, to which it adds the other metrics
_MOST_COLUMNS = 25  # an experiment's tag holds 5,000 characters


@dataclass(frozen=True)
class View:
    """One view of an experiment's runs."""

    key: str  # in links; tells the experiment's views apart
    name: str  # in the UI's menu
    search: str = ""  # in MLflow's words; all runs by default
    order_by: str = "attributes.start_time"  # the one order in which the UI nests runs
    ascending: bool = False
    columns: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()  # params of parallel coordinates, which are drawn beside the list

    @property
    def tag(self) -> str:
        """The tag of the experiment that the view is saved as."""
        return _TAG + self.key

    def link(self, base_url: str, experiment_id: str, saved: Collection[str] = ()) -> str:
        """Return the link that opens this view.

        Args:
            base_url: of the UI.
            experiment_id: in MLflow.
            saved: tags of the experiment; with the view's among them the link is to that.
        """
        if self.tag in saved:
            query = {"viewStateShareKey": self.key}
        else:  # all of them: what is left out is as this browser had it last
            query = {
                "searchFilter": self.search,
                "orderByKey": self.order_by,
                "orderByAsc": str(self.ascending).lower(),
                "startTime": "ALL",
                "lifecycleFilter": "Active",
                "modelVersionFilter": "All Runs",
                "datasetsFilter": "W10=",  # an empty list, in base64
            }
        if self.axes:
            query["compareRunsMode"] = "CHART"
        page = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
        return f"{page}?{WORKFLOW}&{urlencode(query, quote_via=quote, safe='')}"

    def as_saved(self, created: str) -> str:
        """Return the tag's value; `created` is a time in ISO 8601."""
        state: dict[str, Any] = {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": self.columns,
        }
        if self.axes:
            section, columns = f"{self.key}-charts", 2  # with three, axes are too narrow to read
            state["compareRunSections"] = [
                {"uuid": section, "name": _CHARTS, "display": True, "columns": columns}
                | {"isReordered": True, "isGenerated": True, "deleted": False}
            ]
            state["compareRunCharts"] = [
                {"uuid": f"{self.key}-parallel", "type": "PARALLEL", "metricSectionId": section}
                | {"selectedParams": self.axes, "selectedMetrics": ["objective"]}
                | {"showAllRuns": True, "isGenerated": False, "deleted": False}
            ]
        created_ms = round(1000 * dt.datetime.fromisoformat(created).timestamp())
        return _compact(
            {"name": self.name, "createdAt": created_ms, "state": _compact(state)},
        )


def trials_view(record: StudyRecord) -> View:
    """Return the view of the trials of every study of an experiment, best first."""
    columns = ("tags.`study`", *_columns(record))
    return View(
        "tuner-trials",
        "Trials, best first",
        _TRAINED,
        **_best_first(record),
        columns=columns,
    )


def studies_view(record: StudyRecord) -> View:
    """Return the view of an experiment's studies, each with its trials under it."""
    columns = ("metrics.`best_objective`", *_columns(record))
    return View("tuner-studies", "Studies", columns=columns)


def study_view(record: StudyRecord, parent_run_id: str) -> View:
    """Return the view of one study's trials: best first, with charts beside them."""
    return View(
        f"tuner-{parent_run_id}",
        record.name,
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and {_TRAINED}",
        **_best_first(record),
        columns=_columns(record),
        axes=tuple(record.experiment.search_space)[:_MOST_COLUMNS] or ("trial",),
    )


def save_view(client: MlflowClient, experiment: Experiment, view: View, created: str) -> bool:
    """Save a view in MLflow unless it is there; say whether it is there now.

    One that somebody has changed in the UI is left as it is. The UI notes then when that was.
    """
    value, there = view.as_saved(created), experiment.tags.get(view.tag)
    if there == value or (there is not None and _was_changed(there)):
        return True
    try:
        client.set_experiment_tag(experiment.experiment_id, view.tag, value)
    except Exception:  # somebody who may only read: the view is written out in the link
        return False
    return True


def _was_changed(value: str) -> bool:
    try:
        return "updatedAt" in json.loads(value)
    except (ValueError, TypeError):
        return False


def _best_first(record: StudyRecord) -> dict[str, Any]:
    minimized = record.experiment.objective.direction == "minimize"
    return {"order_by": "metrics.`objective`", "ascending": minimized}


def _columns(record: StudyRecord) -> tuple[str, ...]:
    searched = tuple(f"params.`{name}`" for name in record.experiment.search_space)
    return ("metrics.`objective`", *searched[:_MOST_COLUMNS])


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
