"""MLflow's UI on the store in use, served on loopback, and the links to open in it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tuner.errors import InputError, RunError, show_location, show_path
from tuner.journal.records import StudyRecord
from tuner.tracking import links
from tuner.tracking.layout import STUDY_ROLE
from tuner.tracking.links import Address, View
from tuner.tracking.store import (
    artifact_root,
    check_store,
    check_uri,
    is_server,
    open_store,
    sqlite_path,
    tracking_uri,
)

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
        yield Ui(_links(show_location(uri).rstrip("/"), record, of_study))
        return
    if (database := sqlite_path(uri)) is not None and not database.exists():
        shown = show_path(database)
        rule = "no such MLflow store"
        raise InputError(rule, where=shown, remedy="run `tuner run EXPERIMENT.yaml` first")
    _check_usable()
    with contextlib.ExitStack() as stack:
        with links.only_starter(uri):
            running = links.running_ui(uri) if port is None else None
            if running is not None:
                ui = Ui(_links(running.base_url, record, of_study), earlier=running.pid)
            else:
                ui = _start(stack, uri, port, timeout_s, record, of_study)
        yield ui


def _start(
    stack: contextlib.ExitStack,
    uri: str,
    port: int | None,
    timeout_s: float,
    record: StudyRecord | None,
    of_study: bool,
) -> Ui:
    """Start a server that ends with `stack`, and wait until it answers."""
    log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuner-ui-"))) / "log"
    port = _usual_port(uri) if port is None else _check_free(port)
    server = stack.enter_context(_server(uri, port, log))
    base_url = f"http://{_HOST}:{port}"
    pages = _links(base_url, record, of_study)  # while it starts
    _wait(server, base_url, log, timeout_s)
    stack.enter_context(links.announced(uri, Address(base_url, server.pid)))
    return Ui(pages, server=server, log=log)


def _links(base_url: str, record: StudyRecord | None, of_study: bool) -> tuple[Link, ...]:
    everything = Link(f"{base_url}/#/experiments", "all experiments")
    try:
        client = open_store()
        if record is None:
            return (everything,)
        name = record.experiment.name
        experiment = client.get_experiment_by_name(name)
        parents = []
        if experiment is not None:
            search = f"tags.study_id = '{record.id}' and tags.role = '{STUDY_ROLE}'"
            parents = client.search_runs([experiment.experiment_id], search, max_results=1)
        if of_study and not parents:
            rule = f"MLflow has no run of {record.name}"
            raise InputError(rule, remedy=f"`tuner sync {shlex.quote(record.name)}` copies it")
        if experiment is None:
            return (everything,)
        pages: list[tuple[View, str]] = []
        if parents:
            view = links.study_view(record, parents[0].info.run_id)
            pages.append((view, f"the trials of {record.name}, best first, and charts"))
        pages.append((links.trials_view(record), f"all trials of {name}, best first"))
        pages.append((links.studies_view(record), f"the studies of {name}, each with its trials"))
        saved = {v.tag for v, _ in pages if links.save_view(client, experiment, v, record.created)}
    except InputError:
        raise
    except Exception as error:
        raise RunError(links.explain(error)) from error
    found = [Link(v.link(base_url, experiment.experiment_id, saved), what) for v, what in pages]
    return tuple(found if of_study else found[-2:])


def _check_usable() -> None:
    try:
        check_store()
    except InputError:
        raise
    except Exception as error:
        raise RunError(links.explain(error)) from error


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
        if links.answers(base_url, timeout_s=2):
            return
        time.sleep(0.1)
    raise RunError(f"the MLflow server did not answer in {timeout_s:g} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").split("\n")]
    texts = [line for line in lines if line and not re.search(r'"[A-Z]+ \S+ HTTP/', line)]
    return show_location(texts[-1]) if texts else "it wrote no log"


def _usual_port(uri: str) -> int:
    usual = _PORTS[zlib.crc32(uri.encode()) % len(_PORTS)]
    try:
        return _check_free(usual)
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
