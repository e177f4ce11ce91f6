"""Random generators keyed by (seed, role, numbers).

Every use of random numbers has a key. Nothing is drawn from a shared stream, so neither the order
of the calls nor a restart changes a number.
"""

from __future__ import annotations

import hashlib

import numpy as np

_TRAININGS = {"trial": 101, "finalist": 102, "baseline": 104}
_DUPLICATES = 103


def generator(seed: int, role: str, *key: int | str) -> np.random.Generator:
    """Return the generator of this key; equal keys give equal generators."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, role, *key)))


def seed32(seed: int, role: str, *key: int | str) -> int:
    """Return this key's seed below 2**32, for libraries that take no generator."""
    return int(_sequence(seed, role, *key).generate_state(1)[0])


def training_seed(seed: int, role: str, *numbers: int) -> int:
    """Return the seed below 2**32 of a training run; distinct for distinct roles and numbers.

    Args:
        seed: the study's, from 0 on.
        role: trial, finalist or baseline.
        numbers: the trial's number, or the configuration and the repeat.
    """
    return int(np.random.SeedSequence([seed, _TRAININGS[role], *numbers]).generate_state(1)[0])


def duplicate_generator(seed: int, number: int) -> np.random.Generator:
    """Return the generator of the configuration that replaces duplicates at this trial."""
    return np.random.default_rng([seed, _DUPLICATES, number])


def new_seed() -> int:
    """Return a random seed."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def _sequence(seed: int, role: str, *key: int | str) -> np.random.SeedSequence:
    # Hashed, because SeedSequence itself does not keep lists such as [2**32] and [0, 1] apart.
    digest = hashlib.sha256(repr((int(seed), role, *key)).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest))
