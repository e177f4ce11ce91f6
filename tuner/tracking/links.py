"""Links from a study to its runs, found in a moment: without MLflow, whose import takes 1.6 s.

The server is asked over HTTP. One that is away, or slow, costs two seconds and the links.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tuner.coordination.finalists import rank_finalists, trial_name
from tuner.coordination.records import StudyRecord
from tuner.tracking.address import running_ui
from tuner.tracking.layout import STUDY_ROLE, StudyState
from tuner.tracking.rest import RestServer
from tuner.tracking.uris import is_server, sqlite_path, tracking_uri
from tuner.tracking.views import WORKFLOW, study_view

__all__ = ["StudyLinks", "find_links", "has_study", "run_link"]

REPORT = "report.html"  # the name of a study's artifact


@dataclass(frozen=True)
class StudyLinks:
    """Where a study is in MLflow's UI."""

    study: str  # its own run
    report: str | None  # none before the search has come to its end
    trials: str  # all of them, best first
    best: Mapping[str, str]  # trial 3 -> its run; the finalists first, each best first


def run_link(base_url: str, experiment_id: str, run_id: str, page: str = "") -> str:
    """Return the link to a run, or to a page of it, as `/model-metrics` or `/artifacts/NAME`."""
    runs = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{runs}/{run_id}{page}?{WORKFLOW}"


def find_links(record: StudyRecord, *, most: int = 5, timeout_s: float = 2) -> StudyLinks | None:
    """Return links to a study's runs on the server in use, or on the UI that runs on the store.

    Args:
        record: the study.
        most: how many of its best trials.
        timeout_s: for everything together.

    Returns:
        None where there is no such server, it does not answer in time, or it lacks the study.
    """
    uri = tracking_uri()
    found: queue.SimpleQueue[StudyLinks | None] = queue.SimpleQueue()

    def find() -> None:
        links = None
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if (server := _server(uri, timeout_s)) is not None:
                links = _find(server, record, most)
        found.put(links)

    # A thread, as a name that is not resolved, or an answer byte by byte, knows no timeout.
    threading.Thread(target=find, daemon=True).start()
    try:
        return found.get(timeout=timeout_s)
    except queue.Empty:
        return None


def has_study(record: StudyRecord) -> bool:
    """Say whether the store in use is a local file with a study in it."""
    database = sqlite_path(tracking_uri())
    if database is None or not database.exists():
        return False
    query = "SELECT 1 FROM tags WHERE key = 'study_id' AND value = ? LIMIT 1"
    try:
        with contextlib.closing(
            sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=1)
        ) as store:
            return store.execute(query, (record.id,)).fetchone() is not None
    except sqlite3.Error:
        return False


def _server(uri: str, timeout_s: float) -> RestServer | None:
    if not is_server(uri):
        ui = running_ui(uri, timeout_s / 2)
        return RestServer(ui.base_url, timeout_s, ours=True) if ui else None
    if not uri.lower().startswith("http"):  # hosted: its UI is elsewhere
        return None
    return RestServer(uri, timeout_s)


def _find(server: RestServer, record: StudyRecord, most: int) -> StudyLinks | None:
    name = quote(record.experiment.name, safe="")
    experiment = server.ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]
    experiment_id, saved = experiment["experiment_id"], experiment.get("tags", [])

    def find(**tags: object) -> dict[str, Any] | None:
        told = {"study_id": record.id, **tags}
        search = " and ".join(f"tags.{key} = '{value}'" for key, value in told.items())
        query = {"experiment_ids": [experiment_id], "filter": search, "max_results": 1}
        return next(iter(server.ask("runs/search", query).get("runs", [])), None)

    def link(run: dict[str, Any], page: str = "") -> str:
        return run_link(server.base_url, experiment_id, run["info"]["run_id"], page)

    study = find(role=STUDY_ROLE)
    if study is None:
        return None
    is_done = {"key": "state", "value": str(StudyState.DONE)} in study["data"]["tags"]
    view = study_view(record, study["info"]["run_id"])
    # The winner first; a default that no trial found is shown by its first training.
    finalists = [(f.name, f.trial or f.repeats[0]) for f in rank_finalists(record)]
    named = dict(finalists) | {trial_name(t.number): t for t in record.ranked()}
    trials = {
        name: find(role=trial.role, trial=trial.number)
        for name, trial in list(named.items())[:most]
    }
    return StudyLinks(
        study=link(study),
        report=link(study, f"/artifacts/{REPORT}") if is_done else None,
        trials=view.link(server.base_url, experiment_id, saved={tag["key"] for tag in saved}),
        best={name: link(trial) for name, trial in trials.items() if trial},
    )
