"""The MLflow store in use: tracking URI, database, private files in the temporary folder."""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import glob
import hashlib
import logging
import os
import re
import stat
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from importlib.metadata import entry_points
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, urlsplit

from filelock import FileLock

from tuner.errors import InputError, show_location, show_path

if TYPE_CHECKING:
    from mlflow import MlflowClient


def own_path(kind: str, what: str, ending: str) -> Path:
    """Return the path of a private file; `kind` and `what` identify it, `ending` has a dot."""
    return Path(tempfile.gettempdir()) / f"lstm-tuner-{kind}-{os.getuid()}-{what}{ending}"


def open_own(path: Path, mode: str) -> FileIO:
    """Open a file for bytes, as `open` with `r`, `r+` or `w`; `r+` also creates it.

    Raises:
        OSError: among others, it is a link, no file, or another user's.
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if mode == "r+" else 0)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC | more, 0o600)  # truncated once the owner is known

    file = FileIO(path, mode, opener=opener)
    facts = os.fstat(file.fileno())
    if facts.st_uid != os.getuid() or not stat.S_ISREG(facts.st_mode):
        file.close()
        raise PermissionError(errno.EPERM, "is not a file of yours", str(path))
    if mode == "w":
        file.truncate(0)
    return file


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is removed afterwards.

    The system releases the lock of a killed process.

    Raises:
        OSError: as of `open_own`.
    """
    open_own(path, "r+").close()
    with FileLock(path, poll_interval=0.01):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # under the lock: a waiting process then creates the file anew


@contextlib.contextmanager
def alone_if_possible(path: Path) -> Iterator[None]:
    """Hold the lock as `alone` does, or none if the path cannot be locked."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(alone(path))
        yield


_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")
_HOSTED = "databricks"
_VARIABLE = "MLFLOW_TRACKING_URI"


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in the current folder."""
    return os.environ.get(_VARIABLE) or f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def is_database(uri: str) -> bool:
    """Return whether a store is a database."""
    return _scheme(uri).partition("+")[0] in _DATABASES


def is_folder(uri: str) -> bool:
    """Return whether a store is a folder of files, as before MLflow 3."""
    return _scheme(uri) in ("", "file") and uri != _HOSTED


def is_server(uri: str) -> bool:
    """Return whether a store is behind a server."""
    return not is_database(uri) and not is_folder(uri)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an SQLite store; None for any other."""
    return Path(uri.partition(":///")[2]) if _scheme(uri).partition("+")[0] == "sqlite" else None


def store_digest(uri: str) -> str:
    """Return a digest of a store, the same for every spelling of its file."""
    path = sqlite_path(uri)
    store = uri if path is None else str(path.resolve())
    return hashlib.sha256(store.encode()).hexdigest()[:16]


def check_uri(uri: str) -> None:
    """Check that MLflow can use a URI.

    Raises:
        InputError: it cannot.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port  # parsed on access
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
    """Return the URI of a server that lacks its scheme, colon or slashes; None for others."""
    if match := re.fullmatch(r"(https?):?/+([\w.-]+(:\d+)?(/.*)?)", uri):
        return f"{match[1]}://{match[2]}"
    if re.fullmatch(r"(localhost|[\w.-]+:\d+)(/.*)?", uri):
        return f"http://{uri}"
    return None


def _sqlite(file: Path) -> str:
    return f"sqlite:///{file.absolute()}"


def _refused(uri: str, rule: str, write: str) -> InputError:
    shown, write = show_location(uri), show_location(write)
    return InputError(rule, where=_VARIABLE, got=repr(shown), remedy=f"write {write}")


def _plugins() -> list[str]:
    """Return the schemes of installed MLflow plugins."""
    return [entry.name for entry in entry_points(group="mlflow.tracking_store")]


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return uri.partition(":")[0].lower()


