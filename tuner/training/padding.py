"""Padded batches: which steps are real, and sequences read backwards."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["real_steps", "reverse", "zero_padding"]


def real_steps(lengths: Tensor, steps: int, device: torch.device) -> Tensor:
    """Return which steps are real, (batch, steps), of sequences with so many steps, (batch,)."""
    return torch.arange(steps, device=device) < lengths.to(device).unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (batch, steps, width) with zeros where it pads."""
    if lengths is None:
        return x
    return x.masked_fill(~real_steps(lengths, x.shape[1], x.device).unsqueeze(2), 0.0)


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn the real steps of (batch, steps, width) around; padding stays at the end."""
    if lengths is None:
        return x.flip(1)
    step = torch.arange(x.shape[1], device=x.device)
    length = lengths.to(x.device).unsqueeze(1)
    order = torch.where(step < length, length - 1 - step, step)  # (batch, steps)
    return x.gather(1, order.unsqueeze(2).expand_as(x))
