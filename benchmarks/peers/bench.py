"""Searches beside those that people would use instead: all peers, all jobs, one command.

    python benchmarks/peers/bench.py install
    python benchmarks/peers/bench.py run --job small large overhead quality --etth1 ETTh1.csv
    python benchmarks/peers/bench.py table --write benchmarks/peers

`make bench-peers` does all three. Each peer has an environment of its own, `.venv-NAME` in this
folder or in that of `--environments`, from `requirements-NAME.txt` and the torch of
`constraints.txt`. In a run all peers of a job take turns, and ratios are taken within a run, so
that a busy machine slows them alike; every second run has them in the opposite order. A line of
the results file is one measurement, written when it ends: what is there is not measured again,
unless it failed, or the code or the peer's packages have changed since.

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
import provenance
import results
from jobs import JOBS, Job, job_of, write_rows
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
    more: int = 0  # trainings after the search, which count


@dataclass(frozen=True)
class Effort:
    """How much of a job is measured."""

    runs: int
    minutes: float  # after which no further measurement begins
    limit_s: float  # of one measurement, which is then ended and counts as that long or longer


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
        "auto_lstm": Peer("neuralforecast", "auto_lstm.py", more=1),
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
EFFORTS = {
    "small": Effort(3, minutes=60, limit_s=900),
    "large": Effort(3, minutes=30, limit_s=900),
    "overhead": Effort(3, minutes=15, limit_s=300),
    "quality": Effort(10, minutes=60, limit_s=900),
}
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
            where("--minutes", type=float, help="for a job; default: 60, 30, 15, 60")
            where(
                "--limit", type=float, help="seconds of a measurement; default: 900, overhead 300"
            )
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
    effort = EFFORTS[name]
    until = time.monotonic() + 60 * (options.minutes or effort.minutes)
    limit_s = options.limit or effort.limit_s
    peers = chosen(name, options.peers)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.csv"
        source = options.etth1 if name == "large" else SMALL_ROWS
        write_rows(name, source, rows)
        store = Path(scratch) / "mlflow.db"
        for number in range(options.runs or effort.runs):
            turns = list(peers) if number % 2 == 0 else list(reversed(peers))
            if name == "quality":  # ours has a share of the tutorial's time, so that goes first
                turns.sort(key=lambda each: each != "tutorial")
            for each in turns:
                kept = results.read(options.results, options.quick)
                state = state_of(peers[each], options)
                if results.find(kept, name, each, number, state, limit_s) is not None:
                    continue
                if time.monotonic() > until:
                    print(f"{name}: out of time before run {number}, {each}", file=sys.stderr)
                    return
                if not store.exists():
                    create_store(store)
                timeout_s = None
                if name == "quality" and peers[each].environment == OURS:
                    there = state_of(TUTORIAL, options)
                    tutorial = results.find(kept, name, "tutorial", number, there)
                    if tutorial is None or tutorial.get("failed"):
                        continue
                    timeout_s = QUALITY_SHARE * tutorial["wall_s"]
                line = one(name, each, number, rows, store, timeout_s, limit_s, options)
                results.append(options.results, line | state)
                print(results.sentence(line), file=sys.stderr, flush=True)


def python_of(peer: Peer, options: argparse.Namespace) -> Path:
    """Return the Python that a peer runs in."""
    if peer.environment == OURS:
        return Path(sys.executable)
    if options.python is not None:
        return Path(options.python)
    folder: Path = options.environments.resolve() / f".venv-{peer.environment}"
    if not (folder / "installed.txt").exists():
        raise SystemExit(f"{folder} is not there: run `bench.py install` with the same options")
    return folder / "bin" / "python"


def state_of(peer: Peer, options: argparse.Namespace) -> dict[str, str]:
    """Return of which code and which packages a measurement would be."""
    packages = provenance.environment(python_of(peer, options))
    return {"code": provenance.code(), "environment": packages}


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
    """Return this process's environment without settings of tuner, of MLflow and of threads."""
    dropped = ("TUNER_", "MLFLOW_", "OMP_", "MKL_", "OPENBLAS_", "GOTO_", "KMP_", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)}


def one(
    name: str,
    peer_name: str,
    number: int,
    rows: Path,
    store: Path,
    timeout_s: float | None,
    limit_s: float,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Measure one run of one peer in a folder of its own; return a line of the results."""
    job, peer = job_of(name, options.quick), PEERS[name][peer_name]
    n_trials = min(peer.trials or job.trials, job.trials)
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
            python = python_of(peer, options)
            command = [str(python), str(HERE / peer.script), "--job", name, "--seed", str(number)]
            command += ["--file", str(folder / "rows.csv"), "--trials", str(n_trials)]
            command += ["--variant", peer.variant] if peer.variant else []
            command += ["--quick"] if options.quick else []
        measured = measure(command, folder, environment, limit_s)
        line: dict[str, Any] = {"job": name, "quick": options.quick, "peer": peer_name}
        line |= {"run": number, "load": round(load, 1), "limit_s": limit_s, **figures(measured)}
        line |= {"commit": provenance.commit(), "asked": n_trials + peer.more}
        if measured.failed is None:
            try:
                return line | found_by(peer, job, folder, measured)
            except (ours.NothingFound, LookupError, ValueError) as error:
                measured.failed = f"no result: {error}"
        return line | {"failed": measured.failed, "over": measured.over}


def found_by(peer: Peer, job: Job, folder: Path, measured: Measured) -> dict[str, Any]:
    """Return what a peer that has ended found.

    Raises:
        NothingFound, LookupError, ValueError: it printed nothing, or no trial of it ended.
    """
    if peer.environment == OURS:
        return ours.result(job, folder, measured.said, measured.began)
    found: dict[str, Any] = json.loads(measured.said.splitlines()[-1])
    return found


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
