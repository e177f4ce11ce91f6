"""Where tracking goes: the MLflow store in use, and a quiet client for it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import one_line, show_location

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "artifact_root",
    "explain",
    "is_server",
    "only_copier",
    "open_store",
    "sqlite_path",
    "tracking_uri",
]

# How MLflow behaves unless the user has said otherwise. Its own patience with a server that is
# down is four minutes a request; ours is a few seconds, since what is not copied now is later.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def is_server(uri: str) -> bool:
    """Say whether a store is behind a server, which knows itself where artifacts go."""
    return uri.startswith(("http://", "https://", "databricks"))


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def artifact_root() -> Path:
    """Return the folder in which a local store keeps its artifacts."""
    return Path.cwd() / "mlartifacts"


def open_store() -> MlflowClient:
    """Open the store in use, creating a local one that does not exist.

    Raises:
        Exception: MLflow's, or its database's; `explain` says in one line what is wrong.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", r"The ``noload`` loader", DeprecationWarning)
    from mlflow import MlflowClient

    for logger in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    uri = tracking_uri()
    with _alone(sqlite_path(uri)):
        return MlflowClient(tracking_uri=uri)


def explain(error: BaseException) -> str:
    """Say in one line, and without passwords, why MLflow could not do what it was asked."""
    text = show_location(one_line(error))
    if request := re.match(r"API request to (https?://[^/\s]+)\S* failed with", text):
        causes = re.findall(r"\[Errno -?\d+\] ([\w ]+)|(timed out|too many \d+ \w+)", text)
        why = f" ({''.join(causes[-1])})" if causes else ""
        return f"the MLflow server at {request[1]} does not answer{why}"
    return f"MLflow: {text[:300]}"


@contextlib.contextmanager
def only_copier(study_id: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine copies a study after its search."""
    path = Path(tempfile.gettempdir()) / f"lstm-tuner-sync-{os.getuid()}-{study_id}.lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _alone(database: Path | None) -> Iterator[None]:
    """Let one process at a time open an SQLite store: two that create it at once both fail."""
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system that cannot lock folders
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
