"""Prepared data: checked, written for jobs, and the only way to the test set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.data.metrics import check_own_metric
from tuner.data.profile import Trend
from tuner.data.reference import DataRef
from tuner.errors import refusal
from tuner.experiment import Experiment

if TYPE_CHECKING:
    from tuner.experiment import Experiment


@dataclass(frozen=True)
class Part:
    """What is trained on, validated on, or tested on."""

    name: str  # training, validation, test; with folds validation 1, validation 2, ...
    count: int
    unit: str  # row or sequence
    first: str | None = None  # the times that it runs from and to, where there are times
    last: str | None = None


_QUOTING = ("constant", "sentinel", "outlier", "stands still", "unit", "suspect")


@dataclass(frozen=True)
class Facts:
    """What is known of a file, without any of its values."""

    path: Path
    sha256: str
    rows: int
    features: tuple[str, ...]  # columns that a model sees, those made of others among them
    targets: tuple[str, ...]
    parts: tuple[Part, ...]  # in order; the last one is the test part
    frequency: str | None = None  # as pandas writes it: MS, D, h, ...
    season: int | None = None  # rows in a season, of a forecast
    classes: tuple[str, ...] = ()
    series: tuple[str, ...] = ()  # their names, where a forecast is of several
    vocabulary: int = 0  # tokens that have a number; 0 where the steps are numbers themselves
    trends: tuple[Trend, ...] = ()  # of targets of a forecast, seen without the test part
    notes: tuple[tuple[str, str], ...] = ()  # what `tuner check` says besides: (what, how many)

    @property
    def test(self) -> Part:
        """The test part."""
        return self.parts[-1]

    def without_values(self) -> Facts:
        """Return the facts without notes that quote values: some are of the test part."""
        return replace(self, notes=tuple(n for n in self.notes if n[0] not in _QUOTING))


@dataclass(frozen=True)
class Prepared:
    """Arrays on disk, and what is known of them."""

    facts: Facts
    folds: tuple[DataRef, ...]  # one without rolling origins; of an opened test part one
    pipeline: dict[str, Any]  # how inputs are made and outputs are read, as JSON
    name_of: Callable[[int], str]  # what people call a sample of the last fold
    others: Callable[[Mapping[str, Any]], Prepared] | None = None  # of trials, by parameters

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the data as a trial with these parameters has it prepared.

        Every preparation is made when the first trial asks for it, and once. All of them are
        evaluated on the same samples.

        Args:
            params: of the trial, or of the untuned default; what is not among them is as `data`
                has it.
        """
        return self if self.others is None else self.others(params)


class Preparations:
    """The preparations of one experiment's data, each written when it is first asked for.

    Args:
        folder: of the arrays of the experiment's own preparation; the others lie in it.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, write: Callable[[Experiment, Path], Prepared]
    ) -> None:
        self._experiment, self._folder, self._write = experiment, folder, write
        self._made: dict[tuple[str, ...], Prepared] = {}

    def of(self, params: Mapping[str, Any]) -> Prepared:
        """Return the preparation of a trial with these parameters."""
        key = tuple(self._experiment.preparation(params).values())
        if key not in self._made:
            folder = self._folder
            if self._made:
                folder /= f"preparation{len(self._made)}"
            chosen = self._experiment.preparation(params)
            made = self._write(self._experiment.prepared_as(chosen), folder)
            self._made[key] = replace(made, others=self.of)
        return self._made[key]

    @property
    def own(self) -> Prepared:
        """The experiment's own, written before any other."""
        return self.of({})


class Dataset(ABC):
    """Data that nothing is wrong with, all of its values still in memory."""

    facts: Facts

    @abstractmethod
    def write(self, folder: Path) -> Prepared:
        """Write what a search may see: everything that does not belong to the test part.

        The test values are dropped first. What is fitted is fitted on the training rows alone,
        in each fold anew. Preparations that trials have besides come as `Prepared.of` is asked.
        """

    @abstractmethod
    def write_test(self, folder: Path) -> Prepared:
        """Write everything, the test part to evaluate, prepared as in the last fold.

        To be called by `tuner.data.prepared` alone.
        """


def counted(number: int, unit: str) -> str:
    """Write a number with its unit, for a note: 1 row, 2 rows."""
    return f"{number} {unit}{'s' * (number != 1)}"


def check_data(experiment: Experiment, *, all_data: bool = False) -> Dataset:
    """Read the data and refuse everything about it that can be refused; write nothing.

    Args:
        all_data: whether the validation part is trained on too, and everything fitted on both;
            with rolling origins, on all before the test part. What is evaluated then was seen
            in training: it gives no score.
    """
    check_own_metric(experiment, Path(experiment.data.path))
    if experiment.task.of_series:
        from tuner.data.series import check_series

        return check_series(experiment, all_data=all_data)
    if experiment.task.kind == "translate":
        from tuner.data.sequences import check_pairs

        return check_pairs(experiment, all_data=all_data)
    from tuner.data.sequences import check_sequences

    return check_sequences(experiment, all_data=all_data)


def prepare(experiment: Experiment, folder: Path, *, all_data: bool = False) -> Prepared:
    """Read, check, split, transform and scale, and write the arrays without the test part."""
    return check_data(experiment, all_data=all_data).write(folder)


def check_same(facts: Facts, sha256: str | None) -> None:
    """Refuse a file that is not the one that was searched on, whose sha256 it is."""
    if sha256 is not None and facts.sha256 != sha256:
        rule = f"must be the file that was searched on (sha256 {sha256[:12]})"
        raise refusal(facts.path, "data.path", rule, facts.sha256[:12], "bring the file back")


def open_test_part(
    experiment: Experiment,
    folder: Path,
    *,
    sha256: str | None = None,
    all_data: bool = False,
) -> Prepared:
    """Write all data into `folder` and return it with the test part to evaluate.

    To be called once, at the end of a study, by the one who records that the test was opened.
    The scalers are those of the search (with rolling origins, of its last fold), for they are
    fitted on the same training part; of models that were trained on all before the test part,
    those that are fitted on that. The rows to evaluate are the same for both.

    Args:
        sha256: of the data that was searched on; the file may have changed meanwhile.
        all_data: whether it is for models that were trained on the validation part too.

    Raises:
        DataError: the file is not what it was.
    """
    dataset = check_data(experiment, all_data=all_data)
    check_same(dataset.facts, sha256)
    return dataset.write_test(folder)
