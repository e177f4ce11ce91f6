"""One search: prepared data, study, trials, finalists, and the test set once.

`search` runs it; `run_search` adds workers, notes and MLflow as the options select them.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.coordination.coordinator import (
    AsynchronousCoordinator,
    Coordinator,
    Limits,
    Observer,
    Observers,
    SearchStart,
)
from tuner.coordination.finalists import Winner, default_of, enqueue_finalists, find_winner
from tuner.coordination.groups import check_batched, grouping_of
from tuner.coordination.opening import (
    Earlier,
    StudyData,
    as_begun,
    open_study,
    plan_warm_start,
    recorded_run,
)
from tuner.coordination.pruning import make_pruner
from tuner.data.baselines import choose, preparations_of
from tuner.data.prepared import HERE, DataSource, Prepared
from tuner.errors import InputError, Interrupted, show_location
from tuner.executors import Executor, LocalExecutor
from tuner.executors.base import STOPPED
from tuner.executors.choice import ExecutorChoice, choose_executor
from tuner.experiment import Experiment, space_size
from tuner.experiment.space import to_distributions
from tuner.jobs import TrainJob, train_job
from tuner.journal.records import StudyRecord, TrialRecord, read_study, read_trial
from tuner.journal.storage import (
    REOPENED_ATTR,
    TEST_ATTR,
    TIME_ATTR,
    Place,
    Role,
    TrialKey,
    journal_exists,
    place_of,
    seed_of,
)
from tuner.outputs import scratch_folder
from tuner.progress.reporters import FailureNotice, Reporter
from tuner.report.page import final_artifacts, import_for_files
from tuner.results.advice import advice_on_data, in_the_way
from tuner.results.export import study_artifacts
from tuner.results.retraining import Refit, TrainedModels, calibrate_all, refit, refit_epochs
from tuner.results.test_score import EvaluatedModels, score_on_test
from tuner.results.verdict import not_evaluated_again, why_not_again
from tuner.signals import stopped_without_reader
from tuner.strategies.base import Rhythm
from tuner.studies import check_journal, check_study_name, read_earlier
from tuner.template import workers_expected
from tuner.tracking import MlflowTracker, TrackingObserver
from tuner.winner import KeptModel, TrainedWinner, check_register


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search besides its experiment; none of them changes a trial."""

    study: str | None = None
    """Name of the study; `EXPERIMENT-STRATEGY-SEED` by default."""
    journal: str | None = None
    """A file or a database's URL; `studies/STUDY.journal` by default."""
    start_from: tuple[str, ...] = ()
    """Sources of a new study's first trials: names of studies, paths of journals or CSV files."""
    workers: int | None = None
    """Number of trials that run at a time, at least 1; by default one per core."""
    executor: str = "local"
    """Where trials run: `local`, `ray` or `ray://HOST:PORT`."""
    tracking: bool = True
    """Whether trials are copied to MLflow while they run."""
    register: str | None = None
    """Name under which MLflow registers the winner's model; None registers nothing."""
    finalists: bool = True
    """Whether the best configurations are retrained after the search; a later call may do it."""
    open_test: bool = True
    """Whether the winner is evaluated on the test set, once per study; needs `finalists`."""
    reopen_test: bool = False
    """Whether to evaluate again after an extended search has another winner."""

    def check(self, *, in_python: bool = False) -> None:
        """Check the options before anything is read or created.

        Args:
            in_python: whether messages name arguments of a function, not options of a command.

        Raises:
            InputError: a value is not allowed, or two of them contradict each other.
        """
        if self.workers is not None and self.workers < 1:
            where, one = ("workers", "workers=1") if in_python else ("--workers", "--workers 1")
            remedy = f"write {one}, or leave it out"
            raise InputError("must be at least 1", where=where, got=self.workers, remedy=remedy)
        check_study_name(self.study, in_python=in_python)
        check_journal(self.journal, in_python=in_python)
        if self.register is not None:
            check_register(self.register, self.tracking)
        if self.reopen_test and not self.open_test:
            where, got = "--reopen-test", "--no-test as well"
            if in_python:
                where, got = "reopen_test", "open_test=False"
            rule = "needs the test set"
            raise InputError(rule, where=where, got=got, remedy="leave one out")

    def study_of(self, experiment: Experiment) -> str:
        """Return the name of the study, as files and MLflow have it."""
        return check_study_name(self.study) or default_study_name(experiment)


