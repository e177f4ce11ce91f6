"""The base of swarms: generations of individuals, rebuilt from the trials' records.

Trial `number` is individual `number % population_size` of generation
`number // population_size`. A generation is made of what is known about the earlier ones and of
nothing else, so its trials may be asked for in any order, together, or again after a crash.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.strategies import keys
from tuner.strategies.codec import Codec, FloatArray
from tuner.strategies.records import Record, all_trials, read_record, write_record

__all__ = ["Past", "SwarmSampler", "require"]


@dataclass(frozen=True)
class Past:
    """What the earlier generations came to; at least one individual has a finite cost."""

    positions: FloatArray  # (generations, individuals, n_columns); nan where nothing is known
    costs: FloatArray  # (generations, individuals); less is better, inf where a trial failed
    last: list[Record]  # the latest generation, whole


class SwarmSampler(BaseSampler):
    """A sampler whose trials come in generations.

    A trial that failed, or has no finite value, keeps its place and counts as the worst; a
    pruned one counts with its last reported value. A trial whose parameters came from outside
    (enqueued, added) stands where its parameters are. While no trial has a value, every
    generation is spread afresh over the space.

    Args:
        population_size: Individuals, and with that trials in a generation; at least 2, by
            default 10.
        n_generations: Generations in a cycle of the swarm's schedules; at least 1, by default
            20. A swarm without schedules takes no notice of it.
        seed: Seed of every random number; by default one is drawn. Samplers that continue a
            study must be given its seed.
        search_space: The parameters that the swarm moves in. By default those that all
            finished trials of earlier generations share, as in Optuna's own samplers; then the
            first generation is random.
    """

    def __init__(
        self,
        *,
        population_size: int = 10,
        n_generations: int = 20,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        require(population_size >= 2, "population_size", "at least 2", population_size)
        require(n_generations >= 1, "n_generations", "at least 1", n_generations)
        self.population_size = population_size
        self.n_generations = n_generations
        self.seed = keys.new_seed() if seed is None else seed
        self.search_space = None if search_space is None else dict(search_space)

    @abstractmethod
    def move(self, past: Past, generation: int, individual: int) -> Record:
        """Return where the individual goes in `generation`, given all the earlier ones.

        Called by `sample_relative` for generations from 1 on. It must depend on nothing else
        than the arguments, the constructor's and random numbers keyed by the seed, and leave
        `past` as it is.
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
            return self.search_space
        first = trial.number - trial.number % self.population_size
        earlier = [t for t in all_trials(study) if t.number < first]
        return intersection_search_space(earlier, include_pruned=True)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the trial's parameters, after its position was stored with it.

        Raises ValueError for a study with several objectives.
        """
        _refuse_several_objectives(self, study)
        codec = Codec(search_space)
        if codec.n_columns == 0:
            return {}
        record = read_record(trial, codec.n_columns)  # asked before, by a process that died
        if record is None:
            record = self._place(study, trial, codec)
            write_record(study, trial, record)
        return codec.decode(record.position)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value for a parameter that the swarm does not move in.

        Raises ValueError for a study with several objectives.
        """
        _refuse_several_objectives(self, study)
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def _place(self, study: Study, trial: FrozenTrial, codec: Codec) -> Record:
        generation, individual = divmod(trial.number, self.population_size)
        past = self._recall(study, generation, codec)
        if past is None:
            return self.spread(generation, codec.n_columns)[individual]
        return self.move(past, generation, individual)

    def _recall(self, study: Study, generation: int, codec: Codec) -> Past | None:
        """Return what the generations before this one came to; None if no trial has a value."""
        positions = np.full((generation, self.population_size, codec.n_columns), np.nan)
        costs = np.full((generation, self.population_size), np.inf)
        latest: dict[int, Record] = {}
        for trial in all_trials(study):
            g, i = divmod(trial.number, self.population_size)
            if g >= generation:
                continue
            record = _where(trial, codec)
            if record is None:
                continue
            positions[g, i] = record.position
            costs[g, i] = _cost(trial, study.direction)
            if g == generation - 1:
                latest[i] = record
        if not np.isfinite(costs).any():
            return None
        last = [
            _completed(latest.get(i, new), new)
            for i, new in enumerate(self.spread(generation - 1, codec.n_columns))
        ]
        positions[-1] = [record.position for record in last]
        return Past(positions, costs, last)


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Raise ValueError, naming the constructor's argument, unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def _refuse_several_objectives(sampler: BaseSampler, study: Study) -> None:
    if len(study.directions) > 1:
        raise ValueError(
            f"{sampler} is for one objective, got a study with {len(study.directions)}"
        )


def _where(trial: FrozenTrial, codec: Codec) -> Record | None:
    """Return where a trial stood; None if that cannot be known."""
    record = read_record(trial, codec.n_columns)
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
