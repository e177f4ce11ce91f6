"""The service: its records, workers, searches and external studies put together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import optuna

from tuner.errors import JournalAway, TunerError
from tuner.executors.choice import choose_executor
from tuner.executors.local import find_gpus, trains_on
from tuner.experiment.schema import Resources
from tuner.service.access import Access, Owner
from tuner.service.datasets import DatasetStore
from tuner.service.events import EventLogs
from tuner.service.experiments import Experiments
from tuner.service.external import ExternalStudies
from tuner.service.fair_share import FairShare
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem
from tuner.service.records import hold_records
from tuner.service.results import Results
from tuner.service.searches import Searches
from tuner.service.settings import Settings
from tuner.service.studies import Kind, Studies, Study
from tuner.service.submissions import datasets_of
from tuner.service.trial_table import TrialTables
from tuner.service.workers import PullWorkers
from tuner.tracking import local_store_in

_ERASE_S = 5.0  # that a deletion waits for another one
_GROW_S = 600.0  # that trials wait for a cluster that has to grow first
_log = logging.getLogger("tuner.service")


class Controller(Protocol):
    """Starts and ends studies of one kind."""

    def cancel(self, study: Study) -> None:
        """End a study now; it can be resumed."""

    def resume(self, study: Study, owner: Owner) -> None:
        """Go on with a study that was cancelled or has failed."""

    def extend(self, study: Study, changes: Mapping[str, Any], owner: Owner) -> None:
        """Give a study another budget: `trials`, `timeout`, `reopen_test`."""

    def closed(self, study: Study) -> AbstractContextManager[None]:
        """Keep a study closed for the block, in which it may be deleted."""


class Service:
    """Everything behind the routes.

    Its parts exist from `start` on, but for `access`: who may call.

    Args:
        settings: of `tuner serve`.
        make_pool: makes the workers from their number; by default as `settings.executor` names
            them.

    Raises:
        InputError: the file of tokens cannot be used.
    """

    def __init__(self, settings: Settings, make_pool: Callable[[int], Any] | None = None) -> None:
        self.settings = settings
        self._make_pool = make_pool
        self.access = Access.of(settings)
        self._erasing = threading.Lock()
        self._stack = ExitStack()

    def start(
        self,
        stand_by: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Open the records, and resume what ran; waits while another service holds them.

        Args:
            stand_by: called once with the reason if it waits; None raises instead.
            stop: ends the wait.

        Returns:
            Whether it has started; False if `stop` ended the wait.

        Raises:
            InputError: the folder, the journal or the executor cannot be used.
            JournalInUse: another service holds the records, and `stand_by` is None.
        """
        settings, root = self.settings, self.settings.root
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with ExitStack() as undone_on_failure:
            enter = undone_on_failure.enter_context
            enter(local_store_in(root))
            held = hold_records(root, settings.journal, _log.warning, stand_by=stand_by, stop=stop)
            records = enter(held)
            if records is None:
                return False
            self.records = records
            self.studies = Studies(records)
            self.datasets = DatasetStore(root, settings.limits)
            undone_on_failure.callback(self.datasets.close)
            self.experiments = Experiments(self.datasets, settings)
            self.events = EventLogs(root / "events")
            undone_on_failure.callback(self.events.close)
            self.tables = TrialTables(root / "trials")
            self.pool = self._open_pool()
            undone_on_failure.callback(self.pool.close)
            self.workers = PullWorkers(self.pool, most_bytes=settings.limits.upload_bytes)
            undone_on_failure.callback(self.workers.close)
            self.searches = Searches(
                self.studies, records, self.pool, self.events, self.tables, self.datasets, root
            )
            self.results = Results(
                self.studies, self.searches, records, self.tables, self.datasets, root / "models"
            )
            self.external = ExternalStudies(
                self.studies,
                records,
                self.events,
                self.tables,
                settings,
                self.access.limits_of,
            )
            undone_on_failure.callback(self.external.stop)
            self._controllers: dict[Kind, Controller] = {
                Kind.SEARCH: self.searches,
                Kind.EXTERNAL: self.external,
            }
            self._erase_the_rest()
            self.searches.start()
            undone_on_failure.callback(self.searches.stop)
            self._stack = undone_on_failure.pop_all()
        return True

    def _open_pool(self) -> SharedPool:
        resources = Resources(wait=_GROW_S)
        choice = choose_executor(self.settings.executor, resources, _log.warning)
        n_workers = self.settings.workers
        n_workers = choice.capacity if n_workers is None else n_workers
        make = self._make_pool or choice.make
        share = FairShare[str](owner_limit=self._workers_of)
        is_local = self.settings.executor == "local"
        has_gpus = resources.gpus > 0 or (is_local and trains_on(find_gpus()))
        return SharedPool(make, n_workers, share, resources=resources, has_gpus=has_gpus)  # type: ignore[arg-type]

    def _workers_of(self, owner: str) -> int | None:
        """Return how many workers an owner's studies may use at a time."""
        return self.access.limits_of(owner).workers

    @property
    def failed(self) -> str | None:
        """Why the service does not go on with searches; None while it does."""
        if self.records.failed:
            return "the journal's database was away for too long; start the service again"
        return self.searches.failed

    def controller(self, owner: str, name: str) -> Controller:
        """Return what cancels, resumes and extends a study.

        Raises:
            Problem: 404, there is no such study.
        """
        return self._controllers[self.studies.get(owner, name).kind]

    def delete(self, owner: str, name: str) -> None:
        """Delete a study that has ended, with all that the service keeps of it.

        What an error or the death of the service interrupts, the same call or the next start ends.

        Raises:
            Problem: 404, there is no such study; 409, it has not ended, or still writes.
            JournalAway: the journal cannot be written now.
        """
        study = self.studies.get(owner, name)
        self.studies.begin_removal(study)
        self._erase(study)

    def _erase(self, study: Study) -> None:
        """Remove all of a study whose removal has begun."""
        if not self._erasing.acquire(timeout=_ERASE_S):
            raise JournalAway("another study is being deleted", remedy="try again")
        try:
            if self.studies.find(study.owner, study.name) is not study:
                return  # another thread has
            with self._controllers[study.kind].closed(study):
                self.results.forget(study)
                self.events.remove(study.owner, study.name)
                self.studies.remove(study)
        finally:
            self._erasing.release()

    def _erase_the_rest(self) -> None:
        """Go on with deletions that were interrupted."""
        for study in self.studies.half_deleted():
            try:
                self._erase(study)
            except (Problem, TunerError, OSError) as error:
                _log.error("study %s is not deleted yet: %s", study.key, error)

    def used_by(self, owner: str, dataset: str) -> list[str]:
        """Return the names of the studies that use a dataset."""
        own = self.studies.of(owner)
        return [study.name for study in own if dataset in datasets_of(study.spec)]

    def stop(self) -> None:
        """End the searches, whose running trials are given up, and close everything."""
        self._stack.close()