_CONNECTS_IN_S = 5  # timeout of a database server
_CREATED_IN_S = 15  # timeout of another program that creates an SQLite store
_WRITES_EVERY_S = 2  # at least, while one is created
_OTHER = "give another by MLFLOW_TRACKING_URI"


def create_database(uri: str, artifact_root: Path) -> None:
    """Create a store unless it exists.

    MLflow creates one in about seventy steps, and an SQLite store is unusable if MLflow is killed
    between two. So it is created under another name and renamed. On a server, one process of this
    machine creates MLflow's tables at a time.

    Raises:
        Exception: of the file system, or of the database.
    """
    path = sqlite_path(uri)
    if path is None:
        _create_on_server(uri, artifact_root)
        return
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_if_possible(own_path("store", store_digest(uri), ".lock")):
        if path.exists():
            return
        _remove_unfinished(path)  # by processes that were killed
        # A new name each time: MLflow keeps a connection to every file that it opened.
        unfinished = path.with_name(f"{path.name}.new-{uuid.uuid4().hex[:8]}")
        try:
            _create(f"sqlite:///{unfinished}", artifact_root)
            _name(unfinished, path)
        finally:
            _remove_unfinished(path)


def check_database(uri: str) -> None:
    """Check that this version of MLflow can write to a store without migrating it in place.

    Raises:
        InputError: it is of another MLflow, another program's, unfinished or no database.
        Exception: of the database, if it cannot be reached.
    """
    found = _look_into(uri)
    deadline = time.monotonic() + _CREATED_IN_S
    while found.unfinished and _just_written(uri) and time.monotonic() < deadline:
        time.sleep(0.1)  # for an `mlflow server` that was started at the same time
        found = _look_into(uri)
    if found.is_anothers:
        rule = "holds another program's tables, not MLflow's"
        raise InputError(rule, where=_shown(uri), remedy=_OTHER)
    if "alembic_version" in found.tables:
        _check_revision(uri, found)


class _Found(NamedTuple):
    tables: frozenset[str]
    revision: str | None = None
    is_whole: bool = False  # it has an experiment: MLflow's last step

    @property
    def is_anothers(self) -> bool:
        """Whether it is of another program that uses alembic."""
        return "alembic_version" in self.tables and "experiments" not in self.tables

    @property
    def unfinished(self) -> bool:
        """Whether MLflow may be creating it."""
        return not self.is_whole and (not self.tables or "experiments" in self.tables)


def _look_into(uri: str) -> _Found:
    import sqlalchemy
    from sqlalchemy.exc import DatabaseError, NoSuchModuleError, OperationalError
    from sqlalchemy.pool import NullPool

    shown = _shown(uri)
    options = {}
    if "psycopg" in sqlalchemy.make_url(uri).get_driver_name():
        options["connect_timeout"] = _CONNECTS_IN_S
    try:
        engine = sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args=options)
        with engine.connect() as connection:
            tables = frozenset(sqlalchemy.inspect(connection).get_table_names())
            if not {"alembic_version", "experiments"} <= tables:
                return _Found(tables)
            text = sqlalchemy.text("SELECT version_num FROM alembic_version")
            revision = connection.execute(text).scalar()
            text = sqlalchemy.text("SELECT 1 FROM experiments")
            return _Found(tables, revision, connection.execute(text).first() is not None)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InputError(f"the database's driver is missing: {error}", where=shown) from None
    except OperationalError:
        raise
    except DatabaseError as error:
        if "file is not a database" in str(error.orig):
            raise InputError("is no SQLite database", where=shown, remedy=_OTHER) from None
        raise


def _just_written(uri: str) -> bool:
    path = sqlite_path(uri)
    return path is not None and abs(time.time() - path.stat().st_mtime) < _WRITES_EVERY_S


