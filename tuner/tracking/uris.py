"""Tracking URIs: which are MLflow's, and what to write instead of one that is not."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tuner.errors import InputError, show_location

__all__ = [
    "check_uri",
    "is_database",
    "is_folder",
    "is_server",
    "sqlite_path",
    "store_digest",
    "tracking_uri",
]

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")
_HOSTED = "databricks"
_VARIABLE = "MLFLOW_TRACKING_URI"


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in the current folder."""
    return os.environ.get(_VARIABLE) or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def is_database(uri: str) -> bool:
    """Say whether a store is a database, which is opened in this process."""
    return _scheme(uri).partition("+")[0] in _DATABASES


def is_folder(uri: str) -> bool:
    """Say whether a store is a folder of files, as MLflow had them before version 3."""
    return _scheme(uri) in ("", "file") and uri != _HOSTED


def is_server(uri: str) -> bool:
    """Say whether a store is behind a server, which knows itself where artifacts go."""
    return not is_database(uri) and not is_folder(uri)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other."""
    return Path(uri.partition(":///")[2]) if _scheme(uri).partition("+")[0] == "sqlite" else None


def store_digest(uri: str) -> str:
    """Return a short text that tells a store from others, however its file is spelled."""
    path = sqlite_path(uri)
    store = uri if path is None else str(path.resolve())
    return hashlib.sha256(store.encode()).hexdigest()[:16]


def check_uri(uri: str) -> None:
    """Refuse a URI that MLflow cannot use, before anything is asked or created.

    Raises:
        InputError: naming it, the rule and what to write instead.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port  # parsed when it is asked for
    except ValueError as error:
        raise _refused(uri, f"cannot be read ({error})", "http://HOST:PORT, say") from None
    if is_database(uri):
        _check_database(uri, parts)
    elif parts.scheme in _SERVERS:
        if not parts.hostname:
            raise _refused(uri, "must name a host", _as_server(uri) or "http://HOST:PORT, say")
    elif not is_folder(uri):
        if uri != _HOSTED and parts.scheme not in (_HOSTED, *_plugins()):
            raise _unknown(uri, parts)
    elif server := _as_server(uri):
        raise _refused(uri, "must begin with http:// or https://", server)
    elif os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("true", "1"):
        folder = Path(parts.path).absolute()
        file = folder if folder.suffix in (".db", ".sqlite") else folder / "mlflow.db"
        raise _refused(uri, "MLflow keeps no runs in plain files any more", _sqlite(file))


def _check_database(uri: str, parts: SplitResult) -> None:
    if parts.scheme.startswith("sqlite"):
        _, separator, file = uri.partition(":///")
        if not separator:
            file = uri.partition(":")[2].removeprefix("//")
        if not separator or file in ("", ":memory:"):
            meant = Path("mlflow.db" if file in ("", ":memory:") else file)
            raise _refused(uri, "must name a file, after three slashes", _sqlite(meant))
    elif not uri.partition(":")[2].startswith("//"):
        raise _refused(uri, "must name a server", f"{parts.scheme}://HOST/DATABASE")


def _unknown(uri: str, parts: SplitResult) -> InputError:
    if "://" not in uri and (server := _as_server(uri)):
        return _refused(uri, "must begin with http:// or https://", server)
    write = "http://HOST:PORT or sqlite:////PATH/mlflow.db"
    known = (*_SERVERS, *_DATABASES, _HOSTED, *_plugins())
    if near := difflib.get_close_matches(parts.scheme, known, n=1):
        write = f"{near[0]}://{uri.partition(':')[2].lstrip('/')}"
    return _refused(uri, f"MLflow knows no scheme {parts.scheme!r}", write)


def _as_server(uri: str) -> str | None:
    """Return a server's URI that was meant by one without its scheme, colon or slashes."""
    if match := re.fullmatch(r"(https?):?/+([\w.-]+(:\d+)?(/.*)?)", uri):
        return f"{match[1]}://{match[2]}"
    if re.fullmatch(r"(localhost|[\w.-]+:\d+)(/.*)?", uri):
        return f"http://{uri}"
    return None


def _sqlite(file: Path) -> str:
    return f"sqlite:///{file.absolute()}"


def _refused(uri: str, rule: str, write: str) -> InputError:
    shown, write = show_location(uri), show_location(write)
    return InputError(f"{_VARIABLE}: {rule}, got {shown!r}; write {write}")


def _plugins() -> list[str]:
    """Return the schemes that installed plugins of MLflow bring."""
    return [entry.name for entry in entry_points(group="mlflow.tracking_store")]


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return uri.partition(":")[0].lower()
