"""`tuner compare`."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from rich import box
from rich.markup import escape
from rich.table import Table

from tuner.cli.app import Compare
from tuner.cli.run import load, own_strategy
from tuner.coordination.opening import as_begun, check_study
from tuner.data.prepared import check_data
from tuner.errors import ExperimentError, InputError, RunError, StudyError, nearest, show_location
from tuner.executors import Executor
from tuner.executors.choice import ExecutorChoice, choose_executor
from tuner.experiment import Experiment, space_size
from tuner.experiment.space import to_distributions
from tuner.journal.records import StudyRecord, read_study
from tuner.journal.storage import (
    journal_exists,
    journal_location,
    load_study,
    lock_for_reading,
    read_journal,
    study_names,
)
from tuner.orchestrator import (
    Notes,
    SearchOptions,
    choose_workers,
    default_study_name,
    search,
    sync_command,
    tracking_observer,
    worker_notes,
)
from tuner.progress.display import PipeConsole, console, number, show_next
from tuner.progress.progress import clock_text
from tuner.progress.reporters import (
    FailureNotice,
    JsonReporter,
    Reporter,
    make_reporter,
    reported_end,
)
from tuner.report.comparison import (
    FILES,
    Comparison,
    confidence_text,
    interval_text,
    is_free,
    trajectory_of,
    write,
)
from tuner.report.comparison import compare as compare_trajectories
from tuner.results.differences import fewest_seeds
from tuner.results.verdict import score_text
from tuner.signals import stopped_by_signals, stopped_without_reader
from tuner.strategies import STRATEGIES, installed, installed_names

_MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Planned:
    """One search of a comparison."""

    experiment: Experiment
    study: str
    location: str  # of its journal
    done: bool  # whether the journal holds all of its trials

    def read(self) -> StudyRecord:
        """Read the study from its journal."""
        return read_study(read_journal(self.location), self.study, self.location)


def strategy_names(text: str) -> list[str]:
    """Return the names that `--strategies` gives.

    Raises:
        InputError: one is unknown or named twice, or there are fewer than two.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    where = "--strategies"
    for name in names:
        if name not in STRATEGIES and installed(name) is None:
            remedy = nearest(name, [*STRATEGIES, *installed_names()])
            raise InputError(f"unknown strategy {name!r}", where=where, remedy=remedy)
        if names.count(name) > 1:
            got = f"{name!r} twice"
            raise InputError("must name each once", where=where, got=got, remedy="name others")
    if len(names) < 2:
        remedy = f"write {where} tpe,random"
        raise InputError("must name at least two", where=where, got=repr(text), remedy=remedy)
    return names


def load_all(
    path: Path, names: list[str], n_seeds: int, set_: list[str], trials: int | None
) -> list[Experiment]:
    """Load an experiment once for each strategy.

    The strategy that the file names keeps the settings that it has there; others have their
    defaults. `--set` applies to all.

    Raises:
        InputError: the file, an option or the two together break a rule, or cannot be compared.
    """
    where = "--seeds"
    if n_seeds < 1:
        raise InputError("must be at least 1", where=where, got=n_seeds, remedy="write --seeds 5")
    own, experiments = own_strategy(path).get("name"), []
    for name in names:
        block = None if name == own else {"name": name}
        options = {"strategies": ("strategy", block), "trials": ("budget.trials", trials)}
        experiment = load(path, None, set_, **options)
        if experiment.strategy.name != name:
            got, rule = repr(experiment.strategy.name), "is given by --strategies"
            raise InputError(rule, where="--set", key="strategy", got=got, remedy="leave it out")
        experiments.append(experiment)
    _check_comparable(experiments[0], path)
    last = experiments[0].seed + n_seeds - 1
    if last > _MOST_SEED:
        rule = f"the last one must be at most {_MOST_SEED}"
        raise InputError(rule, where=where, got=last, remedy="write --set seed=0")
    return experiments


