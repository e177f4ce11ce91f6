"""Stores that are databases: created whole, and never changed where another MLflow wrote them."""

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from pathlib import Path

import mlflow
import pytest
from helpers.mlflow_runs import runs_of
from helpers.mlflow_server import MlflowServer
from helpers.real_searches import RUN, STUDY, copy_at, full_copy, make_folder, tuner

from tuner.errors import InputError
from tuner.tracking import MlflowTracker, SyncState, open_store, start_ui, sync_study
from tuner.tracking import store as databases
from tuner.tracking.store import sqlite_path

OTHER = "give another by MLFLOW_TRACKING_URI"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def opened(path):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def written_by_older_mlflow(path, *, with_a_run=True):
    """Have MLflow's own migrations make a store, and stop ten before the newest."""
    import alembic.command
    import sqlalchemy
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from mlflow.store.tracking.dbmodels.initial_models import Base

    config = Config()
    scripts = Path(mlflow.__file__).parent / "store/db_migrations"
    config.set_main_option("script_location", str(scripts))
    revisions = [s.revision for s in ScriptDirectory.from_config(config).walk_revisions()]
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The ``noload`` loader", DeprecationWarning)
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revisions[10])
    engine.dispose()
    if with_a_run:
        with opened(path) as connection:
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage, workspace) "
                "VALUES (0, 'Default', 'active', 'default')"
            )


