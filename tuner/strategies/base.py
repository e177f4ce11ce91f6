"""Base classes of strategies: options, which are a block of an experiment file, and the sampler.

Nothing here imports Optuna: reading an experiment and listing strategies do without it.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import ErrorDetails

from tuner.errors import ExperimentError, SpaceError
from tuner.strategies.rng import generator

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    Distributions = Mapping[str, BaseDistribution]


FloatArray = npt.NDArray[np.float64]

_FEWEST_GENERATIONS = 4  # in the budget, at least, with the default population
_MOST_CANDIDATES = 100_000  # of a generation: each is kept until one is chosen
_CYCLE = 20  # in a cycle of the schedules, without a budget of trials


_RULES = {
    "missing": "is required",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "is_instance_of": "must be a {class}",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must have {min_length} or more items",
    "too_long": "must have {max_length} or fewer items",
    "greater_than": "must be above {gt:.15g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "less_than": "must be below {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""The rules by pydantic's type of error."""


class Section(BaseModel):
    """A block of an experiment file; immutable, and strict about its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


def optional(example: Any) -> Any:
    """Return a field that is None by default, and whose messages suggest the example."""
    return Field(None, examples=[example])


def broken_rule(details: ErrorDetails) -> str:
    """Return the rule that a value breaks; pydantic's message for a type of error without one."""
    rule = _RULES.get(details["type"])
    return details["msg"] if rule is None else rule.format(**details.get("ctx", {}))


def check_order(options: Section, lower: str, upper: str) -> None:
    """Raise ValueError unless `lower` is at most `upper`, naming a key that was written."""
    low, high = getattr(options, lower), getattr(options, upper)
    if low <= high:
        return
    if lower not in options.model_fields_set:
        rule = f"must not be below {lower}, {low} (its default)"
        raise ExperimentError(rule, key=upper, got=high, remedy=f"give {lower} too, {high} at most")
    unwritten = "" if upper in options.model_fields_set else " (its default)"
    rule = f"must not be above {upper}, {high}{unwritten}"
    remedy = f"give a smaller number, or a larger {upper}"
    raise ExperimentError(rule, key=lower, got=low, remedy=remedy)


@dataclass(frozen=True)
class Rhythm:
    """When trials may be asked."""

    size: int  # trials in a generation, or in a batch
    generational: bool

    def told_before(self, number: int) -> int:
        """Return how many trials must have been told when trial `number` is asked."""
        if self.generational:
            return number // self.size * self.size
        return max(0, number - self.size + 1)


