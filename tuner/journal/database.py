"""Journals in databases: SQLite, PostgreSQL and others, by SQLAlchemy URL.

A search survives interruptions of its database: operations are retried until it answers.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._rdb.models import TrialModel
from optuna.study._study_direction import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from tuner.errors import (
    JournalError,
    JournalInUse,
    RunError,
    TunerError,
    one_line,
    show_location,
)
from tuner.journal.locks import JournalLocked, StudyLock

_T = TypeVar("_T")
_P = ParamSpec("_P")

_RETRY_FOR_S = 3600.0
_LONGEST_PAUSE_S = 5.0  # between two attempts
_CONNECT_S = 7.0
_DELETED_AT_ONCE = 500  # trials
# libpq's options, which psycopg and psycopg2 take: a server that has vanished is missed in 30 s.
_TIMEOUTS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,  # ms
}

_GONE = ("08", "57P")  # SQLSTATEs: the connection failed; the server is shutting down
_PACKAGES = {"psycopg": "'lstm-tuner[postgresql]'", "MySQLdb": "mysqlclient"}


class ConnectionLost(Exception):
    """The database does not answer; whether the operation took effect is unknown."""


class Refused(Exception):
    """The database answers, and the operation did not take effect: its disk is full, say."""


def _retried(operation: Callable[Concatenate[Any, _P], _T]) -> Callable[Concatenate[Any, _P], _T]:
    """Return the method of `RetryingStorage` for an operation that has the same effect twice."""

    def retried(self: RetryingStorage, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        inner: Callable[_P, _T] = getattr(self._inner, operation.__name__)
        return self._retry(lambda: inner(*args, **kwargs))

    return retried


class RetryingStorage(BaseStorage):
    """Optuna storage wrapper that retries on lost connections.

    An operation whose connection is lost may have taken effect or not. Every operation is
    idempotent here, so a retry is safe. One operation runs at a time, in whatever thread.

    Args:
        inner: the storage. Its operations raise `ConnectionLost` or `Refused` before they change
            what the storage keeps in memory.
        shown: the journal's location, for messages.
        note: receives a message when the database stops answering, and when it answers again.
        retry_for_s: seconds until an operation fails; a reader does not retry.
        reading: whether nothing is written.
    """

    def __init__(
        self,
        inner: BaseStorage,
        shown: str,
        note: Callable[[str], None] = lambda text: None,
        *,
        retry_for_s: float = _RETRY_FOR_S,
        reading: bool = False,
    ) -> None:
        self._inner, self._shown, self._note = inner, shown, note
        self._retry_for_s, self._reading = 0.0 if reading else retry_for_s, reading
        self._lock = threading.RLock()
        self._patience = threading.local()  # `seconds` of a thread that waits less
        self._lost = False  # and a note has been given
        self._failure: BaseException | None = None  # of all later operations
        self._closed = threading.Event()
        self._n_trials: dict[int, int] = {}  # of each study that is written to

    def close(self) -> None:
        """Make every later operation fail, in other threads as well."""
        self._close(RunError("is closed", where=self._shown))

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Have operations of this thread in the block fail after seconds; later ones may work.

        After a block within another one, the seconds of the outer one apply again.
        """
        before: float | None = getattr(self._patience, "seconds", None)
        self._patience.seconds = seconds
        try:
            yield
        finally:
            self._patience.seconds = before

    @property
    def failed(self) -> bool:
        """Whether every later operation fails."""
        return self._failure is not None

    def _retry(self, attempt: Callable[[], _T], again: Callable[[], _T] | None = None) -> _T:
        """Attempt an operation until the database answers.

        Args:
            attempt: the operation.
            again: replaces it after an attempt whose effect is unknown.
        """
        # During cleanup after Ctrl-C, do not wait: a second signal could not interrupt it.
        interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
        began, pause_s = time.monotonic(), 0.0
        patience_s: float | None = getattr(self._patience, "seconds", None)
        until = None if patience_s is None else began + patience_s
        while True:
            try:
                with self._locked(-1 if until is None else max(0.0, until - time.monotonic())):
                    self._check_open()
                    result = attempt()
                    if self._lost:
                        self._lost = False
                        self._note("the journal's database answers again; the search continues")
                    return result
            except ConnectionLost as lost:
                attempt = again or attempt
                if until is not None and time.monotonic() + pause_s >= until:
                    raise self._error(f"does not answer: {lost}") from None
                if pause_s:  # the first is not noted: a connection may have been idle for too long
                    self._note_lost(lost)
                if interrupted:
                    raise KeyboardInterrupt from None
                if time.monotonic() - began >= self._retry_for_s:
                    error = self._error(f"does not answer: {lost}")
                    raise (error if self._reading else self._close(error)) from None
            except Refused as refused:
                raise self._error(str(refused)) from None
            except JournalLocked as locked:
                rule = f"while it did not answer, it was taken: {locked}"
                remedy = "what is in it is kept, and this search ends"
                raise self._close(RunError(rule, where=self._shown, remedy=remedy)) from None
            except (SQLAlchemyError, StorageInternalError) as error:
                raise self._error(one_line(error.__cause__ or error)[:200]) from error
            try:
                self._closed.wait(pause_s)
            except KeyboardInterrupt as interrupt:
                raise self._close(interrupt) from None
            pause_s = min(max(0.1, 2 * pause_s), _LONGEST_PAUSE_S)

    @contextlib.contextmanager
    def _locked(self, seconds: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=seconds):
            raise ConnectionLost("another operation waits for it")
        try:
            yield
        finally:
            self._lock.release()

    def _error(self, reason: str) -> TunerError:
        if self._reading:
            rule = f"cannot be read: {reason}"
            return JournalError(rule, where=self._shown, remedy="try again later")
        remedy = "what is in it is kept: mend that, and the same command resumes"
        return RunError(f"cannot be written: {reason}", where=self._shown, remedy=remedy)

    def _close(self, failure: BaseException) -> BaseException:
        self._failure = self._failure or failure
        self._closed.set()
        return self._failure

    def _check_open(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, TunerError):
            raise self._failure.with_()
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        raise RunError("the search was interrupted", where=self._shown)

    def _note_lost(self, lost: ConnectionLost) -> None:
        with self._lock:
            if self._lost or self._failure is not None or self._retry_for_s == 0:
                return
            self._lost = True
        self._note(
            f"the journal's database does not answer ({lost}); waiting for it; Ctrl-C twice stops "
            f"the search, what is in the journal is kept, and the same command resumes"
        )

    set_study_user_attr = _retried(BaseStorage.set_study_user_attr)
    set_study_system_attr = _retried(BaseStorage.set_study_system_attr)
    set_trial_param = _retried(BaseStorage.set_trial_param)
    set_trial_intermediate_value = _retried(BaseStorage.set_trial_intermediate_value)
    set_trial_user_attr = _retried(BaseStorage.set_trial_user_attr)
    set_trial_system_attr = _retried(BaseStorage.set_trial_system_attr)
    get_study_id_from_name = _retried(BaseStorage.get_study_id_from_name)
    get_study_name_from_id = _retried(BaseStorage.get_study_name_from_id)
    get_study_directions = _retried(BaseStorage.get_study_directions)
    get_study_user_attrs = _retried(BaseStorage.get_study_user_attrs)
    get_study_system_attrs = _retried(BaseStorage.get_study_system_attrs)
    get_all_studies = _retried(BaseStorage.get_all_studies)
    get_trial_id_from_study_id_trial_number = _retried(
        BaseStorage.get_trial_id_from_study_id_trial_number
    )
    get_trial = _retried(BaseStorage.get_trial)
    get_all_trials = _retried(BaseStorage.get_all_trials)
    get_best_trial = _retried(BaseStorage.get_best_trial)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Create a study; a retry finds the one that its first attempt created."""

        create = partial(self._inner.create_new_study, directions, study_name)

        def again() -> int:
            try:
                return create()
            except DuplicatedStudyError:
                assert study_name is not None
                return self._inner.get_study_id_from_name(study_name)

        return self._retry(create, again)

    def delete_study(self, study_id: int) -> None:
        """Delete a study, unless it is gone already; other operations have their turn meanwhile."""
        if isinstance(rdb := getattr(self._inner, "_backend", None), RDBStorage):
            while self._retry(partial(_delete_trials, rdb.engine, study_id)):
                pass
        delete = partial(self._inner.delete_study, study_id)

        def again() -> None:
            if study_id in {study._study_id for study in self._inner.get_all_studies()}:
                delete()

        self._retry(delete, again)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Create a trial; with one writer, an extra trial is that of the first attempt."""
        before = self._n_trials.pop(study_id, None)
        if before is None:
            before = len(self.get_all_trials(study_id, deepcopy=False))

        create = partial(self._inner.create_new_trial, study_id, template_trial)

        def again() -> int:
            trials = self._inner.get_all_trials(study_id, deepcopy=False)
            return trials[before]._trial_id if len(trials) > before else create()

        trial_id = self._retry(create, again)
        self._n_trials[study_id] = before + 1
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Change a trial's state; Optuna refuses to end a trial twice."""

        change = partial(self._inner.set_trial_state_values, trial_id, state, values)

        def again() -> bool:
            return self._inner.get_trial(trial_id).state is state or change()

        return self._retry(change, again)


