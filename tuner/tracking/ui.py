"""The MLflow UI on the store in use, and links into it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

from tuner.errors import InputError, RunError, nearest
from tuner.search.seeds import Role
from tuner.tracking.layout import STUDY_ROLE
from tuner.tracking.store import (
    artifact_root,
    explain,
    is_server,
    open_store,
    sqlite_path,
    tracking_uri,
)

__all__ = ["runs_link", "start_ui"]

_HOST = "127.0.0.1"


@contextlib.contextmanager
def start_ui(
    experiment_name: str | None = None,
    study_id: str | None = None,
    *,
    ascending: bool = True,
    port: int | None = None,
    timeout_s: float = 60,
) -> Iterator[str]:
    """Serve the MLflow UI while the context lasts; yield the link to open.

    Where `MLFLOW_TRACKING_URI` is a server already, none is started.

    Args:
        experiment_name: what the link shows; all experiments by default.
        study_id: of a study in it: the link then shows that study's trials, best first.
        ascending: whether the smallest objective is the best.
        port: on loopback; a free one by default.
        timeout_s: how long the server may take to answer.

    Raises:
        InputError: there is no store yet, or no such experiment in it, or the port is in use.
        RunError: the server did not start.
    """
    uri = tracking_uri()
    if is_server(uri):
        yield _link(uri.rstrip("/"), experiment_name, study_id, ascending)
        return
    if (database := sqlite_path(uri)) is not None and not database.exists():
        raise InputError(f"{database}: no such MLflow store; run `tuner run EXPERIMENT.yaml` first")
    with contextlib.ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-ui-"))) / "log"
        port = _check_free(port) if port is not None else _free_port()
        server = stack.enter_context(_server(uri, port, log))
        base_url = f"http://{_HOST}:{port}"
        link = _link(base_url, experiment_name, study_id, ascending)  # looked up while it starts
        _wait(server, port, log, timeout_s)
        yield link


def runs_link(
    base_url: str, experiment_id: str, parent_run_id: str | None = None, ascending: bool = True
) -> str:
    """Return the link to an experiment's runs, or to the trials of one study.

    Args:
        base_url: of the server.
        experiment_id: in MLflow.
        parent_run_id: the study's run; its trials are then shown ordered by their objective.
        ascending: whether the smallest objective comes first.
    """
    link = f"{base_url.rstrip('/')}/#/experiments/{experiment_id}/runs"
    facets = {"workflowType": "machine_learning"}  # or the UI shows traces of language models
    if parent_run_id is not None:
        facets |= {
            "searchFilter": (
                f"tags.`mlflow.parentRunId` = '{parent_run_id}' and tags.role = '{Role.TRIAL}'"
            ),
            "orderByKey": "metrics.`objective`",
            "orderByAsc": str(ascending).lower(),
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": "W10=",
            "compareRunsMode": "CHART",
        }
    return f"{link}?{urlencode(facets, quote_via=quote, safe='')}"


def _link(base_url: str, name: str | None, study_id: str | None, ascending: bool) -> str:
    if name is None:
        return f"{base_url}/#/experiments"
    try:
        client = open_store()
        experiment = client.get_experiment_by_name(name)
        names = [] if experiment else [e.name for e in client.search_experiments()]
        parents = []
        if experiment is not None and study_id is not None:
            wanted = f"tags.study_id = '{study_id}' and tags.role = '{STUDY_ROLE}'"
            parents = client.search_runs([experiment.experiment_id], wanted, max_results=1)
    except Exception as error:
        raise RunError(explain(error)) from error
    if experiment is None:
        raise InputError(
            f"MLflow has no experiment {name!r}{nearest(name, names)}; "
            f"if its studies were not tracked, `tuner sync STUDY` copies them"
        )
    if study_id is not None and not parents:
        raise InputError("MLflow has no run of this study; `tuner sync STUDY` copies it")
    parent_run_id = parents[0].info.run_id if parents else None
    return runs_link(base_url, experiment.experiment_id, parent_run_id, ascending)


@contextlib.contextmanager
def _server(uri: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", _HOST, "--port", str(port), "--backend-store-uri", uri]
    command += ["--default-artifact-root", artifact_root().as_uri()]
    command += ["--artifacts-destination", artifact_root().as_uri()]
    environment = os.environ | {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes rather than 11
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
    try:
        yield server
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(timeout=5)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path, timeout_s: float) -> None:
    health = f"http://{_HOST}:{port}/health"
    browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy to loopback
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RunError(f"the MLflow server did not start: {_last_line(log)}")
        with contextlib.suppress(OSError), browser.open(health, timeout=2):
            return
        time.sleep(0.1)
    raise RunError(f"the MLflow server did not answer in {timeout_s:g} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote no log")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise InputError(
                f"--port: {port} cannot be used: {error.strerror}; give another, or none"
            ) from None
    return port