class Strategy(Section):
    """The options of a strategy. Its docstring, and that of each key, are its documentation."""

    name: str
    """Its name in an experiment."""

    @classmethod
    def summary(cls) -> str:
        """Return the first line of the documentation."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]

    @property
    @abstractmethod
    def rhythm(self) -> Rhythm:
        """When its trials may be asked."""

    @abstractmethod
    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        """Return the sampler; libraries behind it are imported here.

        Args:
            distributions: The search space.
            seed: Seed of every random number.
            n_generations: Generations in a cycle of the schedules, if it has any.

        Raises:
            SpaceError: It cannot search this space.
        """

    def make_sampler(
        self, distributions: Distributions, seed: int, trials: int | None
    ) -> BaseSampler:
        """Return the sampler for a budget of trials, None without one.

        Raises:
            SpaceError: It cannot search this space.
        """
        n_generations = _CYCLE if trials is None else math.ceil(trials / self.rhythm.size)
        try:
            return self.sampler(distributions, seed, n_generations)
        except SpaceError:
            raise
        except ValueError as error:  # of an installed strategy, or a library
            raise SpaceError(error) from error

    def paced(self, n_trials: int | None) -> Strategy:
        """Return the options for a budget of trials, None without one."""
        return self


class BatchStrategy(Strategy):
    """A strategy that has a fixed number of trials in flight."""

    batch: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 4
    """Trials that are asked before the first of them is told."""

    @property
    def rhythm(self) -> Rhythm:
        return Rhythm(self.batch, generational=False)


@dataclass(frozen=True)
class Record:
    """Where one individual was when its trial was asked, in the unit cube."""

    position: FloatArray  # (n_columns,)
    velocity: FloatArray | None = None  # (n_columns,); swarms without velocities have none


@dataclass(frozen=True)
class Turn:
    """The turn of one individual to move."""

    generation: int  # from 0 on
    individual: int  # from 0 on
    n_generations: int  # in a cycle of the schedules
    seed: int
    candidate: int = 0  # from 0 on; a swarm may propose several places for an individual

    @property
    def done(self) -> float:
        """The share of the cycle that is done, from 0 to below 1."""
        return (self.generation % self.n_generations) / self.n_generations

    @property
    def key(self) -> tuple[int, ...]:
        """What keys its random numbers; that of candidate 0 is the same with and without others."""
        turn = (self.generation, self.individual)
        return (*turn, self.candidate) if self.candidate else turn

    def rng(self, role: str) -> np.random.Generator:
        """Return this turn's random numbers for a role, such as the strategy's name."""
        return generator(self.seed, role, *self.key)


class GenerationalStrategy(Strategy):
    """A strategy whose trials come in generations; results count from the next generation on."""

    population: Annotated[int, Field(ge=2, le=10_000, strict=True)] = 10
    """Trials in a generation; by default fewer for under 40 trials."""

    @property
    def rhythm(self) -> Rhythm:
        return Rhythm(self.population, generational=True)

    def paced(self, n_trials: int | None) -> Strategy:
        """Return the options with a population that has time to move.

        The default is lowered to a quarter of the trials, which gives four generations, but not
        below what the strategy needs. A population of the experiment file stays.
        """
        if n_trials is None or "population" in self.model_fields_set:
            return self
        population = min(
            self.population, max(self.least_population(), n_trials // _FEWEST_GENERATIONS)
        )
        changed = self.model_copy(update={"population": population})
        changed.model_fields_set.discard("population")  # it still follows the budget
        return changed

    def least_population(self) -> int:
        """Return how many individuals these options need."""
        return 2

    def spread(self, seed: int, generation: int, n_columns: int) -> list[Record]:
        """Return a generation spread over the cube: a scrambled Latin hypercube.

        McKay, Beckman and Conover, Technometrics 21(2), 1979, doi 10.1080/00401706.1979.10489755.
        """
        from scipy.stats import qmc

        rng = generator(seed, "spread", generation)
        points = qmc.LatinHypercube(d=n_columns, rng=rng).random(self.population)
        return [Record(point) for point in points]


class PopulationStrategy(GenerationalStrategy):
    """A generational strategy that moves individuals through the unit cube.

    Each hyperparameter is one column of the cube, or one for each choice. Trial `number` is
    individual `number % population` of generation `number // population`.
    """

    def sampler(self, distributions: Distributions, seed: int, n_generations: int) -> BaseSampler:
        from tuner.strategies.population import PopulationSampler

        return PopulationSampler(
            self, n_generations=n_generations, seed=seed, search_space=distributions
        )

    @abstractmethod
    def learn(
        self, past: Any, generation: int, records: list[Record], costs: FloatArray
    ) -> Any | None:
        """Return the state after one more generation; None to begin anew after it.

        Args:
            past: The state before; None at the beginning.
            generation: The number of this generation.
            records: Where each individual was; a new position if that is unknown.
            costs: The cost of each, `(individuals,)`: less is better, inf for a failed trial. At
                the beginning, at least one is finite.

        It must depend on the arguments and the options alone, and not change the arguments.
        """

    @abstractmethod
    def move(self, past: Any, turn: Turn) -> Record:
        """Return where an individual goes, given all earlier generations.

        Called from several threads, for generations from 1 on. It must depend on the arguments,
        the options and random numbers of the turn alone, and not change `past`. A swarm that
        proposes several candidates calls it for each, with random numbers of its own.
        """


@dataclass(frozen=True)
class Past:
    """State of a swarm; at least one individual has a best position of its own."""

    latest: list[Record]  # the generation before, whole
    positions: FloatArray  # (individuals, n_columns), of the latest generation
    best_positions: FloatArray  # (individuals, n_columns); nan without a value yet
    best_costs: FloatArray  # (individuals,); inf without a value yet
    leader: FloatArray  # (n_columns,), the best position of all
    leader_cost: float


class SwarmStrategy(PopulationStrategy):
    """Individuals that move by their positions, their own bests and the leader."""

    candidates: Annotated[int, Field(ge=1, le=1_000, strict=True, examples=[20])] = 1
    """Places proposed for each individual; from 2 on, a model of earlier trials picks one."""

    @model_validator(mode="after")
    def _check_candidates(self) -> SwarmStrategy:
        most = max(1, _MOST_CANDIDATES // self.population)
        if self.candidates > most:
            rule = f"must be at most {most} with a population of {self.population}"
            raise ExperimentError(
                rule, key="candidates", got=self.candidates, remedy=f"write {most}"
            )
        return self

    def move_all(self, past: Past, turn: Turn) -> list[Record]:
        """Return where each individual goes, as `move` does for one at a time."""
        turns = (dataclasses.replace(turn, individual=i) for i in range(self.population))
        return [self.move(past, one) for one in turns]

    def learn(
        self, past: Past | None, generation: int, records: list[Record], costs: FloatArray
    ) -> Past:
        """Return the bests after one more generation; of equal ones the first stays."""
        positions = np.array([record.position for record in records])
        if past is None:
            nowhere = np.full_like(positions, np.nan)
            unknown = np.full(len(records), np.inf)
            past = Past([], nowhere, nowhere, unknown, nowhere[0], math.inf)
        better = costs < past.best_costs  # (individuals,)
        i = int(costs.argmin())
        leads = costs[i] < past.leader_cost
        return Past(
            latest=records,
            positions=positions,
            best_positions=np.where(better[:, np.newaxis], positions, past.best_positions),
            best_costs=np.where(better, costs, past.best_costs),
            leader=positions[i] if leads else past.leader,
            leader_cost=float(costs[i]) if leads else past.leader_cost,
        )
