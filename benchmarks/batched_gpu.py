"""Trainings as one batched model on a GPU, against the same ones one by one and in processes.

For every number of members and width: an epoch of all of them with its evaluation, one by one
(cuDNN's LSTM), one by one in several processes that share the GPU (by time slices, or by MPS where
its daemon runs), in a group kernel by kernel, and in a group of which each step is a CUDA graph.
All are timed in one run, on air passengers; the medians of rounds in which the ways take turns
count, those of the processes after all of them have begun.

    python benchmarks/batched_gpu.py [--members 8 32 128] [--units 16 32 64 128 256]
        [--processes 4] [--rounds 5] [--batch 32] [--device cuda]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tuner.data.prepared import prepare
from tuner.experiment import Experiment
from tuner.jobs import TrainJob, train_job
from tuner.training import batched, cuda_graph
from tuner.training.device import describe_device, give_memory_back
from tuner.training.group_member import Member
from tuner.training.samples import Split

ROOT = Path(__file__).parents[1]
ALONE, GROUP, GRAPH = "one by one", "a group", "with graphs"
WARM = 4  # epochs that are not timed: they allocate, and capture
LONGEST_S = 120.0  # that the processes take


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--units", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    many = f"in {options.processes} processes"
    table = Table(title=f"Times as fast as one by one: {describe_device(device)}")
    for name in ("members", "units", f"{ALONE}, ms", many, GROUP, GRAPH):
        table.add_column(name, justify="right")
    for n in options.members:
        for units in options.units:
            with tempfile.TemporaryDirectory() as folder:
                jobs = jobs_of(n, units, options.batch, Path(folder))
                seconds = in_turns(jobs, device, options.rounds)
                give_memory_back()  # graphs and what they hold
                apart = in_processes(jobs, options.device, options.processes, options.rounds)
            alone = seconds.pop(ALONE)
            ways = [apart, seconds[GROUP], seconds.get(GRAPH)]
            shown = ["-" if s is None else f"{alone / s:.2f}" for s in ways]
            table.add_row(str(n), str(units), f"{1e3 * alone:.1f}", *shown)
    Console(width=100).print(table)


def jobs_of(n: int, units: int, batch: int, folder: Path) -> list[TrainJob]:
    """Return the trainings: of one width, each with its own seed."""
    experiment = Experiment.load(ROOT / "experiments/air_passengers.yaml")
    prepared = prepare(experiment, folder)
    own = {"hidden_size": units, "batch_size": batch, "dropout": 0.2, "normalize": "last"}
    folds = prepared.of(own).folds
    return [train_job(experiment, folds, str(at), own, seed=at) for at in range(n)]


def members_of(jobs: Sequence[TrainJob], device: torch.device) -> list[Member]:
    """Make the models of trainings, on one copy of the data."""
    members = [Member(job) for job in jobs]
    opened = Split(jobs[0].folds[0].with_window(members[0].parameters.window), device)
    for member in members:
        member.prepare(device, opened)
    return members


def one_by_one(members: Sequence[Member]) -> None:
    """Train every member for an epoch, and evaluate it."""
    for member in members:
        member.fit.train_epoch()
        member.fit.evaluate()


def in_turns(jobs: Sequence[TrainJob], device: torch.device, rounds: int) -> dict[str, float]:
    """Return the seconds of an epoch of all members one by one, in a group, and with graphs."""
    alone = members_of(jobs, device)
    ways: dict[str, Callable[[], None]] = {ALONE: lambda: one_by_one(alone)}
    ways[GROUP] = epoch_of(members_of(jobs, device), device, calls=sys.maxsize)
    if cuda_graph.on_gpu(device):
        ways[GRAPH] = epoch_of(members_of(jobs, device), device, calls=1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for r in range(rounds + WARM):
        for name in sorted(ways, reverse=bool(r % 2)):
            begun = time.perf_counter()
            ways[name]()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if r >= WARM:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in times.items()}


def epoch_of(members: Sequence[Member], device: torch.device, *, calls: int) -> Callable[[], None]:
    """Return an epoch of a group with its evaluation, captured after so many steps."""
    group = batched.Group(members, device)

    def epoch() -> None:
        cuda_graph._CALLS_BEFORE = calls
        group.train_epoch()
        score = group.evaluate()
        for at in range(len(members)):
            score(at)

    return epoch


def in_processes(jobs: Sequence[TrainJob], device: str, n: int, rounds: int) -> float:
    """Return the seconds of an epoch of all members, shared among processes."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(n, timeout=LONGEST_S), context.Queue()
    processes = [
        context.Process(
            target=_process, args=(jobs[at::n], device, rounds, barrier, found), daemon=True
        )
        for at in range(n)
    ]
    for process in processes:
        process.start()
    spans = [found.get(timeout=LONGEST_S) for _ in processes]  # of the rounds of each
    for process in processes:
        process.join()
    every = zip(*spans, strict=True)
    return statistics.median(max(e for _, e in r) - min(b for b, _ in r) for r in every)


def _process(
    jobs: Sequence[TrainJob],
    device: str,
    rounds: int,
    barrier: Barrier,
    found: multiprocessing.Queue[list[tuple[float, float]]],
) -> None:
    torch.set_num_threads(1)
    members = members_of(jobs, torch.device(device)) if jobs else []
    spans = []
    for _ in range(rounds + WARM):
        barrier.wait()
        begun = time.monotonic()
        one_by_one(members)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        spans.append((begun, time.monotonic()))
    found.put(spans[WARM:])


if __name__ == "__main__":
    main()