def default_study_name(experiment: Experiment) -> str:
    """Return the default name of a study: `EXPERIMENT-STRATEGY-SEED`.

    Without a search space it is `EXPERIMENT-fixed-SEED`, beside the study of an exported file.
    """
    how = experiment.strategy.name if experiment.search_space else "fixed"
    return f"{experiment.name}-{how}-{experiment.seed}"


def run_search(
    experiment: Experiment,
    options: SearchOptions,
    reporter: Reporter,
    kept: KeptModel | None,
    *,
    stop: threading.Event,
    notes: Callable[[StudyRecord], Iterable[str]] = lambda record: [],
) -> tuple[StudyRecord, bool]:
    """Run a search as `tuner run` and `tuner.search` do.

    Args:
        experiment: the experiment to search.
        options: checked by `SearchOptions.check`.
        reporter: shows the events of the search; it is entered.
        kept: keeps the winner's model; None if it is not needed.
        stop: once set, no further trial starts, and the search stops after the running ones.
        notes: returns further notes for the start of the search.

    Returns:
        The study, as its journal has it, and whether tracking completed its copy in MLflow.

    Raises:
        TunerError: as `search` does; Interrupted also if standard output has no reader.
    """
    choice = choose_executor(options.executor, experiment.resources, reporter.note)

    def at_start(record: StudyRecord) -> list[str]:
        about_workers = worker_notes(options.workers, record.experiment, choice)
        return [*about_workers, *notes(record), *in_the_way(record)]

    observers = [reporter, Notes(reporter.note, at_start), FailureNotice(reporter.note)]
    observers += [] if kept is None else [kept]
    study = options.study_of(experiment)
    tracking = tracking_observer(sync_command(study, options.journal), reporter.note)
    if options.tracking:
        observers.append(tracking)
    chosen = replace(options, workers=choose_workers(options.workers, experiment, choice))
    with workers_expected(options.executor == "local"), stopped_without_reader():
        record = search(experiment, chosen, observers, make_executor=choice.make, stop=stop)
    return record, options.tracking and tracking.complete


def journal_option(journal: str | None) -> str:
    """Return ` --journal ...`, or an empty text without a journal."""
    return f" --journal {shlex.quote(show_location(journal))}" if journal else ""


def sync_command(name: str, journal: str | None, register: str | None = None) -> str:
    """Return the command that copies to MLflow what it lacks of a study."""
    registered = f" --register {shlex.quote(register)}" if register else ""
    return f"tuner sync {shlex.quote(name)}{journal_option(journal)}{registered}"


