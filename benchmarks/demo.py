"""The demo as a newcomer meets it: `tuner run experiments/air_passengers.yaml`, two workers.

The command runs in an empty folder, so that it creates MLflow's database too. Its wall time goes
from start to exit: 40 trials, the finalists, the test part and the rest of MLflow's copy. Times
of trials and training come from the journal; efficiency is training time / (wall time x
workers). Memory is the largest resident set, looked at ten times a second from outside, and for
workers also what their outcomes say.

    python benchmarks/demo.py [--repeats 3] [--workers 2]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from watching import watch

from tuner.jobs import Outcome
from tuner.journal.records import Status, TrialRecord, read_study
from tuner.journal.storage import read_journal

EXPERIMENT = Path(__file__).resolve().parent.parent / "experiments" / "air_passengers.yaml"
STUDY = "air_passengers-woa-0"
TARGET_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs = [measure(options.workers) for _ in range(options.repeats)]

    table = Table(title=f"The demo, {options.workers} workers", title_justify="left")
    table.add_column("")
    for i in range(len(runs)):
        table.add_column(f"run {i + 1}", justify="right")
    table.add_column("median", justify="right")
    for name in runs[0]:
        values = [run[name] for run in runs]
        digits = 2 if name.startswith("efficiency") else 1 if name.endswith(", s") else 0
        shown = [f"{value:.{digits}f}" for value in (*values, statistics.median(values))]
        table.add_row(name, *shown)
    console = Console(width=110)
    console.print(table)
    wall_s = statistics.median(run["wall, s"] for run in runs)
    met = "met" if wall_s <= TARGET_S else "NOT MET"
    console.print(f"target: {TARGET_S} s of wall time; {wall_s:.1f} s: {met}")


def measure(workers: int) -> dict[str, float]:
    """Run the demo once."""
    command = [sys.executable, "-m", "tuner", "run", str(EXPERIMENT), "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as name:
        watched = watch(command, Path(name))
        location = str(Path(name) / "studies" / f"{STUDY}.journal")
        record = read_study(read_journal(location), STUDY, location)
    in_trials, finalists = outcomes(record.trained), outcomes(record.finalists)
    trials_training_s = sum(o.seconds for o in in_trials)
    training_s = trials_training_s + sum(o.seconds for o in finalists)
    asked = [t.asked_at for t in record.trained if t.asked_at is not None]
    trials_s = max(o.finished_at for o in in_trials) - min(asked).timestamp()
    resident = sorted(watched.workers_mb.values(), reverse=True)
    return {
        "wall, s": watched.wall_s,
        "of it the trials, s": trials_s,
        "training in trials, s": trials_training_s,
        "training in all, s": training_s,
        "efficiency of the trials": trials_training_s / (trials_s * workers),
        "efficiency in all": training_s / (watched.wall_s * workers),
        "trials trained": len(record.trained),
        "trials pruned": record.count(Status.PRUNED),
        "repeats": len(record.trials) - len(record.trained),
        "epochs in all": sum(len(o.history) for o in (*in_trials, *finalists)),
        "memory, coordinator, MB": watched.coordinator_mb,
        **{f"memory, worker {i + 1}, MB": mb for i, mb in enumerate(resident[:workers])},
        "memory, workers' own word, MB": max(o.peak_memory_mb for o in in_trials),
    }


def outcomes(trials: Iterable[TrialRecord]) -> list[Outcome]:
    return [t.outcome for t in trials if t.outcome is not None]


if __name__ == "__main__":
    main()
