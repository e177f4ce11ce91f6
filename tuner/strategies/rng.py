"""Random generators keyed by (seed, role, numbers), and checks of sampler arguments.

Every use of random numbers has a key. Nothing is drawn from a shared stream, so neither the order
of the calls nor a restart changes a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

__all__ = [
    "duplicate_generator",
    "generator",
    "is_number",
    "new_seed",
    "require",
    "require_int",
    "require_number",
    "seed32",
    "seed_of",
    "training_seed",
]

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
    """Return a seed that nobody chose."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def _sequence(seed: int, role: str, *key: int | str) -> np.random.SeedSequence:
    # Hashed, because SeedSequence itself does not keep lists such as [2**32] and [0, 1] apart.
    digest = hashlib.sha256(repr((int(seed), role, *key)).encode()).digest()
    return np.random.SeedSequence(int.from_bytes(digest))


def require(holds: bool, name: str, rule: str, value: object, default: object = None) -> None:
    """Raise ValueError, naming the constructor's argument, unless the rule holds.

    A rule that another argument sets can be broken by the `default`, which nobody has written:
    the message says so.
    """
    if not holds:
        unwritten = " (its default)" if default is not None and value == default else ""
        raise ValueError(f"{name} must be {rule}, got {value!r}{unwritten}")


def require_int(
    holds: Callable[[int], bool], name: str, rule: str, value: Any, default: int | None = None
) -> None:
    """Raise ValueError unless the value is a whole number for which the rule holds."""
    whole = is_number(value) and isinstance(value, Integral)
    require(whole and holds(value), name, f"a whole number {rule}", value, default)


def require_number(
    holds: Callable[[float], bool], name: str, rule: str, value: Any, default: float | None = None
) -> None:
    """Raise ValueError unless the value is a number for which the rule holds."""
    require(is_number(value) and holds(value), name, rule, value, default)


def is_number(value: object) -> bool:
    """Return whether the value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def seed_of(seed: int | None) -> int:
    """Return the seed, or one that nobody chose for None; raise ValueError for what is none."""
    if seed is None:
        return new_seed()
    require_int(lambda n: n >= 0, "seed", "from 0 on, or None", seed)
    return int(seed)
