"""A trial on its way: asked for, trained, told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tuner.coordination.attributes import (
    LOST_ATTR,
    OUTCOME_ATTR,
    TOLD_ATTR,
    params_of,
    retraining_of,
    role_of,
)
from tuner.coordination.pruning import Evidence
from tuner.coordination.seeds import Role
from tuner.jobs import Epoch, Outcome, TrainJob

__all__ = ["Slot", "asked", "restored"]


@dataclass(eq=False)
class Slot:
    """A trial that has been asked for."""

    trial: optuna.Trial
    role: Role
    params: dict[str, Any]
    retraining: tuple[int | None, int | None]  # configuration and repeat, where it is one
    asked_after: int
    original: Slot | None = None  # the earlier trial with the same configuration
    outcome: Outcome | None = None
    job: TrainJob | None = None  # in progress
    told: bool = False
    last: dict[int, float] = field(default_factory=dict)  # intermediate value, of one told
    reported: frozenset[int] = frozenset()  # steps, by a run that was killed as it told the trial
    lost: list[str] = field(default_factory=list)  # why the machine took attempts away
    epochs: list[Epoch] = field(default_factory=list)  # of the current attempt
    rungs: dict[str, Any] = field(default_factory=dict)  # likewise: what the pruner has noted
    evidence: Evidence | None = None  # what pruning may look at

    def begin(self, job: TrainJob) -> None:
        """Note that an attempt begins."""
        self.job = job
        self.epochs.clear()
        self.rungs.clear()

    def end(self, values: dict[int, float]) -> None:
        """Let go, once the trial is told with these values, of what is in the journal."""
        self.told, self.job, self.evidence = True, None, None
        self.epochs, self.rungs = [], {}
        self.last = dict(list(values.items())[-1:])
        if self.outcome is not None:
            self.outcome = dataclasses.replace(self.outcome, history=(), weights=None)

    @property
    def settled(self) -> Outcome | None:
        """The outcome: its own, or that of the trial which it repeats."""
        return self.original.settled if self.original else self.outcome


def asked(study: optuna.Study, distributions: dict[str, BaseDistribution], n_told: int) -> Slot:
    """Ask a study for a trial with its parameters, when so many trials have been told."""
    trial = study.ask()
    attrs = trial.user_attrs
    _suggest(trial, attrs, distributions)
    trial.set_user_attr(TOLD_ATTR, n_told)
    return Slot(trial, role_of(attrs), params_of(trial, attrs), retraining_of(attrs), n_told)


def restored(
    study: optuna.Study, distributions: dict[str, BaseDistribution]
) -> Iterator[tuple[Slot, FrozenTrial]]:
    """Return the trials that a study's journal holds, in order; those that only wait are left out.

    What a process that was killed left unsaid of a trial is completed.
    """
    n_told = 0
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state is TrialState.WAITING:
            continue
        trial = optuna.Trial(study, frozen._trial_id)
        told = frozen.state is not TrialState.RUNNING
        n_told += told
        if not told:
            _suggest(trial, frozen.user_attrs, distributions)
        asked_after = frozen.user_attrs.get(TOLD_ATTR)
        if asked_after is None:  # killed while it was asked for; nothing was told since
            asked_after = n_told
            trial.set_user_attr(TOLD_ATTR, asked_after)
        record = frozen.user_attrs.get(OUTCOME_ATTR)
        yield (
            Slot(
                trial,
                role_of(frozen.user_attrs),
                params_of(trial, frozen.user_attrs),
                retraining_of(frozen.user_attrs),
                asked_after,
                outcome=Outcome.from_json(record) if record else None,
                told=told,
                reported=frozenset(frozen.intermediate_values),
                lost=list(frozen.user_attrs.get(LOST_ATTR, ())),
            ),
            frozen,
        )


def _suggest(
    trial: optuna.Trial, attrs: dict[str, Any], distributions: dict[str, BaseDistribution]
) -> None:
    """Have every parameter of a trial suggested; those that it has already keep their value."""
    if role_of(attrs) is Role.BASELINE:
        return
    for name, d in distributions.items():
        match d:
            case IntDistribution():
                trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
            case FloatDistribution():
                trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
            case CategoricalDistribution():
                trial.suggest_categorical(name, d.choices)
