"""What the records of a journal file come to, in memory: Optuna's replay of them, quick and small.

A search holds every trial of its study. Most of a trial is its history: the losses, metric and
time of each epoch, and the metric again as the values that pruners and samplers compare. Optuna
holds each number as an object, in a list or a dictionary for each epoch; here they lie in arrays.
A reader gets Optuna's lists and dictionaries: other storages write trials as JSON.
"""

from __future__ import annotations

import copy
import functools
from array import array
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from typing import Any, overload

from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    json_to_distribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial

OUTCOME, HISTORY = "outcome", "history"
"""The attribute of a trial that holds how its training ended, and its key for the epochs."""

_NUMBERS = 4  # of an epoch: both losses, metric, time; those of a fold follow, as far as known


class Rows(Sequence[tuple[Any, ...]]):
    """The rows of a history, as `Outcome.from_json` reads them; equal to the list of them.

    Args:
        numbers: four for each row, one row after the other.
        rests: what follows in each row; None if nothing does.
    """

    __slots__ = ("_numbers", "_rests")

    def __init__(self, numbers: array[float], rests: tuple[tuple[Any, ...], ...] | None) -> None:
        self._numbers, self._rests = numbers, rests

    @classmethod
    def of(cls, rows: list[list[Any]]) -> Sequence[Sequence[Any]]:
        """Return rows as read from JSON in less memory, or as they are.

        They stay if one of the first four in a row is no float, or what follows is no plain value.
        """
        heads = [row[:_NUMBERS] for row in rows]
        flat = [number for head in heads for number in head]
        if len(flat) < _NUMBERS * len(rows) or any(type(number) is not float for number in flat):
            return rows
        try:
            rests = tuple(_shared_rest(*row[_NUMBERS:]) for row in rows)
        except TypeError:  # a list or dictionary, which has no hash
            return rows
        return cls(array("d", flat), rests if any(rests) else None)

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self._numbers) // _NUMBERS

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | list[tuple[Any, ...]]:
        """Return a row, or a list of some."""
        if isinstance(index, slice):
            return list(self)[index]
        begin = range(len(self))[index] * _NUMBERS
        rest = () if self._rests is None else self._rests[index]
        return (*self._numbers[begin : begin + _NUMBERS], *rest)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows."""
        numbers = iter(self._numbers)
        rows = zip(*[numbers] * _NUMBERS, strict=True)
        if self._rests is None:
            return rows
        return (row + rest for row, rest in zip(rows, self._rests, strict=True))

    def __eq__(self, other: object) -> bool:
        """Return whether rows are the same, those of a list included."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(
            isinstance(theirs, Sequence) and row == tuple(theirs)
            for row, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the rows."""
        return repr([*self])


@functools.lru_cache(4096, typed=True)  # else 1 would be 1.0, which is other text in JSON
def _shared_rest(*rest: Any) -> tuple[Any, ...]:
    return rest


class Steps(Mapping[int, float]):
    """Values of the steps 0, 1, ... of a trial that has ended; equal to the dictionary of them."""

    __slots__ = ("_values",)

    def __init__(self, values: array[float]) -> None:
        self._values = values

    @classmethod
    def of(cls, values: Mapping[int, float]) -> Mapping[int, float]:
        """Return values in less memory, or as they are if their steps or a number do not fit."""
        fits = list(values) == list(range(len(values)))
        if not values or not fits or any(type(value) is not float for value in values.values()):
            return values
        return cls(array("d", values.values()))

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._values)

    def __iter__(self) -> Iterator[int]:
        """Yield the steps."""
        return iter(range(len(self._values)))

    def keys(self) -> KeysView[int]:
        """Return the steps; samplers look for the last one of every trial that was pruned."""
        return dict.fromkeys(range(len(self._values))).keys()

    def __contains__(self, step: object) -> bool:
        """Return whether there is a value of a step."""
        return isinstance(step, int) and 0 <= step < len(self._values)

    def __getitem__(self, step: int) -> float:
        """Return the value of a step."""
        if step not in self:
            raise KeyError(step)
        return self._values[step]

    def __repr__(self) -> str:
        """Return the dictionary."""
        return repr(dict(self))


@functools.lru_cache(4096)
def _shared_distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


class Replay(JournalStorageReplayResult):
    """Applies records as Optuna does, and keeps the same trials in less time, and memory if small.

    As there, a trial that was handed out never changes: the next record puts another in its place.
    """

    def __init__(self, worker_id_prefix: str, *, small: bool) -> None:
        super().__init__(worker_id_prefix)
        self._small = small
        self._new: FrozenTrial | None = None  # with a dictionary of values that nobody else has

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        """Apply records in order."""
        self._new = None
        super().apply_logs(logs)

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        before = len(self._trials)
        super()._apply_create_trial(log)
        if len(self._trials) > before:
            trial = self._trials[before]
            trial.user_attrs = self._with_rows(trial.user_attrs)
            self._end(trial)

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name = log["trial_id"], log["param_name"]
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        distribution = _shared_distribution(log["distribution"])
        for other_id in self._study_id_to_trial_ids[self._trial_id_to_study_id[trial_id]]:
            other = self._trials[other_id].distributions.get(name)
            if other is not None:
                try:
                    check_distribution_compatibility(other, distribution)
                except ValueError:
                    if self._is_issued_by_this_worker(log):
                        raise
                    return
                break
        value = distribution.to_external_repr(log["param_value_internal"])
        trial = copy.copy(self._trials[trial_id])
        trial.params = {**trial.params, name: value}
        trial.distributions = {**trial.distributions, name: distribution}
        self._trials[trial_id] = trial

    def _apply_set_trial_intermediate_value(self, log: dict[str, Any]) -> None:
        trial_id = log["trial_id"]
        if not self._trial_exists_and_updatable(trial_id, log):
            return
        trial = self._trials[trial_id]
        if trial is not self._new:
            trial = copy.copy(trial)
            trial.intermediate_values = dict(trial.intermediate_values)
            self._trials[trial_id] = self._new = trial
        trial.intermediate_values[log["step"]] = log["intermediate_value"]

    def _apply_set_trial_user_attr(self, log: dict[str, Any]) -> None:
        super()._apply_set_trial_user_attr(log | {"user_attr": self._with_rows(log["user_attr"])})

    def _apply_set_trial_state_values(self, log: dict[str, Any]) -> None:
        super()._apply_set_trial_state_values(log)
        trial = self._trials.get(log["trial_id"])
        if trial is not None and trial.state.is_finished():
            self._end(trial)

    def _with_rows(self, attrs: dict[str, Any]) -> dict[str, Any]:
        outcome = attrs.get(OUTCOME) if self._small else None
        if not isinstance(outcome, dict) or not isinstance(history := outcome.get(HISTORY), list):
            return attrs
        return attrs | {OUTCOME: {**outcome, HISTORY: Rows.of(history)}}

    def _end(self, trial: FrozenTrial) -> None:
        if self._small:
            values: Any = Steps.of(trial.intermediate_values)  # Optuna's type for it is `dict`
            trial.intermediate_values = values


class ReplayedJournal(JournalStorage):
    """A storage on a journal file, quickly read.

    Args:
        backend: of the file.
        small: whether trials take little memory, and are for this process alone: another storage
            cannot write them, as JSON has neither `Rows` nor `Steps`.
    """

    def __init__(self, backend: BaseJournalBackend, *, small: bool) -> None:
        self._small, self._is_ours = small, False
        super().__init__(backend)

    def _sync_with_backend(self) -> None:
        if not self._is_ours:  # the first time, before any record was read
            self._replay_result = Replay(self._worker_id_prefix, small=self._small)
            self._is_ours = True
        super()._sync_with_backend()
