"""What the copy in MLflow costs.

    python benchmarks/tracking.py copy [--trials 100]     a finished trial against the bare calls
    python benchmarks/tracking.py growth [--trials 1000]  the last hundred against the first, and
                                                          a sync that has nothing to do
    python benchmarks/tracking.py search                  trials of about 2 s, tracking on and off

Each on SQLite and against an `mlflow server` on loopback, in an empty folder. copy: 10 params, 100
epochs x 3 metrics; bare is `create_run` + `log_batch` + `set_terminated` with the same content, in
turns with ours. search: one worker, from the first dispatch to the last result, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
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
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("copy").add_argument("--trials", type=int, default=100)
    commands.add_parser("growth").add_argument("--trials", type=int, default=1000)
    one = commands.add_parser("search")
    one.add_argument("--trials", type=int, default=12)
    one.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    command = {"copy": copy, "growth": growth, "search": search}[options.command]
    for kind in ("SQLite", "HTTP"):
        with store(kind):
            command(kind, options)


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

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
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


def make_record(n_trials: int, epochs: int = 100) -> Any:
    """Make a study of finished trials without training any."""
    from tuner.experiment import Experiment
    from tuner.jobs import Epoch, Outcome, OutcomeState
    from tuner.search.records import Status, StudyRecord, TrialRecord
    from tuner.search.seeds import Role

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


def copy(kind: str, options: argparse.Namespace) -> None:
    from mlflow.entities import Metric, Param

    from tuner.tracking import SyncState, open_store, sync_study

    client, state = open_store(), SyncState()
    record = make_record(options.trials + 1)
    sync_study(client, first(record, 1), state, running=True, artifacts={})
    experiment_id = client.create_experiment(f"bare-{uuid.uuid4().hex[:6]}")
    ours, bare = [], []
    for n in range(1, options.trials + 1):
        begun = time.perf_counter()
        sync_study(client, first(record, n + 1), state, running=True, artifacts={})
        between = time.perf_counter()
        run = client.create_run(experiment_id)
        metrics = [
            Metric(key, getattr(e, name), int(1000 * e.time), e.epoch)
            for e in record.trials[n].outcome.history
            for key, name in (("train", "train_loss"), ("val", "val_loss"), ("rmse", "metric"))
        ]
        params = [Param(f"p{i}", str(i)) for i in range(10)]
        client.log_batch(run.info.run_id, metrics=metrics, params=params)
        client.set_terminated(run.info.run_id)
        ended = time.perf_counter()
        ours.append(between - begun)
        bare.append(ended - between)
    mean, plain = statistics.fmean(ours), statistics.fmean(bare)
    console.print(
        f"{kind}: a finished trial {1000 * mean:.1f} ms, the bare calls {1000 * plain:.1f} ms: "
        f"{mean / plain:.2f} times (target 1.5)"
    )


def growth(kind: str, options: argparse.Namespace) -> None:
    from tuner.tracking import SyncState, open_store, sync_study

    client, state = open_store(), SyncState()
    record = make_record(options.trials, epochs=20)
    sync_study(client, first(record, 1), state, running=True, artifacts={})
    costs = []
    for n in range(1, options.trials):
        begun = time.perf_counter()
        sync_study(client, first(record, n + 1), state, running=True, artifacts={})
        costs.append(time.perf_counter() - begun)
    sync_study(client, record, state, running=False, artifacts={}, done=True)
    early, late = statistics.fmean(costs[:100]), statistics.fmean(costs[-100:])
    begun = time.perf_counter()
    sync_study(open_store(), record, SyncState(), running=False, artifacts={})
    nothing = time.perf_counter() - begun
    console.print(
        f"{kind}: {options.trials} trials, the first hundred {1000 * early:.1f} ms each, the last "
        f"{1000 * late:.1f} ms: {late / early:.2f} times (target 1.3); nothing to do: "
        f"{nothing:.1f} s (target 5)"
    )


def search(kind: str, options: argparse.Namespace) -> None:
    """Search with and without tracking in turns."""
    from tuner.experiment import Experiment
    from tuner.orchestrator import search as run_search
    from tuner.search.observer import Observer
    from tuner.tracking import MlflowTracker

    class Moments(Observer):
        begun = ended = 0.0

        def dispatched(self, role: Any, number: int, cost: float) -> None:
            self.begun = self.begun or time.perf_counter()

        def finished(self, role: Any, number: int, outcome: Any) -> None:
            self.ended = time.perf_counter()

    rng = np.random.default_rng(0)
    rows = np.sin(np.arange(3000) / 7) + rng.normal(0, 0.1, 3000)
    Path("series.csv").write_text("y\n" + "\n".join(f"{value:.5f}" for value in rows))
    experiment = Experiment.model_validate(
        {
            "name": "tracked",
            "data": {"path": str(Path("series.csv").absolute()), "target": "y"},
            "task": {"window": 24},
            "search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}},
            "strategy": {"name": "random"},
            "budget": {"trials": options.trials, "epochs": 24, "patience": 1000},
            "pruner": {"name": "none"},
            "finalists": {"top": 0},
        }
    )
    times: dict[bool, list[float]] = {False: [], True: []}
    for repeat in range(options.repeats):
        for tracks in (False, True):
            moments = Moments()
            run_search(
                experiment,
                study=f"s{repeat}{tracks}",
                make_tracker=(lambda read: MlflowTracker(read, "s", print)) if tracks else None,
                observer=moments,
                open_test=False,
            )
            times[tracks].append(moments.ended - moments.begun)
    ratios = [on / off for off, on in zip(times[False], times[True], strict=True)]
    off, on = (statistics.median(times[tracks]) for tracks in (False, True))
    console.print(
        f"{kind}: {options.trials} trials without tracking {off:.1f} s, with it {on:.1f} s: "
        f"{100 * (statistics.median(ratios) - 1):+.1f} % (target 3; pairs "
        + ", ".join(f"{100 * (ratio - 1):+.1f}" for ratio in ratios)
        + ")"
    )


if __name__ == "__main__":
    main()
