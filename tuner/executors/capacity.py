"""How many workers a machine or a node has room for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

__all__ = ["n_cores", "room"]


def n_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many workers fit on a node at a time.

    Args:
        node: what it has, by Ray's names: CPU, GPU.
        cpus: of each worker, above 0.
        gpus: of each worker; a part of one GPU, or a whole number of them.
    """
    by_cpus = math.floor(node.get("CPU", 0) / cpus + 1e-9)  # 7 / 0.07 is below 100
    if not gpus:
        return by_cpus
    has = math.floor(node.get("GPU", 0))
    by_gpus = has // math.ceil(gpus) if gpus >= 1 else has * math.floor(1 / gpus)
    return min(by_cpus, by_gpus)
