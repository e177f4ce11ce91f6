"""Which scores of a test record count: those of the models that are exported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["has_refit", "judged"]

_OF_A_KIND = (
    "scores",
    "mean",
    "std",
    "ensemble",
    "default",
    "baselines",
    "left_out",
    "intervals",
    "ensemble_intervals",
)


def has_refit(test: Mapping[str, Any]) -> bool:
    """Return whether models were tested that training and validation part trained together."""
    return bool(test.get("refit")) and "failed" not in test["refit"]


def judged(test: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a test record with the scores that a verdict is about.

    Where the winner was refitted they are those of the refitted models, of the default that was
    refitted, and of plain predictions that know the validation part: like beside like.
    """
    if not has_refit(test):
        return test
    refit = test["refit"]
    return {**test, **{key: refit[key] for key in _OF_A_KIND if key in refit}}
