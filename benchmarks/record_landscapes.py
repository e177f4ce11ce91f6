"""Records landscapes: every configuration of a finite space, trained on three seeds.

With a landscape the simulated executor answers a search at once with what training came to, so
that strategies can be compared over hundreds of seeds. Each training's validation curve (one
value of the experiment's metric per epoch, in the data's units) and its seconds are kept.

    python benchmarks/record_landscapes.py experiments/air_passengers.yaml [--workers 2]

writes benchmarks/landscapes/NAME.parquet; NAME.yaml beside it is the space, where there is one, and
otherwise search_spaces/lstm_grid.yaml. Interrupted, the same command resumes: what was trained is
in NAME.partial.jsonl until the end. Air passengers and sunspots took about an hour on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from regret import FOLDER, space_of
from rich.progress import track

from tuner.data.prepared import prepare
from tuner.executors import Executor, Finished, LocalExecutor, Lost
from tuner.experiment import Experiment, Override
from tuner.experiment.space import to_distributions
from tuner.jobs import Job, train_job
from tuner.strategies.codec import values_of

SEEDS = (0, 1, 2)
EPOCHS, PATIENCE = 60, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    experiment = Experiment.load(
        options.experiment,
        [
            Override("search_space", str(space_of(options.experiment.stem)), "SPACE"),
            Override("budget.epochs", EPOCHS, "EPOCHS"),
            Override("budget.patience", PATIENCE, "PATIENCE"),
        ],
    )
    FOLDER.mkdir(exist_ok=True)
    partial = FOLDER / f"{experiment.name}.partial.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        record(experiment, Path(folder), partial, options.workers)
    rows = [json.loads(line) for line in partial.read_text().splitlines()]
    names = list(experiment.search_space)
    table = pd.DataFrame(rows).sort_values([*names, "seed"], ignore_index=True)
    table.to_parquet(FOLDER / f"{experiment.name}.parquet", compression="zstd")
    partial.unlink()


def record(experiment: Experiment, folder: Path, partial: Path, n_workers: int) -> None:
    """Train what `partial` does not hold yet, adding a line for each."""
    done = set()
    if partial.exists():
        lines = partial.read_text().splitlines()
        done = {key(row, row["seed"]) for row in map(json.loads, lines)}
    data = prepare(experiment, folder)
    distributions = to_distributions(experiment.search_space)
    grid = itertools.product(*(values_of(d) or [] for d in distributions.values()))
    jobs: dict[str, tuple[Job, dict[str, Any], int]] = {}
    for values in grid:
        params = dict(zip(distributions, values, strict=True))
        for seed in SEEDS:
            if (name := key(params, seed)) not in done:
                job = train_job(experiment, data.folds, name, params, seed)
                jobs[name] = (job, params, seed)
    executor: Executor = LocalExecutor(n_workers)
    try:
        for job, _, _ in jobs.values():
            executor.submit(job)
        with partial.open("a") as file:
            for event in track(ends(executor, jobs), experiment.name, total=len(jobs)):
                _, params, seed = jobs[event.key]
                curve = [round(e.metric, 5) for e in event.outcome.history]
                seconds = round(event.outcome.seconds, 3)
                row = {**params, "seed": seed, "curve": curve, "seconds": seconds}
                file.write(json.dumps(row) + "\n")
                file.flush()
    finally:
        executor.close()


def ends(
    executor: Executor, jobs: dict[str, tuple[Job, dict[str, Any], int]]
) -> Iterator[Finished]:
    """Yield every training's end; one that the machine lost is trained again."""
    left = len(jobs)
    while left:
        for event in executor.poll(1.0):
            if isinstance(event, Lost):
                executor.submit(jobs[event.key][0])
            elif isinstance(event, Finished):
                left -= 1
                yield event


def key(params: dict[str, Any], seed: int) -> str:
    """Name a training."""
    names = sorted(params.keys() - {"seed", "curve", "seconds"})
    return " ".join(f"{name}={params[name]}" for name in names) + f" seed={seed}"


if __name__ == "__main__":
    main()
