"""The trials of a running study: asked, running, recorded, told; and their history."""

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
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.study._tell import _tell_with_warning
from optuna.trial import FrozenTrial, TrialState

from tuner.coordination.pruning import Evidence, with_losses
from tuner.jobs import Epoch, Outcome, OutcomeState, TrialJob
from tuner.journal.storage import (
    ASKED_AFTER_ATTR,
    BASELINE_ATTR,
    GROUP_ATTR,
    LOST_ATTR,
    OUTCOME_ATTR,
    REPEAT_ATTR,
    SEED_ATTR,
    TrialKey,
    group_commit,
    params_of,
    seed_of,
    set_intermediate_values,
    trial_key,
)
from tuner.strategies.codec import Codec, count_of, values_of
from tuner.strategies.rng import duplicate_generator

STATES = {
    OutcomeState.COMPLETE: TrialState.COMPLETE,
    OutcomeState.PRUNED: TrialState.PRUNED,
    OutcomeState.FAILED: TrialState.FAIL,
}
"""Optuna's states of trials, by how their training ended."""


@dataclass(eq=False)
class StudyTrial:
    """A trial of a running study.

    It is *asked* with its configuration, *running* while it has a `job`, *recorded* once its
    `outcome` is in the journal, and *told* once the sampler knows it. A duplicate never runs: it
    is told with the outcome of its `original`.
    """

    handle: optuna.Trial
    key: TrialKey
    params: dict[str, Any]
    asked_after: int  # number of trials that had been told by then
    seed: int  # of its training
    original: StudyTrial | None = None  # the earlier trial with the same configuration
    repeats: list[StudyTrial] = field(default_factory=list)  # later trials that take its outcome
    group: tuple[int, ...] = ()  # numbers of those trained together, its own too; (): not decided
    together: tuple[StudyTrial, ...] = ()  # the trials of its current attempt, itself among them
    job: TrialJob | None = None
    outcome: Outcome | None = None
    told: bool = False
    lost: list[str] = field(default_factory=list)  # reasons of lost attempts at its training
    epochs: list[Epoch] = field(default_factory=list)  # of the current attempt
    rungs: dict[str, Any] = field(default_factory=dict)  # notes of the pruner on this attempt
    evidence: Evidence | None = None  # the trials that pruning compares this attempt with
    reported: frozenset[int] = frozenset()  # steps in the journal, if a run was killed in `tell`
    last: dict[int, float] = field(default_factory=dict)  # intermediate value, once told

    @property
    def number(self) -> int:
        """Its number in the study."""
        return self.handle.number

    @property
    def recorded(self) -> Outcome | None:
        """The recorded outcome: its own, or its original's."""
        return self.original.recorded if self.original else self.outcome

    def start(self, job: TrialJob, together: tuple[StudyTrial, ...]) -> None:
        """Start an attempt at its training, together with others, or alone."""
        self.job, self.together, self.evidence = job, together, None
        self.epochs.clear()
        self.rungs.clear()

    def end(self, values: dict[int, float]) -> None:
        """Mark it as told with these intermediate values, and free memory."""
        self.told, self.job, self.evidence, self.together = True, None, None, ()
        self.epochs, self.rungs = [], {}
        self.last = dict(list(values.items())[-1:])
        if self.outcome is not None:
            self.outcome = dataclasses.replace(self.outcome, history=(), weights=None)


def ask(
    study: optuna.Study, distributions: dict[str, BaseDistribution], seed: int, n_told: int
) -> StudyTrial:
    """Ask the sampler for a trial, after `n_told` trials have been told."""
    with group_commit(study._storage):
        handle = study.ask()
        attrs = handle.user_attrs
        _suggest(handle, attrs, distributions)
        seed = seed_of(attrs, handle.number, seed)
        handle.set_user_attr(SEED_ATTR, seed)
        handle.set_user_attr(ASKED_AFTER_ATTR, n_told)
    key = trial_key(handle.number, attrs)
    return StudyTrial(handle, key, params_of(handle, attrs), n_told, seed)


def restore(
    study: optuna.Study, distributions: dict[str, BaseDistribution], seed: int
) -> Iterator[tuple[StudyTrial, FrozenTrial]]:
    """Yield the trials of a study in order, except waiting ones; add missing attributes.

    Attributes are missing if an earlier process was killed.
    """
    n_told = 0
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state is TrialState.WAITING:
            continue
        handle, attrs = optuna.Trial(study, frozen._trial_id), frozen.user_attrs
        told = frozen.state is not TrialState.RUNNING
        n_told += told
        own_seed = seed_of(attrs, frozen.number, seed)
        if not told:
            _suggest(handle, attrs, distributions)
            if SEED_ATTR not in attrs:
                handle.set_user_attr(SEED_ATTR, own_seed)
        asked_after = attrs.get(ASKED_AFTER_ATTR)
        if asked_after is None:  # killed while asking; no trial was told since
            asked_after = n_told
            handle.set_user_attr(ASKED_AFTER_ATTR, asked_after)
        trial = StudyTrial(
            handle,
            trial_key(frozen.number, attrs),
            params_of(handle, attrs),
            asked_after,
            own_seed,
            outcome=Outcome.from_json(attrs[OUTCOME_ATTR]) if attrs.get(OUTCOME_ATTR) else None,
            told=told,
            group=tuple(attrs.get(GROUP_ATTR, ())),
            lost=list(attrs.get(LOST_ATTR, ())),
            reported=frozenset(frozen.intermediate_values),
        )
        yield trial, frozen


