"""What a model with attention looked at: the weight of every step, as a table and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Attention"]


@dataclass(frozen=True, eq=False)
class Attention:
    """How much every step of every sample counted."""

    samples: list[str]  # what people call them: a series and a time, or the id of a sequence
    weights: np.ndarray  # (samples, steps); a row adds up to 1, and is nan behind a sequence's end

    def write(self, folder: Path) -> None:
        """Write `attention.csv` and `attention.png` into an existing folder."""
        import pandas as pd

        columns = [f"step {i}" for i in range(1, self.weights.shape[1] + 1)]
        index = pd.Index(self.samples, name="sample")
        table = pd.DataFrame(self.weights, columns=columns, index=index)
        table.to_csv(folder / "attention.csv", float_format="%.6g")
        _draw(self.weights, folder / "attention.png")


def _draw(weights: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    steps = np.arange(1, weights.shape[1] + 1)
    low, middle, high = np.nanquantile(weights, [0.25, 0.5, 0.75], axis=0)
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(steps, low, high, alpha=0.25, linewidth=0, label="quartiles")
    axes.plot(steps, middle, marker=".", label="median")
    axes.set(xlabel="step", ylabel="weight", title="What the attention looks at")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
