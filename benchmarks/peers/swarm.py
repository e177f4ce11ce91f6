"""Swarms of packages around the tutorial's training: a swarm of 20, MLflow.

Variants:
    pso  the global-best optimizer of pyswarms, which spreads its particles over processes
    woa  OriginalWOA of mealpy, which takes one process less than there are cores, at least two:
         on two cores it has one process, and torch its own number of threads

Both search the unit cube, of which `Range.at` makes parameters. Neither keeps a record of its
trials; each training is one run of MLflow, with log_metric every epoch, as in `tutorial.py`.
OptunaHub's PSO and WOA are left out: the hub loads them from GitHub when they are used.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jobs import Job, Windows, answer, arguments, next_number, read_windows

POPULATION = 20
PROCESSES = 2
TRIALS = "trials.jsonl"


def main() -> None:
    job, options = arguments(__doc__, "pso", "woa")
    population = max(5, min(POPULATION, job.trials // 2))  # mealpy refuses fewer
    score = functools.partial(score_at, job, options.file.resolve(), options.seed)
    search = {"pso": search_pso, "woa": search_woa}[options.variant]
    turns = max(2, job.trials // population)
    begins = np.random.default_rng(options.seed).random((population, len(job.space)))
    begins[0] = [r.share(job.start[name]) for name, r in job.space.items()]
    search(score, begins, turns, options.seed)
    found = [json.loads(line) for line in Path(TRIALS).read_text().splitlines()]
    steps = job.steps(len(options.file.read_text().splitlines()) - 1)
    package = "pyswarms" if options.variant == "pso" else "mealpy"
    answer(
        [(each["ended"], each["score"]) for each in found],
        (package, "mlflow", "torch"),
        trials=len(found),
        steps=len(found) * steps,
    )


def search_pso(score: functools.partial, begins: np.ndarray, turns: int, seed: int) -> None:
    """Search with pyswarms, with the coefficients of its examples."""
    import pyswarms

    size, dims = begins.shape

    np.random.seed(seed)  # noqa: NPY002 - the generator that pyswarms draws from
    optimizer = pyswarms.single.GlobalBestPSO(
        n_particles=size,
        dimensions=dims,
        options={"c1": 0.5, "c2": 0.3, "w": 0.9},
        bounds=(np.zeros(dims), np.ones(dims)),
        init_pos=begins,
    )
    every = functools.partial(score_all, score)
    optimizer.optimize(every, iters=turns, n_processes=PROCESSES, verbose=False)


def search_woa(score: functools.partial, begins: np.ndarray, turns: int, seed: int) -> None:
    """Search with mealpy, whose first epoch follows an evaluation of the whole population."""
    from mealpy import FloatVar
    from mealpy.swarm_based import WOA

    size, dims = begins.shape
    problem = {
        "bounds": FloatVar(lb=(0.0,) * dims, ub=(1.0,) * dims),
        "minmax": "min",
        "obj_func": score,
        "log_to": None,
    }
    optimizer = WOA.OriginalWOA(epoch=turns - 1, pop_size=size)
    spread = {"mode": "process", "n_workers": PROCESSES} if can_spread() else {"mode": "single"}
    optimizer.solve(problem, starting_solutions=begins, seed=seed, **spread)


def can_spread() -> bool:
    """Say whether mealpy takes two processes."""
    return (os.cpu_count() or 1) > PROCESSES


def score_all(score: functools.partial, positions: np.ndarray) -> np.ndarray:
    """Return the scores of several particles."""
    return np.array([score(position) for position in positions])


def score_at(job: Job, file: Path, seed: int, position: Sequence[float]) -> float:
    """Train the configuration at a position of the unit cube; runs in a process of the pool."""
    windows = opened(file, job)
    import mlflow
    from trainer import train

    parameters = {
        name: r.at(float(share))
        for (name, r), share in zip(job.space.items(), position, strict=True)
    }

    def log(epoch: int, loss: float, score: float) -> None:
        mlflow.log_metric("train_loss", loss, step=epoch)
        mlflow.log_metric("val_rmse", score, step=epoch)

    with mlflow.start_run():
        mlflow.log_params(parameters)
        score = train(job, windows, parameters, seed + next_number(file.parent), log)
        mlflow.log_metric("score", score)
    with Path(TRIALS).open("a") as kept:
        kept.write(json.dumps({"ended": time.time(), "score": score}) + "\n")
    return score


_OPENED: dict[str, Windows] = {}


def opened(file: Path, job: Job) -> Windows:
    """Return the windows, made once in each process, which then has opened MLflow as well."""
    if job.name not in _OPENED:
        import multiprocessing

        import torch
        from tutorial import open_experiment

        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)
        open_experiment()
        _OPENED[job.name] = read_windows(job, file)
    return _OPENED[job.name]


if __name__ == "__main__":
    main()
