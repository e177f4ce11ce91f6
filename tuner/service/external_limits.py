"""How many external studies are open at a time: each has a thread and two files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tuner.service.problems import Problem
from tuner.service.studies import Study

MOST_OPEN = 1_000
"""Of all owners; fewer where files are scarce."""

FILES = 2
"""Of an open study: its journal and its events."""


class Opened(Protocol):
    """A study that is open."""

    study: Study
    is_closing: bool
    """Whether its thread ends as soon as it can."""

    @property
    def is_idle(self) -> bool:
        """Whether it has a thread, and no request."""

    def close(self, timeout_s: float | None = None) -> bool:
        """End its thread."""


def most_open(files: int) -> int:
    """Return how many studies may be open in a process that may open so many files: a quarter."""
    return min(MOST_OPEN, files // (4 * FILES))


def make_room(opened: Iterable[Opened], owner: str, most_of_owner: int, most_of_all: int) -> None:
    """Close the study that was idle longest, where as many are open as may be.

    Args:
        opened: the studies of all owners that are open.
        owner: opens another one.
        most_of_owner: how many studies of the owner may be open.
        most_of_all: how many of all owners.

    Raises:
        Problem: 429, none is idle.
    """
    every = list(opened)
    own = [each for each in every if each.study.owner == owner]
    for found, most in ((own, most_of_owner), (every, most_of_all)):
        kept = [each for each in found if not each.is_closing]
        if len(kept) < most:
            continue
        idle = [each for each in kept if each.is_idle]
        if not idle or len(found) >= 2 * most:  # a stalled journal keeps those that close
            detail = f"{len(found)} external studies are open, the limit; try again"
            raise Problem(429, detail, headers={"Retry-After": "1"})
        min(idle, key=lambda each: each.study.heard).close(0)
