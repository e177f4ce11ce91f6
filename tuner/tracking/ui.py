"""MLflow's UI: its server on loopback, its pages of a study, and its saved views.

A view is saved as a tag of the experiment, as the UI itself does, with columns and charts; or it is
written out in the link, as a list alone. Links are found over REST, without importing MLflow.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import queue
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from tuner.coordination.finalists import rank_finalists, trial_name
from tuner.errors import InputError, RunError, show_location, show_path
from tuner.journal.records import StudyRecord, StudyState
from tuner.journal.storage import Role
from tuner.outputs import lock_if_possible, open_private, private_path
from tuner.tracking.layout import PARENT, STUDY_ROLE
from tuner.tracking.store import (
    RestServer,
    answers,
    artifact_root,
    check_store,
    check_uri,
    explained,
    is_server,
    open_store,
    sqlite_path,
    store_digest,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_Found = TypeVar("_Found")

REPORT = "report.html"  # the name of a study's artifact
_HOST = "127.0.0.1"
_PORTS = range(20_000, 30_000)  # below those that the system gives to connections


class Link(NamedTuple):
    """A page of the UI."""

    url: str
    shows: str


@dataclass(frozen=True)
class Ui:
    """MLflow's UI: the pages to open, and the process that serves them."""

    links: tuple[Link, ...]
    earlier: int | None = None  # process that served it before
    server: subprocess.Popen[bytes] | None = None  # that this process started
    log: Path | None = None

    def wait(self) -> None:
        """Wait for the server that this process started, if any.

        Raises:
            RunError: the server ended.
        """
        if self.server is not None and self.log is not None:
            status = self.server.wait()
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise RunError(f"the MLflow server has ended ({how}): {_last_line(self.log)}")


@contextlib.contextmanager
def start_ui(
    record: StudyRecord | None = None,
    *,
    of_study: bool = False,
    port: int | None = None,
    timeout_s: float = 60,
) -> Iterator[Ui]:
    """Serve the MLflow UI while the context lasts.

    Nothing is started if `MLFLOW_TRACKING_URI` is a server, or if this user serves the UI of the
    store already and `port` is None.

    Args:
        record: a study, for links to its experiment; by default to all experiments.
        of_study: whether the links are to the study itself.
        port: on loopback; by default the store's own, as browsers keep settings by port, or else a
            free one.
        timeout_s: for the server's start.

    Raises:
        InputError: there is no usable store, no such study in it, or the port is in use.
        RunError: the server does not start or answer.
    """
    uri = tracking_uri()
    check_uri(uri)
    if is_server(uri):
        if not uri.lower().startswith("http"):
            rule = f"MLFLOW_TRACKING_URI: {uri} has a UI of its own"
            raise InputError(rule, remedy="open it there")
        yield Ui(_pages(show_location(uri).rstrip("/"), record, of_study))
        return
    if (database := sqlite_path(uri)) is not None and not database.exists():
        remedy = "run `tuner run EXPERIMENT.yaml` first"
        raise InputError("no such MLflow store", where=show_path(database), remedy=remedy)
    with explained():
        check_store()
    with contextlib.ExitStack() as stack:
        with lock_if_possible(_address_file(uri).with_suffix(".lock")):  # one starts it
            running = running_ui(uri) if port is None else None
            if running is not None:
                ui = Ui(_pages(running.base_url, record, of_study), earlier=running.pid)
            else:
                folder = tempfile.TemporaryDirectory(prefix="tuner-ui-")
                log = Path(stack.enter_context(folder)) / "log"
                port = _usual_port(uri) if port is None else _check_free(port)
                server = stack.enter_context(_server(uri, port, log))
                base_url = f"http://{_HOST}:{port}"
                pages = _pages(base_url, record, of_study)  # while it starts
                _wait(server, base_url, log, timeout_s)
                stack.enter_context(announced(uri, Address(base_url, server.pid)))
                ui = Ui(pages, server=server, log=log)
        yield ui


@explained()
def _pages(base_url: str, record: StudyRecord | None, of_study: bool) -> tuple[Link, ...]:
    """Return the pages to open, and save their views."""
    everything = (Link(f"{base_url}/#/experiments", "all experiments"),)
    client = open_store()
    if record is None:
        return everything
    name, parents = record.experiment.name, []
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        search = f"tags.study_id = '{record.id}' and tags.role = '{STUDY_ROLE}'"
        parents = client.search_runs([experiment.experiment_id], search, max_results=1)
    if of_study and not parents:
        rule = f"MLflow has no run of {record.name}"
        raise InputError(rule, remedy=f"`tuner sync {shlex.quote(record.name)}` copies it")
    if experiment is None:
        return everything
    views = [
        (trials_view(record), f"all trials of {name}, best first"),
        (studies_view(record), f"the studies of {name}, each with its trials"),
    ]
    if parents:
        view = study_view(record, parents[0].info.run_id)
        views.insert(0, (view, f"the trials of {record.name}, best first, and charts"))
    saved = {view.tag for view, _ in views if save_view(client, experiment, view, record.created)}
    pages = [Link(v.link(base_url, experiment.experiment_id, saved), shows) for v, shows in views]
    return tuple(pages if of_study else pages[-2:])


