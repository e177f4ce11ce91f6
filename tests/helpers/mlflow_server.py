"""Real `mlflow server` processes on loopback, to be killed and started again."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from helpers.ports import free_port


class MlflowServer:
    """One server on a port of its own, with its log, artifacts and SQLite store in a folder."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        store: str | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), *options]
        self._command += ["--backend-store-uri", store or f"sqlite:///{folder / 'server.db'}"]
        self._command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self._environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        self._environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
        self._environment |= settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> MlflowServer:
        """Start, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 180
        while True:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return self
            except OSError:
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and its workers, as a machine that dies does."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            deadline = time.monotonic() + 60
            while self._listens():  # its workers die a moment later
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != errno.ECONNREFUSED
