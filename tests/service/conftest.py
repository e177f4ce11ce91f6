"""Applications of the service, and clients of them."""

import contextlib
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tuner.data.prepared import DataSource
from tuner.service.access import Access, TokenFile, new_token
from tuner.service.app import make_app
from tuner.service.confined import Confined
from tuner.service.confined_data import ConfinedData
from tuner.service.settings import Settings


def pytest_collection_modifyitems(items):
    """Warnings are no errors beside searches in threads: filters are those of all threads."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path / "root")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The process from which tasks are forked, started once."""
    with contextlib.closing(Confined(tmp_path_factory.mktemp("root"))) as limited:
        yield limited


@pytest.fixture
def tokens(tmp_path):
    """A file of tokens, and the tokens in it by owner and role."""
    path = tmp_path / "tokens.yaml"
    given = {(o, r): new_token(path, o, r) for o in ("ana", "ben") for r in ("read", "write")}
    return path, given


@pytest.fixture
def client(settings):
    """A client of a service without tokens."""
    return TestClient(make_app(None, Access(), settings), base_url="http://127.0.0.1:8080")


@pytest.fixture
def guarded(settings, tokens):
    """A client of a service with tokens."""
    app = make_app(None, Access(TokenFile(tokens[0])), settings)
    return TestClient(app, base_url="http://127.0.0.1:8080")


@pytest.fixture
def as_(tokens):
    """A function that returns the headers of an owner with a role."""
    return lambda owner, role="write": {"Authorization": f"Bearer {tokens[1][owner, role]}"}


@pytest.fixture
def quick_baselines(monkeypatch):
    """Searches fit no classical baselines, which take longer than the rest of a small search."""
    monkeypatch.setattr("tuner.data.baselines.CLASSICAL", {})
    monkeypatch.setattr(ConfinedData, "baselines", DataSource.baselines)  # in this process


@pytest.fixture
def tuner(run_command):
    """Runs a command; returns status, standard output and standard error."""
    return run_command
