"""Finalists: the best configurations, trained again on fresh seeds before one is the winner.

They are a second study in the same journal, `NAME.finalists`, run by the same coordinator. In it
the untuned default is trained as well, as often, so that one can tell what the search was worth.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.coordination.attributes import BASELINE_ATTR, FINALIST_ATTR
from tuner.coordination.fresh import configuration_key
from tuner.coordination.journal import FINALISTS_SUFFIX
from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.coordination.seeds import Role
from tuner.experiment.untuned import MODEL_NAMES, canonical, untuned

__all__ = [
    "Default",
    "Finalist",
    "default_of",
    "enqueue_finalists",
    "rank_finalists",
    "retrained_of",
]


class _Scored:
    """A configuration that was trained several times."""

    repeats: tuple[TrialRecord, ...]

    @property
    def scores(self) -> list[float]:
        """The objective of every repeat."""
        return [r.value for r in self.repeats if r.value is not None]

    @property
    def mean(self) -> float:
        """Mean objective over the repeats."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the repeats; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Finalist(_Scored):
    """A configuration and its retrainings."""

    trial: TrialRecord  # of the search
    repeats: tuple[TrialRecord, ...]  # that are complete


@dataclass(frozen=True)
class Default(_Scored):
    """The untuned default and its trainings; it may be a finalist, or the winner, itself."""

    name: str  # default LSTM
    params: dict[str, Any]  # what the searched hyperparameters are without a search
    trial: TrialRecord | None  # of the search, where it found the same, and retrained it
    repeats: tuple[TrialRecord, ...]  # that are complete; () where none is
    failed: int = 0  # trainings that came to nothing

    def is_trial(self, number: int) -> bool:
        """Return whether it is the configuration of this trial."""
        return self.trial is not None and self.trial.number == number


def enqueue_finalists(storage: BaseStorage, record: StudyRecord) -> optuna.Study | None:
    """Open the finalists' study and queue every training that it does not hold yet.

    What an earlier, shorter search had retrained is kept and not done again. The default is not
    trained apart from a finalist with the same configuration, nor from a winner without
    finalists.

    Returns:
        The study; None where nothing is to be trained again.
    """
    settings, top = record.experiment.finalists, _top(record)
    if not top and not _has_default(record):
        return None
    name, direction = record.name + FINALISTS_SUFFIX, record.experiment.objective.direction
    there = name in optuna.get_all_study_names(storage)  # asking to create it writes a record
    study = optuna.load_study(study_name=name, storage=storage) if there else None
    attrs = [t.user_attrs for t in study.get_trials(deepcopy=False)] if study else []
    retrained = {tuple(a[FINALIST_ATTR]) for a in attrs if FINALIST_ATTR in a}
    baseline = {a[BASELINE_ATTR]["repeat"] for a in attrs if BASELINE_ATTR in a}

    twin = _twin(record, {number for number, _ in retrained})
    queued: list[tuple[dict[str, Any], dict[str, Any]]] = []  # parameters and attributes
    for trial in top:
        if baseline and twin is not None and trial.number == twin.number:
            continue  # it has been trained as the default
        queued += [
            (dict(trial.params), {FINALIST_ATTR: [trial.number, repeat]})
            for repeat in range(settings.repeats)
            if (trial.number, repeat) not in retrained
        ]
    if _has_default(record) and (twin is None or baseline):
        params = untuned(record.experiment)
        queued += [
            ({}, {BASELINE_ATTR: {"repeat": repeat, "params": params}})
            for repeat in range(settings.repeats if top else 1)
            if repeat not in baseline
        ]
    if study is None and queued:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
    for params, user_attrs in queued:
        assert study is not None
        study.enqueue_trial(params, user_attrs=user_attrs)
    return study


def rank_finalists(record: StudyRecord) -> list[Finalist]:
    """Return the finalists of the search as it stands, best mean first.

    A configuration with a failed repeat comes after those without; one with no complete repeat
    is left out.
    """
    twin = _twin(record)
    finalists = []
    for trial in _top(record):
        runs = _complete(r for r in record.finalists if r.configuration == trial.number)
        if not runs and twin is not None and trial.number == twin.number:
            runs = _complete(_baseline(record))
        if runs:
            finalists.append(Finalist(trial, runs))
    repeats = record.experiment.finalists.repeats
    return sorted(finalists, key=lambda f: (len(f.repeats) < repeats, record.sign * f.mean))


def default_of(record: StudyRecord) -> Default | None:
    """Return the untuned default with the trainings that speak for it.

    None where the experiment leaves it out or searches nothing, and where none of its trainings
    has begun.
    """
    experiment = record.experiment
    if not _has_default(record):
        return None
    twin, runs = _twin(record), _baseline(record)
    if not runs and twin is not None:
        runs = [r for r in record.finalists if r.configuration == twin.number]
        runs = runs if experiment.finalists.top else [twin]
    if not runs:
        return None
    params = dict(runs[0].params)
    name = f"default {MODEL_NAMES[canonical(experiment, params)['cell']]}"
    failed = sum(r.status is Status.FAILED for r in runs)
    return Default(name, params, twin, _complete(runs), failed)


def retrained_of(record: StudyRecord) -> tuple[int, int]:
    """Return how many trainings of finalists and the default have ended, and of how many.

    Both are 0 before the first of them has begun.
    """
    settings, top = record.experiment.finalists, {trial.number for trial in _top(record)}
    begun = [r for r in record.finalists if r.configuration in top or r.role is Role.BASELINE]
    if not begun:
        return 0, 0
    total = len(top) * settings.repeats
    if _has_default(record) and _twin(record) is None:
        total += settings.repeats if top else 1
    return sum(run.outcome is not None for run in begun), total


def _top(record: StudyRecord) -> Sequence[TrialRecord]:
    return record.ranked()[: record.experiment.finalists.top]


def _has_default(record: StudyRecord) -> bool:
    experiment = record.experiment
    return experiment.finalists.baseline and bool(experiment.search_space)


def _twin(record: StudyRecord, retrained: Iterable[int] = ()) -> TrialRecord | None:
    """Return the trial that found the default, of those that are retrained or win as they are.

    `retrained` are the numbers of further trials that count as retrained.
    """
    if not _has_default(record):
        return None
    known = {r.configuration for r in record.finalists} | set(retrained)
    top = _top(record) or record.ranked()[:1]
    candidates = [*top, *(t for t in record.trials if t.number in known)]
    default = _key(record, untuned(record.experiment))
    return next((t for t in candidates if _key(record, t.params) == default), None)


def _key(record: StudyRecord, params: Any) -> str:
    return configuration_key(canonical(record.experiment, params))


def _baseline(record: StudyRecord) -> list[TrialRecord]:
    return [r for r in record.finalists if r.role is Role.BASELINE]


def _complete(runs: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    return tuple(run for run in runs if run.status is Status.COMPLETE)