def choose_workers(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> int:
    """Return the number of trials at a time: `workers`, or the capacity; at most the usable one."""
    return max(1, min(choice.capacity if workers is None else workers, _usable(experiment)))


def _usable(experiment: Experiment) -> int:
    """Return how many trials the strategy can have in progress."""
    if experiment.asynchronous:
        return sys.maxsize if experiment.n_trials is None else experiment.n_trials
    return experiment.strategy.rhythm.size


def worker_notes(workers: int | None, experiment: Experiment, choice: ExecutorChoice) -> list[str]:
    """Return notes about too many workers, and about a search that cannot be repeated."""
    found = []
    usable, enough = _usable(experiment), choose_workers(None, experiment, choice)
    if workers is not None and workers > enough:
        key = "population" if experiment.strategy.rhythm.generational else "batch"
        what = "budget.trials" if experiment.asynchronous else f"strategy.{key}"
        if usable <= choice.capacity:
            why = f"more than there are trials at a time ({what} is {usable})"
        else:
            why = f"more than fit on {choice.unit}, they get in each other's way"
            if workers > usable:
                why += f", though {usable} at most are used ({what})"
        found.append(f"--workers {workers}: {why}; --workers {enough} is enough")
    if experiment.asynchronous:
        found.append(
            "asynchronous: a trial starts when a worker is free, so the same search run again "
            "gives other trials"
        )
    return found


def start_notes(experiment: Experiment, record: StudyRecord) -> Iterator[str]:
    """Yield notes on what a search starts from, for the user."""
    if not experiment.search_space:
        text = "there is no search space: the one configuration is trained on seeds of this study"
        known = experiment.recorded is not None
        yield text + ("; `tuner train` reproduces the recorded score" if known else "")
    yield from record.begun_from


@dataclass(frozen=True)
class Notes(Observer):
    """Sends notes to the user when a search starts."""

    send: Callable[[str], None]
    of: Callable[[StudyRecord], Sequence[str]]

    def on_start(self, start: SearchStart) -> None:
        for text in self.of(start.record):
            self.send(text)


def tracking_observer(to_sync: str, note: Callable[[str], None]) -> TrackingObserver:
    """Return the observer that copies a search to MLflow, and notes what it could not copy.

    Args:
        to_sync: the command that completes the copy.
        note: receives the notes.
    """
    return TrackingObserver(
        lambda read: MlflowTracker(
            read, to_sync, note, study_artifacts, final_artifacts, import_for_files
        )
    )


def search(
    experiment: Experiment,
    options: SearchOptions | None = None,
    observers: Sequence[Observer] = (),
    *,
    make_executor: Callable[[int], Executor] = LocalExecutor,
    stop: threading.Event | None = None,
    place: Place | None = None,
    earlier: Sequence[Earlier] | None = None,
    source: DataSource = HERE,
) -> StudyRecord:
    """Run an experiment to its end, or resume an earlier run.

    Args:
        experiment: the experiment to search.
        options: by default, `SearchOptions()`.
        observers: receive the events.
        make_executor: makes the executor from the number of workers.
        stop: once set, no further trial starts, and the search stops after the running ones.
        place: of the study's journal; by default as the options name it.
        earlier: the sources of a new study's first trials; by default as the options name them.
        source: reads the data.

    Returns:
        The study, as its journal has it.

    Raises:
        InputError: the experiment, its data or the journal is refused. Nothing was started.
        RunError: every trial failed.
        Interrupted: `stop` was set; the same call resumes.
    """
    options, observer = options or SearchOptions(), Observers(observers)
    workers = options.workers or 1
    if place is None:
        place = place_of(options.study_of(experiment), options.journal)
    name, location = place.study, place.location
    if earlier is None:
        earlier = read_earlier(options.start_from, experiment, name, options.journal)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        data = source.prepare(experiment, folder / "search")
        check_batched(experiment, lambda params: _job(experiment, data, "trial", params))
        if earlier and not journal_exists(location):  # a refused plan must leave no journal behind
            plan_warm_start(experiment, data.facts.sha256, earlier)
        storage = stack.enter_context(place.open(observer.note))
        study, experiment = _opened(
            storage, location, name, experiment, data, source, options, earlier
        )

        def read() -> StudyRecord:
            return read_study(storage, name, location)

        stack.enter_context(_ended(observer))
        stack.enter_context(recorded_run(study, experiment, finalists=options.finalists))
        executor = make_executor(workers)
        stack.callback(executor.close)
        at, kind = show_location(location), options.executor
        observer.on_start(SearchStart(read(), read, at, workers, kind, finalists=options.finalists))
        stop = stop or threading.Event()
        run = _Run(
            experiment, data, study, storage, read, executor, options, observer, stop, source
        )
        run.trials()
        if options.finalists:
            run.finalists()
            if options.open_test:
                run.test(folder)
                run.winner(folder)
        return read()


def _opened(
    storage: BaseStorage,
    location: str,
    name: str,
    experiment: Experiment,
    data: Prepared,
    source: DataSource,
    options: SearchOptions,
    earlier: Sequence[Earlier],
) -> tuple[optuna.Study, Experiment]:
    """Return the study, and the experiment with the strategy with which the study was begun."""
    known = data.facts
    facts = {"path": experiment.data.path, "sha256": known.sha256, "rows": known.rows}
    if (test_file := experiment.data.split.test_file) is not None:
        facts["test_file"] = test_file

    def baselines() -> dict[str, Any]:
        record = source.baselines(experiment, data)
        return record | {"remarks": [a.to_json() for a in advice_on_data(experiment, known)]}

    study = open_study(
        storage,
        location,
        name,
        experiment,
        StudyData(facts, baselines),
        finalists=options.finalists,
        earlier=earlier,
    )
    return study, as_begun(study, experiment)


def _job(
    experiment: Experiment,
    data: Prepared,
    key: str,
    params: dict[str, Any],
    seed: int = 0,
    *,
    can_be_pruned: bool = False,
) -> TrainJob:
    """Return the job that trains a configuration on the data that is prepared for it."""
    folds = data.of(params).folds
    return train_job(experiment, folds, key, params, seed, can_be_pruned=can_be_pruned)


@contextlib.contextmanager
def _ended(observer: Observer) -> Iterator[None]:
    """Report the end of a search, also when it fails."""
    done = False
    try:
        yield
        done = True
    finally:
        observer.on_end(done)


@dataclass
class _Run:
    """The stages of one search, and their shared state."""

    experiment: Experiment
    data: Prepared
    study: optuna.Study
    storage: BaseStorage
    read: Callable[[], StudyRecord]
    executor: Executor
    options: SearchOptions
    observer: Observer
    stop: threading.Event
    source: DataSource

    def __post_init__(self) -> None:
        self.distributions = to_distributions(self.experiment.search_space)
        self.models = TrainedModels(
            self.experiment, self.data, self.executor, self.observer, self.stop
        )
        self.refitted: dict[tuple[int | None, int], Refit | None] = {}  # by winner and repeats

    def trials(self) -> None:
        """Search until the budget is used."""
        experiment = self.experiment
        prunes = experiment.pruner.name != "none"

        def make_job(trial: optuna.Trial) -> TrainJob:
            key = TrialKey(Role.TRIAL, trial.number)
            seed = seed_of(trial.user_attrs, trial.number, experiment.seed)
            return _job(experiment, self.data, str(key), trial.params, seed, can_be_pruned=prunes)

        begun, budget = time.monotonic(), experiment.budget
        record = self.read()
        trained_before, spent_s = len(record.trained), record.seconds
        self._announce(trained_before)

        def seconds() -> float:
            return spent_s + time.monotonic() - begun

        def out_of_time() -> bool:
            return budget.timeout is not None and seconds() >= budget.timeout

        kind = AsynchronousCoordinator if experiment.asynchronous else Coordinator
        coordinator = kind(
            self.study,
            self.distributions,
            experiment.strategy.rhythm,
            self.executor,
            make_job,
            Limits(
                budget.trials,
                n_configurations=space_size(experiment.search_space),
                stagnation=budget.stagnation,
                retries=budget.retries,
                out_of_time=out_of_time,
            ),
            second=experiment.objective.cost,
            n_folds=experiment.n_folds,
            pruner=make_pruner(
                experiment.pruner,
                budget.epochs,
                experiment.n_folds,
                by_loss=experiment.losses_compare,
            ),
            seed=experiment.seed,
            observer=self.observer,
            stop=self.stop,
            grouping=grouping_of(experiment, self.study, self.executor),
        )
        try:
            finished = coordinator.run()
        finally:
            if coordinator.trained > trained_before:
                self.study.set_user_attr(TIME_ATTR, seconds())
        if finished and (why := self.read().why_ended(coordinator.exhausted, out_of_time())):
            self.observer.note(why)
        self._interrupt_unless(finished)

    def _announce(self, n_trained: int) -> None:
        n_trials = self.experiment.n_trials
        if n_trials is None or n_trained < n_trials:
            done = f"{n_trained} of " if n_trained else ""
            count = "" if n_trials is None else f"{done}{n_trials} trials, "
            self.observer.note(
                f"searching {self.study.study_name}: {count}{self.executor.n_workers} at a time"
            )

    def finalists(self) -> None:
        """Train the best configurations, and the untuned default, again on fresh seeds."""
        record = self.read()
        find_winner(record)  # raises where every trial failed
        test = record.test
        if test is not None and test.after_trials >= len(record.trained) and not record.raised:
            return  # the tested study was complete
        study = enqueue_finalists(self.storage, record)
        n_trials = len(study.get_trials(deepcopy=False)) if study else 0
        if study is None or not n_trials:
            return

        def make_job(trial: optuna.Trial) -> TrainJob:
            frozen = self.storage.get_trial(trial._trial_id)
            return self.models.job(read_trial(frozen, self.experiment))

        coordinator = Coordinator(
            study,
            self.distributions,
            Rhythm(size=n_trials, generational=True),  # none waits for another
            self.executor,
            make_job,
            Limits(n_trials, retries=self.experiment.budget.retries),
            distinct=False,
            n_folds=self.experiment.n_folds,
            seed=self.experiment.seed,
            observer=self.observer,
            stop=self.stop,
        )
        before = sum(run.outcome is not None for run in record.finalists)
        self._interrupt_unless(coordinator.run())
        self.models.keep(coordinator.weights)
        if record.test is not None and n_trials > before and not self.options.reopen_test:
            self.observer.note(not_evaluated_again(self.read()))

    def test(self, folder: Path) -> None:
        """Evaluate on the test set; a second time only with `reopen_test`."""
        record = self.read()
        if record.test is not None:
            if not self.options.reopen_test:
                return
            if why_not := why_not_again(record):
                self.observer.note(why_not)
                return
        self._interrupt_unless(not self.stop.is_set())
        winner, default = find_winner(record), default_of(record)
        own = default.repeats if default and not winner.is_default else ()
        of_all = self.models.of([*winner.runs, *own])
        refit = self._refit(record, winner, own, folder) if record.experiment.refits else None
        self._interrupt_unless(not self.stop.is_set())
        models, default_models = of_all[: len(winner.runs)], of_all[len(winner.runs) :]
        metric, season = self.experiment.objective.metric, self.data.facts.season
        others = preparations_of(self.experiment)[1:]
        choices = choose(
            metric,
            self.data.folds[-1],
            season,
            [(preparation, self.data.of(preparation).folds[-1]) for preparation in others],
        )
        calibration = calibrate_all(record.experiment, models, self.executor)
        tested = EvaluatedModels(models, default_models, refit, calibration, choices)
        opened = score_on_test(record, winner, tested, self.executor, folder / "test", self.source)
        opened["retrained_differently"] = [
            run.key.name for run in (*winner.runs, *own) if self.models.differs(run)
        ]
        if record.test is None:
            self.study.set_user_attr(TEST_ATTR, opened)
        else:
            earlier = [opening.to_json() for opening in record.openings[1:]]
            self.study.set_user_attr(REOPENED_ATTR, [*earlier, opened])

    def winner(self, folder: Path) -> None:
        """Emit the winner's model, if this run has its weights."""
        record = self.read()
        winner = find_winner(record)
        run = winner.reproducible
        weights = self.models.weights_of(run)
        if weights is None:
            return
        has_refit = refit_epochs(record, winner) is not None
        self.observer.on_winner(
            TrainedWinner(
                record,
                self.data.of(run.params),
                self.models.job(run),
                weights,
                self.executor,
                partial(self._refit, record, winner, (), folder) if has_refit else None,
            )
        )

    def _refit(
        self, record: StudyRecord, winner: Winner, default_runs: Sequence[TrialRecord], folder: Path
    ) -> Refit | None:
        """Train the winner and the default again on training and validation set, once."""
        key = winner.number, len(winner.runs)
        if key not in self.refitted:
            self.refitted[key] = refit(
                record,
                winner,
                default_runs,
                folder / f"refit{len(self.refitted)}",
                self.executor,
                self.observer,
                self.stop,
                self.source,
            )
        return self.refitted[key]

    def _interrupt_unless(self, finished: bool) -> None:
        if not finished:
            raise Interrupted(STOPPED)
