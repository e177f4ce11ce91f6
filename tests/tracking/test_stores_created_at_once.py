"""MLflow stores that several programs, or threads of one, open for the first time together."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tuner.tracking import open_store, start_ui, store
from tuner.tracking import store as databases

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
