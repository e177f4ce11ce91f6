"""Links into MLflow's UI, the UI's saved views, and MLflow's errors in one line.

A view is saved as a tag of the experiment, as the UI itself does, with columns and charts; or it is
written out in the link, as a list alone.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import os
import queue
import re
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from tuner.coordination.finalists import rank_finalists, trial_name
from tuner.errors import InputError, one_line, show_location, show_path
from tuner.journal.records import StudyRecord, StudyState
from tuner.journal.storage import Role
from tuner.tracking.layout import STUDY_ROLE
from tuner.tracking.store import (
    alone_if_possible,
    is_server,
    open_own,
    own_path,
    sqlite_path,
    store_digest,
    tracking_uri,
)

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_LONGEST = 300  # characters of an error
_CHECK = "check MLFLOW_TRACKING_URI"
_REFUSALS = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def describe_store(uri: str | None = None) -> str:
    """Return the name of a store, by default of the one in use, without its password."""
    uri = uri or tracking_uri()
    if is_server(uri):
        return f"the MLflow server at {show_location(uri).rstrip('/')}"
    path = sqlite_path(uri)
    return f"the MLflow store {show_location(uri) if path is None else show_path(path)}"


def explain(error: BaseException) -> str:
    """Return an error of the store in use in one line, without passwords."""
    if isinstance(error, InputError):
        return str(error)
    text, store = show_location(one_line(error)).rstrip("."), describe_store()
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"MLflow: {error.filename}: {error.strerror}"
    if found := re.search(
        r"\((?:\w+\.)+\w*(?:Error|Exception)\) (.+?)(?: \[SQL:| \(Background on |$)", text
    ):
        return f"{store}: {found[1][:_LONGEST].strip()}"
    if not is_server(tracking_uri()):
        return f"{store}: {text[:_LONGEST]}"
    if (status := _status(error, text)) is not None:
        return _of_status(status, store)
    if "not in a valid JSON format" in text:
        return f"no {store.removeprefix('the ')}: something else answers; {_CHECK}"
    if "API request to http" in text or "Max retries exceeded" in text:
        why = _why_unreachable(text)
        return f"{store} does not answer{f' ({why})' if why else ''}"
    return f"{store}: {text[:_LONGEST]}"


def _status(error: BaseException, text: str) -> int | None:
    """Return the HTTP status in an error."""
    patterns = (
        r"failed with error code (\d{3}) != 200",
        r"too many (\d{3}) error responses",
        r"\b(\d{3}) (?:Client|Server) Error",
    )
    if found := next((m for p in patterns if (m := re.search(p, text))), None):
        return int(found[1])
    return _REFUSALS.get(str(getattr(error, "error_code", "")))


def _of_status(status: int, store: str) -> str:
    if status == 401:
        return f"{store} refuses the credentials (401); set {_CREDENTIALS}"
    if status == 403:
        return f"{store} does not let this user do that (403); ask who runs it"
    if status == 404:
        return f"no {store.removeprefix('the ')}: nothing of MLflow's is there (404); {_CHECK}"
    return f"{store} answers with error {status}"


def _why_unreachable(text: str) -> str | None:
    patterns = (
        r"\[Errno -?\d+\] ([\w ]+)",
        r"Error\(\d+, '([\w ]+)",
        r"(timed out)",
        r"\[SSL: \w+\] ([^(]+)",
        r"(Remote end closed connection)",
    )
    found = next((m for p in patterns if (m := re.search(p, text))), None)
    return found[1].strip() if found else None


class RestServer:
    """A tracking server, with the credentials and certificates of MLflow's variables.

    Args:
        uri: of the server.
        timeout_s: of a single read from it.
        ours: whether it is a UI of this user on loopback: without proxy and credentials.
    """

    def __init__(self, uri: str, timeout_s: float, *, ours: bool = False) -> None:
        self.base_url = show_location(uri).rstrip("/")  # without the password
        self._timeout_s, self._session = timeout_s, _session(None if ours else uri)

    def ask(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a GET, or to a POST of a query.

        Raises:
            OSError: there is no answer, or it is an error.
            ValueError: it is not JSON.
        """
        answer = self._session.request(
            "GET" if query is None else "POST",
            f"{self.base_url}/api/2.0/mlflow/{path}",
            json=query,
            timeout=self._timeout_s,
            allow_redirects=False,  # to a login page, with the credentials
        )
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


def _session(uri: str | None) -> requests.Session:
    """Return a session for a server; None is a UI of this user on loopback."""
    import requests
    import urllib3

    session = requests.Session()
    if uri is None:
        session.trust_env = False  # no proxy
        return session
    headers = _credentials(uri)
    session.auth = lambda request: request.headers.update(headers) or request  # and no netrc
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        session.verify = False
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    elif path := os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"):
        session.verify = path
    return session


def _credentials(uri: str) -> dict[str, str]:
    """Return MLflow's header: from the URI, or from the environment."""
    parts = urlsplit(uri)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not user:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}


@dataclass(frozen=True)
class Address:
    """The address of a UI, and the process that serves it."""

    base_url: str
    pid: int


