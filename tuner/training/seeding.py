"""Randomness: all of a job's draws follow from its seed, and nobody else's are disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Generators", "seeded"]


@dataclass(frozen=True)
class Generators:
    """What draws beside torch's global generator, on the CPU, each for one thing."""

    shuffling: torch.Generator
    """Of the order of the samples, a new one every epoch."""
    unknown: torch.Generator
    """Of the tokens that are read as unknown."""


@contextmanager
def seeded(seed: int, device: torch.device, *, fold: int = 0) -> Iterator[Generators]:
    """Seed torch for the block, and yield generators for what is drawn besides.

    The first fold draws what a job without folds draws, every other one from a seed of its own.
    First weights and dropout can only be drawn from torch's global generator; it is put back
    as it was.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(fold,) if fold else ())
    model_seed, shuffling_seed, unknown_seed = map(int, sequence.generate_state(3))
    with torch.random.fork_rng(
        devices=[] if device.type == "cpu" else [torch.cuda.current_device()]
    ):
        torch.default_generator.manual_seed(model_seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(model_seed)
        yield Generators(
            torch.Generator().manual_seed(shuffling_seed),
            torch.Generator().manual_seed(unknown_seed),
        )