def _delete_trials(engine: sqlalchemy.Engine, study_id: int) -> int:
    """Delete some trials of a study; return how many.

    Optuna deletes a study in one piece, a statement for each row of it.
    """
    trials = TrialModel.__table__
    of_study = trials.c.study_id == study_id
    with engine.begin() as connection:
        some = sqlalchemy.select(trials.c.trial_id).where(of_study).limit(_DELETED_AT_ONCE)
        ids = connection.execute(some).scalars().all()
        for table in reversed(TrialModel.metadata.sorted_tables):
            if "trial_id" in table.c and ids:
                connection.execute(table.delete().where(table.c.trial_id.in_(ids)))
    return len(ids)


def has_studies(url: str) -> bool:
    """Return whether a database has a journal's tables, all of them.

    Raises:
        JournalError: it does not answer.
    """
    with _opening(url):
        return _with_timeout(_CONNECT_S, lambda: _has_studies(url))


def read_database(url: str) -> BaseStorage:
    """Open a journal for reading; creates nothing, and keeps no connection.

    Raises:
        JournalError: the database does not answer, or holds no journal.
    """
    if not has_studies(url):
        rule = f"{show_location(url)}: holds no studies"
        raise JournalError(rule, where="--journal", remedy="check the URL")
    with _opening(url):
        storage = _open(url, poolclass=NullPool)
    return RetryingStorage(get_storage(storage), show_location(url), reading=True)


