"""Makes `tests/` importable, for the helpers that several folders share; PostgreSQL for all."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from postgresql import Server

# A script's shell has what it starts in the background ignore it, and what we start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.append(str(Path(__file__).parent / "coordination"))  # its bench serves other folders too


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of our own, to be stopped and started."""
    from postgresql import running_server

    with running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty journal, on the server that `TUNER_TEST_POSTGRES_URL` names or ours."""
    from postgresql import GIVEN, schema_of_its_own

    with schema_of_its_own(GIVEN or request.getfixturevalue("postgresql").url) as url:
        yield url
