"""Where tracking goes: the MLflow store in use, and a quiet client for it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import InputError
from tuner.tracking.databases import check_database, create_database
from tuner.tracking.own_files import alone, own_path
from tuner.tracking.uris import check_uri, is_database, is_server, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["artifact_root", "check_store", "only_copier", "open_store"]

# How MLflow behaves unless the user has said otherwise. Its own patience with a server that is
# down is four minutes a request; ours is a few seconds, since what is not copied now is later.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # s
}
# And with the first request, which is a small one: whether anybody is there.
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}
_PATIENCE = threading.Lock()


def artifact_root() -> Path:
    """Return the folder in which a local store keeps its artifacts."""
    return Path.cwd() / "mlartifacts"


def open_store() -> MlflowClient:
    """Open the store in use, creating a local one that does not exist.

    Raises:
        InputError: there can be no store at its URI, or MLflow must be changed first.
        Exception: MLflow's, or its database's; `explain` says in one line what is wrong.
    """
    uri = tracking_uri()
    check_uri(uri)
    _be_quiet()
    from mlflow import MlflowClient

    if is_database(uri):
        create_database(uri, artifact_root())
        check_database(uri)
    client = MlflowClient(tracking_uri=uri)
    if is_server(uri):
        with _impatient():
            client.search_experiments(max_results=1)
    return client


def check_store() -> None:
    """Refuse a store that cannot be used, as `open_store` does, but ask no server."""
    uri = tracking_uri()
    check_uri(uri)
    if is_database(uri):
        _be_quiet()
        check_database(uri)


@contextlib.contextmanager
def only_copier(study_id: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine copies a study after its search.

    Raises:
        InputError: something that is not this user's is in the way.
    """
    path = own_path("sync", study_id, ".lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(path))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be locked: {error.strerror}; remove it, or set TMPDIR to another "
                f"folder"
            ) from None
        yield


def _be_quiet() -> None:
    """Have MLflow say nothing by itself: what goes wrong is raised, and said once by us."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", r"The ``noload`` loader", DeprecationWarning)
    warnings.filterwarnings("ignore", r"Unverified HTTPS request")  # as the user wants it
    import mlflow  # noqa: F401 - sets up its loggers

    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Wait less long for an answer, where the user has not said how long.

    The variables are the process's: of two threads each would restore what the other has set.
    """
    with _PATIENCE:
        before = {name: os.environ[name] for name in _AT_FIRST}
        changed = {name for name, value in before.items() if value == _DEFAULTS[name]}
        # Variables are set and never removed: another thread may be starting a process.
        os.environ.update({name: _AT_FIRST[name] for name in changed})
        try:
            yield
        finally:
            os.environ.update(before)