@contextlib.contextmanager
def write_database(
    url: str, study: str | None, note: Callable[[str], None]
) -> Iterator[BaseStorage]:
    """Open a journal for the single writer of a study; creates missing tables.

    Args:
        url: the database.
        study: the study to lock, where the server is PostgreSQL; None for all studies.
        note: receives messages for the user.

    Raises:
        JournalError: the database cannot be used, or another search writes to the study.
    """
    with _opening(url):
        lock = StudyLock(study)
        _create_tables(url, lock)
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
    retrying = RetryingStorage(get_storage(storage), show_location(url), note)
    try:
        yield retrying
    finally:
        retrying.close()
        storage.engine.dispose()


@contextlib.contextmanager
def lock_database_for_reading(url: str, study: str | None) -> Iterator[None]:
    """Keep searches from writing to a study (None: to any), where the server is PostgreSQL.

    Raises:
        JournalError: a search writes to it.
    """
    with contextlib.ExitStack() as stack:
        with _opening(url):
            connection = stack.enter_context(_connected(url))
            if connection.dialect.name == "postgresql":
                StudyLock(study, shared=True).acquire(connection.connection.driver_connection)
        yield


def database_is_locked(url: str, study: str) -> bool | None:
    """Return whether a search writes to a study; None for a server that has no locks.

    Raises:
        JournalError: the database does not answer.
    """
    with _opening(url), _connected(url) as connection:
        if connection.dialect.name != "postgresql":
            return None
        return StudyLock(study).is_locked(connection.connection.driver_connection)


@contextlib.contextmanager
def _connected(url: str) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, **_engine_options(url))
    with engine.connect() as connection:
        try:
            yield connection
        except BaseException:  # SQLAlchemy does not see errors of the driver itself
            connection.invalidate()
            raise


