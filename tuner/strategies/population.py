"""The base of population-based samplers, rebuilt from the records of trials.

A sampler may be handed a study that hides most attributes (Hyperband's brackets do), and Optuna
has no public call that gives a running trial an attribute; so both go through the storage.

Only a cache: everything in it follows from the trials' records, and a copy of it starts empty.

Trial `number` is individual `number % population_size` of generation
`number // population_size`. A generation is made of what is known about the earlier ones and of
nothing else, so its trials may be asked for in any order, together, or again after a crash.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from tuner.errors import nearest
from tuner.strategies import rng as keys
from tuner.strategies.base import PopulationStrategy, Record, Turn
from tuner.strategies.cma import CmaEsStrategy
from tuner.strategies.codec import Codec
from tuner.strategies.pso import ParticleSwarmStrategy, QuantumSwarmStrategy
from tuner.strategies.rng import require, require_int, seed_of
from tuner.strategies.woa import WhaleStrategy

__all__ = [
    "CmaSampler",
    "Memory",
    "ParticleSwarmSampler",
    "PopulationSampler",
    "QuantumSwarmSampler",
    "Standing",
    "WhaleSampler",
    "all_trials",
    "began",
    "read_record",
    "standing",
    "write_record",
]

_KEY = "swarm"


class Standing(NamedTuple):
    """Which trial, and what may change of it that its place and cost follow from."""

    number: int
    ended: bool
    n_params: int
    space: str | None  # of its record


def all_trials(study: Study) -> list[FrozenTrial]:
    """Return every trial of the study as it stands in the storage; not to be changed."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def began(study: Study) -> datetime | None:
    """Return when the study's first trial began; that tells it from another of the same number."""
    storage = study._storage
    first = storage.get_trial_id_from_study_id_trial_number(study._study_id, 0)
    return storage.get_trial(first).datetime_start


def standing(trial: FrozenTrial) -> Standing:
    """Return how the trial stands now."""
    space = trial.system_attrs.get(_KEY, {}).get("space")
    return Standing(trial.number, trial.state.is_finished(), len(trial.params), space)


def write_record(study: Study, trial: FrozenTrial, record: Record, space: str) -> None:
    """Store the record with the trial, in one write; `space` is the digest of its space."""
    value: dict[str, Any] = {"space": space, "position": record.position.tolist()}
    if record.velocity is not None:
        value["velocity"] = record.velocity.tolist()
    study._storage.set_trial_system_attr(trial._trial_id, _KEY, value)


def read_record(trial: FrozenTrial, space: str) -> Record | None:
    """Return the record of the trial; None where it has none, or one of another space."""
    value = trial.system_attrs.get(_KEY)
    if value is None or value.get("space") != space:
        return None
    velocity = value.get("velocity")
    return Record(
        np.array(value["position"], dtype=np.float64),
        None if velocity is None else np.array(velocity, dtype=np.float64),
    )


State = TypeVar("State")


@dataclass(frozen=True)
class _Checkpoint:
    """The state after all trials of the generations before one."""

    state: Any
    unfinished: frozenset[Standing]  # of trials that had not ended; once one changes, it is stale


_START = _Checkpoint(None, frozenset())


@dataclass
class _StudyMemory:
    began: datetime | None  # when its first trial did
    checkpoints: dict[Hashable, dict[int, _Checkpoint]] = field(
        default_factory=lambda: defaultdict(dict)
    )


