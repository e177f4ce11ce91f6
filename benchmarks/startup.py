"""How long the command line takes to start.

Each command runs as a process of its own in an empty folder, from start to exit, output thrown
away; the commands take turns, so that a busy machine slows them all alike, and the median of the
rounds counts. Python itself and `import torch` stand beside them for scale. That `tuner check`
does not import torch is asserted from `python -X importtime`.

    python benchmarks/startup.py [--rounds 7]
"""

from __future__ import annotations

import argparse
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
    rounds = parser.parse_args().rounds

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
