"""Random numbers that depend on their key alone: (seed, role, numbers...).

Whoever needs random numbers names what they are for. Nothing is drawn from a shared stream, so
neither the order of the calls nor a restart can change a number.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["generator", "new_seed", "seed32"]


def generator(seed: int, role: str, *key: int | str) -> np.random.Generator:
    """Return the generator of this key; equal keys give equal generators."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, role, *key)))


def seed32(seed: int, role: str, *key: int | str) -> int:
    """Return this key's seed below 2**32, for libraries that take no generator."""
    return int(_sequence(seed, role, *key).generate_state(1)[0])


def new_seed() -> int:
    """Return a seed that nobody chose."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def _sequence(seed: int, role: str, *key: int | str) -> np.random.SeedSequence:
    # Hashed, because SeedSequence itself does not keep lists such as [2**32] and [0, 1] apart.
    digest = hashlib.sha256(repr((int(seed), role, *key)).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest))