def _check_revision(uri: str, found: _Found) -> None:
    import mlflow

    newest, known = _revisions()
    if found.revision == newest:
        return
    shown = _shown(uri)
    if not found.is_whole and sqlite_path(uri):
        rule = "holds nothing, it was not created to its end"
        raise InputError(rule, where=shown, remedy="delete it")
    if found.revision in known:
        rule = f"was written by an older MLflow than {mlflow.__version__}"
        remedy = f"copy it, then run `mlflow db upgrade {show_location(uri)}`"
        raise InputError(rule, where=shown, remedy=remedy)
    rule = f"was written by a newer MLflow than {mlflow.__version__}"
    remedy = f"upgrade with `pip install --upgrade mlflow`, or {_OTHER}"
    raise InputError(rule, where=shown, remedy=remedy)


@functools.cache
def _revisions() -> tuple[str | None, frozenset[str]]:
    """Return the schema revision of the installed MLflow, and all known ones."""
    import mlflow
    from alembic.script import ScriptDirectory

    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    scripts = ScriptDirectory(str(folder))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return scripts.get_current_head(), known


def _create_on_server(uri: str, artifact_root: Path) -> None:
    if _look_into(uri).is_whole:
        return
    with alone_if_possible(own_path("store", store_digest(uri), ".lock")):
        found = _look_into(uri)
        if not found.is_whole and not found.is_anothers:
            _create(uri, artifact_root)


def _create(uri: str, artifact_root: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, artifact_root.as_uri())
    store.engine.dispose()


def _name(unfinished: Path, path: Path) -> None:
    """Rename a store, unless another program has created one meanwhile."""
    try:
        os.link(unfinished, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        unfinished.rename(path)


def _remove_unfinished(path: Path) -> None:
    for unfinished in path.parent.glob(f"{glob.escape(path.name)}.new-*"):
        unfinished.unlink(missing_ok=True)


def _shown(uri: str) -> str:
    path = sqlite_path(uri)
    return show_location(uri) if path is None else show_path(path)


# Defaults of MLflow's variables. Its own timeout is four minutes a request; what is not copied
# now is copied later.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # s
}
# Of the first request.
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7"}
_VARIABLES_LOCK = threading.Lock()


def artifact_root() -> Path:
    """Return the folder of a local store's artifacts."""
    return Path.cwd() / "mlartifacts"


def open_store() -> MlflowClient:
    """Open the store in use; a local one is created if necessary.

    Raises:
        InputError: there can be no store at the URI, or it is of another version of MLflow.
        Exception: of MLflow or its database; `explain` gives one line.
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
    """Check the store as `open_store` does, but without a request to a server."""
    uri = tracking_uri()
    check_uri(uri)
    if is_database(uri):
        _be_quiet()
        check_database(uri)


@contextlib.contextmanager
def only_copier(study_id: str) -> Iterator[None]:
    """Hold the lock for `tuner sync` of a study, one for this user on this machine.

    Raises:
        InputError: the file of the lock is not this user's.
    """
    path = own_path("sync", study_id, ".lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(path))
        except OSError as error:
            rule = f"cannot be locked: {error.strerror}"
            remedy = "remove it, or set TMPDIR to another folder"
            raise InputError(rule, where=path, remedy=remedy) from None
        yield


def _be_quiet() -> None:
    """Silence MLflow's loggers and warnings: errors are raised, and reported once."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", r"The ``noload`` loader", DeprecationWarning)
    warnings.filterwarnings("ignore", r"Unverified HTTPS request")  # set by the user
    import mlflow  # noqa: F401 - sets up its loggers

    for logger in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Shorten MLflow's timeouts, unless the user has set them.

    The variables belong to the process: a lock keeps two threads from restoring each other's.
    """
    with _VARIABLES_LOCK:
        before = {name: os.environ[name] for name in _AT_FIRST}
        changed = {name for name, value in before.items() if value == _DEFAULTS[name]}
        # Variables are never removed: another thread may be starting a process.
        os.environ.update({name: _AT_FIRST[name] for name in changed})
        try:
            yield
        finally:
            os.environ.update(before)
