"""Some of very many: random ones, for every k-th of rows with a season says the same hour."""

from __future__ import annotations

import numpy as np

__all__ = ["some_of"]

_SEED = 20_240_607  # what is taken follows from how many there are, and from nothing else


def some_of(n: int, most: int, classes: np.ndarray | None = None) -> np.ndarray:
    """Return which of `n` are taken where there may be `most`: rising, the same each time.

    Args:
        n: how many there are.
        most: how many are taken of more; at least one is.
        classes: of each, (n,): every class that there is keeps one, though that be more in all.

    Returns:
        Their places, int64; all of them where there are no more than `most`.
    """
    if n <= (most := max(1, most)):
        return np.arange(n)
    order = np.random.default_rng([_SEED, n]).permutation(n)
    if classes is None:
        return np.sort(order[:most])
    _, firsts = np.unique(classes[order], return_index=True)  # of each class, in the order
    return np.sort(order[np.union1d(np.arange(most), firsts)])