def written_by_newer_mlflow(path):
    open_store()
    with opened(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f4a9b2c7d1e6'")


def no_database(path):
    path.write_text("this is no database, however long one looks at it\n" * 40)


def half_created(path):
    written_by_older_mlflow(path, with_a_run=False)


def journal_of_optuna(path):
    from optuna.storages import RDBStorage

    RDBStorage(f"sqlite:///{path}").engine.dispose()


REFUSED = [
    (
        written_by_newer_mlflow,
        f"mlflow.db: was written by a newer MLflow than {mlflow.__version__}; upgrade with "
        f"`pip install --upgrade mlflow`, or {OTHER}",
    ),
    (
        written_by_older_mlflow,
        f"mlflow.db: was written by an older MLflow than {mlflow.__version__}; copy it, then run "
        "`mlflow db upgrade sqlite:///{here}/mlflow.db`",
    ),
    (half_created, "mlflow.db: holds nothing, it was not created to its end; delete it"),
    (no_database, f"mlflow.db: is no SQLite database; {OTHER}"),
    (journal_of_optuna, f"mlflow.db: holds another program's tables, not MLflow's; {OTHER}"),
]


@pytest.mark.parametrize(("write", "text"), REFUSED, ids=[write.__name__ for write, _ in REFUSED])
def test_a_store_of_another_mlflow_is_refused_unchanged(
    here, make_record, wait_for, monkeypatch, capfd, write, text
):
    write(here / "mlflow.db")
    text = text.format(here=here)
    before = hashlib.sha256((here / "mlflow.db").read_bytes()).digest()
    with pytest.raises(InputError) as refused:
        open_store()
    assert str(refused.value) == text
    with monkeypatch.context() as patch:
        patch.setattr("tuner.tracking.ui._server", lambda *_: pytest.fail("it was started"))
        with pytest.raises(InputError) as refused, start_ui():
            pass
    assert str(refused.value) == text
    told, begun = [], time.monotonic()
    tracker = MlflowTracker(make_record, "s1", told.append)
    wait_for(lambda: told)
    assert not tracker.close(done=True)
    assert time.monotonic() - begun < 5
    later = "the search goes on, and `tuner sync s1` completes the copy later"
    assert told == [f"{text}; {later}"]
    assert capfd.readouterr() == ("", "")
    assert hashlib.sha256((here / "mlflow.db").read_bytes()).digest() == before
    assert [path.name for path in here.iterdir()] == ["mlflow.db"]


@pytest.mark.slow
def test_an_upgraded_older_store_is_used(here, make_record, make_trial):
    written_by_older_mlflow(here / "mlflow.db")
    with pytest.raises(InputError) as refused:
        open_store()
    _, command, _ = str(refused.value).split("`")
    settings = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(
        [sys.executable, "-m", *command.split()], env=settings, capture_output=True, check=True
    )
    record = make_record(make_trial(0))
    sync_study(open_store(), record, SyncState(), running=False, artifacts={})
    assert set(runs_of(open_store(), record)[1]) == {"0"}


def test_a_shared_database_gets_the_tables_of_mlflow(here, make_record, make_trial):
    with opened(here / "mlflow.db") as connection:
        connection.execute("CREATE TABLE mine (a)")
    record = make_record(make_trial(0))
    sync_study(open_store(), record, SyncState(), running=False, artifacts={})
    assert set(runs_of(open_store(), record)[1]) == {"0"}


def test_a_store_is_created_whole_or_not_at_all(here, monkeypatch):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    class Killed(BaseException):
        pass

    def die(store):
        raise Killed

    (here / "mlflow.db.new-1").write_text("what a process left that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(SqlAlchemyStore, "_initialize_store_state", die)
        with pytest.raises(Killed):
            open_store()
    assert list(here.iterdir()) == []
    (here / "mlflow.db.new-1").write_text("what a process left that was killed")
    assert open_store().search_experiments()[0].artifact_location == f"file://{here}/mlartifacts/0"
    assert [path.name for path in here.iterdir()] == ["mlflow.db"]


def test_a_file_system_without_links_will_do(here, monkeypatch):
    def link(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(
        databases, "_create", lambda uri, root: sqlite_path(uri).write_text("a store")
    )
    databases.create_database(f"sqlite:///{here}/mlflow.db", here)
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [("mlflow.db", "a store")]


def test_a_store_created_meanwhile_by_another_is_left_alone(here, monkeypatch):
    def create(uri, root):
        sqlite_path(uri).write_text("ours")
        (here / "mlflow.db").write_text("theirs")

    monkeypatch.setattr(databases, "_create", create)
    databases.create_database(f"sqlite:///{here}/mlflow.db", here)
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [("mlflow.db", "theirs")]


@pytest.mark.slow
def test_a_process_killed_while_creating_a_store_leaves_no_harm(here):
    command = [sys.executable, "-c", "from tuner.tracking import open_store; open_store()"]
    for wait_s in (0.0, 0.2, 0.4):
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 180
        while not list(here.glob("mlflow.db.new-*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(wait_s)
        process.kill()
        process.wait()
        (here / "mlflow.db").unlink(missing_ok=True)
    assert subprocess.run(command).returncode == 0
    assert open_store().search_experiments()


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["foo://x", "http//localhost", "./mlruns", "http://[::1"])
def test_a_uri_that_mlflow_cannot_use_costs_a_search_one_warning(tmp_path, monkeypatch, uri):
    here = make_folder(tmp_path / "here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ended = tuner(here, *RUN)
    assert (ended.status, ended.err) == (0, "")
    (warning,) = ended.said_of_mlflow
    assert warning.startswith("MLFLOW_TRACKING_URI: ")
    assert f"got {uri!r}; write " in warning
    assert warning.endswith(
        f"; the search goes on, and `tuner sync {STUDY}` completes the copy later"
    )
    refusal, _, _ = warning.partition("; the search goes on")
    for command in ("sync", "ui"):
        refused = tuner(here, command, STUDY)
        assert (refused.status, refused.out, refused.err) == (2, "", f"tuner: {refusal}\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    refused = tuner(here, "sync", "air-randon-0")
    assert refused.status == 2
    assert f"did you mean '{STUDY}'?" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["air.csv", "air.yaml", "studies"]


@pytest.mark.slow
@pytest.mark.parametrize("write", [written_by_newer_mlflow, no_database])
def test_a_search_beside_a_store_of_somebody_else_ends_well(tmp_path, monkeypatch, write):
    here = make_folder(tmp_path / "here")
    monkeypatch.chdir(here)
    write(here / "mlflow.db")
    text = dict(REFUSED)[write]
    ended = tuner(here, *RUN)
    assert (ended.status, ended.err) == (0, "")
    later = f"the search goes on, and `tuner sync {STUDY}` completes the copy later"
    assert ended.said_of_mlflow == [f"{text}; {later}"]
    for command in ("sync", "ui"):
        refused = tuner(here, command, STUDY)
        assert (refused.status, refused.out, refused.err) == (2, "", f"tuner: {text}\n")
    (here / "mlflow.db").unlink()
    assert tuner(here, "sync", STUDY).status == 0


@pytest.mark.slow
def test_a_search_is_copied_to_a_server_on_postgresql(tmp_path, monkeypatch, postgresql_url):
    here = make_folder(tmp_path / "here")
    server = MlflowServer(tmp_path, store=postgresql_url).start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        ended = tuner(here, *RUN)
        assert (ended.status, ended.err, ended.said_of_mlflow) == (0, "", [])
        assert "0 created, 0 completed, 0 replaced, " in tuner(here, "sync", STUDY).out
        found = copy_at(server.url)
    finally:
        server.kill()
    assert found == full_copy(here)


@pytest.mark.slow
def test_a_database_server_can_be_the_store_itself(
    here, make_record, make_trial, monkeypatch, postgresql_url
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgresql_url)
    record = make_record(make_trial(0))
    sync_study(open_store(), record, SyncState(), running=False, artifacts={"a.yaml": "x: 1\n"})
    assert set(runs_of(open_store(), record)[1]) == {"0"}
    nobody = postgresql_url.partition("@")[0] + "@127.0.0.1:1/postgres"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
    told, begun = [], time.monotonic()
    tracker = MlflowTracker(lambda: record, "s1", told.append)
    assert not tracker.close(done=True)
    assert time.monotonic() - begun < 10
    assert "Connection refused" in told[0]
    assert told[0].startswith("the MLflow store postgresql+psycopg://127.0.0.1:1/postgres: ")
    assert len(told) == 1
