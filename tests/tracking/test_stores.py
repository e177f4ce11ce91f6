"""Stores: creating them at once, URIs, and files of our own."""

import contextlib
import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from helpers.mlflow_runs import runs_of
from helpers.real_searches import RUN, STUDY, make_folder, tuner

from tuner.errors import InputError
from tuner.outputs import open_private, private_path
from tuner.tracking import (
    MlflowTracker,
    SyncState,
    only_copier,
    open_store,
    start_ui,
    store,
    sync_study,
)
from tuner.tracking import store as databases
from tuner.tracking.store import check_uri, is_database, is_folder, is_server, sqlite_path

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


UNUSABLE = [
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
    (half_created, "mlflow.db: holds nothing, as its creation was interrupted; delete it"),
    (no_database, f"mlflow.db: is no SQLite database; {OTHER}"),
    (journal_of_optuna, f"mlflow.db: holds another program's tables, not MLflow's; {OTHER}"),
]


@pytest.mark.parametrize(("write", "text"), UNUSABLE, ids=[write.__name__ for write, _ in UNUSABLE])
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
    tracker = MlflowTracker(make_record, "tuner sync s1", told.append)
    wait_for(lambda: told)
    assert not tracker.close(done=True)
    assert time.monotonic() - begun < 5
    later = "the search continues, and `tuner sync s1` completes the copy later"
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
def test_a_uri_that_mlflow_cannot_use_costs_a_search_one_warning(tmp_path, monkeypatch):
    uri = "http//localhost"
    here = make_folder(tmp_path / "here")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    ended = tuner(here, *RUN)
    assert (ended.status, ended.err) == (0, "")
    (warning,) = ended.said_of_mlflow
    assert warning.startswith("MLFLOW_TRACKING_URI: ")
    assert f"got {uri!r}; write " in warning
    assert warning.endswith(
        f"; the search continues, and `tuner sync {STUDY}` completes the copy later"
    )
    refusal, _, _ = warning.partition("; the search continues")
    for command in ("sync", "ui"):
        refused = tuner(here, command, STUDY)
        assert (refused.status, refused.out, refused.err) == (2, "", f"tuner: {refusal}\n")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    refused = tuner(here, "sync", "air-randon-0")
    assert refused.status == 2
    assert f"did you mean '{STUDY}'?" in refused.err
    assert sorted(path.name for path in here.iterdir()) == ["air.csv", "air.yaml", "studies"]


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
    tracker = MlflowTracker(lambda: record, "tuner sync s1", told.append)
    assert not tracker.close(done=True)
    assert time.monotonic() - begun < 10
    assert "Connection refused" in told[0]
    assert told[0].startswith("the MLflow store postgresql+psycopg://127.0.0.1:1/postgres: ")
    assert len(told) == 1