class Memory:
    """Remembers, for each study, the states that its generations led to.

    A finished trial never changes, so a state is good as long as every trial that was unfinished
    then still stands as it did. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._studies: weakref.WeakKeyDictionary[BaseStorage, dict[int, _StudyMemory]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def after(
        self,
        study: Study,
        key: Hashable,
        generation: int,
        size: int,
        learn: Callable[[State | None, int, Sequence[FrozenTrial]], State | None],
    ) -> State | None:
        """Return the state after the generations before `generation`.

        Args:
            study: The study.
            key: What else the state depends on; the state of another key is another one.
            generation: The first generation that does not count.
            size: Trials in a generation.
            learn: Gives the state after one more generation, from the state before (None at the
                beginning), the generation and its trials. It must depend on these alone and
                leave them as they are.
        """
        if generation == 0:
            return None
        trials: Sequence[FrozenTrial] | None = None
        with self._lock:
            checkpoints = self._of(study).checkpoints[key]
            unfinished = frozenset().union(*(c.unfinished for c in checkpoints.values()))
            if unfinished:
                trials = all_trials(study)
                changed = {s for s in unfinished if s != standing(trials[s.number])}
                for g in [g for g, c in checkpoints.items() if c.unfinished & changed]:
                    del checkpoints[g]
            start = max((g for g in checkpoints if g <= generation), default=0)
            latest = checkpoints.get(start, _START)
            for g in range(start, generation):
                if trials is None:
                    trials = all_trials(study)
                told = trials[g * size : (g + 1) * size]
                running = {standing(t) for t in told if not t.state.is_finished()}
                latest = _Checkpoint(learn(latest.state, g, told), latest.unfinished | running)
                checkpoints[g + 1] = latest
            _thin(checkpoints)
            state: State | None = latest.state
            return state

    def _of(self, study: Study) -> _StudyMemory:
        """Return what is known of the study; nothing, where another one had its number before."""
        studies = self._studies.setdefault(study._storage, {})
        memory = studies.get(study._study_id)
        first = began(study)
        if memory is None or memory.began != first:
            memory = studies[study._study_id] = _StudyMemory(first)
        return memory


def _thin(checkpoints: dict[int, Any]) -> None:
    """Keep ever fewer of the older ones, so that none is far from where a trial ends late.

    The latest four stay, and of those at distance d one in about d / 4: to begin again from
    before a generation costs in proportion to how long ago that was.
    """
    latest = max(checkpoints)
    for g in [g for g in checkpoints if latest - g >= 4 * (g & -g)]:
        del checkpoints[g]


Space = dict[str, BaseDistribution]


class PopulationSampler(BaseSampler):
    """Runs a strategy whose trials come in generations.

    A trial that failed, or has no finite value, keeps its place and counts as the worst; a
    pruned one counts with its last reported value. A trial whose parameters came from outside
    (enqueued, added) stands where its parameters are. While no trial has a value, every
    generation is spread afresh over the space. Nothing is waited for: a trial of an earlier
    generation that has not ended counts as failed until it has.

    Args:
        options: The strategy, which has the population.
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
        options: PopulationStrategy,
        *,
        n_generations: int = 20,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        require_int(lambda n: n >= 1, "n_generations", "from 1 on", n_generations)
        self.options = options
        self.population_size = options.population
        self.n_generations = int(n_generations)
        self.seed = seed_of(seed)
        self.search_space = _space_of(search_space)
        self._memory = Memory()
        self._warned = False

    def move(self, past: Any, generation: int, individual: int) -> Record:
        """Return where the individual goes in `generation`, given all the earlier ones."""
        turn = Turn(generation, individual, self.n_generations, self.seed)
        return self.options.move(past, turn)

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
        _refuse_several_objectives(self, study)
        codec = Codec(search_space)
        if codec.n_columns == 0:
            return {}
        record = read_record(trial, codec.digest)  # asked before, by a process that died
        if record is None:
            generation, individual = divmod(trial.number, self.population_size)
            past = self.past(study, generation, codec)
            if past is None:
                spread = self.options.spread(self.seed, generation, codec.n_columns)
                record = spread[individual]
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
        _refuse_several_objectives(self, study)
        space = self.search_space
        if space is not None and param_name not in space and not self._warned:
            self._warned = True
            hint = nearest(param_name, space)
            text = f"{param_name!r} is sampled at random, for search_space lacks it; {hint}"
            warnings.warn(text, stacklevel=4)  # points to the objective's trial.suggest_...
        seed = keys.seed32(self.seed, "independent", trial.number, param_name)
        return RandomSampler(seed).sample_independent(study, trial, param_name, param_distribution)

    def past(self, study: Study, generation: int, codec: Codec) -> Any | None:
        """Return the state after the generations before this one; None at a beginning."""

        def learn(past: Any | None, g: int, trials: Sequence[FrozenTrial]) -> Any | None:
            places: list[Record | None] = [None] * self.population_size
            costs = np.full(self.population_size, np.inf)
            for trial in trials:
                i = trial.number % self.population_size
                places[i] = _where(trial, codec)
                if places[i] is not None:
                    costs[i] = _cost(trial, direction)
            if past is None and not np.isfinite(costs).any():
                return None
            fresh = self.options.spread(self.seed, g, codec.n_columns)
            records = [
                new if place is None else _completed(place, new)
                for place, new in zip(places, fresh, strict=True)
            ]
            return self.options.learn(past, g, records, costs)

        direction = study.direction
        return self._memory.after(study, codec.digest, generation, self.population_size, learn)


