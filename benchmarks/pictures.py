"""Draws regret against trials: medians as lines, quartiles as bands."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from functions import FUNCTIONS
from PIL import Image
from regret import BUDGETS, LANDSCAPES, N_EVALUATIONS, NAMES, VARIANTS, is_swarm

from tuner.strategies import STRATEGIES

mpl.use("agg")
from matplotlib import pyplot as plt

COLOURS = dict(zip(STRATEGIES, plt.get_cmap("tab10").colors * 2, strict=False))
COLOURS |= {variant: COLOURS[name] for variant, (name, _) in VARIANTS.items()}
DOTS_PER_INCH = 90
_FIRST = 8


def draw_all(results: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Draw what there are results of; yields every file that was written."""
    folder.mkdir(parents=True, exist_ok=True)
    swarms = [n for n in NAMES if is_swarm(n)]
    others = [n for n in NAMES if n not in swarms]
    places = {"anywhere": "anywhere", "centre": "in the centre", "quarter": "at a quarter point"}
    panels = {
        f"{problem}: {what}": {n: results.get(f"{n}|{problem}|-|{BUDGETS[-1]}") for n in names}
        for what, names in (("swarms", ["random", "tpe", *swarms]), ("others", others))
        for problem in LANDSCAPES
    }
    path = folder / "strategies-landscapes.png"
    yield from draw(panels, (2, 2), path, "regret (rmse)", "landscapes")
    panels = {
        function: {n: results.get(f"{n}|{function}|anywhere|{N_EVALUATIONS}") for n in NAMES}
        for function in FUNCTIONS
    }
    yield from draw(panels, (2, 2), folder / "strategies-functions.png", "error", "functions")
    panels = {
        f"sphere, optimum {where}": {
            n: results.get(f"{n}|sphere|{place}|{N_EVALUATIONS}")
            for n in NAMES
            if f"{n}|sphere|centre|{N_EVALUATIONS}" in results
        }
        for place, where in places.items()
    }
    yield from draw(panels, (1, 3), folder / "strategies-places.png", "error", "places")


def draw(
    panels: dict[str, dict[str, Any]], shape: tuple[int, int], path: Path, label: str, kind: str
) -> Iterator[Path]:
    if not any(result for panel in panels.values() for result in panel.values()):
        return
    height = 3.4 * shape[0] + 0.4
    figure, axes = plt.subplots(
        *shape, figsize=(10, height), layout="constrained", sharey=kind == "places"
    )
    for axis, (title, panel) in zip(axes.flat, panels.items(), strict=True):
        for name, result in panel.items():
            if result:
                curve(axis, name, np.array(result["regret"]))
        axis.set(title=title.replace("_", " "), xlabel="trials")
        axis.set_yscale("linear" if kind == "landscapes" else "log")
        if kind == "landscapes":  # what the first few trials come to is chance
            tops = [np.median(r["regret"], axis=0)[_FIRST] for r in panel.values() if r]
            axis.set_ylim(0, 1.1 * max(tops, default=1.0))
        axis.grid(alpha=0.3)
    for axis in axes.flat[:: shape[1]]:
        axis.set_ylabel(label)
    handles = {
        text: handle
        for axis in axes.flat
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=7, frameon=False
    )
    image = io.BytesIO()
    figure.savefig(image, dpi=DOTS_PER_INCH)
    plt.close(figure)
    Image.open(image).convert("RGB").quantize(128).save(path, optimize=True)
    yield path


def curve(axis: Any, name: str, rows: np.ndarray) -> None:
    """Draw a strategy's median and quartiles; `rows` is (seeds, trials)."""
    low, median, high = np.percentile(rows, [25, 50, 75], axis=0)
    trials = np.arange(1, rows.shape[1] + 1)
    dash = "--" if name in VARIANTS else "-"
    axis.plot(trials, median, dash, color=COLOURS[name], label=name, linewidth=1.5)
    axis.fill_between(trials, low, high, color=COLOURS[name], alpha=0.08, linewidth=0)
