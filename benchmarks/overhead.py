"""What a trial costs beside its training: (wall time x workers - training time) / trials.

A search of 200 trials with one worker, an objective that does nothing, and everything else real:
coordinator, journal file, pruner, a local worker process that has loaded torch, and MLflow on
SQLite in a temporary folder. Only `run_job` is replaced, in the worker: it reports 20 epochs,
waits for the pruner's answer after each as the trainer does, and returns an outcome whose
objective follows from the configuration. The training time is what the outcomes say.

Each search runs in a process of its own, in which modules are imported and (once a folder)
MLflow's database was created before the clock starts. Finalists are left out; the test part is
opened.

    search     from the call of search() to its return: with the worker's start, MLflow's import
               and the rest of its copy
    trials     from the first job handed out to the last outcome in the journal
    repeats    proposals that had been trained before: journaled, not counted as trials
    appends    writes to the journal per trial, and what each takes: the disk's pace, which
               varies by the minute on a shared machine

The second table divides the search among its parts, per trial, in the thread of each: wall time
without the parts inside it, and the processor's time. Tracking has a thread of its own beside
the coordinator's, so the parts may add up to more than the search.

    python benchmarks/overhead.py [--trials 200] [--repeats 3] [--strategies random tpe pso woa]
    python benchmarks/overhead.py --profile woa      where the time goes, function by function
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import cProfile
import io
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from parts import Parts
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = ROOT / "experiments" / "air_passengers.yaml"
STRATEGIES = ["random", "tpe", "pso", "woa"]
TARGET_MS = 40
APPENDS = "journal: append and fsync"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument("--profile", metavar="STRATEGY")
    # How this script starts itself: for one search, to create MLflow's database.
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--narrow", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-tracking", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--create-store", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.create_store:
        create_store()
    elif options.one:
        tracks = not options.no_tracking
        print(json.dumps(measure(options.one, options.trials, tracks, options.narrow)))
    elif options.profile:
        print(profile(options.profile, options.trials))
    else:
        compare(options.strategies, options.trials, options.repeats)


# One search


def make_executor(n_workers: int) -> Any:
    """Return a LocalExecutor whose workers do nothing."""
    from tuner.executors import LocalExecutor

    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    return LocalExecutor(n_workers, module="idle_worker")


def watch_parts() -> Parts:
    import optuna

    from tuner import orchestrator
    from tuner.coordination import coordinator
    from tuner.data.prepared import DataSource
    from tuner.executors import LocalExecutor
    from tuner.journal.storage import _LockedFile
    from tuner.tracking import tracker

    parts = Parts()
    parts.watch(DataSource, "prepare", "before: data, study, start of the worker")
    parts.watch(DataSource, "baselines", "before: data, study, start of the worker")
    parts.watch(orchestrator, "open_study", "before: data, study, start of the worker")
    parts.watch(sys.modules[__name__], "make_executor", "before: data, study, start of the worker")
    parts.watch(optuna.Study, "ask", "ask")
    parts.watch(coordinator, "ask", "ask")
    parts.watch(optuna.Study, "tell", "tell")
    parts.watch(coordinator.Coordinator, "_tell", "tell")
    parts.watch(_LockedFile, "append_logs", APPENDS)
    parts.watch(_LockedFile, "read_logs", "journal: read back")
    parts.watch(coordinator, "should_prune", "prune")
    parts.watch(LocalExecutor, "poll", "poll: wait for the worker")
    parts.watch(LocalExecutor, "submit", "hand jobs out")
    parts.watch(orchestrator._Run, "trials", "coordinator: the rest")
    parts.watch(orchestrator._Run, "test", "after: test part")
    parts.watch(tracker.MlflowTracker, "close", "after: wait for tracking")
    parts.watch(tracker, "open_store", "tracking: import and open")
    parts.watch(tracker.MlflowTracker, "_sync", "tracking: read the study")
    parts.watch(tracker, "sync_study", "tracking: MLflow")
    return parts


def measure(strategy: str, trials: int, tracks: bool, narrow: bool) -> dict[str, Any]:
    """Run one search in the current folder and return its times in seconds."""
    parts = watch_parts()
    wall_s, trials_s, copied, record = search_once(strategy, trials, tracks, narrow)
    training_s = sum(t.outcome.seconds for t in record.trained)
    return {
        "trials": len(record.trained),
        "copied": copied,
        "repeats": len(record.trials) - len(record.trained),
        "search_s": wall_s - training_s,
        "trials_s": trials_s - training_s,
        "wall_s": parts.wall_s,
        "cpu_s": parts.cpu_s,
        "appends": parts.calls[APPENDS],
    }


def search_once(
    strategy: str, trials: int, tracks: bool, narrow: bool = False
) -> tuple[float, float, bool, Any]:
    """Search the experiment's hyperparameters, or one of them if `narrow`, as peers do.

    Returns:
        The search's wall time, that of its trials alone, whether all is copied, and its record.
    """
    import optuna

    from tuner.cli.run import load
    from tuner.coordination.coordinator import Observer
    from tuner.executors import LocalExecutor
    from tuner.journal.storage import Role
    from tuner.orchestrator import search
    from tuner.results.export import study_artifacts
    from tuner.tracking import MlflowTracker
    from tuner.tracking.tracker import TrackingObserver

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    changes = [f"budget.trials={trials}", "finalists.top=0"]
    if narrow:
        changes.append("search_space={dropout: {type: float, low: 0, high: 0.5}}")
    experiment = load(EXPERIMENT, strategy, changes)
    submitted: list[float] = []
    finished: list[float] = []

    class Moments(Observer):
        def finished(self, key, outcome, earlier=False) -> None:
            if key.role is Role.TRIAL:  # the untuned default is trained too
                finished.append(time.perf_counter())

    def submit(self: Any, job: Any, original: Any = LocalExecutor.submit) -> None:
        submitted.append(time.perf_counter())
        original(self, job)

    def warn(text: str) -> None:
        print(text, file=sys.stderr)

    def make_tracker(read: Callable[[], Any]) -> MlflowTracker:
        return MlflowTracker(read, "tuner sync study", warn, study_artifacts)

    tracking = [TrackingObserver(make_tracker)] if tracks else []
    with mock.patch.object(LocalExecutor, "submit", submit):
        begun = time.perf_counter()
        record = search(
            experiment,
            observers=[Moments(), *tracking],
            make_executor=sys.modules[__name__].make_executor,
        )
        ended = time.perf_counter()
    assert len(finished) == len(record.trained) == trials
    copied = all(each.complete for each in tracking)
    return ended - begun, finished[-1] - submitted[0], copied, record


def create_store() -> None:
    from tuner.tracking import open_store

    open_store().search_experiments()


# All of them


def compare(strategies: list[str], trials: int, repeats: int) -> None:
    """Measure every strategy with and without tracking, in turns, and print the tables."""
    results: dict[tuple[str, bool], list[dict[str, Any]]] = collections.defaultdict(list)
    store_s = []
    for _ in range(repeats):
        for strategy in strategies:
            for tracks in (False, True):
                with tempfile.TemporaryDirectory() as folder:
                    if tracks:
                        begun = time.perf_counter()
                        run_self(folder, "--create-store")
                        store_s.append(time.perf_counter() - begun)
                    arguments = ["--one", strategy, "--trials", str(trials)]
                    arguments += [] if tracks else ["--no-tracking"]
                    results[strategy, tracks].append(json.loads(run_self(folder, *arguments)))

    def median(key: tuple[str, bool], value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(1000 * value(r) / r["trials"] for r in results[key])

    console = Console(width=110)
    title = f"Overhead in ms per trial: {trials} trials, one worker, median of {repeats}"
    table = Table(title=title, title_justify="left")
    headings = ("strategy", "tracking", "search", "fastest", "slowest", "trials", "repeats")
    for heading in (*headings, "appends", "ms each", "target", "met"):
        table.add_column(heading, justify="right" if heading != "strategy" else "left")
    for (strategy, tracks), runs in results.items():
        whole = median((strategy, tracks), lambda r: r["search_s"])
        table.add_row(
            strategy,
            "MLflow" if tracks else "none",
            f"{whole:.1f}",
            *(f"{1000 * f(r['search_s'] / r['trials'] for r in runs):.1f}" for f in (min, max)),
            f"{median((strategy, tracks), lambda r: r['trials_s']):.1f}",
            f"{statistics.median(r['repeats'] for r in runs):.0f}",
            f"{statistics.median(r['appends'] / r['trials'] for r in runs):.1f}",
            f"{statistics.median(1000 * r['wall_s'][APPENDS] / r['appends'] for r in runs):.2f}",
            str(TARGET_MS) if tracks else "",
            ("yes" if whole <= TARGET_MS else "NO") if tracks else "",
        )
    console.print(table)
    console.print(
        f"creating MLflow's database, once a folder: {statistics.median(store_s):.1f} s "
        f"(with Python and MLflow's import); it is not in the table\n"
    )

    table = Table(
        title="Parts in ms per trial: wall (processor), with tracking", title_justify="left"
    )
    table.add_column("part")
    for strategy in strategies:
        table.add_column(strategy, justify="right")
    names = dict.fromkeys(n for k, rs in results.items() if k[1] for r in rs for n in r["wall_s"])
    order = ["before", "ask", "tell", "journal", "prune", "hand", "poll", "coord", "after", "track"]
    for name in sorted(names, key=lambda n: [n.startswith(o) for o in order].index(True)):
        cells = []
        for strategy in strategies:
            wall = median((strategy, True), lambda r, n=name: r["wall_s"].get(n, 0.0))
            cpu = median((strategy, True), lambda r, n=name: r["cpu_s"].get(n, 0.0))
            cells.append(f"{wall:.2f} ({cpu:.2f})")
        table.add_row(name, *cells)
    console.print(table)


def run_self(folder: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ended.stdout


def profile(strategy: str, trials: int) -> str:
    """Return the coordinator's and the tracker's profiles of one search."""
    from tuner.tracking.tracker import MlflowTracker

    tracker_profile, follow = cProfile.Profile(), MlflowTracker._run
    coordinator_profile = cProfile.Profile()

    def followed(self: MlflowTracker) -> None:
        tracker_profile.runcall(follow, self)

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        create_store()
        with mock.patch.object(MlflowTracker, "_run", followed):
            coordinator_profile.runcall(search_once, strategy, trials, True)
    text = io.StringIO()
    for name, profiled in (("coordinator", coordinator_profile), ("tracking", tracker_profile)):
        text.write(f"=== {name}, {trials} trials\n")
        for key in ("cumulative", "tottime"):
            pstats.Stats(profiled, stream=text).strip_dirs().sort_stats(key).print_stats(45)
    return text.getvalue()


if __name__ == "__main__":
    main()