def _refuse_several_objectives(sampler: BaseSampler, study: Study) -> None:
    """Raise ValueError for a study with several objectives."""
    if len(study.directions) > 1:
        raise ValueError(
            f"{type(sampler).__name__} is for one objective, "
            f"got a study with {len(study.directions)}"
        )


def _space_of(
    search_space: Mapping[str, BaseDistribution] | None,
) -> dict[str, BaseDistribution] | None:
    """Return a copy of the search space; raise ValueError for what is none."""
    if search_space is None:
        return None
    rule = "a mapping from names to Optuna's distributions, or None"
    holds = isinstance(search_space, Mapping) and all(
        isinstance(name, str) and isinstance(distribution, BaseDistribution)
        for name, distribution in search_space.items()
    )
    require(holds, "search_space", rule, search_space)
    return dict(search_space)


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


class _ByKeywords(PopulationSampler):
    """A sampler whose arguments are the options of one strategy, `population` as in Optuna."""

    strategy: ClassVar[type[PopulationStrategy]]

    def __init_subclass__(cls, *, strategy: type[PopulationStrategy]) -> None:
        cls.strategy = strategy
        told = {"population_size": strategy.model_fields["population"]}
        told |= {"n_generations": FieldInfo(default=20, description=_CYCLE)}
        told |= {n: f for n, f in strategy.model_fields.items() if n not in ("name", "population")}
        told |= {"seed": FieldInfo(default=None, description=_SEED)}
        told |= {"search_space": FieldInfo(default=None, description=_SPACE)}
        kind = inspect.Parameter.KEYWORD_ONLY
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, kind, default=field.default) for name, field in told.items()]
        )
        arguments = [f"    {n}: {f.description} Default: {f.default!r}." for n, f in told.items()]
        about = [cls.__doc__ or "", "", inspect.getdoc(strategy) or "", "", "Args:"]
        cls.__doc__ = "\n".join([*about, *arguments])

    def __init__(
        self,
        *,
        n_generations: int = 20,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            _options_of(self.strategy, options),
            n_generations=n_generations,
            seed=seed,
            search_space=search_space,
        )

    def __repr__(self) -> str:
        """Return the constructor's call with the seed, also a drawn one; of a space its names."""
        values = self.options.model_dump(exclude={"name", "population"})
        values = {
            "population_size": self.population_size,
            "n_generations": self.n_generations,
            **values,
            "seed": self.seed,
        }
        if self.search_space is not None:
            values["search_space"] = list(self.search_space)
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in values.items())})"

    __str__ = __repr__  # Optuna's shows the name alone


_CYCLE = "Generations in which schedules run before they start again."
_SEED = "Seed of every random number, from 0 on; by default one is drawn."
_SPACE = "The parameters that are moved in; by default those that all trials share."


class ParticleSwarmSampler(_ByKeywords, strategy=ParticleSwarmStrategy):
    """Optuna\'s sampler of the particle swarm."""


class QuantumSwarmSampler(_ByKeywords, strategy=QuantumSwarmStrategy):
    """Optuna\'s sampler of the quantum particle swarm."""


class WhaleSampler(_ByKeywords, strategy=WhaleStrategy):
    """Optuna\'s sampler of whale optimization."""


class CmaSampler(_ByKeywords, strategy=CmaEsStrategy):
    """Optuna\'s sampler of CMA-ES."""


def _options_of(
    strategy: type[PopulationStrategy], arguments: dict[str, Any]
) -> PopulationStrategy:
    """Return a strategy's options from a sampler's keyword arguments.

    Raises:
        ValueError: an argument breaks a rule; its name, the rule and the value.
        TypeError: there is no such argument.
    """
    known = {"population_size": "population"}
    known |= {name: name for name in strategy.model_fields if name not in ("name", "population")}
    if unknown := next((name for name in arguments if name not in known), None):
        hint = nearest(unknown, known)
        raise TypeError(f"{strategy.__name__}: unexpected argument {unknown!r}{hint}")
    given = {known[name]: _plain(value) for name, value in arguments.items()}
    try:
        return strategy(**given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":
        text = str(problem["ctx"]["error"]).replace(": must ", " must ", 1)
        raise ValueError(text.replace("population", "population_size"))
    field = str(problem["loc"][0])
    name = next(argument for argument, option in known.items() if option == field)
    rule = problem["msg"].removeprefix("Input should ")
    raise ValueError(f"{name} must {rule}, got {arguments[name]!r}")


def _plain(value: Any) -> Any:
    """Return a number of any kind, such as numpy's, as one of Python's."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)
