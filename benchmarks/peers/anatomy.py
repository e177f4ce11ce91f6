"""Where the time of one of our searches goes, part by part: `tuner run` with a watch on it.

    python benchmarks/peers/anatomy.py [--strategy tpe] [--quick]

The small job, as `bench.py` measures it, once: MLflow is on, finalists and the test set are left
out. The parts are those of `benchmarks/overhead.py`, each without those inside it, in the thread
that it runs in: the copy to MLflow has one of its own, beside the coordinator's, and trials train
in two worker processes meanwhile. What is left of the main thread's time is imports and the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench
import ours
from jobs import job_of, write_rows
from results import markdown

OTHER_THREAD = "tracking: "  # parts of the thread that copies to MLflow


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--strategy", default="tpe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the size of a test")
    options = parser.parse_args()
    job = job_of("small", options.quick)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench.create_store(folder / "mlflow.db")
        write_rows("small", bench.SMALL_ROWS, folder / "rows.csv")
        command = ours.command(job, folder, folder / "rows.csv", options.strategy, options.seed)
        with contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
            seconds = watched(command[command.index("tuner") + 1 :])
        found = ours.result(job, folder, "", seconds.began)
        shutil.rmtree(folder / "studies")
    print(f"`{options.strategy}`, {found['trials']} trials, load {load:.1f}:\n")
    print(table(seconds, found))


class Seconds:
    """What was measured: wall and processor seconds of the parts, and of the whole."""

    def __init__(self, parts: Any, began: float, imports_s: float) -> None:
        self.began = began  # seconds since 1970
        self.imports_s = imports_s
        self.wall_s = time.time() - began
        self.parts_wall: dict[str, float] = dict(parts.wall_s)
        self.parts_cpu: dict[str, float] = dict(parts.cpu_s)
        own, workers = (
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        self.own_cpu = own.ru_utime + own.ru_stime
        self.workers_cpu = workers.ru_utime + workers.ru_stime


def watched(arguments: list[str]) -> Seconds:
    """Run a command of tuner in this process, and return where its time went."""
    from tuner.template import workers_expected

    began = time.time()
    sys.path.insert(0, str(bench.ROOT / "benchmarks"))
    with workers_expected():  # which begin beside the imports, as those of the command do
        main_of = imported()
        import overhead

        parts = overhead.watch_parts()
        imports_s = time.time() - began
        sys.argv = ["tuner", *arguments]
        try:
            main_of()
        except SystemExit as ended:
            if ended.code:
                raise
    return Seconds(parts, began, imports_s)


def imported() -> Callable[[], Any]:
    """Import the command line with all that a search needs, and return it."""
    import tuner.cli
    import tuner.cli.run

    return tuner.cli.main


def table(seconds: Seconds, found: dict[str, Any]) -> str:
    """Return where the time went as Markdown: seconds, and shares of the wall time."""
    whole = seconds.wall_s

    def row(name: str, wall: float, cpu: float | None) -> list[str]:
        shown = "" if cpu is None else f"{cpu:.2f}"
        return [name, f"{wall:.2f}", f"{100 * wall / whole:.0f} %", shown]

    names = sorted(seconds.parts_wall)
    inside = [name for name in names if not name.startswith(OTHER_THREAD)]
    rows = [row("imports", seconds.imports_s, None)]
    rows += [row(name, seconds.parts_wall[name], seconds.parts_cpu[name]) for name in inside]
    known = seconds.imports_s + sum(seconds.parts_wall[name] for name in inside)
    rows += [row("the rest of the main thread", whole - known, None)]
    rows += [row("**the search**", whole, seconds.own_cpu)]
    rows += [
        row(f"beside it, {name}", seconds.parts_wall[name], seconds.parts_cpu[name])
        for name in names
        if name not in inside
    ]
    training = found["parts"]["training"] / ours.WORKERS
    rows += [row(f"beside it, training in {ours.WORKERS} workers, each", training, None)]
    rows += [row("first training begins after", found["parts"]["start"], None)]
    rows += [row("workers, processor", 0.0, seconds.workers_cpu)]
    return markdown(["part", "wall, s", "share", "processor, s"], rows)


if __name__ == "__main__":
    main()