def _has_studies(url: str) -> bool:
    """Return whether a journal's tables are there, and complete.

    Optuna writes their version last. Opening tables without a version writes it, which would
    disturb a search that is creating them.
    """
    with _connected(url) as connection:
        has_table = sqlalchemy.inspect(connection).has_table
        if not (has_table("studies") and has_table("alembic_version")):
            return False
        version = connection.execute(sqlalchemy.text("SELECT * FROM alembic_version")).first()
        return version is not None


def _create_tables(url: str, lock: StudyLock) -> None:
    """Have Optuna create its tables, or check that they are its own."""
    _with_timeout(_CONNECT_S, lambda: _has_studies(url))  # fails if it does not answer
    with _connected(url) as connection:
        if connection.dialect.name == "postgresql":
            lock.acquire_for_schema_creation(connection.connection.driver_connection)
        RDBStorage(url, {"poolclass": NullPool, **_engine_options(url)})


def _open(url: str, **options: Any) -> RDBStorage:
    """Open existing tables as a storage that raises what `RetryingStorage` expects."""
    storage = RDBStorage(
        url,
        options | _engine_options(url),
        skip_compatibility_check=options["poolclass"] is not NullPool,  # writers have checked
        skip_table_creation=True,
    )
    sqlalchemy.event.listen(storage.engine, "handle_error", _raise_lost_or_refused)
    return storage


def _engine_options(url: str) -> dict[str, Any]:
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() != "postgresql" or "psycopg" not in parsed.get_driver_name():
        return {}
    return {"connect_args": {k: v for k, v in _TIMEOUTS.items() if k not in parsed.query}}


def _lock_every_connection(engine: sqlalchemy.Engine, lock: StudyLock) -> None:
    def on_connect(connection: Any, record: object) -> None:
        try:
            lock.acquire(connection)
        except BaseException:
            connection.close()
            raise

    engine.dispose()  # connections without the lock
    sqlalchemy.event.listen(engine, "connect", on_connect)


def _raise_lost_or_refused(context: ExceptionContext) -> None:
    """Classify a driver's error, before Optuna repeats an operation because of it.

    Raises:
        ConnectionLost: whether the statement took effect is unknown.
        Refused: it did not.
    """
    error = context.original_exception
    if not isinstance(error, Exception) or isinstance(context.sqlalchemy_exception, IntegrityError):
        return  # Ctrl-C; and what Optuna expects
    reason = _reason(error)
    if context.dialect.name == "sqlite":
        is_lost = "database is locked" in reason
    else:
        if (getattr(error, "sqlstate", None) or "").startswith(_GONE):
            context.is_disconnect = True
        is_lost = context.is_disconnect or context.connection is None
    raise (ConnectionLost if is_lost else Refused)(reason) from error


def _reason(error: BaseException) -> str:
    """Return a driver's message in one line, without the statement."""
    text = show_location(one_line(getattr(error, "orig", None) or error))
    return text.removeprefix("connection failed: ")[:200]


@contextlib.contextmanager
def _opening(url: str) -> Iterator[None]:
    """Turn errors of opening a database into a `JournalError` of one line."""
    where = f"--journal: {show_location(url)}"
    try:
        yield
    except JournalError:
        raise
    except JournalLocked as locked:
        raise JournalInUse(locked, where=show_location(url), remedy=locked.remedy) from None
    except TimeoutError:
        rule = f"does not answer within {_CONNECT_S:g} s"
        raise JournalError(rule, where=where, remedy="check the host and the port") from None
    except Exception as error:  # SQLAlchemy's and every driver's own
        cause = error if isinstance(error, ImportError) else error.__cause__
        raise JournalError(_rule_and_remedy(url, error, cause), where=where) from None


def _rule_and_remedy(url: str, error: Exception, cause: BaseException | None) -> str:
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


def _with_timeout(seconds: float, action: Callable[[], _T]) -> _T:
    """Return the result of an action; drivers and name servers have no common time limit.

    Raises:
        TimeoutError: it takes longer; it continues in a thread of its own.
    """
    done: Future[_T] = Future()

    def act() -> None:
        try:
            done.set_result(action())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=act, name="journal", daemon=True).start()
    return done.result(timeout=seconds)
