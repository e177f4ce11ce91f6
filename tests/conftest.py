"""PostgreSQL for the tests of all folders, and processes that are forked instead of started."""

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest
from helpers.examples import load_profile
from helpers.forked import LazyTemplate, fork_processes, start_processes

if TYPE_CHECKING:
    pass

# A script's shell has what it starts in the background ignore it, and what we start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
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
