"""A larger job: ETTh1, 17,420 hourly rows of seven columns, forecasting OT from all of them.

`tuner run` on the file given, for windows of 24 and 48 hours, a horizon of 1, a few random trials
of a few epochs each, in a temporary folder with two workers. Seconds per epoch are the trials'
training time / epochs: two workers share the machine. Memory is the largest resident set,
looked at ten times a second from outside.

    python benchmarks/etth1.py PATH [--trials 4] [--epochs 3] [--workers 2]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from watching import watch

from tuner.experiment import dump_yaml
from tuner.journal.records import StudyRecord, read_study
from tuner.journal.storage import read_journal

WINDOWS = (24, 48)
HEADINGS = ("window", "trial", "hidden", "layers", "batch", "epochs", "s per epoch", "rmse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path, metavar="PATH", help="ETTh1.csv")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    trials = Table(title="ETTh1, trial by trial", title_justify="left")
    for heading in HEADINGS:
        trials.add_column(heading, justify="right")
    whole = Table(title=f"ETTh1, {options.workers} workers", title_justify="left")
    for heading in ("window", "wall, s", "training, s", "efficiency", "s per epoch"):
        whole.add_column(heading, justify="right")
    for heading in ("coordinator, MB", "worker, MB"):
        whole.add_column(heading, justify="right")

    for window in WINDOWS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            file = folder / "etth1.yaml"
            file.write_text(experiment(options.path, window, options.trials, options.epochs))
            command = [sys.executable, "-m", "tuner", "run", str(file)]
            watched = watch([*command, "--workers", str(options.workers)], folder)
            record = read(folder, "etth1-random-0")
        outcomes = [t.outcome for t in record.trained if t.outcome is not None]
        training_s = sum(o.seconds for o in outcomes)
        n_epochs = sum(len(o.history) for o in outcomes)
        whole.add_row(
            str(window),
            f"{watched.wall_s:.1f}",
            f"{training_s:.1f}",
            f"{training_s / (watched.wall_s * options.workers):.2f}",
            f"{training_s / n_epochs:.2f}",
            f"{watched.coordinator_mb:.0f}",
            f"{max(watched.workers_mb.values()):.0f}",
        )
        for trial in record.trained:
            assert trial.outcome is not None
            trials.add_row(
                str(window),
                str(trial.number),
                *(str(trial.params[k]) for k in ("hidden_size", "num_layers", "batch_size")),
                str(len(trial.outcome.history)),
                f"{trial.outcome.seconds / max(1, len(trial.outcome.history)):.2f}",
                "-" if trial.value is None else f"{trial.value:.4f}",
            )
    console = Console(width=110)
    console.print(trials)
    console.print(whole)


def experiment(path: Path, window: int, trials: int, epochs: int) -> str:
    """Return the experiment file."""
    return dump_yaml(
        {
            "name": "etth1",
            "data": {"path": str(path.resolve()), "time": "date", "target": "OT"},
            "task": {"kind": "forecast", "window": window, "horizon": 1},
            "search_space": {
                "hidden_size": {"type": "int", "low": 16, "high": 64, "log": True},
                "num_layers": {"type": "int", "low": 1, "high": 2},
                "batch_size": {"type": "categorical", "choices": [64, 128, 256]},
            },
            "strategy": {"name": "random"},
            "budget": {"trials": trials, "epochs": epochs},
            "pruner": {"name": "none"},
            "finalists": {"top": 0},
        }
    )


def read(folder: Path, study: str) -> StudyRecord:
    location = str(folder / "studies" / f"{study}.journal")
    return read_study(read_journal(location), study, location)


if __name__ == "__main__":
    main()