@contextlib.contextmanager
def _server(uri: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", _HOST, "--port", str(port)]
    command += ["--default-artifact-root", artifact_root().as_uri()]
    command += ["--artifacts-destination", artifact_root().as_uri()]
    mlflow = find_spec("mlflow")
    assert mlflow is not None and mlflow.origin is not None  # noqa: PT018
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # a command line would show its password
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes rather than 11
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Neither Python nor uvicorn takes a statistics.py of the current folder for Python's.
        "PYTHONSAFEPATH": "1",
        "UVICORN_APP_DIR": str(Path(mlflow.origin).parents[1]),
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group, terminated as a whole
        )
    try:
        yield server
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal_number)
            # A second Ctrl-C does not wait.
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                server.wait(timeout=5)


def _wait(server: subprocess.Popen[bytes], base_url: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RunError(f"the MLflow server did not start: {_last_line(log)}")
        if answers(base_url, timeout_s=2):
            return
        time.sleep(0.1)
    raise RunError(f"the MLflow server did not answer in {timeout_s:g} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").split("\n")]
    texts = [line for line in lines if line and not re.search(r'"[A-Z]+ \S+ HTTP/', line)]
    return show_location(texts[-1]) if texts else "it wrote no log"


def _usual_port(uri: str) -> int:
    try:
        return _check_free(_PORTS[zlib.crc32(uri.encode()) % len(_PORTS)])
    except InputError:
        with socket.socket() as probe:
            probe.bind((_HOST, 0))
            return int(probe.getsockname()[1])


def _check_free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            rule = f"{port} cannot be used: {error.strerror}"
            raise InputError(rule, where="--port", remedy="give another, or none") from None
    return port


@dataclass(frozen=True)
class Address:
    """The address of a UI, and the process that serves it."""

    base_url: str
    pid: int


@contextlib.contextmanager
def announced(uri: str, address: Address) -> Iterator[None]:
    """Let `running_ui` find a store's UI while the context lasts."""
    path = _address_file(uri)
    with contextlib.suppress(OSError), open_private(path, "w") as file:
        file.write(json.dumps(asdict(address)).encode())
    try:
        yield
    finally:
        if _read_address(path) == address:  # not of another UI
            path.unlink(missing_ok=True)


def running_ui(uri: str, timeout_s: float = 5) -> Address | None:
    """Return this user's running UI on a store; None without one that answers."""
    address = _read_address(_address_file(uri))
    return address if address and answers(address.base_url, timeout_s) else None


def _address_file(uri: str) -> Path:
    return private_path("ui", store_digest(uri), ".json")


def _read_address(path: Path) -> Address | None:
    try:
        with open_private(path, "r") as file:
            return Address(**json.loads(file.read()))
    except (OSError, ValueError, TypeError):
        return None


_WORKFLOW = "workflowType=machine_learning"  # otherwise the UI is that for language models
_TRAINED = f"tags.role = '{Role.TRIAL}' and tags.repeat_of IS NULL"  # each configuration once
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
        return f"mlflow.sharedViewState.{self.key}"

    def link(self, base_url: str, experiment_id: str, saved: Collection[str] = ()) -> str:
        """Return the link to this view: to the saved one if its tag is in `saved`."""
        query: dict[str, Any] = {"viewStateShareKey": self.key}
        if self.tag not in saved:  # all keys: others are as last set in the browser
            ascending = str(self.ascending).lower()
            query = self._state() | {
                "orderByAsc": ascending,
                "datasetsFilter": "W10=",
            }  # [], base64
        if self.axes:
            query["compareRunsMode"] = "CHART"
        page = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
        return f"{page}?{_WORKFLOW}&{urlencode(query, quote_via=quote, safe='')}"

    def as_saved(self, created: str) -> str:
        """Return the tag's value; `created` is in ISO 8601."""
        state = self._state() | {"datasetsFilter": [], "selectedColumns": self.columns}
        if self.axes:
            section, columns = f"{self.key}-charts", 2  # axes of three are too narrow
            state["compareRunSections"] = [
                {"uuid": section, "name": "Model metrics", "display": True, "columns": columns}
                | {"isReordered": True, "isGenerated": True, "deleted": False}
            ]
            state["compareRunCharts"] = [
                {"uuid": f"{self.key}-parallel", "type": "PARALLEL", "metricSectionId": section}
                | {"selectedParams": self.axes, "selectedMetrics": ["objective"]}
                | {"showAllRuns": True, "isGenerated": False, "deleted": False}
            ]
        created_ms = round(1000 * dt.datetime.fromisoformat(created).timestamp())
        return _compact({"name": self.name, "createdAt": created_ms, "state": _compact(state)})

    def _state(self) -> dict[str, Any]:
        return {
            "searchFilter": self.search,
            "orderByKey": self.order_by,
            "orderByAsc": self.ascending,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
        }


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
        f"tags.`{PARENT}` = '{parent_run_id}' and {_TRAINED}",
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


