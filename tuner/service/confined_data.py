"""The data of a search, read and prepared in processes with limits that end with the search."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pandas as pd

from tuner.data.baselines import preparations_of
from tuner.data.prepared import DataSource, Prepared
from tuner.errors import RunError
from tuner.experiment import Experiment
from tuner.experiment.cells import named_code
from tuner.journal.records import StudyRecord
from tuner.service.confined import Allowed, Confined, most_memory
from tuner.service.job_records import ref_to_record
from tuner.service.preparing import read_prepared, table_of
from tuner.service.problems import Problem

if TYPE_CHECKING:
    from tuner.prediction import Model

_SECONDS = 3600.0  # CPU time of a task: decompositions and baselines take long, and can be stopped
_LARGEST = 1 << 40  # bytes of a file, where memory has no limit


class ConfinedData(DataSource):
    """Reads the data of one search in processes of their own.

    Args:
        confined: runs them.
        owner: of the search.
        stop: kills a process that runs, and raises Interrupted.
    """

    def __init__(self, confined: Confined, owner: str, stop: threading.Event) -> None:
        self._confined, self._owner, self._stop = confined, owner, stop
        self._searched: _Preparations | None = None

    def prepare(self, experiment: Experiment, folder: Path, *, all_data: bool = False) -> Prepared:
        """Return the data without the test part."""
        found = self._preparations(experiment, folder, all_data=all_data, test=False)
        if not all_data:
            self._searched = found
        return found.of({})

    def test_part(
        self,
        experiment: Experiment,
        folder: Path,
        *,
        sha256: str | None = None,
        all_data: bool = False,
    ) -> Prepared:
        """Return the data with the test part."""
        how = {"all_data": all_data, "test": True, "sha256": sha256}
        return self._preparations(experiment, folder, **how).of({})

    def baselines(self, experiment: Experiment, data: Prepared) -> dict[str, Any]:
        """Return the baselines' record."""
        others = preparations_of(experiment)[1:]
        if self._searched is not None:
            self._searched.make(others)  # all of them in one reading
        given = {
            "metric": experiment.objective.metric,
            "season": data.facts.season,
            "folds": [ref_to_record(ref) for ref in data.folds],
            "others": [
                [chosen, [ref_to_record(ref) for ref in data.of(chosen).folds]] for chosen in others
            ],
        }
        found: dict[str, Any] = self._run("baselines", experiment, given)
        return found

    def example(self, model: Model, record: StudyRecord) -> pd.DataFrame:
        """Return the first rows of a study's data: see `tuner.winner.example_rows`."""
        given = {
            "model": str(model.folder.absolute()),
            "experiment": record.experiment.to_dict(),
            "sha256": record.data["sha256"],
        }
        return table_of(self._run("example", record.experiment, given))

    def _preparations(self, experiment: Experiment, folder: Path, **how: Any) -> _Preparations:
        def write(chosen: Sequence[Mapping[str, str]], place: Path) -> list[Prepared]:
            place.mkdir(parents=True)
            given = {
                "experiment": experiment.to_dict(),
                "folder": str(place.absolute()),
                "preparations": list(chosen),
                **how,
            }
            return [read_prepared(each) for each in self._run("prepare", experiment, given)]

        return _Preparations(experiment, folder, write)

    def _run(self, task: str, experiment: Experiment, given: Mapping[str, Any]) -> Any:
        memory = None if named_code(experiment.to_dict()) else most_memory()
        allowed = Allowed(_SECONDS, memory, _LARGEST if memory is None else memory, use="prepared")
        name = PurePath(experiment.data.path).name
        try:
            return self._confined.run(
                task, given, owner=self._owner, what=name, allowed=allowed, stop=self._stop
            )
        except Problem as problem:  # no process could be started
            raise RunError(problem.detail, remedy="resume the study") from None


class _Preparations:
    """The preparations of an experiment's data, some of which are made in one reading of it."""

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        write: Callable[[Sequence[Mapping[str, str]], Path], list[Prepared]],
    ) -> None:
        self._experiment, self._folder, self._write = experiment, folder, write
        self._made: dict[tuple[str, ...], Prepared] = {}

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the preparation of a trial with these parameters."""
        chosen = self._experiment.preparation(params)
        self.make([chosen])
        return self._made[tuple(chosen.values())]

    def make(self, chosen: Sequence[Mapping[str, str]]) -> None:
        """Make those of some preparations that are not made yet."""
        missing = [each for each in chosen if tuple(each.values()) not in self._made]
        if not missing:
            return
        written = self._write(missing, self._folder / f"reading{len(self._made)}")
        for each, prepared in zip(missing, written, strict=True):
            self._made[tuple(each.values())] = dataclasses.replace(prepared, others=self.of)
