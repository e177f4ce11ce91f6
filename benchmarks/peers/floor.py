"""The floor: the arithmetic of a job's training in two processes, with nothing around it.

The same models, batches and steps as in `trainer.py`, but tensors are sliced instead of loaded,
Adam is one fused kernel, and nothing is logged, stored or asked: configurations are drawn at
random, all but the first. What a search takes longer is what it costs.
"""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
from jobs import CLIP, Job, Windows, answer, arguments, read_windows

PROCESSES = 2


def main() -> None:
    job, options = arguments(__doc__)
    others = []
    if options.part is None:
        command = [sys.executable, *sys.argv]
        others = [
            subprocess.Popen([*command, "--part", str(part)], stdout=subprocess.PIPE, text=True)
            for part in range(1, PROCESSES)
        ]
    part = options.part or 0
    imports = time.perf_counter()
    import torch

    torch.set_num_threads(1)
    windows = read_windows(job, options.file)
    begun = time.perf_counter()
    rng = np.random.default_rng(options.seed)
    configurations = [
        {name: r.at(rng.random()) for name, r in job.space.items()} for _ in range(job.trials)
    ]
    configurations[0] = dict(job.start)
    ended = []
    for number in range(part, job.trials, PROCESSES):
        score = train(job, windows, configurations[number], options.seed + number)
        ended.append((time.time(), score))
    trained = time.perf_counter() - begun
    for other in others:
        said, _ = other.communicate()
        if other.returncode:
            raise SystemExit("a process failed")
        time_and_scores, seconds = read(said)
        ended += time_and_scores
        trained += seconds
    if part:
        print(repr((ended, trained)))
        return
    steps = job.trials * job.steps(
        len(windows.x) + job.validation + job.test + job.window + job.horizon - 1
    )
    answer(
        ended,
        ("torch",),
        trials=job.trials,
        steps=steps,
        training_s=trained,
        imports_s=begun - imports,
    )


def read(said: str) -> tuple[list[tuple[float, float]], float]:
    """Return what another process of this script printed: its trials and its seconds."""
    import ast

    return ast.literal_eval(said.splitlines()[-1])


def train(job: Job, windows: Windows, parameters: dict[str, float | int], seed: int) -> float:
    """Train one configuration, and return the score of its best epoch."""
    import torch
    from torch import nn
    from trainer import make_model

    torch.manual_seed(seed)
    x, y = torch.from_numpy(windows.x), torch.from_numpy(windows.y)
    val_x, val_y = torch.from_numpy(windows.val_x), torch.from_numpy(windows.val_y)
    model = make_model(job, parameters)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=float(parameters["learning_rate"]), fused=True
    )
    criterion = nn.MSELoss()
    best = float("inf")
    for _ in range(job.epochs):
        model.train()
        for batch in torch.randperm(len(x)).split(job.batch_size):
            optimizer.zero_grad()
            criterion(model(x[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=False)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            squared = sum(
                ((model(inputs) - targets) ** 2).mean(dim=1).sum(dim=0)
                for inputs, targets in zip(val_x.split(1024), val_y.split(1024), strict=True)
            )
        best = min(best, windows.rmse((squared / len(val_x)).numpy()))
    return best


if __name__ == "__main__":
    main()
