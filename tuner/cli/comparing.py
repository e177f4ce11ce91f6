"""Runs the searches of a comparison one after another, then compares them."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.cli.compared import Events, Lines, Show
from tuner.cli.overrides import own_strategy
from tuner.cli.planned import Planned, load_all, plan, strategy_names
from tuner.errors import InputError, RunError, show_location
from tuner.experiment import Experiment, space_size
from tuner.launching.names import check_journal
from tuner.launching.searching import search_watched, stopped_without_reader
from tuner.launching.stopping import stopped_by_signals
from tuner.launching.workers import check_workers, choose_workers, warnings
from tuner.watching.choosing import told_how_it_ends

if TYPE_CHECKING:
    from tuner.comparison.comparison import Comparison
    from tuner.comparison.trajectory import Trajectory
    from tuner.coordination.records import StudyRecord
    from tuner.executors import Executor
    from tuner.executors.base import Event
    from tuner.executors.choosing import ExecutorChoice
    from tuner.jobs import Job

__all__ = ["compare"]


def compare(
    path: Path,
    *,
    strategies: str,
    n_seeds: int,
    trials: int | None,
    workers: int | None,
    journal: str | None,
    executor: str,
    tracking: bool,
    set_: list[str],
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Search with every strategy on every seed, then say which differences are real."""
    check_workers(workers)
    check_journal(journal)
    names = strategy_names(strategies)
    experiments = load_all(path, names, n_seeds, set_, trials)
    folder = output or Path(f"{experiments[0].name}-comparison")

    import optuna

    from tuner.comparison.files import write
    from tuner.executors.choosing import choose_executor

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_folder(folder, force)
    planned = plan(experiments, n_seeds, journal)
    stop = threading.Event()
    show: Show = Events() if as_json else Lines(stop.is_set)
    choice = choose_executor(executor, experiments[0].resources, show.note)
    shared = max(choose_workers(workers, e, choice) for e in experiments)

    def search(one: Planned, make_executor: Callable[[int], Executor]) -> StudyRecord:
        n_workers = choose_workers(workers, one.experiment, choice)
        with show.watcher(one.experiment, n_workers) as watcher:
            record, _ = search_watched(
                one.experiment,
                watcher,
                name=one.study,
                journal=journal,
                n_workers=n_workers,
                executor=executor,
                make_executor=make_executor,
                warnings=lambda record: show.news(warnings(workers, one.experiment, choice)),
                tracking=tracking,
                stop=stop,
                finalists=False,
                open_test=False,
            )
        return record

    with told_how_it_ends(show.whole):
        with (
            stopped_by_signals(stop),
            stopped_without_reader(),
            _executors(executor, choice, shared) as make_executor,
        ):
            show.begun(experiments, planned)
            for text in _remarks(experiments, n_seeds):
                show.note(text)
            for one in planned:
                if one.done:
                    show.found(partial(_read, one))
                    continue
                begun = time.monotonic()
                record = search(one, make_executor)
                show.searched(one, record, time.monotonic() - begun)
        comparison = _compared(experiments, planned)
        given = _given(trials, journal, set_)
        again = ["tuner", "compare", str(path), "--strategies", ",".join(names)]
        command = shlex.join([*again, "--seeds", str(n_seeds), *given])
        write(comparison, folder, show_location(command))  # without a password
        best = comparison.rows[0].strategy
        option = [] if best == own_strategy(path).get("name") else ["--strategy", best]
        run = shlex.join(["tuner", "run", str(path), *option, *given])
        show.result(comparison, folder, [(run, "its finalists, and the test part")])


def _remarks(experiments: Sequence[Experiment], n_seeds: int) -> list[str]:
    """Return what a person should know before the first search begins."""
    from tuner.comparison.statistics import fewest_seeds

    said, n_strategies = [], len(experiments)
    fewest = fewest_seeds(n_strategies)
    if n_seeds < fewest:
        said.append(
            f"too few seeds to tell {n_strategies} strategies apart, whatever they score: "
            f"{n_seeds}, and it takes {fewest}; add --seeds {fewest}"
        )
    size, budget = space_size(experiments[0].search_space), experiments[0].budget.trials
    if size is not None and budget is not None and budget >= size:
        said.append(
            f"the search space has {size} configurations, and every strategy trains them all: they "
            f"differ in the way there alone"
        )
    return said


def _check_folder(folder: Path, force: bool) -> None:
    from tuner.comparison.files import FILES, is_free

    if (folder.exists() and not folder.is_dir()) or not folder.parent.is_dir():
        raise InputError(f"-o: must be a folder in an existing one, got {folder}; give another")
    existing = folder if folder.exists() else folder.parent
    if not os.access(existing, os.W_OK):
        raise InputError(f"-o: {existing} may not be written to, got {folder}; write elsewhere")
    if not force and not is_free(folder):
        raise InputError(
            f"-o: {folder} holds {' or '.join(FILES)} of something else; write elsewhere, or add "
            f"--force"
        )


def _compared(experiments: Sequence[Experiment], planned: Sequence[Planned]) -> Comparison:
    from tuner.comparison.comparison import compare
    from tuner.comparison.trajectory import trajectory_of

    def follow(n_trials: int) -> list[Trajectory]:
        return [trajectory_of(_read(one), n_trials) for one in planned]

    n_trials = experiments[0].n_trials
    assert n_trials is not None
    trajectories = follow(n_trials)
    shortest = min(len(t.best) for t in trajectories)
    if shortest < n_trials:  # the space has fewer configurations than was thought
        trajectories = follow(shortest)
    if not any(math.isfinite(t.score) for t in trajectories):
        show = f"tuner show {shlex.quote(planned[0].study)}"
        raise RunError(f"no trial of any search is complete; `{show}` says why")
    return compare(experiments, trajectories, shortest)


def _read(one: Planned) -> StudyRecord:
    from tuner.coordination.journal import read_journal
    from tuner.coordination.records import read_study

    return read_study(read_journal(one.location), one.study, one.location)


def _given(trials: int | None, journal: str | None, set_: Sequence[str]) -> list[str]:
    """Return the options that name the same studies again."""
    words = [] if trials is None else ["--trials", str(trials)]
    words += [] if journal is None else ["--journal", journal]
    return words + [word for text in set_ for word in ("--set", text)]


@contextlib.contextmanager
def _executors(
    name: str, choice: ExecutorChoice, n_workers: int
) -> Iterator[Callable[[int], Executor]]:
    """Yield what makes the executor of a search; on this machine all share one set of workers.

    Each search on a cluster has its own: the data of all would stay in Ray's object store.
    """
    if name != "local":
        yield choice.make
        return
    executor = choice.make(n_workers)
    try:
        yield lambda n_workers: _Lent(executor, n_workers)
    finally:
        executor.close()


class _Lent:
    """An executor that one search has, and the next one after it."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self._executor, self.n_workers = executor, n_workers

    def submit(self, job: Job) -> None:
        """Queue a job."""
        self._executor.submit(job)

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what has happened."""
        return self._executor.poll(timeout_s)

    def answer(self, key: str, go_on: bool) -> None:
        """Answer a job."""
        self._executor.answer(key, go_on)

    def withdraw(self) -> list[str]:
        """Drop the jobs that have not begun."""
        return self._executor.withdraw()

    def close(self) -> None:
        """Leave the workers as they are: none has a job, or the whole comparison ends."""
