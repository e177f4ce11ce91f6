"""Journals in databases: SQLite, PostgreSQL and others, by SQLAlchemy URL."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, NoSuchModuleError
from sqlalchemy.pool import NullPool, QueuePool

from tuner.errors import JournalError, one_line, show_location
from tuner.journal.locks import Held, StudyLock
from tuner.journal.retrying_storage import ConnectionLost, Enduring, Refused

__all__ = ["has_studies", "quiet_database", "read_database", "study_is_held", "write_database"]

_T = TypeVar("_T")

_ANSWERS_IN_S = 7.0
# libpq's, which psycopg and psycopg2 take: a server that has vanished is missed within 30 s.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # ms
}

_GONE = ("08", "57P")  # SQLSTATEs: the connection failed; the server was told to shut down

_PACKAGES = {"psycopg": "'lstm-tuner[postgresql]'", "MySQLdb": "mysqlclient"}


def has_studies(url: str) -> bool:
    """Return whether a database has a journal's tables, all of them.

    Raises:
        JournalError: it does not answer.
    """
    with _explained(url):
        return _within(_ANSWERS_IN_S, lambda: _has_studies(url))


def read_database(url: str) -> BaseStorage:
    """Open a journal for reading; creates nothing, and keeps no connection.

    Raises:
        JournalError: the database does not answer, or holds no journal.
    """
    with _explained(url):
        if not _within(_ANSWERS_IN_S, lambda: _has_studies(url)):
            raise JournalError(f"--journal: {show_location(url)}: holds no studies; check the URL")
        storage = _open(url, poolclass=NullPool)
    return Enduring(get_storage(storage), show_location(url), reading=True)


@contextlib.contextmanager
def write_database(
    url: str, study: str | None, note: Callable[[str], None]
) -> Iterator[BaseStorage]:
    """Open a journal for the one who writes to a study; creates the tables where there are none.

    Args:
        url: the database.
        study: what is written, alone, where the server is PostgreSQL; None for all studies.
        note: is told what a person should read.

    Raises:
        JournalError: the database cannot be used, or another coordinator holds the study.
    """
    with _explained(url):
        lock = StudyLock(study)
        _create(url, lock)
        storage = _open(url, poolclass=QueuePool, pool_size=1, max_overflow=0)
        try:
            if storage.engine.name == "postgresql":
                _lock_every_connection(storage.engine, lock)
            elif storage.engine.name != "sqlite":
                note(f"nothing keeps a second search from a study in {storage.engine.name}")
            storage.get_all_studies()
        except BaseException:
            storage.engine.dispose()
            raise
    enduring = Enduring(get_storage(storage), show_location(url), note)
    try:
        yield enduring
    finally:
        enduring.close()
        storage.engine.dispose()


@contextlib.contextmanager
def quiet_database(url: str, study: str | None) -> Iterator[None]:
    """Let no search write to a study (None: to any) meanwhile, where the server is PostgreSQL.

    Raises:
        JournalError: one does.
    """
    with contextlib.ExitStack() as stack:
        with _explained(url):
            connection = stack.enter_context(_connected(url))
            if connection.dialect.name == "postgresql":
                StudyLock(study, shared=True).take(connection.connection.driver_connection)
        yield


def study_is_held(url: str, study: str) -> bool | None:
    """Return whether a search writes to a study; None where the server does not tell.

    Raises:
        JournalError: the database does not answer.
    """
    with _explained(url), _connected(url) as connection:
        if connection.dialect.name != "postgresql":
            return None
        return StudyLock(study).is_taken(connection.connection.driver_connection)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, **_options(url))
    with engine.connect() as connection:
        try:
            yield connection
        except BaseException:  # a driver's own error: SQLAlchemy would go on with the connection
            connection.invalidate()
            raise


def _has_studies(url: str) -> bool:
    """Return whether a journal's tables are there, and whole.

    Optuna writes their version last, and whoever opens tables without one writes it: a reader would
    disturb the search that is creating them.
    """
    with _connected(url) as connection:
        there = sqlalchemy.inspect(connection).has_table
        if not (there("studies") and there("alembic_version")):
            return False
        return (
            connection.execute(sqlalchemy.text("SELECT * FROM alembic_version")).first() is not None
        )


def _create(url: str, lock: StudyLock) -> None:
    """Have Optuna make its tables, or check that they are its own."""
    _within(_ANSWERS_IN_S, lambda: _has_studies(url))  # whether it answers at all
    with _connected(url) as connection:
        if connection.dialect.name == "postgresql":
            lock.take_to_create(connection.connection.driver_connection)
        RDBStorage(url, {"poolclass": NullPool, **_options(url)})


def _open(url: str, **engine_options: Any) -> RDBStorage:
    """Open tables that are there; what its operations raise is as `Enduring` has it."""
    storage = RDBStorage(
        url,
        engine_options | _options(url),
        skip_compatibility_check=engine_options["poolclass"] is not NullPool,  # as checked before
        skip_table_creation=True,
    )
    sqlalchemy.event.listen(storage.engine, "handle_error", _tell_apart)
    return storage


def _options(url: str) -> dict[str, Any]:
    """Return the options of an engine: how long a connection may take, and be silent."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() != "postgresql" or "psycopg" not in parsed.get_driver_name():
        return {}
    return {"connect_args": {k: v for k, v in _PATIENCE.items() if k not in parsed.query}}


