"""How many examples a property test draws: a few in `make test`, all in `make test-slow`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

ALL = os.environ.get("TUNER_TEST_EXAMPLES") == "all"


def examples(n: int) -> int:
    """Return `n`, or where few are enough a tenth of it, and 5 at least."""
    return n if ALL else min(n, max(5, n // 10))


def load_profile() -> None:
    """Make settings without a number draw 100 examples, or few; none is too slow."""
    settings.register_profile(
        "tuner",
        max_examples=examples(100),
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("tuner")
