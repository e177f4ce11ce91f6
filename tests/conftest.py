"""Fixtures of all folders, and processes that are forked instead of started."""

import contextlib
import os
import signal

import pytest
from helpers.examples import load_profile
from helpers.forked import LazyTemplate, fork_processes, start_processes

# A script's shell has what it starts in the background ignore it, and what we start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Before NumPy is imported: a thread waits by spinning, for a core that other tests keep busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
load_profile()


@pytest.fixture(scope="session", autouse=True)
def _forked_processes():
    """Fork workers and commands: a start imports for five seconds what a fork has."""
    with contextlib.closing(LazyTemplate()) as template, fork_processes(template):
        yield


@pytest.fixture(autouse=True)
def _real_processes(request):
    if request.node.get_closest_marker("real_processes") is None:
        yield
        return
    with start_processes():
        yield


@pytest.fixture(scope="session")
def postgresql():
    """A PostgreSQL server of our own, to be stopped and started."""
    from helpers.postgresql import running_server

    with running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(request):
    """The URL of an empty journal, on the server that `TUNER_TEST_POSTGRES_URL` names or ours."""
    from helpers.postgresql import GIVEN, schema_of_its_own

    with schema_of_its_own(GIVEN or request.getfixturevalue("postgresql").url) as url:
        yield url


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """The current folder, with nothing in it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_mlflow_settings(monkeypatch):
    """No settings of MLflow's, neither given nor left by the test."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]


@pytest.fixture
def folder(tmp_path, monkeypatch, no_mlflow_settings):
    """The current folder: air.csv and air.yaml, nothing else."""
    from helpers.real_searches import make_folder

    monkeypatch.chdir(make_folder(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def baselines_fitted_once():
    from helpers.baselines import fitted_once

    with fitted_once():
        yield


@pytest.fixture
def make_bench(tmp_path):
    """Makes journals by name, and what searches with simulated training."""
    from helpers.search_bench import Bench

    return lambda name: Bench(tmp_path / f"{name}.journal")


@pytest.fixture
def bench(make_bench):
    return make_bench("s")


@pytest.fixture
def notes(monkeypatch):
    """What a bench's journal tells people; on a server the bench holds its study alone."""
    from tuner.journal.storage import write_journal

    said = []
    monkeypatch.setattr(
        "helpers.search_bench.write_journal",
        lambda location: write_journal(location, "s", said.append),
    )
    return said


@pytest.fixture
def quiet_optuna():
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def run_command(capsys):
    """Runs a command; returns status, standard output and standard error."""
    from tuner.cli.app import run

    def call(*arguments):
        capsys.readouterr()
        status = run(list(arguments))
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def run_well(run_command):
    """Runs a command, which must end well, and returns what it printed on standard output."""

    def call(*arguments):
        status, out, err = run_command(*arguments)
        assert status == 0, err
        return out

    return call
