"""The MLflow store in use: tracking URIs, databases, private files.

Nothing is opened through a link, and nothing that is another user's.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
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
    """Return where this user's file of a kind is.

    Args:
        kind: what such files are for.
        what: tells those of a kind apart.
        ending: of the name, with its dot.
    """
    return Path(tempfile.gettempdir()) / f"lstm-tuner-{kind}-{os.getuid()}-{what}{ending}"


def open_own(path: Path, mode: str) -> FileIO:
    """Open a file for bytes, as `open` does with `r`, `r+` or `w`; `r+` makes one as well.

    Raises:
        OSError: it is a link, no file, or another user's, among all else.
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if mode == "r+" else 0)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC | more, 0o600)  # not before it is known whose

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
    """Wait until no other process is in here with the same path; the file goes when this ends.

    The lock ends with the process however it ends; what is left of a killed one is taken over.

    Raises:
        OSError: as `open_own` does.
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
    """Wait as `alone` does; where the path cannot be locked nobody waits."""
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
    return InputError(rule, where=_VARIABLE, got=repr(shown), remedy=f"write {write}")


def _plugins() -> list[str]:
    """Return the schemes that installed plugins of MLflow bring."""
    return [entry.name for entry in entry_points(group="mlflow.tracking_store")]


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return uri.partition(":")[0].lower()


_CONNECTS_IN_S = 5  # a server that is there
_CREATED_IN_S = 15  # an SQLite store, by another program; it takes MLflow one to three
_WRITES_EVERY_S = 2  # who creates one, at least
_OTHER = "give another by MLFLOW_TRACKING_URI"


def create_database(uri: str, artifact_root: Path) -> None:
    """Create a store that does not exist; one that does is left as it is.

    MLflow creates one in some seventy steps, and an SQLite store in which it was killed between
    two is never usable again. So that is created under another name, and takes its own when it is
    whole. On a server MLflow's tables are created by one process of this machine at a time.

    Raises:
        Exception: the file system's, or the database's.
    """
    path = sqlite_path(uri)
    if path is None:
        _create_on_server(uri, artifact_root)
        return
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        if path.exists():
            return
        _remove_unfinished(path)  # by processes that were killed
        # A name of its own each time: MLflow keeps a connection to every file that it opened.
        unfinished = path.with_name(f"{path.name}.new-{uuid.uuid4().hex[:8]}")
        try:
            _create(f"sqlite:///{unfinished}", artifact_root)
            _name(unfinished, path)
        finally:
            _remove_unfinished(path)


def check_database(uri: str) -> None:
    """Refuse a store that this MLflow cannot write to, or could only after changing it for good.

    Left to itself, MLflow would migrate an older store in place, without a copy of it.

    Raises:
        InputError: it is of another MLflow, another program's, unfinished or no database.
        Exception: the database's, where it cannot be reached.
    """
    found = _look_into(uri)
    given_up = time.monotonic() + _CREATED_IN_S
    while found.unfinished and _just_written(uri) and time.monotonic() < given_up:
        time.sleep(0.1)  # by an `mlflow server` that was started together with us, say
        found = _look_into(uri)
    if found.is_anothers:
        rule = "holds another program's tables, not MLflow's"
        raise InputError(rule, where=_shown(uri), remedy=_OTHER)
    if "alembic_version" in found.tables:  # or it is empty, or with tables in nobody's way
        _check_revision(uri, found)


class _Found(NamedTuple):
    tables: frozenset[str]
    revision: str | None = None
    is_whole: bool = False  # MLflow's last step is a store's first experiment

    @property
    def is_anothers(self) -> bool:
        """Whether it is another program's, which keeps a version there as MLflow does."""
        return "alembic_version" in self.tables and "experiments" not in self.tables

    @property
    def unfinished(self) -> bool:
        """Whether it may be a store that MLflow is creating."""
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
    """Return the revision of stores that the installed MLflow writes, and all that it knows."""
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
    """Give a store its name, unless a program that asks nobody has created one meanwhile."""
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


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time create a store in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system that cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
            rule = f"cannot be locked: {error.strerror}"
            remedy = "remove it, or set TMPDIR to another folder"
            raise InputError(rule, where=path, remedy=remedy) from None
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
