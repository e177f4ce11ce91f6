"""What training costs beside the least that torch could do.

An epoch of ours is measured beside the same epoch of a bare loop: `nn.LSTM` over batches that
were cut out beforehand, with the same optimizer and clipping, and a forecast of the validation
windows with their loss and RMSE. So is a step beside one of that loop, and beside forwards and
backwards alone; and what a step does after them, clipping and the optimizer. A peephole layer,
forwards and backwards, stands beside `nn.LSTM`. So does an epoch of windows of 96 that are read in
segments of 24 beside one of the same windows step by step: one column, 96 rows ahead, 64 units,
batches of 256. (In batches of 32 what a step of the optimizer costs whatever it computes hides half
of the gain.) Both sides take turns on one thread, the time is that of the thread alone, and the
medians count, so that a busy machine hardly changes the ratios.

The memory is that of a process of its own: its peak while it opens a million rows, indexes all
windows and gathers each of them once, above what it held with all imports done; divided by the
size of the array of inputs. The targets are a file of their own, and count.

    python benchmarks/training.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from tuner.data import SeriesRef, Shape
from tuner.experiment.hyperparameters import Hyperparameters
from tuner.jobs import TrainJob
from tuner.training.device import Generators
from tuner.training.model import Model
from tuner.training.optimizers import JoinedSteps, make_steps, trained_weights
from tuner.training.recurrent import PeepholeLSTM
from tuner.training.samples import Windows, split
from tuner.training.trainer import Fit

CPU = torch.device("cpu")
FEATURES, BATCH = 8, 32
STEPS = 20  # that are timed together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory-of", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print(windowing_growth(Path(options.memory_of)))
        return

    table = Table(title=f"Medians of {options.rounds} rounds", title_justify="left")
    for heading in ("what", "bare", "ours", "ratio", "target", "met"):
        table.add_column(heading, justify="left" if heading == "what" else "right")

    def add(what: str, bare: float, ours: float, target: float, unit: str) -> None:
        ratio = ours / bare
        cells = f"{bare:.3f} {unit}", f"{ours:.3f} {unit}", f"{ratio:.2f}", f"{target:.2f}"
        table.add_row(what, *cells, "yes" if ratio <= target else "NO")

    for units, layers in ((16, 1), (64, 2)):
        for steps in (12, 96):
            with tempfile.TemporaryDirectory() as folder:
                both = epochs(Path(folder), units, layers, steps)
                bare, ours = compare(*both, options.rounds)
            add(f"epoch, {units} units x {layers}, {steps} steps", bare, ours, 1.0, "ms")
    for what, target, both in steps_of(16, 12):
        bare, ours = compare(*both, 4 * options.rounds)
        add(f"step, {what}", bare / STEPS, ours / STEPS, target, "ms")
    for steps in (12, 96):
        bare, ours = compare(*layers_of(64, steps), 4 * options.rounds)
        add(f"peephole layer, 64 units, {steps} steps", bare, ours, 4.0, "ms")
    with tempfile.TemporaryDirectory() as folder:
        by_step, by_segment = compare(*segment_epochs(Path(folder)), options.rounds)
    add("epoch, 96 steps, bare, and in segments of 24", by_step, by_segment, 1 / 8, "ms")
    add("windows of 96 over 1,000,000 x 8", *windowing_memory(), 1.3, "MB")
    Console(width=100).print(table)


def compare(
    bare: Callable[[], object], ours: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """Return the median milliseconds of this thread for both, which take turns."""
    times: dict[Callable[[], object], list[float]] = {bare: [], ours: []}
    for r in range(rounds + 2):
        for function in (bare, ours) if r % 2 else (ours, bare):
            begun = time.thread_time()
            function()
            if r >= 2:  # the first ones import and allocate
                times[function].append(1000 * (time.thread_time() - begun))
    return statistics.median(times[bare]), statistics.median(times[ours])


# An epoch


def epochs(folder: Path, units: int, layers: int, steps: int) -> tuple[Callable[[], object], ...]:
    """Return an epoch of the bare loop, and one of ours."""
    data = write(folder, 1500, window=steps)
    parameters = Hyperparameters(hidden_size=units, num_layers=layers, batch_size=BATCH)
    job = TrainJob("job", {}, 0, epochs=1, patience=1, metric="rmse", folds=(data,))
    fit = Fit(job, parameters, data, CPU, generators())

    windows = fit.samples
    batches = [
        (windows.inputs(batch)[0].clone(), windows.targets(batch).clone())
        for batch in split(fit.train_index, BATCH)
    ]
    seen, truth = windows.inputs(fit.scored_index)[0].clone(), windows.targets(fit.scored_index)
    lstm, head = nn.LSTM(FEATURES, units, layers, batch_first=True), nn.Linear(units, 1)
    weights = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=parameters.learning_rate, fused=True)

    def bare() -> float:
        total = 0.0
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.mse_loss(head(lstm(x)[1][0][-1]).unsqueeze(2), y)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(weights, parameters.gradient_clip, foreach=False)
            optimizer.step()
            total += loss.item() * len(x)
        with torch.inference_mode():
            forecast = head(lstm(seen)[1][0][-1]).unsqueeze(2)
            total += nn.functional.mse_loss(forecast, truth).item()
            error = forecast.double().numpy() - fit.truth
        return total + float(np.sqrt(np.square(error).mean()))

    def ours() -> tuple[float, ...]:
        return (fit.train_epoch(), *fit.evaluate())

    return bare, ours


def steps_of(units: int, steps: int) -> list[tuple[str, float, tuple[Callable[[], object], ...]]]:
    """Return pairs of functions of `STEPS` steps of batches of 16, bare and ours.

    Each has a name and the target of its ratio: a step as in the bare loop of an epoch; forwards
    and backwards alone; and what comes after them, in both.
    """
    x, y = torch.randn(16, steps, FEATURES), torch.randn(16, 1, 1)
    parameters = Hyperparameters(hidden_size=units)
    model = Model(parameters, Shape("forecast", FEATURES)).train()
    taken = make_steps(model, parameters)
    lstm, head = nn.LSTM(FEATURES, units, batch_first=True), nn.Linear(units, 1)
    weights = [*lstm.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, fused=True)

    def gradients() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(head(lstm(x)[1][0][-1]).unsqueeze(2), y)
        torch.autograd.backward(loss)

    def update() -> None:
        nn.utils.clip_grad_norm_(weights, parameters.gradient_clip, foreach=False)
        optimizer.step()

    def bare() -> None:
        gradients()
        update()

    def ours() -> None:
        taken.take(nn.functional.mse_loss(model(x), y))

    held = [weight.detach().clone().requires_grad_() for weight in trained_weights(model)]
    whole = torch.cat([weight.detach().flatten() for weight in held])
    alone = JoinedSteps(held, whole, parameters)
    found = tuple(torch.ones_like(weight) for weight in held)

    def only_update() -> None:
        with patch("torch.autograd.grad", lambda *_, **__: found):
            alone.take(whole)

    def many(function: Callable[[], object]) -> Callable[[], object]:
        return lambda: [function() for _ in range(STEPS)]

    pairs = [
        ("16 units, 12 steps", 1.0, bare, ours),
        ("beside gradients alone", 1.1, gradients, ours),
        ("of it clipping and Adam", 0.5, update, only_update),
    ]
    return [(name, target, (many(one), many(other))) for name, target, one, other in pairs]


def generators() -> Generators:
    """Return generators of a training."""
    return Generators(torch.Generator(), torch.Generator())


def segment_epochs(folder: Path) -> tuple[Callable[[], object], ...]:
    """Return an epoch step by step, and one in segments: last value taken off, 96 rows ahead."""
    data = write(folder, 3000, window=96, features=1, horizon=96)
    found = []
    for segment in (1, 24):
        options = {"hidden_size": 64, "batch_size": 256, "normalize": "last", "segment": segment}
        job = TrainJob("job", options, 0, epochs=1, patience=1, metric="rmse", folds=(data,))
        fit = Fit(job, Hyperparameters(**options), data, CPU, generators())
        found.append(lambda fit=fit: (fit.train_epoch(), *fit.evaluate()))
    return tuple(found)


def write(
    folder: Path, n_rows: int, *, window: int, features: int = FEATURES, horizon: int = 1
) -> SeriesRef:
    """Write a series as the data preparation does: three quarters to train on, then scored."""
    rows = np.random.default_rng(0).normal(size=(n_rows, features)).astype(np.float32)
    np.save(folder / "inputs.npy", rows)
    np.save(folder / "targets.npy", rows[:, :1].copy())
    np.save(folder / "truth.npy", rows[:, :1].astype(np.float64))
    np.save(folder / "known.npy", np.ones(n_rows, bool))
    np.save(folder / "train.npy", [[0, n_rows * 3 // 4]])
    np.save(folder / "evaluate.npy", [[n_rows * 3 // 4, n_rows]])
    np.save(folder / "reach.npy", [[0, n_rows]])
    shape = Shape("forecast", features, horizon=horizon, target_columns=(0,))
    ones = {"offset": (0.0,), "scale": (1.0,)}
    return SeriesRef(str(folder), shape, window=window, longest_window=window, **ones)


# A peephole layer


def layers_of(units: int, steps: int) -> tuple[Callable[[], object], ...]:
    """Return a run forwards and backwards of nn.LSTM, and one of a peephole layer."""
    x = torch.randn(BATCH, steps, FEATURES)

    def run(layer: nn.Module) -> None:
        layer.zero_grad(set_to_none=True)
        outputs, _ = layer(x)
        outputs.sum().backward()

    lstm, peephole = nn.LSTM(FEATURES, units, batch_first=True), PeepholeLSTM(FEATURES, units)
    return lambda: run(lstm), lambda: run(peephole)


# The memory of windows


def windowing_memory() -> tuple[float, float]:
    """Return the megabytes of a million rows, and those of all windows over them."""
    with tempfile.TemporaryDirectory() as folder:
        data = write(Path(folder), 1_000_000, window=96)
        size = data.load("inputs").nbytes / 2**20
        command = [sys.executable, __file__, "--memory-of", folder]
        grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return size, float(grown)


def windowing_growth(folder: Path) -> float:
    """Return how many megabytes this process grows by, at most, when it opens the windows."""
    with tempfile.TemporaryDirectory() as small:
        gather_all(write(Path(small), 1000, window=96))  # so that all code is in memory
    shape = Shape("forecast", FEATURES)
    ones = {"offset": (0.0,), "scale": (1.0,)}
    data = SeriesRef(str(folder), shape, window=96, longest_window=96, **ones)
    before = memory_mb("VmRSS")
    gather_all(data)
    return memory_mb("VmHWM") - before


def memory_mb(name: str) -> float:
    """Return what Linux says of this process's memory: VmRSS is held now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def gather_all(data: SeriesRef) -> None:
    """Index all windows of both parts, and gather each of them once."""
    windows = Windows(data, CPU)
    parts = [windows.index(data.train_samples()), windows.index(data.evaluate_samples())]
    for index in parts:
        for batch in split(index, BATCH):
            windows.inputs(batch)
            windows.targets(batch)


if __name__ == "__main__":
    main()
