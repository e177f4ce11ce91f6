"""Searches beside those that people would use instead: all peers, all jobs, one command.

    python benchmarks/peers/bench.py install
    python benchmarks/peers/bench.py run --job small large overhead quality --etth1 ETTh1.csv
    python benchmarks/peers/bench.py table --write docs/images

`make bench-peers` does all three. Each peer has an environment of its own, `.venv-NAME` in this
folder or in that of `--environments`, from `requirements-NAME.txt` and the torch of
`constraints.txt`. In a run all peers of a job take turns, and ratios are taken within a run, so
that a busy machine slows them alike; every second run has them in the opposite order. A line of
the results file is one measurement, written when it ends: what is there is not measured again.

MLflow's database is in the folder before the clock starts, for all peers alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ours
import results
from jobs import JOBS, job_of, write_rows
from measuring import Measured, measure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = "ours"
SMALL_ROWS = ROOT / "experiments" / "data" / "air_passengers.csv"


@dataclass(frozen=True)
class Peer:
    """A script in an environment, or `tuner run` in this one."""

    environment: str  # of `requirements-NAME.txt`, or `OURS`
    script: str = ""
    variant: str = ""
    trials: int | None = None  # fewer than the job's, where they take long


TUTORIAL = Peer("tutorial", "tutorial.py", "two")
PEERS: dict[str, dict[str, Peer]] = {
    "small": {
        "tutorial": TUTORIAL,
        "tutorial_single": Peer("tutorial", "tutorial.py", "single"),
        "ours_tpe": Peer(OURS, variant="tpe"),
        "ours_pso": Peer(OURS, variant="pso"),
        "ours_woa": Peer(OURS, variant="woa"),
        "floor": Peer("tutorial", "floor.py"),
        "pyswarms_pso": Peer("swarm", "swarm.py", "pso"),
        "mealpy_woa": Peer("swarm", "swarm.py", "woa"),
        "auto_lstm": Peer("neuralforecast", "auto_lstm.py"),
        "ray_tune": Peer("ray_tune", "ray_tune.py"),
    },
    "large": {
        "tutorial": TUTORIAL,
        "ours_tpe": Peer(OURS, variant="tpe"),
        "ours_segments": Peer(OURS, variant="segments"),
    },
    "overhead": {
        "ours_journal": Peer(OURS, variant="journal"),
        "ours_mlflow": Peer(OURS, variant="mlflow"),
        "optuna_journal": Peer("tutorial", "tutorial.py", "journal"),
        "tutorial": Peer("tutorial", "tutorial.py", "single", trials=100),
        "ray_tune": Peer("ray_tune", "ray_tune.py", trials=30),
    },
    "quality": {
        "tutorial": TUTORIAL,
        "tutorial_pruned": Peer("tutorial", "tutorial.py", "pruned"),
        "ours_tpe": Peer(OURS, variant="tpe"),
        "ours_pso": Peer(OURS, variant="pso"),
    },
}
RUNS = {"small": 3, "large": 3, "overhead": 3, "quality": 10}
MINUTES = {"small": 12.0, "large": 8.0, "overhead": 4.0, "quality": 10.0}
LIMIT_S = 240.0
QUALITY_SHARE = 0.5  # of the tutorial's time, which ours has in `quality`


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    names = sorted({name for peers in PEERS.values() for name in peers})
    for name in ("install", "run", "table"):
        command = commands.add_parser(name)
        command.add_argument("--job", nargs="+", choices=list(JOBS), default=list(JOBS))
        command.add_argument("--peers", nargs="+", choices=names, help="default: all of a job")
        where = command.add_argument
        if name == "table":
            where("--write", type=Path, metavar="DIR", help="where pictures go; default: none")
        else:
            where("--environments", type=Path, default=HERE, metavar="DIR")
        if name != "install":
            where("--results", type=Path, default=HERE / "results.jsonl", metavar="FILE")
            where("--quick", action="store_true", help="the size of a test")
        if name == "run":
            where("--runs", type=int, help="default: 3, of quality 10")
            where("--minutes", type=float, help="for a job; default: 12, 8, 4, 10")
            where("--limit", type=float, default=LIMIT_S, help="seconds of one measurement")
            where("--etth1", type=Path, metavar="PATH", help="ETTh1.csv, for large")
            where("--python", type=Path, help="this one for all peers, instead of environments")
    options = parser.parse_args()
    if options.command == "install":
        for name in environments(options.job, options.peers):
            install(name, options.environments)
    elif options.command == "run":
        for job in options.job:
            run(job, options)
    else:
        print(results.tables(results.read(options.results, options.quick), options))


def chosen(job: str, peers: Sequence[str] | None) -> dict[str, Peer]:
    """Return the peers of a job that were asked for, in their order."""
    return {k: p for k, p in PEERS[job].items() if peers is None or k in peers}


def environments(jobs: Sequence[str], peers: Sequence[str] | None) -> list[str]:
    """Return the environments that jobs need."""
    found = {p.environment: None for job in jobs for p in chosen(job, peers).values()}
    return [name for name in found if name != OURS]


def install(name: str, folder: Path) -> None:
    """Make an environment, unless it is there with what the requirements ask for now."""
    requirements = HERE / f"requirements-{name}.txt"
    environment = folder / f".venv-{name}"
    pinned = "".join(
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
        if line.startswith("torch==") or name != "neuralforecast"  # which asks for older ones
    )
    wanted, mark = pinned + requirements.read_text(), environment / "installed.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    print(f"{environment}: installing", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    constraints = environment / "constraints.txt"
    constraints.write_text(pinned)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(constraints), "-r", str(requirements)], check=True)
    mark.write_text(wanted)


def run(name: str, options: argparse.Namespace) -> None:
    """Measure what is not in the results yet, for as long as the job may take."""
    if name == "large" and options.etth1 is None:
        print("large is left out: say where ETTh1.csv is with --etth1", file=sys.stderr)
        return
    until = time.monotonic() + 60 * (options.minutes or MINUTES[name])
    peers = chosen(name, options.peers)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.csv"
        source = options.etth1 if name == "large" else SMALL_ROWS
        write_rows(name, source, rows)
        store = Path(scratch) / "mlflow.db"
        for number in range(options.runs or RUNS[name]):
            turns = list(peers) if number % 2 == 0 else list(reversed(peers))
            if name == "quality":  # ours has a share of the tutorial's time, so that goes first
                turns.sort(key=lambda each: each != "tutorial")
            for each in turns:
                kept = results.read(options.results, options.quick)
                if results.find(kept, name, each, number) is not None:
                    continue
                if time.monotonic() > until:
                    print(f"{name}: out of time before run {number}, {each}", file=sys.stderr)
                    return
                if not store.exists():
                    create_store(store)
                timeout_s = None
                if name == "quality" and peers[each].environment == OURS:
                    tutorial = results.find(kept, name, "tutorial", number)
                    if tutorial is None or tutorial.get("failed"):
                        continue
                    timeout_s = QUALITY_SHARE * tutorial["wall_s"]
                line = one(name, each, peers[each], number, rows, store, timeout_s, options)
                results.append(options.results, line)
                print(results.sentence(line), file=sys.stderr, flush=True)


def create_store(store: Path) -> None:
    """Create an empty database of MLflow, as the first run in a folder does."""
    code = "import mlflow; mlflow.MlflowClient().search_experiments()"
    environment = clean_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"}
    subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        check=True,
        cwd=store.parent,
        stderr=subprocess.DEVNULL,
    )


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of MLflow and of threads."""
    dropped = ("MLFLOW_", "OMP_", "MKL_", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}


