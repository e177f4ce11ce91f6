"""The searches of the service: their queue, and a thread for each that runs.

A search runs exactly as `tuner run` runs it, with the service's workers as its executor. So its
trials are the same, and a search that a dying service left behind goes on when the next one starts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tuner.coordination.coordinator import Asked, Observer, SearchStart
from tuner.coordination.finalists import find_winner
from tuner.coordination.opening import Earlier
from tuner.errors import Interrupted, JournalAway, TunerError
from tuner.executors.choice import ExecutorChoice
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import StudyRecord, read_study
from tuner.journal.storage import Role, TrialKey, read_journal
from tuner.orchestrator import (
    Notes,
    SearchOptions,
    choose_workers,
    search,
    start_notes,
    sync_command,
    tracking_observer,
)
from tuner.progress.reporters import FailureNotice
from tuner.results.advice import in_the_way
from tuner.service.access import Owner
from tuner.service.confined_data import ConfinedData
from tuner.service.datasets import DatasetStore
from tuner.service.events import EventLogs, EventReporter
from tuner.service.hiding import public
from tuner.service.models import ServedModel, as_client_wrote
from tuner.service.pool import NO_WORKERS, SharedPool, StudyExecutor
from tuner.service.problems import Problem, unexpected
from tuner.service.records import ServiceJournal
from tuner.service.resubmission import (
    AT_NEXT_RUN,
    check_raised,
    resubmitted,
    with_options,
    with_values,
)
from tuner.service.studies import Facts, Kind, Progress, State, Studies, Study
from tuner.service.submissions import Submission, check_trials, client_paths, load_experiment
from tuner.service.trial_table import TrialTables

MOST_RUNNING = 256
"""Searches that run at a time: each has a thread, and its data on the disk."""

_MOST_STARTING = 2  # of these, those of an owner that prepare their data
_PAUSE_S = 5.0  # after an error of the scheduler, and while the journal is away
_WAIT_S = 3600.0  # for the journal, to write that a search has ended
_CLOSE_S = 10.0  # for a search that is cancelled, before it is deleted


@dataclass(eq=False)
class _Running:
    """A search that has a thread."""

    study: Study
    executor: StudyExecutor
    stop: threading.Event = field(default_factory=threading.Event)
    starting: bool = True  # until its data is prepared
    ended_by: Interrupted | None = None

    def end(self, why: str) -> None:
        """Have its thread raise `Interrupted` soon, wherever it is."""
        self.ended_by = Interrupted(why)
        self.stop.set()
        self.executor.abort(self.ended_by)

    def stopped(self) -> None:
        """Raise the error of `end` after it was called."""
        if self.ended_by is not None:
            raise self.ended_by


class Searches:
    """Queue and threads of all searches.

    Args:
        studies: the index of studies.
        records: opens the journals.
        pool: the workers.
        events: the logs of events.
        tables: the rows of trials.
        datasets: the data of the experiments.
        root: the service's folder; winners' models are in its `models`.
    """

    def __init__(
        self,
        studies: Studies,
        records: ServiceJournal,
        pool: SharedPool,
        events: EventLogs,
        tables: TrialTables,
        datasets: DatasetStore,
        root: Path,
    ) -> None:
        self._studies, self._records, self._pool, self._events = studies, records, pool, events
        self._tables, self._datasets, self._root = tables, datasets, root
        self._changed = threading.Condition()
        self._running: dict[tuple[str, str], _Running] = {}
        self._threads: set[threading.Thread] = set()
        self._stopping = False
        self.failed: str | None = None
        """Why no search is started any more."""
        self._scheduler = threading.Thread(target=self._schedule, name="scheduler", daemon=True)

    def start(self) -> None:
        """Resume what ran when the service ended, then what is queued."""
        self._scheduler.start()

    def stop(self) -> None:
        """End all threads now; running trials are given up, and run again at the next start."""
        with self._changed:
            self._stopping = True
            running, threads = list(self._running.values()), list(self._threads)
            self._changed.notify_all()
        for each in running:
            each.end("the service stops")
        for thread in (self._scheduler, *threads):
            if thread.ident is not None:
                thread.join()

    def submit(self, owner: Owner, submission: Submission) -> tuple[Study, bool]:
        """Queue a search, or return the one of this name if it is the same.

        The same search with a larger budget is extended, as `tuner run` extends it; with a
        smaller one it stays as it is. Other options that were given count from its next run on.

        Returns:
            The study, and whether it is new.

        Raises:
            Problem: 404, a study to start from does not exist; 409, the name belongs to another
                study; 422, too many trials; 429, too many studies are queued.
            RunError: the journal cannot be written.
        """
        spec = submission.spec
        with self._studies.changing():
            known = self._studies.find(owner.name, submission.name)
            if known is not None:
                self._studies.check_stays(known)
                if known.kind is not Kind.SEARCH:
                    rule = f"study {known.name!r} is external: its models train elsewhere"
                    raise Problem(409, f"{rule}; give another name")
                self._submit_again(owner, known, submission)
                return known, False
            for source in spec["from"]:
                self._studies.get(owner.name, source)
            self._studies.check_room(owner)
            facts = _facts(submission.experiment)
            study = self._studies.add(owner.name, submission.name, Kind.SEARCH, spec, facts)
        self._wake()
        return study, True

    def _submit_again(self, owner: Owner, study: Study, submission: Submission) -> None:
        if study.was_submitted(submission.spec):
            spec = with_options(study.spec, submission)
        else:
            spec = resubmitted(study, self._experiment(study.spec, study.owner), submission)
        if spec | {key: study.spec[key] for key in AT_NEXT_RUN} != study.spec:
            check_trials(self._experiment(spec, study.owner), owner.limits)
            self._studies.check_room(owner, study)
            self._change(study, spec)
        elif spec != study.spec:
            self._studies.respecify(study, spec, study.facts)

    def cancel(self, study: Study) -> None:
        """End a search now, whatever it does; it can be resumed.

        Raises:
            Problem: 409, it has failed or is done.
        """
        with self._studies.changing():
            study.check_can_cancel()
            if study.state is State.CANCELLED:
                return
            self._studies.change(study, State.CANCELLED)
            if not self._abort(study, "cancelled"):
                self._reporter(study).cancelled()

    def resume(self, study: Study, owner: Owner) -> None:
        """Queue a search again that was cancelled or has failed.

        Raises:
            Problem: 409, it is done; 429, too many studies are queued.
        """
        with self._studies.changing():
            study.check_can_resume()
            self._studies.check_room(owner, study)
            if study.state.has_ended:
                self._studies.change(study, State.QUEUED)
        self._wake()

    def extend(self, study: Study, changes: Mapping[str, Any], owner: Owner) -> None:
        """Give a search a larger budget; a running one begins again from what it has.

        Args:
            study: the search.
            changes: `trials`, `timeout`, `reopen_test`; each may be missing.
            owner: of the study, with the limits.

        Raises:
            InputError: a value is not allowed.
            Problem: 422, a smaller budget, or too many trials.
        """
        budget = {f"budget.{k}": changes[k] for k in ("trials", "timeout") if k in changes}
        with self._studies.changing():
            before = self._experiment(study.spec, study.owner)
            after = before.changed(budget)
            check_trials(after, owner.limits)
            check_raised(study, before, after)
            values = {key: getattr(after.budget, key.removeprefix("budget.")) for key in budget}
            spec = with_values(study.spec, values)
            spec["reopen_test"] = spec["reopen_test"] or bool(changes.get("reopen_test"))
            self._studies.check_room(owner, study)
            self._change(study, spec)

    @contextmanager
    def closed(self, study: Study) -> Iterator[None]:
        """Wait until a search that has ended writes nothing any more; then it is deleted.

        Raises:
            Problem: 409, it still does after some seconds.
        """
        key = (study.owner, study.name)
        with self._changed:
            if not self._changed.wait_for(lambda: key not in self._running, _CLOSE_S):
                detail = f"study {study.name!r} has not stopped yet; try again"
                raise Problem(409, detail, headers={"Retry-After": "5"})
        yield

    def _change(self, study: Study, spec: dict[str, Any]) -> None:
        if spec == study.spec and not study.state.has_ended:
            return
        facts = _facts(self._experiment(spec, study.owner))
        # In this order: a service that dies between them runs the old search to its end again,
        # and the request, which has no answer, is sent again.
        self._studies.change(study, State.QUEUED)
        self._studies.respecify(study, spec, facts)
        self._abort(study, "extended")
        self._wake()

    def usage(self) -> dict[str, int]:
        """Return the number of workers, and of those that train."""
        return {"workers": self._pool.n_workers, "busy": self._pool.busy}

    def waits(self, study: Study) -> str | None:
        """Return why the trials of an open study do not begin; None if there are workers."""
        is_open = study.kind is Kind.SEARCH and not study.state.has_ended
        return NO_WORKERS if is_open and not self._pool.serves(study.owner) else None

    def positions(self, owner: str) -> dict[Study, int]:
        """Return the places of an owner's queued studies among them, from 1."""
        with self._changed:
            own = [s for s in self._queue() if s.owner == owner and s.state is State.QUEUED]
        return {study: place for place, study in enumerate(own, 1)}

    def _abort(self, study: Study, why: str) -> bool:
        """End the thread of a study; return whether there is one."""
        with self._changed:
            running = self._running.get((study.owner, study.name))
        if running is not None:
            running.end(why)
        return running is not None

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _reporter(self, study: Study) -> EventReporter:
        return EventReporter(self._events.of(study.owner, study.name), self._root)

    def _queue(self) -> list[Study]:
        """Return the studies that wait, the next one first: those of a service that died lead."""
        waiting = self._studies.in_state(State.QUEUED, State.RUNNING, kind=Kind.SEARCH)
        waiting = [s for s in waiting if (s.owner, s.name) not in self._running]
        return sorted(waiting, key=lambda s: (s.state is State.QUEUED, -priority(s), s.number))

    def _schedule(self) -> None:
        """Start searches while there is room, in turn between their owners."""
        try:
            while (study := self._wait_for_next()) is not None:
                try:
                    self._start(study)
                except JournalAway:  # the disk is full, say
                    self._pause()
                except Exception as error:
                    self._give_up(study, unexpected(error).detail)
        except BaseException as error:
            self.failed = f"no search is started any more: {unexpected(error).detail}"
            raise

    def _wait_for_next(self) -> Study | None:
        """Return the study that is to start now, once there is one; None when the service stops."""
        while True:
            try:
                with self._changed:
                    while not self._stopping and (study := self._next()) is None:
                        self._changed.wait()
                    return None if self._stopping else study
            except Exception as error:
                unexpected(error)
                self._pause()

    def _give_up(self, study: Study, why: str) -> None:
        """End a search that cannot be started."""
        try:
            self._end(study, State.FAILED, why, expected=(State.QUEUED, State.RUNNING))
        except Exception as error:
            unexpected(error)
        self._pause()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, _PAUSE_S)

    def _next(self) -> Study | None:
        if len(self._running) >= MOST_RUNNING:
            return None
        busy = Counter(owner for owner, _ in self._running)
        starting = Counter(owner for (owner, _), r in self._running.items() if r.starting)
        waiting = (s for s in self._queue() if starting[s.owner] < _MOST_STARTING)
        return min(waiting, key=lambda study: busy[study.owner], default=None)

    def _start(self, study: Study) -> None:
        """Start a search, unless it has been cancelled meanwhile."""
        with self._studies.changing():
            if study.state.has_ended:
                return
            if study.state is State.QUEUED:
                self._studies.change(study, State.RUNNING)
            with self._changed:
                if not self._stopping:
                    self._begin(study)

    def _begin(self, study: Study) -> None:
        running = _Running(study, self._executor(study))
        thread = threading.Thread(
            target=self._run, args=(running,), name=f"search {study.key}", daemon=True
        )
        self._running[study.owner, study.name] = running
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            del self._running[study.owner, study.name]
            self._threads.discard(thread)
            running.executor.close()
            raise

    def _executor(self, study: Study) -> StudyExecutor:
        most = study.spec["max_workers"]
        return self._pool.executor(
            study.owner, study.name, priority=priority(study), max_workers=most
        )

    def _run(self, running: _Running) -> None:
        study = running.study
        reporter = self._reporter(study)
        try:
            record = self._search(running, reporter)
            study.progress.best = _winner(record)
            reporter.result(as_client_wrote(record, study.name, self._paths(study)), [])
        except Interrupted:
            if study.state is State.CANCELLED:
                reporter.cancelled()
        except TunerError as error:
            self._end(study, State.FAILED, str(public(error, self._root)), reporter)
        except Exception as error:
            self._end(study, State.FAILED, unexpected(error).detail, reporter)
        else:
            self._end(study, State.DONE, None, reporter)
        finally:
            running.executor.close()
            with self._changed:
                self._running.pop((study.owner, study.name), None)
                self._threads.discard(threading.current_thread())
                self._changed.notify_all()

    def _end(
        self,
        study: Study,
        state: State,
        error: str | None,
        reporter: EventReporter | None = None,
        *,
        expected: Container[State] = (State.RUNNING,),
    ) -> None:
        """Write the end of a search: first its state, then the event by which clients see it.

        Args:
            study: the study.
            state: the new one.
            error: of a search that has failed.
            reporter: of its run.
            expected: its states; nothing is done where it was cancelled, or queued again.
        """
        begun = time.monotonic()
        while True:
            try:
                if not self._studies.change(study, state, error, expected=expected):
                    if reporter is not None and study.state is State.CANCELLED:
                        reporter.cancelled()  # the thread had nothing left that would notice
                    return
                break
            except JournalAway as away:  # the next start of the service resumes it
                if self._stopping:
                    return
                if time.monotonic() - begun > _WAIT_S:
                    state = study.state = State.FAILED
                    error = study.error = error or str(public(away, self._root))
                    break
                self._pause()
        reporter = reporter or self._reporter(study)
        reporter.ended(str(state), error, 0 if state is State.DONE else 1)

    def _search(self, running: _Running, reporter: EventReporter) -> StudyRecord:
        study, spec, executor = running.study, running.study.spec, running.executor
        experiment, tracking = self._experiment(spec, study.owner), spec["tracking"]
        executor.on_wait = note = reporter.note
        source = ConfinedData(self._datasets.confined, study.owner, running.stop)

        def notes(record: StudyRecord) -> list[str]:
            return [*start_notes(experiment, record), *in_the_way(record)]

        def seen(record: StudyRecord) -> StudyRecord:
            return as_client_wrote(record, study.name, self._paths(study))

        place = self._records.place_of(study.owner, study.name)
        to_sync = f"{sync_command(study.name, None)} --server URL"  # as its owner calls it
        tracker = tracking_observer(to_sync, note)
        choice = ExecutorChoice(lambda n_workers: executor, executor.n_workers, "the service")
        options = SearchOptions(
            study=study.name,
            workers=choose_workers(None, experiment, choice),
            executor="service",
            tracking=tracking,
            open_test=spec["test"],
            reopen_test=spec["reopen_test"],
        )
        with ExitStack() as stack:
            table = stack.enter_context(
                self._tables.running(study.owner, study.name, sign=study.facts.sign)
            )
            folder = self._root / "models" / study.owner / study.name
            model = ServedModel(folder, note, seen, source)
            stack.enter_context(model)
            observers: list[Observer] = [
                _Started(partial(self._started, running)),
                ProgressOf(study.progress),
                table,
                reporter,
                Notes(note, notes),
                FailureNotice(note),
                model,
                *([tracker] if tracking else []),
            ]
            record = search(
                experiment,
                options,
                observers,
                make_executor=choice.make,
                stop=running.stop,
                place=place,
                earlier=self._earlier(study),
                source=source,
            )
            if model.is_missing(record):
                running.executor = self._executor(study)  # the search has closed its own
                running.executor.on_wait = note
                running.stopped()
                model.train(record, running.executor)
            if tracking and tracker.complete:
                model.log(record, None, to_sync, source.example)
            return record

    def _experiment(self, spec: Mapping[str, Any], owner: str) -> Experiment:
        return load_experiment(spec, owner, self._datasets)

    def _paths(self, study: Study) -> Mapping[str, str]:
        return client_paths(study.spec, study.owner, self._datasets)

    def _earlier(self, study: Study) -> list[Earlier]:
        """Read the studies of the same owner from which a new one starts."""
        found = []
        for name in study.spec["from"]:
            place = self._records.place_of(study.owner, name)
            record = read_study(read_journal(place.location), place.study, place.location)
            found.append(Earlier(name, record))
        return found

    def _started(self, running: _Running) -> None:
        with self._changed:
            running.starting = False
            self._changed.notify_all()