def _suggest(
    trial: optuna.Trial, attrs: Mapping[str, Any], distributions: dict[str, BaseDistribution]
) -> None:
    if BASELINE_ATTR not in attrs:
        for name, distribution in distributions.items():
            trial._suggest(name, distribution)


def tell(
    study: optuna.Study,
    trial: optuna.Trial,
    outcome: Outcome,
    values: Mapping[int, float],
    reported: Container[int] = (),
    cost: str | None = None,
) -> FrozenTrial:
    """Tell the sampler an outcome, and return the trial as the study now has it.

    Args:
        study: of the trial.
        trial: the trial, which is running.
        outcome: of the trial, or of its original.
        values: intermediate values by step.
        reported: the steps whose values are in the journal.
        cost: the second objective, if any.
    """
    storage, trial_id = study._storage, trial._trial_id
    with group_commit(storage):
        new = {k: v for k, v in values.items() if k not in reported and math.isfinite(v)}
        set_intermediate_values(storage, trial_id, new)
        # `Study.tell` would copy the trial, all of its record included.
        _tell_with_warning(study, trial, objectives_of(outcome, cost), state=STATES[outcome.state])
    return storage.get_trial(trial_id)


def objectives_of(outcome: Outcome, cost: str | None) -> list[float] | None:
    """Return the metric, and the cost if it is an objective; None without a score."""
    if outcome.objective is None:
        return None
    return [outcome.objective] + ([] if cost is None else [outcome.cost(cost)])


class TrialHistory:
    """Finished trials in the order in which they were told to the sampler.

    Args:
        directions: of the objectives; the first is the metric.
        n_folds: of every trial.
        breaks_ties: whether the validation loss breaks ties of the metric in pruning.
    """

    def __init__(
        self, directions: Sequence[StudyDirection], *, n_folds: int = 1, breaks_ties: bool = False
    ) -> None:
        self._n_folds, self._breaks_ties = n_folds, breaks_ties
        self._signs = [-1 if d is StudyDirection.MAXIMIZE else 1 for d in directions]
        self._originals: list[FrozenTrial] = []  # without duplicates
        self._complete: list[FrozenTrial] = []  # of these
        self._counts = [(0, 0)]  # of both, among the first n trials
        self._improved_at = [0]  # the last of the first n trials that improved the score
        self._front: list[list[float]] = []  # values that no others dominate; less is better

    def __len__(self) -> int:
        """Return the number of trials told."""
        return len(self._counts) - 1

    def add(self, trial: FrozenTrial) -> None:
        """Add a trial that has just been told."""
        improved = trial.state is TrialState.COMPLETE and self._improves(trial.values)
        self._improved_at.append(len(self) if improved else self._improved_at[-1])
        if REPEAT_ATTR not in trial.user_attrs:
            trial = self._with_losses(trial) if self._breaks_ties else trial
            self._originals.append(trial)
            if trial.state is TrialState.COMPLETE:
                self._complete.append(trial)
        self._counts.append((len(self._originals), len(self._complete)))

    def evidence(self, n: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Return the first `n` trials and the complete ones of them, without duplicates.

        Counted again, a good trial would prune more and more.
        """
        n_originals, n_complete = self._counts[n]
        return self._originals[:n_originals], self._complete[:n_complete]

    def stagnation(self, n: int, size: int) -> int:
        """Return how many generations of `size`, among the first `n` trials, have not improved."""
        return n // size - self._improved_at[n] // size - 1

    def _improves(self, values: Sequence[float]) -> bool:
        """Add values to the front; return whether no earlier ones dominate or equal them."""
        new = [sign * value for sign, value in zip(self._signs, values, strict=True)]

        def dominates(a: list[float], b: list[float]) -> bool:
            return all(x <= y for x, y in zip(a, b, strict=True))

        if any(dominates(known, new) for known in self._front):
            return False
        self._front = [known for known in self._front if not dominates(new, known)] + [new]
        return True

    def _with_losses(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as pruning sees it; the journal keeps the metric itself."""
        if not trial.intermediate_values or OUTCOME_ATTR not in trial.user_attrs:
            return trial
        seen = copy.copy(trial)
        seen.intermediate_values = with_losses(
            trial.intermediate_values,
            Outcome.from_json(trial.user_attrs[OUTCOME_ATTR]).history,
            self._signs[0],
            self._n_folds,
        )
        return seen


_LISTED = 100_000  # configurations of the largest space that is listed
_DRAWS = 1_000


def configuration_key(params: dict[str, Any]) -> str:
    """Return a text that is equal for equal configurations; 0.3 and 0.1 + 0.2 are equal."""
    rounded = {k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in params.items()}
    return json.dumps(rounded, sort_keys=True)


def unseen_configuration(
    distributions: dict[str, BaseDistribution], trained: Container[str], seed: int, number: int
) -> dict[str, Any] | None:
    """Draw a configuration for a sampler that proposes only duplicates.

    Args:
        distributions: the search space.
        trained: keys of the configurations that the study has trained.
        seed: of the study.
        number: of the trial; equal arguments give the same configuration.

    Returns:
        A configuration whose key is not in `trained`; None if a finite space has no other. After a
        thousand draws from a larger space, the last one, even if it is a duplicate.
    """
    rng = duplicate_generator(seed, number)
    ordered = dict(sorted(distributions.items()))
    counts = [count_of(d) or math.inf for d in ordered.values()]
    if math.prod(counts) <= _LISTED:
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