def _check_comparable(experiment: Experiment, path: Path) -> None:
    """Refuse an experiment without a search space, or with budgets other than trials."""
    if not experiment.search_space:
        rule = "there is nothing to search, every hyperparameter is fixed"
        remedy = "name a search space, search_spaces/lstm.yaml say"
        raise ExperimentError(rule, where=path, key="search_space", remedy=remedy)
    budget = experiment.budget
    if budget.trials is None:
        rule = "must be a number where strategies are compared"
        remedy = "add --trials 40"
        raise ExperimentError(rule, where=path, key="budget.trials", got="null", remedy=remedy)
    for key in ("timeout", "stagnation"):
        if (value := getattr(budget, key)) is not None:
            rule = "must be null where strategies are compared, by equal numbers of trials"
            full, got = f"budget.{key}", f"{value:g}"
            remedy = f"add --set {full}=null"
            raise ExperimentError(rule, where=path, key=full, got=got, remedy=remedy)


def plan(experiments: list[Experiment], n_seeds: int, journal: str | None) -> list[Planned]:
    """Return every search, seed by seed: a comparison that stops early has fewer seeds.

    Raises:
        InputError: a strategy cannot search the space, the data cannot be used, or a journal
            holds another study of that name, or is being written to.
    """
    for e in experiments:
        e.strategy.make_sampler(to_distributions(e.search_space), e.seed, e.budget.trials)
    first = experiments[0]
    known = check_data(first).facts
    data = {"path": first.data.path, "sha256": known.sha256, "rows": known.rows}

    @functools.cache
    def opened(location: str) -> BaseStorage | None:
        return read_journal(location) if journal_exists(location) else None

    found = []
    for seed in range(first.seed, first.seed + n_seeds):
        for of_strategy in experiments:
            experiment = of_strategy.model_copy(update={"seed": seed})
            study = default_study_name(experiment)
            location = journal_location(study, journal)
            storage = opened(location)
            done = storage is not None and _is_done(storage, experiment, study, location, data)
            found.append(Planned(experiment, study, location, done))
    return found


def _is_done(
    storage: BaseStorage, experiment: Experiment, name: str, location: str, data: dict[str, Any]
) -> bool:
    """Return whether a journal has all trials of a study; raise if it has another study."""
    if name in study_names(storage):
        study = load_study(storage, name, location)
        try:
            facts = check_study(study, location, experiment, data, finalists=False)
        except StudyError as error:  # `tuner compare` has no --study
            remedy = (error.remedy or "").replace("another --study name", "another --journal")
            raise error.with_(remedy=remedy) from None
        if facts is not None:
            begun = facts["experiment"]["budget"].get("trials")
            where = f"{show_location(location)}: study {name!r}"
            _check_schedule(as_begun(study, experiment), begun, where)
            n_trained = len(read_study(storage, name, location).trained)
            if n_trained >= (experiment.n_trials or 0):
                return True
    with lock_for_reading(location, name):  # nobody writes to it
        return False


def _check_schedule(experiment: Experiment, begun: int | None, where: str) -> None:
    """Refuse a study whose schedule depends on another budget: it would be another search."""
    strategy, trials = experiment.strategy, experiment.budget.trials
    settings = strategy.model_dump()
    scheduled = any(k.endswith("_end") and v is not None for k, v in settings.items())
    if not scheduled or trials is None:
        return
    size = strategy.rhythm.size
    if begun is None or math.ceil(begun / size) != math.ceil(trials / size):
        was, same = ("null", "") if begun is None else (begun, f"--trials {begun}, or ")
        rule = f"{where} was begun with budget.trials={was}: {strategy.name} is scheduled by it"
        raise StudyError(rule, got=trials, remedy=f"give {same}another --journal")


