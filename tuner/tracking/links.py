"""Links into MLflow's UI, its views, its REST interface, and its errors in one line.

A UI on loopback is one user's on one machine, and so is the file: in the folder of temporary
files, not beside the store, which other machines may see and its user may not write to.

A link brings a view in one of two ways. Saved as a tag of the experiment, as the UI itself saves
what its menu *Views* lists, it has columns and charts. Written out in the link it is the list
alone: there are no query keys for the rest.

The server is asked over HTTP. One that is away, or slow, costs two seconds and the links.
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
import ssl
import threading
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from http.client import HTTPException
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
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_LONGEST = 300  # characters of what MLflow says
_CHECK = "check MLFLOW_TRACKING_URI"
_REFUSALS = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def describe_store(uri: str | None = None) -> str:
    """Name a store, the one in use by default, as a person knows it and without its password."""
    uri = uri or tracking_uri()
    if is_server(uri):
        return f"the MLflow server at {show_location(uri).rstrip('/')}"
    path = sqlite_path(uri)
    return f"the MLflow store {show_location(uri) if path is None else show_path(path)}"


def explain(error: BaseException) -> str:
    """Say in one line, and without passwords, why the store in use did not do what it should."""
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
    """Return the HTTP status of an answer that was no success."""
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
    """A server, with the credentials and certificates that MLflow's variables name."""

    def __init__(self, uri: str, timeout_s: float, *, ours: bool = False) -> None:
        """Ask nothing yet.

        Args:
            uri: of the server.
            timeout_s: for every single read from it.
            ours: whether it is a UI of our own on loopback, with no proxy before it and no need
                of credentials.
        """
        self.base_url = show_location(uri).rstrip("/")  # without the password
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json"} | ({} if ours else _credentials(uri))
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if ours:
            handlers.append(urllib.request.ProxyHandler({}))
        elif uri.lower().startswith("https"):
            handlers.append(urllib.request.HTTPSHandler(context=_certificates()))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a GET, or to a POST of a query.

        Raises:
            OSError: there is no answer, or it is an error.
            ValueError: it is not JSON.
        """
        request = urllib.request.Request(
            f"{self.base_url}/api/2.0/mlflow/{path}",
            data=None if query is None else json.dumps(query).encode(),
            headers=self._headers,
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except HTTPException as error:  # what answers speaks no HTTP
            raise OSError(str(error)) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows none: it leads to a page to log in, and would take the credentials along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _credentials(uri: str) -> dict[str, str]:
    """Return the header that MLflow would send: from the URI, or from the environment."""
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


def _certificates() -> ssl.SSLContext:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))


@dataclass(frozen=True)
class Address:
    """Where a UI is served, and by which process."""

    base_url: str
    pid: int


@contextlib.contextmanager
def announced(uri: str, address: Address) -> Iterator[None]:
    """Have `running_ui` find a store's UI while the context lasts."""
    path = _file(uri)
    with contextlib.suppress(OSError), open_own(path, "w") as file:  # or nobody finds it
        file.write(json.dumps(asdict(address)).encode())
    try:
        yield
    finally:
        if _read(path) == address:  # not that of another one, on a port of its own
            path.unlink(missing_ok=True)


def only_starter(uri: str) -> AbstractContextManager[None]:
    """Let one process at a time start a store's UI: the next one finds it then."""
    return alone_if_possible(_file(uri).with_suffix(".lock"))


def running_ui(uri: str, timeout_s: float = 5) -> Address | None:
    """Return where this user serves a store's UI on this machine, if it answers."""
    address = _read(_file(uri))
    return address if address and answers(address.base_url, timeout_s) else None


def answers(base_url: str, timeout_s: float) -> bool:
    """Say whether an MLflow server on loopback answers."""
    no_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with no_proxy.open(f"{base_url}/health", timeout=timeout_s) as answer:
            return bool(answer.read(16) == b"OK")
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