def one(
    name: str,
    peer_name: str,
    peer: Peer,
    number: int,
    rows: Path,
    store: Path,
    timeout_s: float | None,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure one run of one peer in a folder of its own; return a line of the results."""
    job = job_of(name, options.quick)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(store, folder / "mlflow.db")
        shutil.copy(rows, folder / "rows.csv")
        environment = clean_environment()
        if peer.environment == OURS:
            environment["PYTHONPATH"] = str(ROOT)
            command = ours.command(
                job, folder, folder / "rows.csv", peer.variant, number, timeout_s
            )
        else:
            python = options.python or options.environments.resolve() / (
                f".venv-{peer.environment}/bin/python"
            )
            command = [str(python), str(HERE / peer.script), "--job", name, "--seed", str(number)]
            command += ["--file", str(folder / "rows.csv")]
            command += ["--variant", peer.variant] if peer.variant else []
            command += ["--quick"] if options.quick else []
            if peer.trials is not None:
                command += ["--trials", str(min(peer.trials, job.trials))]
        measured = measure(command, folder, environment, options.limit)
        line: dict[str, Any] = {"job": name, "quick": options.quick, "peer": peer_name}
        line |= {"run": number, "load": round(load, 1), **figures(measured)}
        if measured.failed is not None:
            return line | {"failed": measured.failed}
        if peer.environment == OURS:
            return line | ours.result(job, folder, measured.said, measured.began)
        return line | json.loads(measured.said.splitlines()[-1])


def figures(measured: Measured) -> dict[str, Any]:
    """Return what was measured as JSON."""
    return {
        "began": round(measured.began),
        "wall_s": round(measured.wall_s, 3),
        "cpu_s": round(measured.cpu_s, 3),
        "peak_mb": round(measured.peak_mb, 1),
        "largest_mb": round(measured.largest_mb, 1),
        "processes": measured.processes,
    }


if __name__ == "__main__":
    main()
