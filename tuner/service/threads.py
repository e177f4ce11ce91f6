"""Threads of routes, by what they do, so that slow requests hold up none of another kind.

Routes that are plain functions share the 40 threads of the server: they must answer at once. What
may take long has threads of its own, of which each kind below has a number. `/health`, asks and
tells use none of them.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

PARSING = CapacityLimiter(2)
"""Large bodies that are read as JSON."""

PAGES = CapacityLimiter(8)
"""Views of the page."""

LINKS = CapacityLimiter(4)
"""Questions to MLflow, which may not answer."""

READING = CapacityLimiter(32)
"""Files that a confined process reads for `init` and `check`, also of the page."""

RESULTS = CapacityLimiter(8)
"""Records, summaries, reports and best configurations, which read a journal."""

PREDICTIONS = CapacityLimiter(4)
"""Predictions of winners' models."""

P = ParamSpec("P")
T = TypeVar("T")


async def run_in(
    threads: CapacityLimiter, do: Callable[P, T], *args: P.args, **given: P.kwargs
) -> T:
    """Return what a function returns in a thread of a kind; waits until one is free."""
    return await to_thread.run_sync(functools.partial(do, *args, **given), limiter=threads)


def in_threads(threads: CapacityLimiter) -> Callable[[Callable[P, T]], Callable[P, Awaitable[T]]]:
    """Make a route of a plain function, which runs in a thread of a kind.

    It stands below the decorator of the router: `@router.get(...)`, then `@in_threads(RESULTS)`.
    """

    def decorate(do: Callable[P, T]) -> Callable[P, Awaitable[T]]:
        @functools.wraps(do)
        async def route(*args: P.args, **given: P.kwargs) -> T:
            return await run_in(threads, do, *args, **given)

        return route

    return decorate
