"""What the copy in MLflow costs.

    python benchmarks/tracking.py copy [--trials 100]     a finished trial against the bare calls
    python benchmarks/tracking.py growth [--trials 1000]  the last hundred against the first
    python benchmarks/tracking.py nothing [--trials 1000] `tuner sync` that has nothing to do
    python benchmarks/tracking.py search [--waits]        trials of 2 s, tracking on and off

Each on SQLite and against an `mlflow server` on loopback (`--store` takes one of them), in an
empty folder. What is compared is measured in turns, so that a busy machine or disk slows both.

    copy     10 params, 100 epochs x 3 metrics; bare is `create_run` + `log_batch` +
             `set_terminated` with the same content
    growth   20 epochs; two stores, one with nothing and one with all but a hundred trials
    nothing  the command as a whole, in a process of its own; the journal is a real one
    search   one worker, from the first dispatch to the last result, each search in a process of
             its own; with --waits epochs wait instead of calculating, which leaves what the
             coordinator loses, whatever else the machine does

Times are wall times; in brackets those of the processor in this process, where they help: they
are the same on a slow disk.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

console = Console(width=110)
T0 = 1_700_000_000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", choices=["SQLite", "HTTP"])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("copy").add_argument("--trials", type=int, default=100)
    commands.add_parser("growth").add_argument("--trials", type=int, default=1000)
    commands.add_parser("nothing").add_argument("--trials", type=int, default=1000)
    compared = commands.add_parser("search")
    compared.add_argument("--trials", type=int, default=12)
    compared.add_argument("--repeats", type=int, default=3)
    compared.add_argument("--waits", action="store_true")
    one = commands.add_parser("one")  # how `search` starts itself
    one.add_argument("--trials", type=int)
    one.add_argument("--waits", action="store_true")
    one.add_argument("--tracks", action="store_true")
    options = parser.parse_args()
    if options.command == "one":
        print(json.dumps(search_once(options.trials, options.waits, options.tracks)))
        return
    command = {"copy": copy, "growth": growth, "nothing": nothing, "search": search}
    for kind in (options.store,) if options.store else ("SQLite", "HTTP"):
        with store(kind):
            command[options.command](kind, options)


@contextlib.contextmanager
def store(kind: str) -> Iterator[None]:
    """Stand in an empty folder with a store of that kind."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        try:
            if kind == "SQLite":
                yield
            else:
                with server(Path(folder)) as uri:
                    os.environ["MLFLOW_TRACKING_URI"] = uri
                    yield
        finally:
            os.chdir(before)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    import socket

    keeper = socket.socket()  # keeps the port for the server, which binds it with the same option
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port = keeper.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()
        keeper.close()


def make_record(n_trials: int, epochs: int = 100) -> Any:
    """Make a study of finished trials without training any."""
    from tuner.experiment import Experiment
    from tuner.jobs import Epoch, Outcome, OutcomeState
    from tuner.journal.records import Status, StudyRecord, TrialRecord
    from tuner.journal.storage import Role

    experiment = Experiment.model_validate(
        {
            "name": f"copied-{uuid.uuid4().hex[:6]}",
            "data": {"path": "d.csv", "target": "y"},
            "search_space": {"hidden_size": {"type": "int", "low": 1, "high": 8000}},
            "budget": {"trials": n_trials},
        }
    )

    def trial(number: int) -> TrialRecord:
        end = T0 + 200 * (number + 1)
        history = tuple(
            Epoch(e, 1 / (e + 1), 2 / (e + 1), 3 / (e + 1), end - epochs + e + 1)
            for e in range(epochs)
        )
        outcome = Outcome(
            OutcomeState.COMPLETE,
            objective=1.0 + number,
            best_epoch=epochs - 1,
            history=history,
            seconds=float(epochs),
            finished_at=end,
        )
        params = {"hidden_size": 1 + number}
        return TrialRecord(number, Role.TRIAL, params, number, Status.COMPLETE, None, outcome)

    return StudyRecord(
        id=uuid.uuid4().hex,
        name="study",
        experiment=experiment,
        data={"path": "d.csv", "sha256": "0" * 64, "rows": 100},
        baselines={},
        versions={},
        created="2023-11-14T22:00:00+00:00",
        trials=tuple(trial(n) for n in range(n_trials)),
        finalists=(),
        test=None,
    )


