"""PostgreSQL for the tests of all folders."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from helpers.postgresql import Server

# A script's shell has what it starts in the background ignore it, and what we start would as well.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of our own, to be stopped and started."""
    from helpers.postgresql import running_server

    with running_server() as server:
        yield server


@pytest.fixture
def postgresql_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty journal, on the server that `TUNER_TEST_POSTGRES_URL` names or ours."""
    from helpers.postgresql import GIVEN, schema_of_its_own

    with schema_of_its_own(GIVEN or request.getfixturevalue("postgresql").url) as url:
        yield url