@contextlib.contextmanager
def announced(uri: str, address: Address) -> Iterator[None]:
    """Let `running_ui` find a store's UI while the context lasts."""
    path = _file(uri)
    with contextlib.suppress(OSError), open_own(path, "w") as file:
        file.write(json.dumps(asdict(address)).encode())
    try:
        yield
    finally:
        if _read(path) == address:  # not of another UI
            path.unlink(missing_ok=True)


def only_starter(uri: str) -> AbstractContextManager[None]:
    """Let one process at a time start a store's UI."""
    return alone_if_possible(_file(uri).with_suffix(".lock"))


def running_ui(uri: str, timeout_s: float = 5) -> Address | None:
    """Return this user's running UI on a store; None without one that answers."""
    address = _read(_file(uri))
    return address if address and answers(address.base_url, timeout_s) else None


def answers(base_url: str, timeout_s: float) -> bool:
    """Return whether an MLflow server on loopback answers."""
    try:
        answer = _session(None).get(f"{base_url}/health", timeout=timeout_s)
        return answer.content == b"OK"  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return False


def _file(uri: str) -> Path:
    return own_path("ui", store_digest(uri), ".json")


def _read(path: Path) -> Address | None:
    try:
        with open_own(path, "r") as file:
            return Address(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


WORKFLOW = "workflowType=machine_learning"  # otherwise the UI is that for language models
_TAG = "mlflow.sharedViewState."
_TRAINED = f"tags.role = '{Role.TRIAL}' and tags.repeat_of IS NULL"  # each configuration once
_CHARTS = "Model metrics"  # the UI's section of charts
_MOST_COLUMNS = 25  # an experiment's tag holds 5,000 characters


@dataclass(frozen=True)
class View:
    """A view of an experiment's runs."""

    key: str  # unique in the experiment
    name: str  # in the UI's menu
    search: str = ""  # MLflow's filter; all runs by default
    order_by: str = "attributes.start_time"  # the one order in which the UI nests runs
    ascending: bool = False
    columns: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()  # params of the chart of parallel coordinates

    @property
    def tag(self) -> str:
        """The experiment's tag for the view."""
        return _TAG + self.key

    def link(self, base_url: str, experiment_id: str, saved: Collection[str] = ()) -> str:
        """Return the link to this view: to the saved one if its tag is in `saved`."""
        if self.tag in saved:
            query = {"viewStateShareKey": self.key}
        else:  # all keys: others are as last set in the browser
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
        """Return the tag's value; `created` is in ISO 8601."""
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
            section, columns = f"{self.key}-charts", 2  # axes of three are too narrow
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
        return _compact({"name": self.name, "createdAt": created_ms, "state": _compact(state)})


def trials_view(record: StudyRecord) -> View:
    """Return the view of all trials of an experiment, best first."""
    columns = ("tags.`study`", *_columns(record))
    order = _best_first(record)
    return View("tuner-trials", "Trials, best first", _TRAINED, **order, columns=columns)


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
    """Save a view in MLflow, unless it is there or a user has changed it; return whether it is."""
    value, there = view.as_saved(created), experiment.tags.get(view.tag)
    if there == value or (there is not None and _was_changed(there)):
        return True
    try:
        client.set_experiment_tag(experiment.experiment_id, view.tag, value)
    except Exception:  # without permission to write
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


REPORT = "report.html"  # the name of a study's artifact


@dataclass(frozen=True)
class StudyLinks:
    """Links to a study in MLflow's UI."""

    study: str  # its own run
    report: str | None  # None before the search is done
    trials: str  # all of them, best first
    best: Mapping[str, str]  # trial 3 -> its run; the finalists first, each best first


def run_link(base_url: str, experiment_id: str, run_id: str, page: str = "") -> str:
    """Return the link to a run, or to a page of it such as `/artifacts/NAME`."""
    runs = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{runs}/{run_id}{page}?{WORKFLOW}"


def find_links(record: StudyRecord, *, most: int = 5, timeout_s: float = 2) -> StudyLinks | None:
    """Return links to a study's runs on the server in use, or on the store's running UI.

    Args:
        record: the study.
        most: number of its best trials.
        timeout_s: for all requests together.

    Returns:
        None if no server answers in time, or it lacks the study.
    """
    uri = tracking_uri()
    found: queue.SimpleQueue[StudyLinks | None] = queue.SimpleQueue()

    def find() -> None:
        links = None
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if (server := _server(uri, timeout_s)) is not None:
                links = _find(server, record, most)
        found.put(links)

    # A thread, because name resolution and slow answers have no timeout.
    threading.Thread(target=find, daemon=True).start()
    try:
        return found.get(timeout=timeout_s)
    except queue.Empty:
        return None


def has_study(record: StudyRecord) -> bool:
    """Return whether the store in use is a local file that contains a study."""
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
        wanted = {"study_id": record.id, **tags}
        search = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
        query = {"experiment_ids": [experiment_id], "filter": search, "max_results": 1}
        return next(iter(server.ask("runs/search", query).get("runs", [])), None)

    def link(run: dict[str, Any], page: str = "") -> str:
        return run_link(server.base_url, experiment_id, run["info"]["run_id"], page)

    study = find(role=STUDY_ROLE)
    if study is None:
        return None
    is_done = {"key": "state", "value": str(StudyState.DONE)} in study["data"]["tags"]
    view = study_view(record, study["info"]["run_id"])
    # The winner is first; a default that is no trial has a link to its first training.
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
