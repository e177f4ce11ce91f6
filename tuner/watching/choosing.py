"""Which way of watching a search goes where its output leads to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import IO, cast

from rich.console import Console

from tuner.errors import Interrupted, TunerError, one_line
from tuner.experiment import Experiment
from tuner.watching.display import PipeConsole
from tuner.watching.events import JsonEvents
from tuner.watching.live import LiveProgress
from tuner.watching.progress import PlainProgress
from tuner.watching.streams import Terminal
from tuner.watching.watcher import Watcher

__all__ = ["make_watcher", "told_how_it_ends"]


def make_watcher(
    experiment: Experiment,
    n_workers: int,
    stopping: Callable[[], bool],
    as_json: bool,
    *,
    transient: bool = False,
) -> Watcher:
    """Return what shows a search where standard output leads to.

    Args:
        experiment: what is searched.
        n_workers: how many trials run at a time.
        stopping: says whether no further trial is begun.
        as_json: whether programs read it.
        transient: whether what is drawn on a terminal vanishes when the search ends.
    """
    if as_json:
        return JsonEvents(sys.stdout)
    console = PipeConsole(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return PlainProgress(experiment, console, n_workers, stopping=stopping)
    terminal = Console(file=cast("IO[str]", Terminal(sys.stdout)), highlight=False, soft_wrap=True)
    return LiveProgress(experiment, terminal, n_workers, stopping=stopping, transient=transient)


@contextlib.contextmanager
def told_how_it_ends(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher how a search ended, whatever ended it."""
    try:
        yield
    except BaseException as error:
        state = "interrupted" if isinstance(error, Interrupted) else "failed"
        status = error.exit_status if isinstance(error, TunerError) else 1
        watcher.ended(state, one_line(error) or type(error).__name__, status)
        raise
    watcher.ended("done", None, 0)