def _facts(experiment: Experiment) -> Facts:
    return Facts(
        experiment=experiment.name,
        strategy=experiment.strategy.name,
        seed=experiment.seed,
        metric=experiment.objective.metric,
        direction=experiment.objective.direction,
        trials=experiment.n_trials,
    )


def priority(study: Study) -> int:
    """Return the priority of a study among those of its owner; more comes first."""
    return int(study.spec.get("priority", 0))


class _Started(Observer):
    """Calls a function when the data of a search is prepared, or when it fails before."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_start(self, start: SearchStart) -> None:
        self._call()


class ProgressOf(Observer):
    """Keeps the progress of a search.

    Args:
        progress: is changed.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._params = progress, dict[TrialKey, dict[str, Any]]()
        self._sign = 1

    def on_start(self, start: SearchStart) -> None:
        record, best = start.record, start.record.best
        self._sign = record.sign
        self._progress.is_old = False
        self._progress.trained = len(record.trained)
        self._progress.best = _best(best.number, best.value, best.params) if best else None

    def asked(self, trial: Asked) -> None:
        self._params[trial.key] = dict(trial.params)

    def finished(self, key: TrialKey, outcome: Outcome, earlier: bool = False) -> None:
        params = self._params.pop(key, {})
        if key.role is not Role.TRIAL or earlier:
            return
        self._progress.trained += 1
        if outcome.state is not OutcomeState.COMPLETE or outcome.objective is None:
            return
        best = self._progress.best
        if best is None or self._sign * outcome.objective < self._sign * best["score"]:
            self._progress.best = _best(key.number, outcome.objective, params)


def _winner(record: StudyRecord) -> dict[str, Any] | None:
    """Return the best of a search that has ended: a finalist, or the untuned default, may win."""
    if record.best is None:
        return None
    winner = find_winner(record)
    score = winner.mean if winner.search_score is None else winner.search_score
    return _best(winner.number, score, winner.params)


def _best(trial: int | None, score: float | None, params: Any) -> dict[str, Any]:
    return {"trial": trial, "score": score, "params": dict(params)}