FOUND = "print(len(store.search_experiments()))"
OPEN = f"from tuner.tracking import open_store; store = open_store(); {FOUND}"
# As `mlflow server` does: the file has its name before its tables are there.
CREATE_IN_PLACE = """
import sys
from mlflow.store.db import utils
upgrade = utils._upgrade_db
def slow_upgrade(engine):
    print("half", flush=True)
    sys.stdin.readline()
    upgrade(engine)
utils._upgrade_db = slow_upgrade
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore("sqlite:///mlflow.db", "mlartifacts")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_all_who_create_a_store_at_once_find_it(kind, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if kind == "postgresql":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("postgresql_url"))
    command = [sys.executable, "-c", OPEN]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    ends = [(*process.communicate(), process.returncode) for process in processes]
    assert ends == [("1\n", "", 0)] * 3


def test_two_users_create_a_store_one_after_the_other(tmp_path, monkeypatch):
    made, at_once = [], threading.Lock()

    def create(uri, artifact_root):
        assert at_once.acquire(blocking=False)
        time.sleep(0.3)  # the other one would begin meanwhile
        made.append(sqlite_path(uri))
        made[-1].touch()
        at_once.release()

    private = iter(tmp_path / name for name in ("lock of one", "lock of the other"))
    monkeypatch.setattr(databases, "private_path", lambda *name: next(private))
    monkeypatch.setattr(databases, "_create", create)
    path = tmp_path / "stores" / "mlflow.db"
    with ThreadPoolExecutor(2) as users:
        create_as = [users.submit(databases.create_database, f"sqlite:///{path}", tmp_path)
                     for _ in range(2)]  # fmt: skip
    assert [user.result() for user in create_as] == [None, None]
    assert len(made) == 1
    assert [*path.parent.iterdir()] == [path]


@pytest.fixture
def creator(tmp_path, monkeypatch):
    """Another program that has created half a store in place."""
    monkeypatch.chdir(tmp_path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", CREATE_IN_PLACE]
    settings = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    with subprocess.Popen(command, **pipes, env=settings) as process:
        assert process.stdout.readline() == b"half\n"
        yield process
        process.kill()


def test_a_store_that_another_program_is_creating_is_waited_for(creator, monkeypatch):
    monkeypatch.setattr(databases, "_WRITES_EVERY_S", 60)
    monkeypatch.setattr(databases, "_CREATED_IN_S", 60)
    looked = threading.Event()
    look_into = databases._look_into

    def look(uri):
        found = look_into(uri)
        if found.unfinished and not looked.is_set():
            looked.set()
            creator.stdin.write(b"go on\n")
            creator.stdin.flush()
        return found

    monkeypatch.setattr(databases, "_look_into", look)
    (experiment,) = open_store().search_experiments()
    assert looked.is_set()
    assert experiment.name == "Default"
    assert creator.wait() == 0


def test_a_store_whose_creator_has_died_is_not_waited_for(creator, monkeypatch):
    creator.kill()
    creator.wait()
    os.utime("mlflow.db", (0, 0))
    monkeypatch.setattr("time.sleep", lambda s: pytest.fail("it waits"))
    open_store()


@pytest.mark.slow
def test_of_two_uis_started_together_one_serves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store()
    both = threading.Barrier(2, timeout=300)

    def serve(_):
        with start_ui() as ui:
            both.wait()  # it serves as long as the other looks
            return ui.server is not None, ui.server.pid if ui.server else ui.earlier

    with ThreadPoolExecutor(2) as pool:
        (_, one), (_, other) = found = list(pool.map(serve, range(2)))
    assert one == other
    assert sorted(ours for ours, _ in found) == [False, True]


def test_threads_that_ask_a_server_keep_mlflows_timeouts(monkeypatch):
    store._be_quiet()
    before = {name: os.environ[name] for name in store._AT_FIRST}
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def ask_first():
        with store._impatient():
            first_in.set()
            second_in.wait(0.5)  # which it must not come to
        first_out.set()

    def ask_then():
        first_in.wait(60)
        with store._impatient():
            second_in.set()
            first_out.wait(60)

    with ThreadPoolExecutor(2) as pool:
        for asked in [pool.submit(ask_first), pool.submit(ask_then)]:
            asked.result()
    assert {name: os.environ[name] for name in store._AT_FIRST} == before


EITHER = "http://HOST:PORT or sqlite:////PATH/mlflow.db"
PLAIN_FILES = "MLflow keeps no runs in plain files any more"
NO_FILE = "must name a file, after three slashes"
NO_SCHEME = "must begin with http:// or https://"

REFUSED = [
    ("foo://x", "MLflow knows no scheme 'foo'", EITHER),
    ("s3://bucket/mlruns", "MLflow knows no scheme 's3'", EITHER),
    ("htpp://localhost:5000", "MLflow knows no scheme 'htpp'", "http://localhost:5000"),
    ("postgres://ann@db/runs", "MLflow knows no scheme 'postgres'", "postgresql://db/runs"),
    ("http//localhost", NO_SCHEME, "http://localhost"),
    ("localhost:5000", NO_SCHEME, "http://localhost:5000"),
    ("10.0.0.1:5000/base", NO_SCHEME, "http://10.0.0.1:5000/base"),
    ("http:/localhost:5000", "must name a host", "http://localhost:5000"),
    ("https://", "must name a host", "http://HOST:PORT, say"),
    ("http://[::1", "cannot be read (Invalid IPv6 URL)", "http://HOST:PORT, say"),
    ("sqlite://", NO_FILE, "sqlite:///{here}/mlflow.db"),
    ("sqlite:///:memory:", NO_FILE, "sqlite:///{here}/mlflow.db"),
    ("sqlite://runs.db", NO_FILE, "sqlite:///{here}/runs.db"),
    ("sqlite:/data/runs.db", NO_FILE, "sqlite:////data/runs.db"),
    ("postgresql:db", "must name a server", "postgresql://HOST/DATABASE"),
    ("./mlruns", PLAIN_FILES, "sqlite:///{here}/mlruns/mlflow.db"),
    ("file:///data/mlruns", PLAIN_FILES, "sqlite:////data/mlruns/mlflow.db"),
    ("mlflow.db", PLAIN_FILES, "sqlite:///{here}/mlflow.db"),
]


@pytest.mark.parametrize(("uri", "rule", "write"), REFUSED, ids=[uri for uri, _, _ in REFUSED])
def test_an_unusable_tracking_uri_is_refused_with_a_remedy(uri, rule, write):
    with pytest.raises(InputError) as refused:
        check_uri(uri)
    write = write.format(here=Path.cwd())
    got = uri.replace("ann@", "")
    assert str(refused.value) == f"MLFLOW_TRACKING_URI: {rule}, got {got!r}; write {write}"


def test_a_port_that_is_none_is_refused_without_the_password():
    with pytest.raises(InputError) as refused:
        check_uri("http://ann:secret@localhost:50000000")
    assert "cannot be read (Port out of range 0-65535)" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("http://localhost:5000", is_server),
        ("HTTPS://ann:secret@mlflow.example.org/base/", is_server),
        ("http://[::1]:5000", is_server),
        ("databricks", is_server),
        ("databricks://profile", is_server),
        ("sqlite:///mlflow.db", is_database),
        ("sqlite+pysqlite:////data/mlflow.db", is_database),
        ("postgresql+psycopg://ann:secret@db/runs", is_database),
        ("mysql+pymysql://ann@db/runs", is_database),
    ],
)
def test_what_mlflow_can_use_is_of_one_kind(uri, kind):
    check_uri(uri)
    assert [k for k in (is_server, is_database, is_folder) if k(uri)] == [kind]


def test_plain_files_are_used_where_mlflow_allows_them(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_uri("./mlruns")
    assert is_folder("./mlruns")


def test_the_file_of_a_store_is_known_for_sqlite_alone():
    assert sqlite_path("sqlite:///runs.db") == Path("runs.db")
    assert sqlite_path("sqlite:////data/runs.db") == Path("/data/runs.db")
    assert sqlite_path("postgresql:///runs") is None
    assert sqlite_path("http://localhost") is None


@pytest.mark.parametrize("uri", ["foo://x", "http://[::1", "./mlruns"])
def test_the_ui_is_refused_before_anything_is_started(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("tuner.tracking.ui._server", lambda *_: pytest.fail("it was started"))
    with pytest.raises(InputError, match="^MLFLOW_TRACKING_URI: .*; write "), start_ui():
        pass


def test_a_hosted_store_has_a_ui_of_its_own(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(InputError, match="has a UI of its own; open it there"), start_ui():
        pass


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_lock_leaves_nothing_behind_however_it_ends(temporary):
    path = private_path("sync", "abc", ".lock")
    with only_copier("abc"):
        assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyError), only_copier("abc"):
        raise KeyError
    assert list(temporary.iterdir()) == []
    command = "import os, signal, tempfile; from tuner.tracking import only_copier\n"
    command += "with only_copier('abc'): os.kill(os.getpid(), signal.SIGKILL)"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", command], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    with only_copier("abc"):  # and is not kept out by what the killed one left
        pass
    assert list(temporary.iterdir()) == []


def test_what_others_put_in_the_way_is_refused_and_left_as_it_is(temporary, monkeypatch):
    precious, path = temporary / "precious", private_path("sync", "abc", ".lock")
    precious.write_text("data")

    def refused(why):
        said = f"{path}: cannot be locked: {why}; remove it, or set TMPDIR"
        with pytest.raises(InputError, match=said), only_copier("abc"):
            pytest.fail("let in")

    path.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic"):
        open_private(path, "w")
    refused("Too many levels of symbolic links")
    assert precious.read_text() == "data"
    assert path.is_symlink()
    path.unlink()
    os.mkfifo(path)
    refused("is not a file of yours")
    path.unlink()
    path.mkdir()
    refused("Is a directory")
    path.rmdir()
    path.write_text("theirs")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    path = path.rename(private_path("sync", "abc", ".lock"))
    refused("is not a file of yours")
    with pytest.raises(PermissionError):
        open_private(path, "w")
    assert path.read_text() == "theirs"


COUNTS = """
import sys; from pathlib import Path; from tuner.outputs import exclusive_lock
for _ in range(300):
    with exclusive_lock(Path(sys.argv[1])):
        n = int(Path(sys.argv[2]).read_text())
        Path(sys.argv[2]).write_text(str(n + 1))
"""


def test_processes_that_come_and_go_are_never_in_together(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNTS, str(tmp_path / "lock"), str(count)]
    both = [subprocess.Popen(command) for _ in range(3)]
    assert [p.wait(60) for p in both] == [0, 0, 0]
    assert count.read_text() == "900"
    assert list(tmp_path.iterdir()) == [count]


def test_opening_makes_a_file_or_empties_it_only_where_it_is_to(tmp_path):
    path = Path(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        open_private(path, "r")
    with open_private(path, "w") as file:
        file.write(b"first one")
    with open_private(path, "r+"), open_private(path, "r") as file:
        assert file.read() == b"first one"
    with open_private(path, "w") as file:
        file.write(b"second")
    assert path.read_bytes() == b"second"