class ComparisonReporter:
    """Prints a line for each search, above the live display of the current one; then a table."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self.end = Reporter()  # receives how the comparison ends
        self._console = PipeConsole(highlight=False, soft_wrap=True)
        self._stopping = stopping
        self._current: Reporter | None = None
        self._n_searches = 0  # of this run
        self._seconds: list[float] = []  # of each finished search of this run

    def start(self, experiments: Sequence[Experiment], planned: Sequence[Planned]) -> None:
        """Print how much there is to do; `experiments` has one for each strategy."""
        self._n_searches = sum(not one.done for one in planned)
        names = ", ".join(e.strategy.name for e in experiments)
        seeds = sorted({one.experiment.seed for one in planned})
        which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
        n_before = len(planned) - self._n_searches
        before = f", {n_before} of them made before" if n_before else ""
        self.note(
            f"comparing {names} on {experiments[0].name}: {which}, "
            f"{experiments[0].n_trials} trials each, {len(planned)} searches{before}"
        )

    def reporter(self) -> Reporter:
        """Return the reporter of the next search."""
        self._current = make_reporter(self._stopping, as_json=False, transient=True)
        return self._current

    def note(self, text: str) -> None:
        """Print a line."""
        if self._current is not None:
            self._current.note(text)
        else:
            self._console.print(text, markup=False)

    def skipped(self, planned: Planned) -> None:
        """Print nothing for a search of an earlier run: `start` counts them."""

    def searched(self, planned: Planned, record: StudyRecord, seconds: float) -> None:
        """Print the best score of a search, and how long the remaining ones will take."""
        self._seconds.append(seconds)
        n_ended, n_all = len(self._seconds), self._n_searches
        best, metric = record.best, record.experiment.objective.metric
        score = f"{metric} {number(best.value)} (trial {best.number})" if best else "none complete"
        parts = [f"{n_ended} of {n_all}: {planned.study}", score, clock_text(seconds)]
        if n_ended < n_all:
            left_s = (n_all - n_ended) * sum(self._seconds) / n_ended
            parts.append(f"about {clock_text(left_s)} left")
        self.note("  ".join(parts))

    def result(self, comparison: Comparison, folder: Path, next_command: str) -> None:
        """Print the table, the verdict, the files and the command that searches on."""
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("strategy")
        interval = confidence_text(comparison.rows[0])
        for heading in (f"median {comparison.metric}", interval, "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in comparison.rows:
            median, seconds = score_text(row.median), f"{row.seconds:.1f}"
            table.add_row(row.strategy, median, interval_text(row), seconds)
        console.print(table)
        if comparison.to_beat is not None:
            console.print(escape(comparison.to_beat), soft_wrap=True)
        console.print(f"[bold]{escape(comparison.verdict)}.[/]", soft_wrap=True)
        files = f"[bold]{escape(str(folder / FILES[0]))}[/], and {', '.join(FILES[1:])} beside it"
        console.print(f"wrote {files}", soft_wrap=True)
        show_next([(next_command, "its finalists and the test set")])


class JsonComparisonReporter(ComparisonReporter):
    """Writes the events of all searches, each with its result, then that of the comparison."""

    def __init__(self) -> None:
        super().__init__(lambda: False)
        self.end = self._current = self._events = JsonReporter(sys.stdout)

    def start(self, experiments: Sequence[Experiment], planned: Sequence[Planned]) -> None:
        pass

    def reporter(self) -> Reporter:
        return self._events

    def skipped(self, planned: Planned) -> None:
        self._events.result(planned.read(), [])

    def searched(self, planned: Planned, record: StudyRecord, seconds: float) -> None:
        self._events.result(record, [])

    def result(self, comparison: Comparison, folder: Path, next_command: str) -> None:
        self._events.comparison(comparison.to_json() | {"folder": str(folder)})


def compare(command: Compare) -> None:
    """Search with every strategy on every seed, then test which differences are real."""
    SearchOptions(journal=command.journal, workers=command.workers).check()
    names, path = strategy_names(command.strategies), command.experiment
    experiments = load_all(path, names, command.seeds, command.set_ or [], command.trials)
    folder = command.output or Path(f"{experiments[0].name}-comparison")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_folder(folder, command.force)
    planned = plan(experiments, command.seeds, command.journal)
    stop = threading.Event()
    reporter = JsonComparisonReporter() if command.json else ComparisonReporter(stop.is_set)
    with reported_end(reporter.end):
        _search_all(command, experiments, planned, reporter, stop)
        comparison, given = _compared(experiments, planned), _given(command)
        again = ["tuner", "compare", str(path), "--strategies", ",".join(names)]
        again += ["--seeds", str(command.seeds), *given]
        write(comparison, folder, show_location(shlex.join(again)))  # without a password
        best, own = comparison.rows[0].strategy, own_strategy(path).get("name")
        option = [] if best == own else ["--strategy", best]
        search_on = shlex.join(["tuner", "run", str(path), *option, *given])
        reporter.result(comparison, folder, search_on)


def _search_all(
    command: Compare,
    experiments: Sequence[Experiment],
    planned: Sequence[Planned],
    reporter: ComparisonReporter,
    stop: threading.Event,
) -> None:
    choice = choose_executor(command.executor, experiments[0].resources, reporter.note)
    shared = max(choose_workers(command.workers, e, choice) for e in experiments)

    noted: set[str] = set()

    def run(one: Planned, make_executor: Callable[[int], Executor]) -> StudyRecord:
        def notes(record: StudyRecord) -> list[str]:
            texts = worker_notes(command.workers, one.experiment, choice)
            new = [text for text in texts if text not in noted]  # by an earlier search
            noted.update(new)
            return new

        options = SearchOptions(
            one.study,
            command.journal,
            workers=choose_workers(command.workers, one.experiment, choice),
            executor=command.executor,
            finalists=False,
        )
        with reporter.reporter() as shown:
            observers = [shown, Notes(shown.note, notes), FailureNotice(shown.note)]
            if command.tracking:
                to_sync = sync_command(one.study, command.journal)
                observers.append(tracking_observer(to_sync, shown.note))
            return search(
                one.experiment, options, observers, make_executor=make_executor, stop=stop
            )

    with (
        stopped_by_signals(stop),
        stopped_without_reader(),
        _executors(command.executor, choice, shared) as make_executor,
    ):
        reporter.start(experiments, planned)
        for text in _remarks(experiments, command.seeds):
            reporter.note(text)
        for one in planned:
            if one.done:
                reporter.skipped(one)
                continue
            begun = time.monotonic()
            record = run(one, make_executor)
            reporter.searched(one, record, time.monotonic() - begun)


def _remarks(experiments: Sequence[Experiment], n_seeds: int) -> list[str]:
    notes, fewest = [], fewest_seeds(len(experiments))
    if n_seeds < fewest:
        notes.append(
            f"too few seeds to tell {len(experiments)} strategies apart, whatever they score: "
            f"{n_seeds}, but {fewest} are needed; add --seeds {fewest}"
        )
    size, budget = space_size(experiments[0].search_space), experiments[0].budget.trials
    if size is not None and budget is not None and budget >= size:
        notes.append(
            f"the search space has {size} configurations, and every strategy trains them all: they "
            f"differ in the way there alone"
        )
    return notes


def _check_folder(folder: Path, force: bool) -> None:
    existing = folder if folder.exists() else folder.parent
    if not existing.is_dir():
        rule = "must be a folder in an existing one"
        raise InputError(rule, where="-o", got=folder, remedy="give another")
    if not os.access(existing, os.W_OK):
        rule = f"{existing} may not be written to"
        raise InputError(rule, where="-o", got=folder, remedy="write elsewhere")
    if not force and not is_free(folder):
        rule = f"{folder} holds {' or '.join(FILES)} of something else"
        raise InputError(rule, where="-o", remedy="write elsewhere, or add --force")


def _compared(experiments: Sequence[Experiment], planned: Sequence[Planned]) -> Comparison:
    records, n_trials = [one.read() for one in planned], experiments[0].n_trials
    assert n_trials is not None
    trajectories = [trajectory_of(record, n_trials) for record in records]
    shortest = min(len(t.best) for t in trajectories)
    if shortest < n_trials:  # the space has fewer configurations than expected
        trajectories = [trajectory_of(record, shortest) for record in records]
    if not any(math.isfinite(t.score) for t in trajectories):
        rule = "no trial of any search is complete"
        raise RunError(rule, remedy=f"`tuner show {shlex.quote(planned[0].study)}` says why")
    return compare_trajectories(experiments, trajectories, shortest)


def _given(command: Compare) -> list[str]:
    """Return the options that select the same studies again."""
    words = [] if command.trials is None else ["--trials", str(command.trials)]
    words += [] if command.journal is None else ["--journal", command.journal]
    return words + [word for text in command.set_ or [] for word in ("--set", text)]


@contextlib.contextmanager
def _executors(
    name: str, choice: ExecutorChoice, n_workers: int
) -> Iterator[Callable[[int], Executor]]:
    """Yield a function that makes the executor of a search.

    On this machine all searches share one set of workers. On a cluster each has its own executor:
    a shared one would keep the data of all searches in Ray's object store.
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
    """Lends an executor to one search: closing it leaves the workers to the next search."""

    def __init__(self, executor: Executor, n_workers: int) -> None:
        self.n_workers, self.submit, self.poll = n_workers, executor.submit, executor.poll
        self.answer, self.withdraw = executor.answer, executor.withdraw
        if hasattr(executor, "has_gpus"):  # one of a package may not say
            self.has_gpus = executor.has_gpus

    def close(self) -> None:
        """Do nothing: no worker has a job, or the whole comparison ends."""