@dataclass(frozen=True)
class StudyLinks:
    """Links to a study in MLflow's UI."""

    study: str  # its own run
    report: str | None  # None before the search is done
    trials: str  # all of them, best first
    best: Mapping[str, str]  # trial 3 -> its run; the finalists first, each best first


def find_links(record: StudyRecord, *, most: int = 5, timeout_s: float = 2) -> StudyLinks | None:
    """Return links to a study's runs on the server in use, or on the store's running UI.

    Args:
        record: the study.
        most: number of its best trials.
        timeout_s: for all requests together.

    Returns:
        None if no server answers in time, or it lacks the study.
    """
    return _ask_server(lambda server: _find(server, record, most), timeout_s)


def find_study_link(experiment: str, study_id: str, *, timeout_s: float = 2) -> str | None:
    """Return the link to a study's own run, without its record; None as `find_links` does.

    Args:
        experiment: its name.
        study_id: the random id of the study.
        timeout_s: for all requests together.
    """

    def find(server: RestServer) -> str | None:
        runs = _Runs.of(server, experiment, study_id)
        study = runs.find(role=STUDY_ROLE)
        return None if study is None else runs.link(study)

    return _ask_server(find, timeout_s)


def _ask_server(find: Callable[[RestServer], _Found | None], timeout_s: float) -> _Found | None:
    uri = tracking_uri()
    found: queue.SimpleQueue[_Found | None] = queue.SimpleQueue()

    def ask() -> None:
        links = None
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            if (server := _rest_server(uri, timeout_s)) is not None:
                links = find(server)
        found.put(links)

    # A thread, because name resolution and slow answers have no timeout.
    threading.Thread(target=ask, daemon=True).start()
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


def _rest_server(uri: str, timeout_s: float) -> RestServer | None:
    if not is_server(uri):
        ui = running_ui(uri, timeout_s / 2)
        return RestServer(ui.base_url, timeout_s, ours=True) if ui else None
    if not uri.lower().startswith("http"):  # hosted: its UI is elsewhere
        return None
    return RestServer(uri, timeout_s)


@dataclass(frozen=True)
class _Runs:
    """The runs of a study on a server."""

    server: RestServer
    experiment: Mapping[str, Any]
    study_id: str

    @classmethod
    def of(cls, server: RestServer, experiment: str, study_id: str) -> _Runs:
        name = quote(experiment, safe="")
        found = server.ask(f"experiments/get-by-name?experiment_name={name}")["experiment"]
        return cls(server, found, study_id)

    def find(self, **tags: object) -> dict[str, Any] | None:
        wanted = {"study_id": self.study_id, **tags}
        search = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
        ids = [self.experiment["experiment_id"]]
        query = {"experiment_ids": ids, "filter": search, "max_results": 1}
        return next(iter(self.server.ask("runs/search", query).get("runs", [])), None)

    def link(self, run: Mapping[str, Any], page: str = "") -> str:
        runs = f"{self.server.base_url}/#/experiments/{self.experiment['experiment_id']}/runs"
        return f"{runs}/{run['info']['run_id']}{page}?{_WORKFLOW}"


def _find(server: RestServer, record: StudyRecord, most: int) -> StudyLinks | None:
    of_study = _Runs.of(server, record.experiment.name, record.id)
    study = of_study.find(role=STUDY_ROLE)
    if study is None:
        return None
    is_done = {"key": "state", "value": str(StudyState.DONE)} in study["data"]["tags"]
    view = study_view(record, study["info"]["run_id"])
    # The winner is first; a default that is no trial has a link to its first training.
    finalists = [(f.name, f.trial or f.repeats[0]) for f in rank_finalists(record)]
    named = dict(finalists) | {trial_name(t.number): t for t in record.ranked()}
    runs = {
        name: of_study.find(role=trial.role, trial=trial.number)
        for name, trial in list(named.items())[:most]
    }
    saved = {tag["key"] for tag in of_study.experiment.get("tags", [])}
    return StudyLinks(
        study=of_study.link(study),
        report=of_study.link(study, f"/artifacts/{REPORT}") if is_done else None,
        trials=view.link(server.base_url, of_study.experiment["experiment_id"], saved=saved),
        best={name: of_study.link(run) for name, run in runs.items() if run},
    )
