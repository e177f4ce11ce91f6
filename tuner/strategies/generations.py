"""The base of strategies that work in generations, rebuilt from the trials' records.

Trial `number` is individual `number % population_size` of generation
`number // population_size`. A generation is made of what is known about the earlier ones and of
nothing else, so its trials may be asked for in any order, together, or again after a crash.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import nearest
from tuner.strategies import keys
from tuner.strategies.checks import require_int, seed_of, space_of
from tuner.strategies.codec import Codec, FloatArray
from tuner.strategies.memory import Memory
from tuner.strategies.records import Record, read_record, write_record

__all__ = ["GenerationalSampler", "refuse_several_objectives"]

State = TypeVar("State")

Space = dict[str, BaseDistribution]


class GenerationalSampler(BaseSampler, Generic[State]):
    """A sampler whose trials come in generations.

    A trial that failed, or has no finite value, keeps its place and counts as the worst; a
    pruned one counts with its last reported value. A trial whose parameters came from outside
    (enqueued, added) stands where its parameters are. While no trial has a value, every
    generation is spread afresh over the space. Nothing is waited for: a trial of an earlier
    generation that has not ended counts as failed until it has.

    Args:
        population_size: Individuals, and with that trials in a generation; at least 2, by
            default 10.
        n_generations: Generations in a cycle of the schedules; at least 1, by default 20. A
            strategy without schedules takes no notice of it.
        seed: Seed of every random number, from 0 on; by default one is drawn. Samplers that
            continue a study must be given its seed.
        search_space: The parameters that are moved in; any other is random, and the first such
            one gives a warning. By default those that all finished trials of earlier generations
            share, as in Optuna's own samplers; then the first generation is random.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        require_int(lambda n: n >= 2, "population_size", "from 2 on", population_size)
        require_int(lambda n: n >= 1, "n_generations", "from 1 on", n_generations)
        self.population_size = int(population_size)
        self.n_generations = int(n_generations)
        self.seed = seed_of(seed)
        self.search_space = space_of(search_space)
        self._memory = Memory()
        self._warned = False

    def __repr__(self) -> str:
        """Return the constructor's call with the seed, also a drawn one; of a space its names."""
        values = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        space = values.pop("search_space")
        if space is not None:
            values["search_space"] = list(space)
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in values.items())})"

    __str__ = __repr__  # Optuna's shows the name alone

    @abstractmethod
    def learn(
        self, past: State | None, generation: int, records: list[Record], costs: FloatArray
    ) -> State | None:
        """Return what is known after one more generation; None to begin anew after it.

        Args:
            past: What was known before; None at the beginning.
            generation: The number of this generation.
            records: Where each individual was; a place that nobody knows is a fresh one.
            costs: What each one cost, `(individuals,)`: less is better, inf where a trial
                failed. At the beginning at least one of them is finite.

        It must depend on nothing else than the arguments and the constructor's, and leave the
        arguments as they are.
        """

    @abstractmethod
    def move(self, past: State, generation: int, individual: int) -> Record:
        """Return where the individual goes in `generation`, given all the earlier ones.

        Called by `sample_relative`, from several threads, for generations from 1 on. It must
        depend on nothing else than the arguments, the constructor's and random numbers keyed by
        the seed, and leave `past` as it is.
        """

    def spread(self, generation: int, n_columns: int) -> list[Record]:
        """Return a generation spread over the cube: a scrambled Latin hypercube.

        McKay, Beckman and Conover, Technometrics 21(2), 1979, doi 10.1080/00401706.1979.10489755.
        """
        from scipy.stats import qmc

        rng = keys.generator(self.seed, "spread", generation)
        points = qmc.LatinHypercube(d=n_columns, rng=rng).random(self.population_size)
        return [Record(point) for point in points]

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the search space given, or what the trials of earlier generations share."""
        if self.search_space is not None:
            return dict(self.search_space)  # a wrapper may take parameters out of it
        generation = trial.number // self.population_size
        space = self._memory.after(study, "space", generation, self.population_size, _shared_space)
        return dict(space or {})

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the trial's parameters, after its position was stored with it.

        Raises ValueError for a study with several objectives.
        """
        refuse_several_objectives(self, study)
        codec = Codec(search_space)
        if codec.n_columns == 0:
            return {}
        record = read_record(trial, codec.digest)  # asked before, by a process that died
        if record is None:
            generation, individual = divmod(trial.number, self.population_size)
            past = self.past(study, generation, codec)
            if past is None:
                record = self.spread(generation, codec.n_columns)[individual]
            else:
                record = self.move(past, generation, individual)
            write_record(study, trial, record, codec.digest)
        return codec.decode(record.position)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a parameter that is not moved in.

        Warns, once, where a search space was given that lacks it: a misspelt name would turn
        the search into a random one. Raises ValueError for a study with several objectives.
        """
        refuse_several_objectives(self, study)
        space = self.search_space
        if space is not None and param_name not in space and not self._warned:
            self._warned = True
            hint = nearest(param_name, space)
            text = f"{param_name!r} is sampled at random, for search_space lacks it{hint}"
            warnings.warn(text, stacklevel=4)  # points to the objective's trial.suggest_...
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def past(self, study: Study, generation: int, codec: Codec) -> State | None:
        """Return what the generations before this one came to; None if that is nothing."""

        def learn(past: State | None, g: int, trials: Sequence[FrozenTrial]) -> State | None:
            places: list[Record | None] = [None] * self.population_size
            costs = np.full(self.population_size, np.inf)
            for trial in trials:
                i = trial.number % self.population_size
                places[i] = _where(trial, codec)
                if places[i] is not None:
                    costs[i] = _cost(trial, direction)
            if past is None and not np.isfinite(costs).any():
                return None
            fresh = self.spread(g, codec.n_columns)
            records = [
                new if place is None else _completed(place, new)
                for place, new in zip(places, fresh, strict=True)
            ]
            return self.learn(past, g, records, costs)

        direction = study.direction
        return self._memory.after(study, codec.digest, generation, self.population_size, learn)


def refuse_several_objectives(sampler: BaseSampler, study: Study) -> None:
    """Raise ValueError for a study with several objectives."""
    if len(study.directions) > 1:
        raise ValueError(
            f"{type(sampler).__name__} is for one objective, "
            f"got a study with {len(study.directions)}"
        )


def _shared_space(space: Space | None, _: int, trials: Sequence[FrozenTrial]) -> Space | None:
    """Return the parameters that these trials and the ones before share; None before any."""
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not ended:
        return space
    new = intersection_search_space(ended, include_pruned=True)
    return new if space is None else {n: d for n, d in space.items() if new.get(n) == d}


def _where(trial: FrozenTrial, codec: Codec) -> Record | None:
    """Return where a trial stood; None if that cannot be known."""
    record = read_record(trial, codec.digest)
    if record is not None:
        decoded = codec.decode(record.position)
        if all(trial.params[name] == decoded[name] for name in decoded.keys() & trial.params):
            return record
    if all(trial.distributions.get(name) == d for name, d in codec.distributions.items()):
        return Record(codec.encode(trial.params), None if record is None else record.velocity)
    return None


def _completed(record: Record, new: Record) -> Record:
    """Return the record with the velocity that it lacks, as of a parameter set from outside."""
    if record.velocity is not None:
        return record
    return dataclasses.replace(record, velocity=new.velocity)


def _cost(trial: FrozenTrial, direction: StudyDirection) -> float:
    """Return what the trial cost: less is better, inf for a failed or unfinished one."""
    value: float | None = None
    if trial.state is TrialState.COMPLETE:
        value = trial.value
    elif trial.state is TrialState.PRUNED and trial.last_step is not None:
        value = trial.intermediate_values[trial.last_step]
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if direction is StudyDirection.MAXIMIZE else value
