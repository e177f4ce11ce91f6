"""How long a trained model takes to predict one sample."""

from __future__ import annotations

import statistics
import time

import torch

from tuner.training.fit import Fit
from tuner.training.translator import translate

__all__ = ["latency_ms"]

_REPEATS = 15
_MOST_S = 0.1  # that measuring takes, but for the first two


@torch.inference_mode()
def latency_ms(fit: Fit) -> float:
    """Return the median of some predictions of the first scored sample, in milliseconds.

    In torch, a batch of one on the device that trained: an exported model is quicker. What the
    weights are plays no role. Nothing random is drawn.
    """
    model = fit.trained
    model.eval()
    x, lengths = fit.samples.inputs(fit.scored_index[:1])
    took: list[float] = []
    while len(took) < _REPEATS and (len(took) < 2 or sum(took) < _MOST_S):
        begun = time.perf_counter()
        if fit.samples.prefix(fit.scored_index[:1]) is None:
            model(x, lengths)
        else:
            translate([model], fit.samples, fit.scored[:1], fit.parameters.beam)
        if fit.device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - begun)
    return 1000 * statistics.median(took[1:])  # the first one warms up
