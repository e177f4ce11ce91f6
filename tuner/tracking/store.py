"""The MLflow store in use: its URI, its database or server, and its errors in one line."""

from __future__ import annotations

import base64
import contextlib
import difflib
import fcntl
import functools
import glob
import hashlib
import logging
import os
import re
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tuner.errors import InputError, RunError, TunerError, one_line, show_location, show_path
from tuner.outputs import exclusive_lock, lock_if_possible, private_path

if TYPE_CHECKING:
    import requests
    from mlflow import MlflowClient


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


_local: Path | None = None  # the folder of the local store; None stands for the current one


@contextlib.contextmanager
def local_store_in(folder: Path) -> Iterator[None]:
    """Keep the local store of this process in another folder than the current one."""
    global _local
    _local = own = folder.absolute()
    try:
        yield
    finally:
        if _local is own:
            _local = None


def _local_folder() -> Path:
    return _local or Path.cwd()


def artifact_root() -> Path:
    """Return the folder of a local store's artifacts."""
    return _local_folder() / "mlartifacts"


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
    path = private_path("sync", study_id, ".lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(path))
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


_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")
_HOSTED = "databricks"
_VARIABLE = "MLFLOW_TRACKING_URI"


def tracking_uri() -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in the folder of the local store."""
    return os.environ.get(_VARIABLE) or f"sqlite:///{_local_folder() / 'mlflow.db'}"


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
    with _locked_folder(path.parent):
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


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, also against other users: one would remove the unfinished store of another."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
        rule = "holds nothing, as its creation was interrupted"
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
    with lock_if_possible(private_path("store", store_digest(uri), ".lock")):
        found = _look_into(uri)
        if not found.is_whole and not found.is_anothers:
            _create(uri, artifact_root)


def _create(uri: str, artifact_root: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, artifact_root.as_uri())
    store.engine.dispose()


def _name(unfinished: Path, path: Path) -> None:
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


_LONGEST = 300  # characters of an error
_CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_REFUSALS = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
# MLflow's exceptions have the texts of those that they replace, and no fields.
_OF_DATABASE = re.compile(
    r"\((?:\w+\.)+\w*(?:Error|Exception)\) (.+?)(?: \[SQL:| \(Background on |$)"
)
_STATUS = re.compile(
    r"failed with error code (\d{3}) != 200|too many (\d{3}) error responses"
    r"|\b(\d{3}) (?:Client|Server) Error"
)
_UNREACHABLE = re.compile(
    r"\[Errno -?\d+\] ([\w ]+)|Error\(\d+, '([\w ]+)|(timed out)|\[SSL: \w+\] ([^(]+)"
    r"|(Remote end closed connection)"
)


def describe_store() -> str:
    """Return the name of the store in use, without its password."""
    uri = tracking_uri()
    if is_server(uri):
        return f"the MLflow server at {show_location(uri).rstrip('/')}"
    return f"the MLflow store {_shown(uri)}"


def explain(error: BaseException) -> str:
    """Return an error of the store in use in one line, without passwords."""
    if isinstance(error, TunerError):
        return str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"MLflow: {error.filename}: {error.strerror}"
    text, store = show_location(one_line(error)).rstrip("."), describe_store()
    no_store, check = f"no {store.removeprefix('the ')}", "check MLFLOW_TRACKING_URI"
    if found := _OF_DATABASE.search(text):
        return f"{store}: {found[1][:_LONGEST].strip()}"
    if not is_server(tracking_uri()):
        return f"{store}: {text[:_LONGEST]}"
    match _status(error, text):
        case 401:
            return f"{store} refuses the credentials (401); set {_CREDENTIALS}"
        case 403:
            return f"{store} does not let this user do that (403); ask who runs it"
        case 404:
            return f"{no_store}: nothing of MLflow's is there (404); {check}"
        case int(status):
            return f"{store} answers with error {status}"
    if "not in a valid JSON format" in text:
        return f"{no_store}: something else answers; {check}"
    if "API request to http" in text or "Max retries exceeded" in text:
        found = _UNREACHABLE.search(text)
        why = f" ({found[found.lastindex or 0].strip()})" if found else ""
        return f"{store} does not answer{why}"
    return f"{store}: {text[:_LONGEST]}"


@contextlib.contextmanager
def explained(remedy: str | None = None) -> Iterator[None]:
    """Let MLflow's errors be a `RunError` of one line."""
    try:
        yield
    except TunerError:
        raise
    except Exception as error:
        raise RunError(explain(error), remedy=remedy) from error


def _status(error: BaseException, text: str) -> int | None:
    if found := _STATUS.search(text):
        return int(found[found.lastindex or 0])
    return _REFUSALS.get(str(getattr(error, "error_code", "")))


class RestServer:
    """A tracking server, with the credentials and certificates of MLflow's variables.

    Args:
        uri: of the server.
        timeout_s: of a single read from it.
        ours: whether it is a UI of this user on loopback: without proxy and credentials.
    """

    def __init__(self, uri: str, timeout_s: float, *, ours: bool = False) -> None:
        self.base_url = show_location(uri).rstrip("/")  # without the password
        self._timeout_s, self._session = timeout_s, _session(None if ours else uri)

    def ask(self, path: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer to a GET, or to a POST of a query.

        Raises:
            OSError: there is no answer, or it is an error.
            ValueError: it is not JSON.
        """
        answer = self._session.request(
            "GET" if query is None else "POST",
            f"{self.base_url}/api/2.0/mlflow/{path}",
            json=query,
            timeout=self._timeout_s,
            verify=_certificates(),
            allow_redirects=False,  # to a login page, with the credentials
        )
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


def answers(base_url: str, timeout_s: float) -> bool:
    """Return whether an MLflow server on loopback answers."""
    try:
        answer = _session(None).get(f"{base_url}/health", timeout=timeout_s)
        return answer.content == b"OK"  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return False


def _session(uri: str | None) -> requests.Session:
    """Return a session for a server; None is a UI of this user on loopback."""
    import requests

    session = requests.Session()
    if uri is None:
        session.trust_env = False  # no proxy
        return session
    headers = _credentials(uri)
    session.auth = lambda request: request.headers.update(headers) or request  # and no netrc
    session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    return session


def _certificates() -> bool | str:
    """Return whether, or with which file, to verify a server; True is `REQUESTS_CA_BUNDLE`."""
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        import urllib3

        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _credentials(uri: str) -> dict[str, str]:
    """Return MLflow's header: from the URI, or from the environment."""
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
