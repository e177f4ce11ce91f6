"""One search from end to end.

experiment -> prepared data -> study -> trials -> finalists -> test part, opened once
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.coordination.coordinator import (
    AsynchronousCoordinator,
    Coordinator,
    Limits,
    why_it_ended,
)
from tuner.coordination.events import Observer, Observers
from tuner.coordination.finalists import default_of, enqueue_finalists
from tuner.coordination.opening import Earlier, as_begun, open_study, recorded_run
from tuner.coordination.pruning import make_pruner
from tuner.data.baselines import baselines_record, choose, preparations_of
from tuner.data.prepared import Prepared, prepare
from tuner.errors import Interrupted
from tuner.executors import Executor, LocalExecutor
from tuner.executors.base import STOPPED, train_job
from tuner.experiment import Experiment, space_size
from tuner.experiment.space import to_distributions
from tuner.jobs import TrainJob
from tuner.journal.records import StudyRecord, TrialRecord, read_study, read_trial
from tuner.journal.storage import (
    REOPENED_ATTR,
    TEST_ATTR,
    TIME_ATTR,
    journal_location,
    seed_of,
    training_name,
    write_journal,
)
from tuner.outputs import scratch_folder
from tuner.results.advice import advice_on_data
from tuner.results.predictions import calibrate_all
from tuner.results.retraining import Refit, TrainedModels, Training, refit, refit_epochs
from tuner.results.test_score import score_on_test, stays_closed, why_not_again
from tuner.results.winner import Winner, find_winner
from tuner.strategies.base import Rhythm
from tuner.tracking import NullTracker, Tracker
from tuner.tracking.tracker import TrackingObserver, closed_at_end
from tuner.winner import trained

__all__ = ["default_study_name", "search"]


def default_study_name(experiment: Experiment) -> str:
    """Return the name that a study gets unless one is given.

    Where nothing is searched the strategy has no say; an exported file is run beside its study.
    """
    how = experiment.strategy.name if experiment.search_space else "fixed"
    return f"{experiment.name}-{how}-{experiment.seed}"


def search(
    experiment: Experiment,
    *,
    study: str | None = None,
    journal: str | None = None,
    workers: int = 1,
    make_executor: Callable[[int], Executor] = LocalExecutor,
    make_tracker: Callable[[Callable[[], StudyRecord]], Tracker] | None = None,
    observer: Observer | None = None,
    stop: threading.Event | None = None,
    finalists: bool = True,
    open_test: bool = True,
    reopen_test: bool = False,
    keep_model: Callable[[Callable[[], Training], Executor], None] | None = None,
    earlier: Sequence[Earlier] = (),
) -> StudyRecord:
    """Run an experiment to its end, or go on where an earlier run of it stopped.

    Args:
        experiment: what is searched.
        study: its name; `<experiment>-<strategy>-<seed>` by default.
        journal: a file or a database's URL; `studies/STUDY.journal` by default.
        workers: how many jobs run at a time; the result does not depend on it.
        make_executor: makes the executor from the number of workers.
        make_tracker: makes the tracker from a function that reads the study; none by default.
        observer: is told what happens.
        stop: once set, trials in progress come to their end and the search stops.
        finalists: whether the best configurations are retrained after the search; a later call
            may do it. Without that the test part stays closed as well.
        open_test: whether the test part is opened at the end; a later call may do it.
        reopen_test: whether it is opened again where the search has gone on since and has
            another winner; the score is not one of unseen rows then.
        keep_model: is called at the end, where this call opened the test part, with what gives
            the winner's training, and the executor; the data's arrays are there until it returns.
        earlier: what a new study begins from.

    Returns:
        The study as its journal has it.

    Raises:
        InputError: the experiment, its data or the journal cannot be used; nothing was begun.
        RunError: every trial failed.
        Interrupted: `stop` was set; the same call goes on from there.
    """
    observer = observer or Observer()
    name = study or default_study_name(experiment)
    location = journal_location(name, journal)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        data = prepare(experiment, folder / "search")
        storage = stack.enter_context(write_journal(location, name, observer.note))
        distributions = to_distributions(experiment.search_space)
        known = data.facts
        facts = {"path": experiment.data.path, "sha256": known.sha256, "rows": known.rows}
        if (test_file := experiment.data.split.test_file) is not None:
            facts["test_file"] = test_file
        metric = experiment.objective.metric
        remarks = [advice.to_json() for advice in advice_on_data(experiment, known)]

        def plain() -> dict[str, Any]:
            others = [(p, data.of(p).folds) for p in preparations_of(experiment)[1:]]
            record = baselines_record(metric, data.folds, known.season, others)
            return record | {"remarks": remarks}

        opened = open_study(
            storage,
            location,
            name,
            experiment,
            facts,
            plain,
            distributions,
            finalists=finalists,
            earlier=earlier,
        )
        experiment = as_begun(opened, experiment)

        def read() -> StudyRecord:
            return read_study(storage, name, location)

        tracker = make_tracker(read) if make_tracker else NullTracker()
        stack.enter_context(closed_at_end(tracker))
        stack.enter_context(recorded_run(opened, experiment, finalists=finalists))
        executor = make_executor(workers)
        stack.callback(executor.close)
        run = _Run(
            experiment=experiment,
            data=data,
            study=opened,
            storage=storage,
            read=read,
            executor=executor,
            observer=Observers([observer, TrackingObserver(tracker)]),
            stop=stop or threading.Event(),
            reopens=reopen_test,
        )
        run.trials(distributions)
        if finalists:
            run.finalists(distributions)
        if finalists and open_test:
            run.test(folder)
        if finalists and open_test and keep_model is not None:
            run.keep(keep_model, folder)
        return read()


class _Run:
    """The stages of one search, and what they share."""

    def __init__(
        self,
        *,
        experiment: Experiment,
        data: Prepared,
        study: optuna.Study,
        storage: BaseStorage,
        read: Callable[[], StudyRecord],
        executor: Executor,
        observer: Observer,
        stop: threading.Event,
        reopens: bool,
    ) -> None:
        self._reopens = reopens  # the test part, if it was opened before and that says anything new
        self._experiment, self._data, self._study = experiment, data, study
        self._storage, self._read, self._executor = storage, read, executor
        self._observer, self._stop = observer, stop
        self._models = TrainedModels(experiment, data, executor, observer, stop)
        self._refitted: dict[tuple[int | None, int], Refit | None] = {}  # by winner and repeats

    def trials(self, distributions: dict[str, optuna.distributions.BaseDistribution]) -> None:
        """Search until the budget is used."""
        experiment = self._experiment
        prunes = experiment.pruner.name != "none"

        def make_job(trial: optuna.Trial) -> TrainJob:
            seed = seed_of(trial.user_attrs, trial.number, experiment.seed)
            key = f"trial {trial.number}"
            params = trial.params
            folds = self._data.of(params).folds
            return train_job(experiment, folds, key, params, seed, can_be_pruned=prunes)

        begun, limit_s = time.monotonic(), experiment.budget.timeout
        record = self._read()
        trained_before, spent_s = len(record.trained), record.seconds
        n_trials = experiment.n_trials
        if n_trials is None or trained_before < n_trials:
            done = f"{trained_before} of " if trained_before else ""
            count = "" if n_trials is None else f"{done}{n_trials} trials, "
            self._observer.note(
                f"searching {self._study.study_name}: {count}{self._executor.n_workers} at a time"
            )

        def out_of_time() -> bool:
            return limit_s is not None and spent_s + time.monotonic() - begun >= limit_s

        kind = AsynchronousCoordinator if experiment.asynchronous else Coordinator
        coordinator = kind(
            self._study,
            distributions,
            experiment.strategy.rhythm,
            self._executor,
            make_job,
            Limits(
                experiment.budget.trials,
                n_configurations=space_size(experiment.search_space),
                stagnation=experiment.budget.stagnation,
                retries=experiment.budget.retries,
                out_of_time=out_of_time,
            ),
            second=experiment.objective.cost,
            n_folds=experiment.n_folds,
            pruner=make_pruner(
                experiment.pruner,
                experiment.budget.epochs,
                experiment.n_folds,
                by_loss=experiment.losses_compare,
            ),
            seed=experiment.seed,
            observer=self._observer,
            stop=self._stop,
        )
        try:
            finished = coordinator.run()
        finally:
            if coordinator.trained > trained_before:
                self._study.set_user_attr(TIME_ATTR, spent_s + time.monotonic() - begun)
        if finished:
            n_trained, exhausted = len(self._read().trained), coordinator.exhausted
            if why := why_it_ended(experiment, n_trained, exhausted, out_of_time()):
                self._observer.note(why)
        self._interrupt_unless(finished)

    def finalists(self, distributions: dict[str, optuna.distributions.BaseDistribution]) -> None:
        """Train the best configurations, and the untuned default, again on fresh seeds."""
        record = self._read()
        find_winner(record)  # raises where every trial failed
        test = record.test
        if test is not None and test.after_trials >= len(record.trained) and not record.raised:
            return  # what was tested then was complete
        study = enqueue_finalists(self._storage, record)
        n_trials = len(study.get_trials(deepcopy=False)) if study else 0
        if study is None or not n_trials:
            return

        def make_job(trial: optuna.Trial) -> TrainJob:
            frozen = self._storage.get_trial(trial._trial_id)
            return self._models.job(read_trial(frozen, self._experiment))

        coordinator = Coordinator(
            study,
            distributions,
            Rhythm(size=n_trials, generational=True),  # none waits for another
            self._executor,
            make_job,
            Limits(n_trials, retries=self._experiment.budget.retries),
            distinct=False,
            n_folds=self._experiment.n_folds,
            seed=self._experiment.seed,
            observer=self._observer,
            stop=self._stop,
        )
        before = sum(run.outcome is not None for run in record.finalists)
        self._interrupt_unless(coordinator.run())
        self._models.keep(coordinator.weights)
        if record.test is not None and n_trials > before and not self._reopens:
            self._observer.note(stays_closed(self._read()))

    def test(self, folder: Path) -> None:
        """Open the test part; where this study has done so before, only if it is asked to."""
        record = self._read()
        if record.test is not None:
            if not self._reopens:
                return
            if why_not := why_not_again(record):
                self._observer.note(why_not)
                return
        self._interrupt_unless(not self._stop.is_set())
        winner, default = find_winner(record), default_of(record)
        own = default.repeats if default and not winner.is_default else ()
        of_all = self._models.of([*winner.runs, *own])
        refit = self._refit(record, winner, own, folder) if record.experiment.refits else None
        self._interrupt_unless(not self._stop.is_set())
        models, default_models = of_all[: len(winner.runs)], of_all[len(winner.runs) :]
        metric, season = self._experiment.objective.metric, self._data.facts.season
        others = preparations_of(self._experiment)[1:]
        choices = choose(
            metric,
            self._data.folds[-1],
            season,
            [(preparation, self._data.of(preparation).folds[-1]) for preparation in others],
        )
        calibration = calibrate_all(record.experiment, models, self._executor)
        opened = score_on_test(
            record,
            winner,
            models,
            self._executor,
            folder / "test",
            default_models,
            refit,
            calibration,
            choices,
        )
        opened["retrained_differently"] = [
            training_name(run.role, run.number, run.configuration, run.repeat)
            for run in (*winner.runs, *own)
            if self._models.differs(run)
        ]
        if record.test is None:
            self._study.set_user_attr(TEST_ATTR, opened)
        else:
            self._study.set_user_attr(
                REOPENED_ATTR, [*(t.to_json() for t in record.openings[1:]), opened]
            )

    def keep(
        self, keep_model: Callable[[Callable[[], Training], Executor], None], folder: Path
    ) -> None:
        """Hand over the winner's training, if this run has its weights."""
        record = self._read()
        winner = find_winner(record)
        run = winner.reproducible
        weights = self._models.weights_of(run)
        if weights is None:
            return
        refit = None
        if refit_epochs(record, winner) is not None:
            refit = self._refit(record, winner, (), folder)
        executor, job = self._executor, self._models.job(run)
        data = self._data.of(run.params)
        keep_model(partial(trained, record, data, job, weights, executor, refit), executor)

    def _refit(
        self, record: StudyRecord, winner: Winner, default_runs: Sequence[TrialRecord], folder: Path
    ) -> Refit | None:
        """Train the winner and the default again on training and validation part, once."""
        key = winner.number, len(winner.runs)
        if key not in self._refitted:
            self._refitted[key] = refit(
                record,
                winner,
                default_runs,
                folder / f"refit{len(self._refitted)}",
                self._executor,
                self._observer,
                self._stop,
            )
        return self._refitted[key]

    def _interrupt_unless(self, finished: bool) -> None:
        if not finished:
            raise Interrupted(STOPPED)