def first(record: Any, n: int) -> Any:
    return dataclasses.replace(record, trials=record.trials[:n])


class Stopwatch:
    """Wall time and processor time, summed over its laps."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s, self.laps = 0.0, 0.0, 0

    @contextlib.contextmanager
    def lap(self) -> Iterator[None]:
        """Time what the context does."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall
        self.cpu_s += time.process_time() - cpu
        self.laps += 1

    def __str__(self) -> str:
        wall, cpu = (1000 * total / self.laps for total in (self.wall_s, self.cpu_s))
        return f"{wall:.1f} ms ({cpu:.1f})"

    def against(self, other: Stopwatch) -> str:
        """Say how many times the other's mean lap this one's is."""
        wall = self.wall_s / self.laps * other.laps / other.wall_s
        cpu = self.cpu_s / self.laps * other.laps / other.cpu_s
        return f"{wall:.2f} times ({cpu:.2f})"


def copy(kind: str, options: argparse.Namespace) -> None:
    from mlflow.entities import Metric, Param

    from tuner.tracking import SyncState, open_store, sync_study

    client, state = open_store(), SyncState()
    record = make_record(options.trials + 1)
    sync_study(client, first(record, 1), state, running=True, artifacts={})
    experiment_id = client.create_experiment(f"bare-{uuid.uuid4().hex[:6]}")
    ours, bare = Stopwatch(), Stopwatch()
    for n in range(1, options.trials + 1):
        with ours.lap():
            sync_study(client, first(record, n + 1), state, running=True, artifacts={})
        with bare.lap():
            run = client.create_run(experiment_id)
            metrics = [
                Metric(key, getattr(e, name), int(1000 * e.time), e.epoch)
                for e in record.trials[n].outcome.history
                for key, name in (("train", "train_loss"), ("val", "val_loss"), ("rmse", "metric"))
            ]
            params = [Param(f"p{i}", str(i)) for i in range(10)]
            client.log_batch(run.info.run_id, metrics=metrics, params=params)
            client.set_terminated(run.info.run_id)
    console.print(
        f"{kind}: a finished trial {ours}, the bare calls {bare}: {ours.against(bare)}; target 1.5"
    )


def growth(kind: str, options: argparse.Namespace) -> None:
    from tuner.tracking import SyncState, sync_study

    with contextlib.ExitStack() as stack:
        copies = []
        for n in (1, options.trials - 100):
            record, state = make_record(n + 100, epochs=20), SyncState()
            client = stack.enter_context(another_store(kind))
            sync_study(client, first(record, n), state, running=True, artifacts={})
            copies.append((record, state, client, n, Stopwatch()))
        for k in range(1, 101):
            for record, state, client, n, watch in copies:
                wanted = first(record, n + k)
                with watch.lap():
                    sync_study(client, wanted, state, running=True, artifacts={})
        early, late = (watch for *_, watch in copies)
    console.print(
        f"{kind}: {options.trials} trials, the first hundred {early} each, the last {late}: "
        f"{late.against(early)}; target 1.3"
    )


@contextlib.contextmanager
def another_store(kind: str) -> Iterator[Any]:
    """Open a store that nothing else uses."""
    from tuner.tracking import open_store

    with store(kind):
        yield open_store()


