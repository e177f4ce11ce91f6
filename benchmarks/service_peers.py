"""Other services that give out trials, under the storm of the service's benchmark.

Clients are threads that ask for a trial, and tell its value at once; the server is a process of
its own, with SQLite. Each command prints what it found as JSON.

    python benchmarks/service_peers.py optuna --clients 100 --trials 5
    python benchmarks/service_peers.py vizier --clients 100 --trials 5

Optuna's gRPC proxy is in the environment of the tests. OSS Vizier needs one of its own: see
`requirements-vizier.txt`.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

N_PARAMETERS = 3
_READY = "ready"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--trials", type=int, default=5, help="of each client")
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    peer = PEERS[options.peer]()
    if options.serve:
        peer.serve(int(options.serve[0]), options.serve[1])
        return
    with tempfile.TemporaryDirectory() as folder, _server(options.peer, Path(folder)) as server:
        found = _storm(peer, server.port, options.clients, options.trials, server.process)
    json.dump(found, sys.stdout)


class Optuna:
    """Optuna's gRPC storage proxy before SQLite; each client samples by itself."""

    def serve(self, port: int, file: str) -> None:
        """Run the server."""
        from optuna.storages import get_storage, run_grpc_proxy_server

        storage = get_storage(f"sqlite:///{file}")
        print(_READY, flush=True)
        run_grpc_proxy_server(storage, host="127.0.0.1", port=port)

    def connect(self, port: int) -> None:
        """Create the study, waiting for the server."""
        import optuna
        from optuna.storages import GrpcStorageProxy

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = GrpcStorageProxy(host="127.0.0.1", port=port)
        storage.wait_server_ready(60)
        self._port, self._study = port, optuna.create_study(study_name="storm", storage=storage)

    def client(self, number: int) -> Callable[[], None]:
        """Return what runs a trial of a client."""
        import optuna
        from optuna.storages import GrpcStorageProxy

        storage = GrpcStorageProxy(host="127.0.0.1", port=self._port)
        sampler = optuna.samplers.RandomSampler(seed=number)
        study = optuna.load_study(study_name="storm", storage=storage, sampler=sampler)

        def run() -> None:
            trial = study.ask()
            values = [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(N_PARAMETERS)]
            study.tell(trial, _score(values))

        return run

    def numbers(self) -> list[int]:
        """Return the numbers of the trials that have a value."""
        return [trial.number for trial in self._study.trials if trial.state.name == "COMPLETE"]


class Vizier:
    """OSS Vizier with SQLite and its random search; the server samples."""

    def serve(self, port: int, file: str) -> None:
        """Run the server."""
        from vizier.service import servers

        database = f"sqlite:///{file}"
        server = servers.DefaultVizierServer("127.0.0.1", database_url=database, port=port)
        print(_READY, flush=True)
        server._server.wait_for_termination()

    def connect(self, port: int) -> None:
        """Create the study."""
        from vizier.service import clients
        from vizier.service import pyvizier as vz

        clients.environment_variables.server_endpoint = f"127.0.0.1:{port}"
        config = vz.StudyConfig(algorithm="RANDOM_SEARCH")
        for i in range(N_PARAMETERS):
            config.search_space.root.add_float_param(f"x{i}", 0.0, 1.0)
        goal = vz.ObjectiveMetricGoal.MINIMIZE
        config.metric_information.append(vz.MetricInformation("value", goal=goal))
        self._study = clients.Study.from_study_config(config, owner="o", study_id="storm")

    def client(self, number: int) -> Callable[[], None]:
        """Return what runs a trial of a client."""
        from vizier.service import clients
        from vizier.service import pyvizier as vz

        study = clients.Study.from_resource_name(self._study.resource_name)

        def run() -> None:
            (trial,) = study.suggest(count=1, client_id=f"client-{number}")
            values = [float(value) for value in trial.parameters.values()]
            trial.complete(vz.Measurement({"value": _score(values)}))

        return run

    def numbers(self) -> list[int]:
        """Return the numbers of the trials that have a value."""
        trials = self._study.trials().get()
        return [trial.id for trial in trials if trial.final_measurement is not None]


PEERS: dict[str, Callable[[], Any]] = {"optuna": Optuna, "vizier": Vizier}


def _score(values: list[float]) -> float:
    return sum((value - 0.3) ** 2 for value in values)


class _Server:
    def __init__(self, port: int, process: psutil.Process) -> None:
        self.port, self.process = port, process


@contextmanager
def _server(peer: str, folder: Path) -> Iterator[_Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, peer, "--serve", str(port), str(folder / "peer.db")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    assert process.stdout is not None
    try:
        if process.stdout.readline().strip() != _READY.encode():
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield _Server(port, psutil.Process(process.pid))
    finally:
        process.kill()
        process.wait()


def _storm(peer: Any, port: int, clients: int, trials: int, server: psutil.Process) -> Any:
    """Run all clients at once; return the time, and how many trials came to what."""
    peer.connect(port)
    seconds: list[float] = []
    errors: list[str] = []
    start = threading.Barrier(clients + 1)

    def run(number: int) -> None:
        one = peer.client(number)
        start.wait()
        for _ in range(trials):
            began = time.perf_counter()
            try:
                one()
                seconds.append(time.perf_counter() - began)
            except Exception as error:  # of any of its libraries
                errors.append(f"{type(error).__name__}: {error}"[:200])

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(run, number) for number in range(clients)]
        start.wait()
        cpu, own, began = server.cpu_times(), time.process_time(), time.monotonic()
        for each in running:
            each.result()
        wall = time.monotonic() - began
    after, numbers = server.cpu_times(), peer.numbers()
    return {
        "seconds": wall,
        "server_cpu_s": after.user + after.system - cpu.user - cpu.system,
        "clients_cpu_s": time.process_time() - own,
        "trials_s": seconds,
        "told": len(seconds),
        "there": len(numbers),
        "distinct": len(set(numbers)),
        "errors": errors,
    }


if __name__ == "__main__":
    main()
