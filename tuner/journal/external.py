"""An external study as a plain record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from tuner.errors import StudyError, one_line, show_location
from tuner.experiment.external import ExternalSpec
from tuner.journal.records import (
    EXTERNAL,
    Status,
    TrialRecord,
    begun_trials,
    checked_facts,
    read_trial,
)
from tuner.journal.storage import REPEAT_ATTR, load_study


@dataclass(frozen=True)
class ExternalRecord:
    """One external study: its specification, its trials and their outcomes."""

    id: str  # random, given when the study was created
    name: str
    spec: ExternalSpec
    created: str  # ISO 8601, UTC
    versions: Mapping[str, str]  # of the libraries that can change a proposal
    trials: tuple[TrialRecord, ...]

    @property
    def trained(self) -> list[TrialRecord]:
        """The trials that have ended, in order, without repeats."""
        return [t for t in self.trials if t.repeat_of is None and t.outcome is not None]

    @property
    def sign(self) -> int:
        """The factor of a value with which less is better."""
        return -1 if self.spec.direction == "maximize" else 1

    def ranked(self) -> list[TrialRecord]:
        """Return the complete trials, each configuration once, best first; of equals the earlier.

        Without `distinct`, a configuration is there as often as it was trained.
        """
        complete = [t for t in self.trained if t.status is Status.COMPLETE]
        return sorted(complete, key=lambda t: (self.sign * (t.value or 0.0), t.number))

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best value."""
        return next(iter(self.ranked()), None)

    def count(self, status: Status) -> int:
        """Return how many trials have a status, without repeats."""
        return sum(t.status is status and t.repeat_of is None for t in self.trials)


def external_facts(study: optuna.Study, where: str) -> dict[str, Any]:
    """Return the facts with which an external study was created; see `read_external`."""
    facts = checked_facts(study, where)
    if EXTERNAL not in facts:
        rule = f"study {study.study_name!r} is a search, not an external study"
        raise StudyError(rule, where=where, remedy="give another name")
    return facts


def spec_of(facts: Mapping[str, Any], name: str, where: str) -> ExternalSpec:
    """Return the specification in an external study's facts; see `read_external`."""
    try:
        return ExternalSpec.model_validate(facts[EXTERNAL])
    except ValueError as error:
        rule = f"study {name!r} was written by another version of tuner: {one_line(error)[:200]}"
        raise StudyError(rule, where=where, remedy="begin it again under another name") from None


def read_external(storage: BaseStorage, name: str, location: str) -> ExternalRecord:
    """Read an external study from a journal.

    Raises:
        StudyError: the journal does not hold it, or it is another kind of study.
    """
    study, where = load_study(storage, name, location), show_location(location)
    facts = external_facts(study, where)
    spec = spec_of(facts, name, where)
    return ExternalRecord(
        id=facts["id"],
        name=name,
        spec=spec,
        created=facts["created"],
        versions=facts["versions"],
        trials=tuple(read_trials(study, spec)),
    )


def read_trials(
    study: optuna.Study, spec: ExternalSpec, numbers: Sequence[int] | None = None
) -> list[TrialRecord]:
    """Read trials of an external study.

    Args:
        study: open for reading or writing.
        spec: its specification.
        numbers: of the trials, in the order of the result; None for all, by number.
    """
    frozen = begun_trials(study)
    chosen = frozen if numbers is None else [frozen[number] for number in numbers]
    return [_read(each, frozen, spec) for each in chosen]


def _read(trial: FrozenTrial, every: Sequence[FrozenTrial], spec: ExternalSpec) -> TrialRecord:
    original: int | None = trial.user_attrs.get(REPEAT_ATTR)
    earlier = {} if original is None else {original: read_trial(every[original], spec)}
    return read_trial(trial, spec, earlier)
