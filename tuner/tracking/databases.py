"""MLflow stores that are databases opened here: created whole or not at all, never migrated."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tuner.errors import InputError, show_location, show_path
from tuner.tracking.own_files import alone_if_possible, own_path
from tuner.tracking.uris import sqlite_path, store_digest

__all__ = ["check_database", "create_database"]

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
        raise InputError(f"{_shown(uri)}: holds another program's tables, not MLflow's; {_OTHER}")
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
        raise InputError(f"{shown}: the database's driver is missing: {error}") from None
    except OperationalError:
        raise
    except DatabaseError as error:
        if "file is not a database" in str(error.orig):
            raise InputError(f"{shown}: is no SQLite database; {_OTHER}") from None
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
        raise InputError(f"{shown}: holds nothing, it was not created to its end; delete it")
    if found.revision in known:
        raise InputError(
            f"{shown}: was written by an older MLflow than {mlflow.__version__}; copy it, then "
            f"run `mlflow db upgrade {show_location(uri)}`"
        )
    raise InputError(
        f"{shown}: was written by a newer MLflow than {mlflow.__version__}; "
        f"upgrade with `pip install --upgrade mlflow`, or {_OTHER}"
    )


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
