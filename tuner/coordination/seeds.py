"""Training seeds, each a function of the experiment's seed, a role and the trial it is for."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

__all__ = ["Role", "training_seed"]


class Role(StrEnum):
    """What a training run is for."""

    TRIAL = "trial"
    FINALIST = "finalist"
    BASELINE = "baseline"  # the untuned default, for comparison


_CODES = {Role.TRIAL: 101, Role.FINALIST: 102, Role.BASELINE: 104}  # 103: fresh.py


def training_seed(seed: int, role: Role, *numbers: int) -> int:
    """Return the 32-bit seed of a training run; distinct for distinct roles and numbers."""
    return int(np.random.SeedSequence([seed, _CODES[role], *numbers]).generate_state(1)[0])