def nothing(kind: str, options: argparse.Namespace) -> None:
    import optuna
    from overhead import make_executor

    from tuner.orchestrator import SearchOptions
    from tuner.orchestrator import search as run_search

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    experiment = make_experiment(options.trials, waits=False)
    run_search(experiment, SearchOptions("s", open_test=False), make_executor=make_executor)
    command = [sys.executable, "-m", "tuner", "sync", "s"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        times.append(time.perf_counter() - begun)
        assert f"0 created, 0 completed, 0 replaced, {options.trials} unchanged" in ended.stdout
    console.print(
        f"{kind}: `tuner sync` of {options.trials} trials with nothing to do: "
        f"{', '.join(f'{t:.1f}' for t in times)} s; target 5"
    )


def make_experiment(n_trials: int, *, waits: bool) -> Any:
    """Make an experiment in the current folder, of trials that take about 2 s."""
    from tuner.experiment import Experiment

    rng = np.random.default_rng(0)
    rows = np.sin(np.arange(3000) / 7) + rng.normal(0, 0.1, 3000)
    Path("series.csv").write_text("y\n" + "\n".join(f"{value:.5f}" for value in rows))
    return Experiment.model_validate(
        {
            "name": "tracked",
            "data": {"path": str(Path("series.csv").absolute()), "target": "y"},
            "task": {"window": 24},
            "search_space": {
                "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2},
                "dropout": {"type": "float", "low": 0.0, "high": 0.5},
            },
            "hyperparameters": {"hidden_size": 32},
            "strategy": {"name": "random"},
            "budget": {"trials": n_trials, "epochs": 20 if waits else 42, "patience": 1000},
            # Asked after every epoch, which the worker waits for, and never in favour.
            "pruner": {"name": "median", "n_startup_trials": 100_000},
            "finalists": {"top": 0, "baseline": False},
        }
    )


def search_once(n_trials: int, waits: bool, tracks: bool) -> dict[str, Any]:
    """Search in the current folder; return the seconds that it and each of its trials took."""
    import optuna
    from overhead import make_executor

    from tuner.coordination.coordinator import Observer
    from tuner.executors import LocalExecutor
    from tuner.orchestrator import SearchOptions
    from tuner.orchestrator import search as run_search
    from tuner.tracking import MlflowTracker
    from tuner.tracking.tracker import TrackingObserver

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    moments: list[tuple[float, float]] = []  # wall and processor

    class Moments(Observer):
        def dispatched(self, key, cost: float) -> None:
            moments[:] = moments or [(time.perf_counter(), time.process_time())]

        def finished(self, key, outcome, earlier=False) -> None:
            moments.append((time.perf_counter(), time.process_time()))

    tracking = [TrackingObserver(lambda read: MlflowTracker(read, "s", print))] if tracks else []
    run_search(
        make_experiment(n_trials, waits=waits),
        SearchOptions(uuid.uuid4().hex, open_test=False),
        [Moments(), *tracking],
        make_executor=make_executor if waits else LocalExecutor,
    )
    search_s, cpu_s = np.subtract(moments[-1], moments[0])
    trials = np.diff(moments[1:], axis=0)
    return {
        "search_s": search_s,
        "cpu_s": cpu_s,
        "trials_s": trials[:, 0].tolist(),
        "trials_cpu_s": trials[:, 1].tolist(),
    }


def search(kind: str, options: argparse.Namespace) -> None:
    """Search with and without tracking in turns."""
    command = [sys.executable, __file__, "one", "--trials", str(options.trials)]
    command += ["--waits"] if options.waits else []
    environment = os.environ | {"IDLE_EPOCH_S": "0.1"}
    runs: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for repeat in range(options.repeats):
        for tracks in (False, True) if repeat % 2 == 0 else (True, False):
            ended = subprocess.run(
                [*command, *(["--tracks"] if tracks else [])],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
            )
            runs[tracks].append(json.loads(ended.stdout))
    off, on = ([run["search_s"] for run in runs[tracks]] for tracks in (False, True))
    pairs = [100 * (b / a - 1) for a, b in zip(off, on, strict=True)]
    trials, cpu = (
        [mean(t for run in runs[tracks] for t in run[key]) for tracks in (False, True)]
        for mean, key in ((statistics.median, "trials_s"), (statistics.fmean, "trials_cpu_s"))
    )
    console.print(
        f"{kind}: {options.trials} trials without tracking {statistics.median(off):.2f} s, with "
        f"it {statistics.median(on):.2f} s: {statistics.median(pairs):+.1f} % (pairs "
        + ", ".join(f"{pair:+.1f}" for pair in pairs)
        + f"); the median trial {trials[0]:.3f} s and {trials[1]:.3f} s: "
        f"{100 * (trials[1] / trials[0] - 1):+.1f} %, of which this process calculates "
        f"{1000 * cpu[0]:.0f} ms and {1000 * cpu[1]:.0f} ms; target 3 %"
    )


if __name__ == "__main__":
    main()
