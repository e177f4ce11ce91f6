"""Where tensors live and how much memory that took; the one place that chooses."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch
from torch import Tensor

__all__ = ["peak_memory_mb", "pick_device", "to_device"]


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return `array` as a tensor; on the CPU it shares the array's memory, so only read it.

    A file mapped by several workers thus stays one copy in memory. Torch has no read-only
    tensors and warns of that.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def peak_memory_mb() -> float:
    """Return the most memory that this process has held so far; 0 where that is unknown."""
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes; Linux: KB
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
