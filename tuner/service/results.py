"""What the service answers about studies: lists, records, trials, reports, predictions."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tuner.journal.record_json import record_to_text
from tuner.journal.records import StudyRecord, StudyState, has_begun, read_study
from tuner.journal.storage import Place, journal_exists, read_journal
from tuner.outputs import scratch_folder
from tuner.report import page
from tuner.results.export import exported, render
from tuner.results.summary import summarize, trials_to_json
from tuner.service.confined import Allowed, most_memory
from tuner.service.datasets import DatasetStore, reading_allowed
from tuner.service.models import as_client_wrote
from tuner.service.problems import Problem
from tuner.service.records import ServiceJournal
from tuner.service.searches import Searches, priority
from tuner.service.studies import Kind, Progress, State, Studies, Study
from tuner.service.submissions import client_paths, datasets_of
from tuner.service.trial_table import Order, TrialTable, TrialTables

_RECORDS = 8  # of studies, kept in memory
_PREDICT_S = 15.0  # CPU time to predict, besides that to read
_FEWER = "give fewer rows, or download the model"
_STATES = {State.RUNNING: StudyState.RUNNING, State.DONE: StudyState.DONE}


class Results:
    """Reads studies and models for routes and pages.

    Thread-safe. `study`, `studies`, `trials` and `scores` answer at once; the other methods take
    time, so routes call them in threads.
    """

    def __init__(
        self,
        studies: Studies,
        searches: Searches,
        records: ServiceJournal,
        tables: TrialTables,
        datasets: DatasetStore,
        models: Path,
    ) -> None:
        self._studies, self._searches, self._records = studies, searches, records
        self._tables, self._datasets, self._models = tables, datasets, models
        self._progresses: WeakKeyDictionary[Study, Progress] = WeakKeyDictionary()
        self._recorded = lru_cache(_RECORDS)(lambda study, stamp: self._read(study))

    def study(self, owner: str, name: str) -> dict[str, Any]:
        """Return a study as `GET /v1/studies/{name}` does.

        Raises:
            Problem: 404, there is no such study.
        """
        return self._to_json(self._studies.get(owner, name), self._searches.positions(owner))

    def studies(
        self, owner: str, state: State | None, query: str | None, cursor: str | None, limit: int
    ) -> dict[str, Any]:
        """Return an owner's studies, newest first.

        Args:
            owner: of the studies.
            state: of the studies; None for all.
            query: part of the names of studies or experiments, in any case; None for all.
            cursor: `next` of the page before; None for the first one.
            limit: studies at most.

        Returns:
            `items`, and `next`, the cursor of the next page; None after the last one.

        Raises:
            Problem: 422, there is no such cursor.
        """
        before, words = _number(cursor), (query or "").casefold()
        found = [
            study
            for study in self._studies.of(owner)
            if (before is None or study.number < before)
            and state in (None, study.state)
            and (words in study.name.casefold() or words in study.facts.experiment.casefold())
        ]
        more = str(found[limit - 1].number) if len(found) > limit else None
        places = self._searches.positions(owner)
        return {"items": [self._to_json(study, places) for study in found[:limit]], "next": more}

    def queue(self, owner: str) -> dict[str, Any]:
        """Return the use of the workers, and an owner's studies that wait or run, in order."""
        open_studies = self._studies.in_state(State.RUNNING, State.QUEUED)
        own = [s for s in open_studies if s.owner == owner and s.kind is Kind.SEARCH]
        places = self._searches.positions(owner)
        own.sort(key=lambda study: places.get(study, 0))
        return {**self._searches.usage(), "studies": [self._to_json(s, places) for s in own]}

    def trials(
        self,
        owner: str,
        name: str,
        status: str | None,
        order: Order,
        cursor: str | None,
        limit: int,
    ) -> dict[str, Any]:
        """Return trials of a study.

        Args:
            owner: of the study.
            name: of the study.
            status: of the trials; None for all.
            order: by number, the newest first, or the best value first.
            cursor: `next` of the page before; None for the first one.
            limit: trials at most.

        Returns:
            `items`; `next`, the cursor of the next page, None after the last one; and `total`.

        Raises:
            Problem: 404, there is no such study; 422, there is no such cursor.
        """
        table = self.table(self._studies.get(owner, name))
        return table.page(order, status, _number(cursor), limit)

    def scores(self, owner: str, name: str) -> list[float | None]:
        """Return the value of each trial, by number; None without one."""
        return self.table(self._studies.get(owner, name)).scores()

    def table(self, study: Study) -> TrialTable:
        """Return the table of a study's trials."""
        return self._tables.of(study.owner, study.name, sign=study.facts.sign)

    def record(self, study: Study) -> StudyRecord:
        """Return the record of a study as its client sees it.

        Raises:
            Problem: 409, it has no record yet.
        """
        _check_is_search(study)
        place = self._records.place_of(study.owner, study.name)
        found: StudyRecord = self._recorded(study, _stamp(place, study))
        return found

    def _read(self, study: Study) -> StudyRecord:
        place = self._records.place_of(study.owner, study.name)
        if not journal_exists(place.location):
            raise _none_yet(study, "record")
        storage = read_journal(place.location)
        if not has_begun(storage, place.study):
            raise _none_yet(study, "record")
        found = read_study(storage, place.study, place.location)
        return as_client_wrote(found, study.name, self._paths(study))

    def record_text(self, study: Study) -> str:
        """Return the record as JSON, which `tuner.journal.record_json` reads."""
        return record_to_text(self.record(study), _state(study))

    def summary(self, study: Study) -> dict[str, Any]:
        """Return what `tuner show --json` prints, but for links into MLflow."""
        record = self.record(study)
        more = {"all_trials": trials_to_json(record), "state": _state(study), "links": None}
        return summarize(record).to_json() | more

    def best(self, study: Study, *, as_json: bool) -> str:
        """Return the best configuration as an experiment file; of an external study, as it is.

        Raises:
            Problem: 409, no trial is complete.
        """
        if study.kind is Kind.EXTERNAL:
            found = self._progress(study).best
            if found is None:
                raise _none_yet(study, "complete trial")
            return render(found, as_json)
        record = self.record(study)
        if record.best is None:
            raise _none_yet(study, "complete trial")
        name, data = "best.json" if as_json else "best.yaml", record.data
        best = exported(record, Path.cwd(), name, data["path"])
        if "test_file" in data:
            best["data"]["split"]["test_file"] = data["test_file"]
        return render(best, as_json)

    def report(self, study: Study) -> str:
        """Return the report as an HTML page.

        Raises:
            Problem: 409, no trial has ended.
        """
        record = self.record(study)
        if not record.trained:
            raise _none_yet(study, "trial that has ended")
        return page.report(record)

    def model(self, study: Study) -> Path:
        """Return the folder of the winner's model.

        Raises:
            Problem: 409, there is none yet.
        """
        _check_is_search(study)
        folder = self._models / study.owner / study.name
        if not folder.is_dir():
            raise _none_yet(study, "model")
        return folder

    def predict(
        self,
        study: Study,
        data: Sequence[Mapping[str, Any]] | bytes | None,
        *,
        all_windows: bool = False,
        other_columns: bool = False,
        dtypes: Mapping[str, str] | None = None,
        as_csv: bool = False,
    ) -> dict[str, Any]:
        """Predict with the winner's model, in a process with limits.

        Args:
            study: has the model.
            data: rows, objects by column; or a file in CSV; None for the data of the search.
            all_windows: of a forecast, whether to begin after every row that has enough rows before
                it.
            other_columns: whether rows may have columns that the data of the search lacks.
            dtypes: of columns of times in rows, as pandas names them; others are found as in CSV.
            as_csv: whether to return CSV.

        Returns:
            `csv`, a text, or `columns`, the values of each by its name, and `dtypes`, that of each;
            and `notes`.

        Raises:
            Problem: 409, there is no model yet; 429 or 503, see `Confined`.
            InputError: the data does not fit the model, or it takes too long.
        """
        model = self.model(study)
        known = self._datasets.get(study.owner, datasets_of(study.spec)[0])
        given: dict[str, Any] = {
            "model": str(model.absolute()),
            "data": None,
            "path": None,
            "known": None if other_columns else [column.name for column in known.columns],
            "all": all_windows,
            "csv": as_csv,
            "dtypes": dict(dtypes or {}),
            **self._datasets.size_limits,
        }
        with scratch_folder() as folder:
            if data is None:
                given["path"] = str(self._datasets.path_of(study.owner, known.id))
            elif isinstance(data, bytes):
                given["path"] = str(folder / "rows.csv")
                Path(given["path"]).write_bytes(data)
            else:
                given["data"] = list(data)
            what, n_bytes = (known.name, known.bytes) if data is None else ("the rows", 0)
            seconds = _PREDICT_S + reading_allowed(n_bytes).seconds
            allowed = Allowed(
                seconds, most_memory(), use="predicted from", smaller=_FEWER, other=_FEWER
            )
            found: dict[str, Any] = self._datasets.confined.run(
                "predict", given, owner=study.owner, what=what, allowed=allowed
            )
        return found

    def _paths(self, study: Study) -> Mapping[str, str]:
        return client_paths(study.spec, study.owner, self._datasets)

    def _to_json(self, study: Study, places: Mapping[Study, int]) -> dict[str, Any]:
        facts, progress = study.facts, self._progress(study)
        return {
            "name": study.name,
            "kind": study.kind.value,
            "state": study.state.value,
            "owner": study.owner,
            **dataclasses.asdict(facts),
            "trained": progress.trained,
            "best": progress.best,
            "submitted": study.submitted,
            "began": study.began,
            "ended": study.ended,
            "error": study.error,
            "priority": priority(study),
            "max_workers": study.spec.get("max_workers"),
            "position": places.get(study),
            "exhausted": study.exhausted,
            "waits": self._searches.waits(study) or study.waits_for_clients(time.time()),
            "datasets": list(datasets_of(study.spec)),
        }

    def _progress(self, study: Study) -> Progress:
        """Return how far a study is: after a restart its table knows, until it runs."""
        recorded = study.progress
        if not recorded.is_old:
            return recorded
        if study not in self._progresses:
            trained, row = self.table(study).progress()
            best = row and {"trial": row["number"], "score": row["value"], "params": row["params"]}
            self._progresses[study] = Progress(trained, best)
        found = self._progresses[study]
        return found if found.trained >= recorded.trained else recorded

    def forget(self, study: Study) -> None:
        """Remove the journal, the model and the rows of a study that nobody writes to.

        Raises:
            JournalAway: the journal cannot be written now; the same call later removes the rest.
        """
        self._records.remove_study(study.owner, study.name)
        shutil.rmtree(self._models / study.owner / study.name, ignore_errors=True)
        self._tables.remove(study.owner, study.name)


def _stamp(place: Place, study: Study) -> object:
    """Return a value that changes when a study does."""
    if "://" in place.location:
        return study.state, study.ended, study.progress.trained
    try:
        facts = Path(place.location).stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def _state(study: Study) -> StudyState:
    return _STATES.get(study.state, StudyState.INTERRUPTED)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdecimal():
        raise Problem(422, f"cursor: must be the `next` of an earlier page, got {cursor[:40]!r}")
    return int(cursor)


def _check_is_search(study: Study) -> None:
    if study.kind is Kind.EXTERNAL:
        rule = "its models train elsewhere; it has trials, events and a best configuration"
        raise Problem(409, f"study {study.name!r} is external: {rule}")


def _none_yet(study: Study, what: str) -> Problem:
    waiting_helps = not study.state.has_ended
    then = "wait for it" if waiting_helps else f"it is {study.state}"
    headers = {"Retry-After": "5"} if waiting_helps else None
    return Problem(409, f"study {study.name!r} has no {what} yet; {then}", headers=headers)
