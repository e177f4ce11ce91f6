"""A server process for the service's benchmark: `tuner serve`, or the same with idle workers.

Idle workers train nothing; each of their epochs takes `IDLE_EPOCH_S` (see `idle_worker.py`).
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent


class Server:
    """A service in a process of its own, on a free port of loopback.

    Args:
        root: its folder.
        epoch_s: of idle workers; None for workers that train.
        workers: of the service.
        tokens: the file of tokens; None without tokens.
        journal: the URL of a database; None for files.
        floor: whether it is the empty service of `service_floor.py`.
        gate: idle workers start when this file exists; None: at once.
    """

    def __init__(
        self,
        root: Path,
        *,
        epoch_s: float | None = None,
        workers: int = 2,
        tokens: Path | None = None,
        journal: str | None = None,
        floor: bool = False,
        gate: Path | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self._root = f"http://127.0.0.1:{port}", root
        command = [sys.executable, "-m", "tuner", "serve"]
        if epoch_s is not None:
            command = [sys.executable, str(BENCHMARKS / "service_server.py")]
        place = ["--root", str(root), "--port", str(port)]
        self._command = [*command, *place, "--workers", str(workers)]
        self._command += ["--tokens", str(tokens)] if tokens else []
        self._command += ["--journal", journal] if journal else []
        self._command += ["--gate", str(gate)] if gate else []
        if floor:
            self._command = [sys.executable, str(BENCHMARKS / "service_floor.py"), *place]
        self._env = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCHMARKS}",
            "IDLE_EPOCH_S": str(epoch_s or 0.0),
            "OMP_NUM_THREADS": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> float:
        """Start the process; return the seconds until it takes requests."""
        began = time.monotonic()
        log = (self._root.parent / "server.log").open("ab")
        self._process = subprocess.Popen(
            self._command, cwd=self._root.parent, env=self._env, stdout=log, stderr=log
        )
        while True:
            try:
                if requests.get(f"{self.url}/ready", timeout=5).ok:
                    return time.monotonic() - began
            except requests.ConnectionError:
                pass
            if self._process.poll() is not None:
                raise RuntimeError((self._root.parent / "server.log").read_text()[-3000:])
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill the process as a power failure would, but for the disk."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> float:
        """End the process as Ctrl-C does; return the seconds that it takes."""
        began = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)
        return time.monotonic() - began

    @property
    def memory_mb(self) -> float:
        """What the process has of the memory, without its workers."""
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6

    @property
    def cpu_s(self) -> float:
        """Processor time of the process, without its workers."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)


class Owner:
    """Requests of one owner.

    Args:
        server: the service.
        token: of the owner; None without tokens.
    """

    def __init__(self, server: Server, token: str | None = None) -> None:
        self._server, self._session = server, requests.Session()
        if token is not None:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def __call__(
        self, method: str, path: str, body: Any = None, *, parse: bool = True, **options: Any
    ) -> Any:
        """Return the answer to a request; raises for one that is refused."""
        response = self._session.request(
            method, self._server.url + path, json=body, timeout=300, **options
        )
        if not response.ok:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")
        if parse and response.headers.get("content-type", "").startswith("application/json"):
            return response.json()
        return response.content

    def upload(self, path: Path) -> str:
        """Upload a data file; return its id."""
        with path.open("rb") as file:
            dataset = self("POST", f"/v1/datasets?name={path.name}", data=file)
        return str(dataset["id"])

    def figure(self, name: str) -> float:
        """Return a figure of `/metrics`."""
        lines = self("GET", "/metrics").decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def trials(self, study: str) -> list[dict[str, Any]]:
        """Return all trials of a study."""
        found: list[dict[str, Any]] = []
        more = ""
        while True:
            page = self("GET", f"/v1/studies/{study}/trials?limit=1000{more}")
            found += page["items"]
            if page["next"] is None:
                return found
            more = f"&cursor={page['next']}"

    def wait(self, study: str, limit_s: float = 600.0) -> dict[str, Any]:
        """Wait until a study has ended; return it."""
        give_up = time.monotonic() + limit_s
        while time.monotonic() < give_up:
            found: dict[str, Any] = self("GET", f"/v1/studies/{study}")
            if found["state"] in ("done", "failed", "cancelled"):
                return found
            time.sleep(0.5)  # each look costs the server a few milliseconds
        raise TimeoutError(f"{study} is {found['state']}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--gate", type=Path)
    options = vars(parser.parse_args())
    gate = options.pop("gate")

    from tuner.executors import LocalExecutor
    from tuner.service import server
    from tuner.service.service import Service
    from tuner.service.settings import Settings

    def start_workers(n: int) -> LocalExecutor:
        while gate is not None and not gate.exists():
            time.sleep(0.02)
        return LocalExecutor(n, module="idle_worker")

    service = Service(Settings(**options), start_workers)
    server.log_to_stderr()
    server.serve(service.settings, service, print)


if __name__ == "__main__":
    main()
