"""Says in one line why MLflow could not do what it was asked."""

from __future__ import annotations

import re

from tuner.errors import InputError, one_line, show_location, show_path
from tuner.tracking.uris import is_server, sqlite_path, tracking_uri

__all__ = ["describe_store", "explain"]

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