def _lock_every_connection(engine: sqlalchemy.Engine, lock: StudyLock) -> None:
    def connected(connection: Any, record: object) -> None:
        try:
            lock.take(connection)
        except BaseException:
            connection.close()
            raise

    engine.dispose()  # connections without it
    sqlalchemy.event.listen(engine, "connect", connected)


def _tell_apart(context: ExceptionContext) -> None:
    """Raise what a driver's error means, before Optuna does an operation twice because of it.

    Raises:
        ConnectionLost: nobody knows whether the statement took effect.
        Refused: it did not.
    """
    error = context.original_exception
    if not isinstance(error, Exception) or isinstance(context.sqlalchemy_exception, IntegrityError):
        return  # Ctrl-C; and what Optuna expects
    reason = _reason(error)
    if context.dialect.name == "sqlite":
        away = "database is locked" in reason
        raise (ConnectionLost if away else Refused)(reason) from error
    if (getattr(error, "sqlstate", None) or "").startswith(_GONE):
        context.is_disconnect = True
    if context.is_disconnect or context.connection is None:
        raise ConnectionLost(reason) from error
    raise Refused(reason) from error


def _reason(error: BaseException) -> str:
    """Return in one line what a driver says, without the statement."""
    text = show_location(one_line(getattr(error, "orig", None) or error))
    return text.removeprefix("connection failed: ")[:200]


@contextlib.contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what opening a database raises into an error of one line."""
    where = f"--journal: {show_location(url)}"
    try:
        yield
    except JournalError:
        raise
    except Held as held:
        raise JournalError(f"{show_location(url)}: {held}; {held.remedy}") from None
    except TimeoutError:
        raise JournalError(
            f"{where}: does not answer within {_ANSWERS_IN_S:g} s; check the host and the port"
        ) from None
    except Exception as error:  # SQLAlchemy's and every driver's own
        cause = error if isinstance(error, ImportError) else error.__cause__
        raise JournalError(f"{where}: {_what_is_wrong(url, error, cause)}") from None


def _what_is_wrong(url: str, error: Exception, cause: BaseException | None) -> str:
    scheme = url.partition("://")[0]
    if scheme == "postgres" or (scheme == "postgresql" and isinstance(cause, ImportError)):
        return (
            "names no driver that is installed; write postgresql+psycopg://..., and "
            "pip install 'lstm-tuner[postgresql]'"
        )
    if isinstance(cause, ImportError):
        module = cause.name or scheme.partition("+")[2]
        package = _PACKAGES.get(module.partition(".")[0], module)
        return f"its driver {module} is not installed; pip install {package}"
    if isinstance(error, NoSuchModuleError):
        return f"there is no such kind of database, got {scheme!r}; write sqlite:///studies.db, say"
    return f"cannot be opened: {_reason(error)}; check the URL, or write sqlite:///studies.db, say"


def _within(seconds: float, action: Callable[[], _T]) -> _T:
    """Return what an action returns; drivers and name servers keep no time limit together.

    Raises:
        TimeoutError: it takes longer. It comes to its end in a thread of its own.
    """
    done: queue.SimpleQueue[tuple[list[_T], Exception | None]] = queue.SimpleQueue()

    def act() -> None:
        try:
            done.put(([action()], None))
        except Exception as error:
            done.put(([], error))

    threading.Thread(target=act, name="journal", daemon=True).start()
    try:
        results, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return results[0]
