"""What trainings are for, what they are called, and their seeds."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

__all__ = ["Role", "training_name", "training_seed"]


class Role(StrEnum):
    """What a training run is for."""

    TRIAL = "trial"
    FINALIST = "finalist"
    BASELINE = "baseline"  # the untuned default, for comparison


def training_name(
    role: Role, number: int, configuration: int | None = None, repeat: int | None = None
) -> str:
    """Return what people call a training, everywhere.

    Args:
        role: what it is for.
        number: that of its trial, in the study of the search or of the finalists.
        configuration: of a finalist, the trial that it retrains.
        repeat: which training of the same configuration it is; the first is 0.
    """
    match role:
        case Role.FINALIST if configuration is not None:
            return f"finalist {configuration} repeat {repeat}"
        case Role.BASELINE if repeat is not None:
            return f"default repeat {repeat}"
    return f"{role.value} {number}"


_CODES = {Role.TRIAL: 101, Role.FINALIST: 102, Role.BASELINE: 104}  # 103: fresh.py


def training_seed(seed: int, role: Role, *numbers: int) -> int:
    """Return the 32-bit seed of a training run; distinct for distinct roles and numbers."""
    return int(np.random.SeedSequence([seed, _CODES[role], *numbers]).generate_state(1)[0])
