"""How long the command line takes to start, and a search until its first trial trains.

Each command runs as a process of its own in an empty folder, from start to exit, output thrown
away; the commands take turns, so that a busy machine slows them all alike, and the median of the
rounds counts. Python itself and `import torch` stand beside them for scale. That `tuner check`
does not import torch is asserted from `python -X importtime`.

A search of two trials on two workers runs in turn with forked workers, as `tuner run` has them, and
with workers that are started when there is a job for them, as on other systems than Linux. The
delay is from the first dispatched trial, when the data is ready, to the end of its first epoch.

    python benchmarks/startup.py [--rounds 7]
    python benchmarks/startup.py --searches [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENT = str(ROOT / "experiments" / "air_passengers.yaml")
TUNER = str(Path(sys.executable).parent / "tuner")

COMMANDS: dict[str, tuple[list[str], float | None]] = {  # with the target in seconds
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "tuner --help": ([TUNER, "--help"], 0.3),
    "tuner check air_passengers.yaml": ([TUNER, "check", EXPERIMENT], 1.5),
    'python -c "import torch"': ([sys.executable, "-c", "import torch"], None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--searches", action="store_true", help="the first trial of a search")
    options = parser.parse_args()
    if options.searches:
        searches(options.rounds)
    else:
        commands(options.rounds)


def commands(rounds: int) -> None:
    """Time commands, and print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for command, _ in COMMANDS.values():  # once, so that every file is in the page cache
            run(command, folder)
        for _ in range(rounds):
            for name, (command, _) in COMMANDS.items():
                seconds[name].append(run(command, folder))
        check = [sys.executable, "-X", "importtime", "-m", "tuner", "check", EXPERIMENT]
        imported = imports_of(check, folder)
    assert "pandas" in imported, "importtime could not be read"
    assert "torch" not in imported, "tuner check imports torch"

    bare = statistics.median(seconds["python -c pass"])
    table = Table(title=f"Start-up, median of {rounds} rounds", title_justify="left")
    for heading in ("command", "seconds", "fastest", "slowest", "x python", "target", "met"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for name, (_, target) in COMMANDS.items():
        median = statistics.median(seconds[name])
        table.add_row(
            name,
            f"{median:.2f}",
            f"{min(seconds[name]):.2f}",
            f"{max(seconds[name]):.2f}",
            f"{median / bare:.1f}",
            f"{target:.1f}" if target else "",
            ("yes" if median <= target else "NO") if target else "",
        )
    console = Console(width=100)
    console.print(table)
    console.print(f"tuner check imports {len(imported)} modules, torch is not among them")


STARTED = "import tuner.template; tuner.template.can_fork = lambda: False"
WAYS = {"started": f"{STARTED}; ", "forked": ""}  # before `tuner`


def searches(rounds: int) -> None:
    """Time the first trials of searches, and print the table."""
    delays: dict[str, list[float]] = {way: [] for way in WAYS}
    wholes: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            delay, whole = first_trial(way)
            delays[way].append(delay)
            wholes[way].append(whole)
    table = Table(title=f"First trial, median of {rounds} rounds", title_justify="left")
    table.add_column("workers")
    for heading in ("s after the data", "fastest", "slowest", "s after the command", "target"):
        table.add_column(heading, justify="right")
    for way in WAYS:
        table.add_row(
            way,
            f"{statistics.median(delays[way]):.2f}",
            f"{min(delays[way]):.2f}",
            f"{max(delays[way]):.2f}",
            f"{statistics.median(wholes[way]):.2f}",
            "0.5" if way == "forked" else "",
        )
    console = Console(width=100)
    console.print(table)
    of_delays, of_wholes = (
        statistics.median(s / f for s, f in zip(of["started"], of["forked"], strict=True))
        for of in (delays, wholes)
    )
    console.print(f"started / forked: {of_delays:.1f} after the data, {of_wholes:.2f} in all")


def first_trial(way: str) -> tuple[float, float]:
    """Return seconds to the end of the first epoch: from the first dispatch, from the command."""
    code = f"{WAYS[way]}from tuner.cli.app import main; main()"
    options = ["--trials", "2", "--workers", "2", "--no-tracking", "--json"]
    fixed = ["--set", "finalists.top=0", "--set", "budget.epochs=3"]
    command = [sys.executable, "-c", code, "run", EXPERIMENT, *options, *fixed]
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        ended = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    moments: dict[str, float] = {}
    for event in map(json.loads, ended.stdout.splitlines()):
        moments.setdefault(event["event"], event["time"])
    return moments["epoch"] - moments["dispatched"], moments["epoch"] - begun


def run(command: list[str], folder: str) -> float:
    """Run a command and return its wall time in seconds."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def imports_of(command: list[str], folder: str) -> set[str]:
    """Return the modules that a command run under `-X importtime` imports."""
    ended = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


if __name__ == "__main__":
    main()
