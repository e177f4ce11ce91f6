"""PostgreSQL for tests: a server of our own that can be stopped and started, or one that is given.

A server of our own comes from Debian's package (or any other): a private folder, a free port on
loopback, an unprivileged user, and nothing left behind.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from helpers.ports import free_port

GIVEN = os.environ.get("TUNER_TEST_POSTGRES_URL")
SCHEME = "postgresql+psycopg://"
# A crash of the server's processes loses nothing without it: the system has what they wrote.
SETTINGS = {"fsync": "off", "max_connections": "30", "shared_buffers": "16MB"}


def binary(name: str) -> str | None:
    """Find a program of PostgreSQL; Debian keeps those of a server out of the PATH."""
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, newest_first), os.environ["PATH"]]))


def skip_without(what: str, reason: str) -> None:
    """Skip, but where `TUNER_TEST_REQUIRE` names what is missing."""
    if what in os.environ.get("TUNER_TEST_REQUIRE", "").split(","):
        pytest.fail(f"TUNER_TEST_REQUIRE names {what}: {reason}")
    pytest.skip(reason)


def connect(url: str) -> psycopg.Connection:
    """Connect to the server of a journal's URL, each statement in a transaction of its own."""
    return psycopg.connect(url.replace(SCHEME, "postgresql://"), autocommit=True)


class Server:
    """A PostgreSQL server of our own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))
        self.user: str | None = None
        if os.geteuid() == 0:  # which initdb and postgres refuse to be
            known = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in known else "nobody"
            shutil.chown(self.folder, self.user)
        self.port = free_port()
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self._data), "-U", "tuner", "-A", "trust", "-N")
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all locked all scram-sha-256\n{rules.read_text()}")
        self.start()
        with self.connect() as connection:
            connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")

    @property
    def url(self) -> str:
        return f"{SCHEME}tuner@127.0.0.1:{self.port}/postgres"

    def connect(self) -> psycopg.Connection:
        return connect(self.url)

    def start(self) -> None:
        command = [binary("postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        for name, value in SETTINGS.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self.user, cwd=self.folder
            )
        deadline = time.monotonic() + 120
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop: SIGQUIT as in a crash, SIGINT without waiting for those connected."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(60)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [binary(program), *arguments]
        done = subprocess.run(
            command, user=self.user, cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Start a server of our own; skip where the package is not installed."""
    if binary("initdb") is None or binary("postgres") is None:
        skip_without("postgresql", "PostgreSQL is not installed: apt-get install postgresql")
    server = Server()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def schema_of_its_own(url: str) -> Iterator[str]:
    """Make an empty schema in a database; yields the URL of a journal in it."""
    name = f"tuner_{uuid.uuid4().hex[:12]}"
    with connect(url) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    try:
        yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
    finally:
        with connect(url) as connection:
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
