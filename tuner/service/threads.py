"""Threads of routes, by what they do, so that slow requests hold up none of another kind.

Routes that are plain functions share the 40 threads of the server: they must answer at once. What
may take long has threads of its own, of which each kind below has a number. `/health`, asks and
tells use none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

P = ParamSpec("P")
T = TypeVar("T")


class OwnerThreads:
    """Threads of which each owner has few.

    A request that waits for its turn holds no thread, so no owner can use up those of others.

    Args:
        of_all: threads at a time.
        of_one: of these, those of one owner.
    """

    def __init__(self, of_all: int = 64, of_one: int = 4) -> None:
        self._all, self._of_one = CapacityLimiter(of_all), of_one
        self._own: dict[str, CapacityLimiter] = {}  # as many as there are owners

    async def run(self, owner: str, do: Callable[P, T], /, *args: P.args, **given: P.kwargs) -> T:
        """Return what a function returns; waits until the owner has a thread for it."""
        if owner not in self._own:
            self._own[owner] = CapacityLimiter(self._of_one)
        async with self._own[owner]:
            return await run_in(self._all, do, *args, **given)


PARSING = CapacityLimiter(2)
"""Large bodies that are read as JSON."""

PAGES = CapacityLimiter(8)
"""Views of the page."""

LINKS = CapacityLimiter(4)
"""Questions to MLflow, which may not answer."""

READING = OwnerThreads()
"""Waits for a confined process: that reads or checks a file, or predicts; also of the page."""

RESULTS = CapacityLimiter(8)
"""Records, summaries, reports and best configurations, which read a journal."""

CHANGES = OwnerThreads()
"""Changes of studies, which wait for the journal, and for each other."""

JOBS = CapacityLimiter(16)
"""Jobs on their way to pull workers: their data is hashed first."""

OUTCOMES = CapacityLimiter(16)
"""Events of pull workers, with their arrays."""


async def run_in(
    threads: CapacityLimiter, do: Callable[P, T], *args: P.args, **given: P.kwargs
) -> T:
    """Return what a function returns in a thread of a kind; waits until one is free."""
    return await to_thread.run_sync(functools.partial(do, *args, **given), limiter=threads)


def in_threads(
    threads: CapacityLimiter | OwnerThreads,
) -> Callable[[Callable[P, T]], Callable[P, Awaitable[T]]]:
    """Make a route of a plain function, which runs in a thread of a kind: of its `owner`, if any.

    It stands below the decorator of the router: `@router.get(...)`, then `@in_threads(RESULTS)`.
    """

    def decorate(do: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(do)
        async def route(*args: P.args, **given: P.kwargs) -> T:
            if isinstance(threads, CapacityLimiter):
                return await run_in(threads, do, *args, **given)
            owner: Any = given["owner"]
            return await threads.run(owner.name, do, *args, **given)

        return route

    return decorate
