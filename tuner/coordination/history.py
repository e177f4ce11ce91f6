"""Trials of a running study: asked, running, recorded, told."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.coordination.pruning import Evidence, with_losses
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob
from tuner.journal.storage import (
    LOST_ATTR,
    OUTCOME_ATTR,
    REPEAT_ATTR,
    SEED_ATTR,
    TOLD_ATTR,
    Role,
    params_of,
    retraining_of,
    role_of,
    seed_of,
)
from tuner.strategies.codec import Codec, count_of, values_of
from tuner.strategies.rng import duplicate_generator

__all__ = [
    "STATES",
    "Slot",
    "Told",
    "asked",
    "configuration_key",
    "fresh_configuration",
    "objectives_of",
    "restored",
    "tell",
]

_LISTABLE = 100_000  # spaces up to this size are searched whole for what is left

_DRAWS = 1_000


def configuration_key(params: dict[str, Any]) -> str:
    """Return a text that is equal for equal configurations; 0.3 and 0.1 + 0.2 are equal."""
    rounded = {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
    return json.dumps(rounded, sort_keys=True)


def fresh_configuration(
    distributions: dict[str, BaseDistribution], trained: Container[str], seed: int, number: int
) -> dict[str, Any] | None:
    """Return a configuration whose key is not in `trained`; the same for the same arguments.

    Where every configuration of a finite space has been trained, return None. In a huge space
    that is nearly used up, where a thousand draws find none, return the last one drawn although
    it repeats.
    """
    rng = duplicate_generator(seed, number)
    ordered = dict(sorted(distributions.items()))
    counts = [count_of(d) or math.inf for d in ordered.values()]
    if math.prod(counts) <= _LISTABLE:
        grid = itertools.product(*(values_of(d) or [] for d in ordered.values()))
        every = (dict(zip(ordered, values, strict=True)) for values in grid)
        left = [params for params in every if configuration_key(params) not in trained]
        return left[rng.integers(len(left))] if left else None
    from scipy.stats import qmc  # half a second, and seldom needed

    codec = Codec(distributions)
    points = qmc.Sobol(codec.n_columns, scramble=True, rng=rng)
    single = {name: (values_of(d) or [])[0] for name, d in ordered.items() if d.single()}
    for _ in range(_DRAWS):
        params = single | codec.decode(points.random()[0])
        if configuration_key(params) not in trained:
            break
    return params


STATES = {
    OutcomeState.COMPLETE: TrialState.COMPLETE,
    OutcomeState.PRUNED: TrialState.PRUNED,
    OutcomeState.FAILED: TrialState.FAIL,
}


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    outcome: Outcome,
    values: Mapping[int, float],
    reported: Container[int] = (),
    cost: str | None = None,
) -> FrozenTrial:
    """Tell an outcome with its intermediate values; returns the trial as the study now has it.

    Args:
        study: that the trial belongs to.
        trial: in progress.
        outcome: its own, or that of the trial which it repeats.
        values: by step.
        reported: steps whose values the journal has already.
        cost: the second objective, if there is one.
    """
    storage, trial_id = study._storage, trial._trial_id
    for step, value in values.items():
        if step not in reported and math.isfinite(value):
            storage.set_trial_intermediate_value(trial_id, step, value)
    study.tell(trial, objectives_of(outcome, cost), state=STATES[outcome.state])
    return storage.get_trial(trial_id)


def objectives_of(outcome: Outcome, cost: str | None) -> list[float] | None:
    """Return the metric, and the cost where that is an objective; None without a score."""
    if outcome.objective is None:
        return None
    return [outcome.objective] + ([] if cost is None else [outcome.cost(cost)])


class Told:
    """The trials told so far, in the order of telling, and when the score last improved."""

    def __init__(
        self, directions: Sequence[StudyDirection], *, n_folds: int = 1, breaks_ties: bool = False
    ) -> None:
        """Begin with none.

        Args:
            directions: of the study's objectives; the first is the metric's.
            n_folds: of every trial.
            breaks_ties: whether pruning sees a trace of the validation loss in what they came to.
        """
        self._n, self._n_folds, self._breaks_ties = 0, n_folds, breaks_ties
        self._originals: list[FrozenTrial] = []
        self._complete: list[FrozenTrial] = []  # of the originals
        self._counts = [(0, 0)]  # of both, among the first so many
        signs = [-1 if d is StudyDirection.MAXIMIZE else 1 for d in directions]
        self._signs, self._sign = signs, signs[0]
        self._front: list[list[float]] = []  # the values that no others beat; less is better
        self._improved_at = [0]  # as known when the first so many had been told

    def __len__(self) -> int:
        """Return how many there are."""
        return self._n

    def add(self, trial: FrozenTrial) -> None:
        """Take up a trial that has just been told."""
        improved = trial.state is TrialState.COMPLETE and self._improves(trial.values)
        self._improved_at.append(self._n if improved else self._improved_at[-1])
        self._n += 1
        if REPEAT_ATTR not in trial.user_attrs:
            trial = self._with_losses(trial) if self._breaks_ties else trial
            self._originals.append(trial)
            if trial.state is TrialState.COMPLETE:
                self._complete.append(trial)
        self._counts.append((len(self._originals), len(self._complete)))

    def _improves(self, values: Sequence[float]) -> bool:
        """Take values in, and return whether none before are as good in every objective."""
        new = [sign * value for sign, value in zip(self._signs, values, strict=True)]

        def beats(a: list[float], b: list[float]) -> bool:
            return all(x <= y for x, y in zip(a, b, strict=True))

        if any(beats(known, new) for known in self._front):
            return False
        self._front = [known for known in self._front if not beats(new, known)] + [new]
        return True

    def _with_losses(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as pruning sees it; the journal keeps the metric itself."""
        if not trial.intermediate_values or OUTCOME_ATTR not in trial.user_attrs:
            return trial
        history = Outcome.from_json(trial.user_attrs[OUTCOME_ATTR]).history
        seen = copy.copy(trial)
        seen.intermediate_values = with_losses(
            trial.intermediate_values, history, self._sign, self._n_folds
        )
        return seen

    def evidence(self, n: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Return what a trial may be compared with that sees the first `n`: all, and the complete.

        A repeat is no evidence: counted again, a good trial would prune more and more.
        """
        n_originals, n_complete = self._counts[n]
        return self._originals[:n_originals], self._complete[:n_complete]

    def stagnant(self, n: int, size: int) -> int:
        """Return after how many generations of `size`, of the first `n`, none has improved."""
        return n // size - self._improved_at[n] // size - 1


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


def asked(
    study: optuna.Study, distributions: dict[str, BaseDistribution], seed: int, n_told: int
) -> Slot:
    """Ask a study for a trial with its parameters, when so many trials have been told."""
    trial = study.ask()
    attrs = trial.user_attrs
    _suggest(trial, attrs, distributions)
    trial.set_user_attr(SEED_ATTR, seed_of(attrs, trial.number, seed))
    trial.set_user_attr(TOLD_ATTR, n_told)
    return Slot(trial, role_of(attrs), params_of(trial, attrs), retraining_of(attrs), n_told)


def restored(
    study: optuna.Study, distributions: dict[str, BaseDistribution], seed: int
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
            if SEED_ATTR not in frozen.user_attrs:
                own_seed = seed_of(frozen.user_attrs, frozen.number, seed)
                trial.set_user_attr(SEED_ATTR, own_seed)
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
