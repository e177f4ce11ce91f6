"""Optuna samplers that run a `PopulationStrategy`, rebuilt from the records of trials.

Trial `number` is individual `number % population` of generation `number // population`. A
generation follows from the earlier ones, so its trials may be asked in any order, at the same
time, or again after a crash.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, InstanceOf, ValidationError

from tuner.errors import ExperimentError, nearest
from tuner.strategies.base import (
    Past,
    PopulationStrategy,
    Record,
    Section,
    SwarmStrategy,
    Turn,
    broken_rule,
)
from tuner.strategies.cma import CmaEsStrategy
from tuner.strategies.codec import Codec
from tuner.strategies.samplers import KeyedSampler, Space, all_trials
from tuner.strategies.surrogate import Told, candidates_of, choose
from tuner.strategies.swarms import ParticleSwarmStrategy, QuantumSwarmStrategy, WhaleStrategy

_KEY = "swarm"
"""System attribute of a trial's record; Optuna sets those of running trials in the storage only."""


def _read_record(trial: FrozenTrial, space: str) -> Record | None:
    """Return the record of a trial; None if it has none, or one of another space."""
    value = trial.system_attrs.get(_KEY)
    if value is None or value.get("space") != space:
        return None
    velocity = value.get("velocity")
    return Record(
        np.array(value["position"], dtype=np.float64),
        None if velocity is None else np.array(velocity, dtype=np.float64),
    )


State = TypeVar("State")
_Snapshot = tuple[int, bool, int, str | None]


def _snapshot(trial: FrozenTrial) -> _Snapshot:
    """Return a trial's number, and all that can change about its position and cost."""
    space = trial.system_attrs.get(_KEY, {}).get("space")  # of its record
    return trial.number, trial.state.is_finished(), len(trial.params), space


@dataclass(frozen=True)
class _Checkpoint:
    """The state after all trials of the generations before one."""

    state: Any = None
    unfinished: frozenset[_Snapshot] = frozenset()  # once one of them changes, it is stale


_Checkpoints = dict[int, _Checkpoint]  # by generation


class Memory:
    """A cache of the states after each generation of each study; a copy of it starts empty.

    A finished trial never changes, so a state is valid while every trial that was unfinished
    then is unchanged. Safe to share between threads.
    """

    def __init__(self) -> None:
        # By storage and number of the study: the start of its first trial; checkpoints by key.
        self._studies: weakref.WeakKeyDictionary[
            BaseStorage, dict[int, tuple[datetime | None, dict[Hashable, _Checkpoints]]]
        ] = weakref.WeakKeyDictionary()
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
            key: Identifies other dependencies of the state: the digest of the search space.
            generation: The first generation that does not count.
            size: Trials in a generation.
            learn: Returns the state after one more generation, from the state before (None at
                the beginning), the generation and its trials. It must depend on these alone and
                leave them as they are.
        """
        if generation == 0:
            return None
        trials: Sequence[FrozenTrial] | None = None
        with self._lock:
            checkpoints = self._checkpoints(study, key)
            unfinished = frozenset().union(*(c.unfinished for c in checkpoints.values()))
            if unfinished:
                trials = all_trials(study)
                changed = {s for s in unfinished if s != _snapshot(trials[s[0]])}
                for g in [g for g, c in checkpoints.items() if c.unfinished & changed]:
                    del checkpoints[g]
            start = max((g for g in checkpoints if g <= generation), default=0)
            latest = checkpoints.get(start, _Checkpoint())
            for g in range(start, generation):
                if trials is None:
                    trials = all_trials(study)
                members = trials[g * size : (g + 1) * size]
                running = {_snapshot(t) for t in members if not t.state.is_finished()}
                latest = _Checkpoint(learn(latest.state, g, members), latest.unfinished | running)
                checkpoints[g + 1] = latest
            _thin(checkpoints)
            state: State | None = latest.state
            return state

    def _checkpoints(self, study: Study, key: Hashable) -> _Checkpoints:
        """Return the checkpoints; none if the study has replaced another of the same number."""
        storage, study_id = study._storage, study._study_id
        first = storage.get_trial_id_from_study_id_trial_number(study_id, 0)
        began = storage.get_trial(first).datetime_start
        studies = self._studies.setdefault(storage, {})
        if study_id not in studies or studies[study_id][0] != began:
            studies[study_id] = (began, {})
        return studies[study_id][1].setdefault(key, {})


def _thin(checkpoints: dict[int, Any]) -> None:
    """Delete most of the older checkpoints.

    The latest four stay, and of those at distance d one in about d / 4: the cost of computing a
    state again, after a trial that ended late, is proportional to its age.
    """
    latest = max(checkpoints)
    for g in [g for g in checkpoints if latest - g >= 4 * (g & -g)]:
        del checkpoints[g]


class PopulationSampler(KeyedSampler):
    """Runs a strategy whose trials come in generations.

    A trial that failed, or has no finite value, keeps its position and counts as the worst; a
    pruned one counts with its last reported value. An enqueued or added trial has the position of
    its parameters. While no trial has a value, every generation is spread anew over the space. A
    trial of an earlier generation that has not ended counts as failed.

    Args:
        options: The strategy, which has the population.
        n_generations: Generations in a cycle of the schedules, at least 1.
        seed: Seed of every random number, from 0 on; drawn by default. Samplers that continue a
            study must be given its seed.
        search_space: The parameters that are moved in; any other is random, and the first such
            one gives a warning. By default, those that all finished trials of earlier generations
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
        super().__init__(seed=seed)
        self.options = options
        self.population_size = options.population
        self.n_generations = n_generations
        self.search_space = None if search_space is None else dict(search_space)
        self._memory = Memory()
        self._warned = False

    def move(self, past: Any, generation: int, individual: int) -> Record:
        """Return where the individual goes in `generation`, given all the earlier ones."""
        turn = Turn(generation, individual, self.n_generations, self.seed)
        return self.options.move(past, turn)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        if self.search_space is not None:
            return dict(self.search_space)  # a wrapper may take parameters out of it
        generation = trial.number // self.population_size
        space = self._memory.after(study, "space", generation, self.population_size, _shared_space)
        return dict(space or {})

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        """Return the trial's parameters, after its position was stored with it."""
        self._refuse_several_objectives(study)
        codec = Codec(search_space)
        if codec.n_columns == 0:
            return {}
        record = _read_record(trial, codec.digest)  # of a process that died
        if record is None:
            generation, individual = divmod(trial.number, self.population_size)
            past = self.past(study, generation, codec)
            if past is None:
                spread = self.options.spread(self.seed, generation, codec.n_columns)
                record = spread[individual]
            elif isinstance(self.options, SwarmStrategy) and self.options.candidates > 1:
                record = self._chosen(study, self.options, past, generation, codec)[individual]
            else:
                record = self.move(past, generation, individual)
            stored: dict[str, Any] = {"space": codec.digest, "position": record.position.tolist()}
            if record.velocity is not None:
                stored["velocity"] = record.velocity.tolist()
            study._storage.set_trial_system_attr(trial._trial_id, _KEY, stored)
        return codec.decode(record.position)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a random value; warn once about a name that the given search space lacks.

        A misspelled name would turn the search into a random one.
        """
        self._refuse_several_objectives(study)
        space = self.search_space
        if space is not None and param_name not in space and not self._warned:
            self._warned = True
            hint = nearest(param_name, space)
            text = f"{param_name!r} is sampled at random, for search_space lacks it; {hint}"
            warnings.warn(text, stacklevel=4)  # points to the objective's trial.suggest_...
        return super().sample_independent(study, trial, param_name, param_distribution)

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
            records = []
            for place, new in zip(places, fresh, strict=True):
                record = place or new
                if record.velocity is None:  # its parameters came from outside
                    record = dataclasses.replace(record, velocity=new.velocity)
                records.append(record)
            return self.options.learn(past, g, records, costs)

        direction = study.direction
        return self._memory.after(study, codec.digest, generation, self.population_size, learn)

    def _chosen(
        self, study: Study, swarm: SwarmStrategy, past: Past, generation: int, codec: Codec
    ) -> list[Record]:
        """Return where the individuals go, each to the best of its candidates.

        All of a generation are chosen at once: no two shall take the same configuration. They are
        chosen again, but for those that have gone, when an earlier trial ends in the meantime.
        """
        told = self._told(study, generation, codec)
        if told.chosen is None:  # another thread may be about it too, with the same result
            turn = Turn(generation, 0, self.n_generations, self.seed)
            size = self.population_size
            gone = {  # where they were sent: parameters that were enqueued are not of a choice
                trial.number % size: record
                for trial in all_trials(study)[generation * size : (generation + 1) * size]
                if (record := _read_record(trial, codec.digest)) is not None
            }
            told.chosen = choose(told, candidates_of(swarm, past, turn), codec, gone)
        return told.chosen

    def _told(self, study: Study, generation: int, codec: Codec) -> Told:
        """Return what is known of the trials of the generations before this one."""

        def learn(told: Told | None, g: int, trials: Sequence[FrozenTrial]) -> Told:
            known = [(t, record) for t in trials if (record := _where(t, codec)) is not None]
            if told is None:
                told = Told(np.empty((0, codec.n_columns)), np.empty(0))
            if not known:
                return told.plus(told.places[:0], [])
            places = codec.snap(np.array([record.position for _, record in known]))
            costs = [_cost(t, direction) if t.state.is_finished() else np.nan for t, _ in known]
            return told.plus(places, costs)

        direction = study.direction
        key = ("told", codec.digest)
        told = self._memory.after(study, key, generation, self.population_size, learn)
        assert told is not None  # a swarm that moves has a past
        return told

    def _refuse_several_objectives(self, study: Study) -> None:
        if (n := len(study.directions)) > 1:
            name = type(self).__name__
            raise ValueError(f"{name} is for one objective, got a study with {n}")


def _shared_space(space: Space | None, _: int, trials: Sequence[FrozenTrial]) -> Space | None:
    """Return the parameters that these trials and the earlier ones share; None before any."""
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not ended:
        return space
    new = intersection_search_space(ended, include_pruned=True)
    return new if space is None else {n: d for n, d in space.items() if new.get(n) == d}


def _where(trial: FrozenTrial, codec: Codec) -> Record | None:
    """Return the position of a trial; None if it is unknown."""
    record = _read_record(trial, codec.digest)
    if record is not None:
        decoded = codec.decode(record.position)
        if all(trial.params[name] == decoded[name] for name in decoded.keys() & trial.params):
            return record
    if all(trial.distributions.get(name) == d for name, d in codec.distributions.items()):
        return Record(codec.encode(trial.params), None if record is None else record.velocity)
    return None


def _cost(trial: FrozenTrial, direction: StudyDirection) -> float:
    """Return the cost of a trial: less is better, inf for a failed or unfinished one."""
    value: float | None = None
    if trial.state is TrialState.COMPLETE:
        value = trial.value
    elif trial.state is TrialState.PRUNED and trial.last_step is not None:
        value = trial.intermediate_values[trial.last_step]
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if direction is StudyDirection.MAXIMIZE else value


class _Arguments(Section):
    """The arguments that are not options of a strategy."""

    n_generations: Annotated[int, Field(ge=1, strict=True)] = 20
    """Generations in which schedules run before they start again."""
    seed: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Seed of every random number, from 0 on; by default one is drawn."""
    search_space: dict[str, InstanceOf[BaseDistribution]] | None = None
    """The parameters that are moved in; by default those that all trials share."""


class _KeywordSampler(PopulationSampler):
    """A sampler whose arguments are the options of one strategy, `population_size` as in Optuna."""

    strategy: ClassVar[type[PopulationStrategy]]

    def __init_subclass__(cls, *, strategy: type[PopulationStrategy]) -> None:
        cls.strategy = strategy
        general, options = dict(_Arguments.model_fields), dict(strategy.model_fields)
        del options["name"]
        fields = {"population_size": options.pop("population")}
        fields |= {"n_generations": general.pop("n_generations"), **options, **general}
        cls.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default)
                for name, field in fields.items()
            ]
        )
        arguments = [f"    {n}: {f.description} Default: {f.default!r}." for n, f in fields.items()]
        about = [cls.__doc__ or "", "", inspect.getdoc(strategy) or "", "", "Args:"]
        cls.__doc__ = "\n".join([*about, *arguments])

    def __init__(self, **arguments: Any) -> None:
        known = inspect.signature(type(self)).parameters
        if unknown := next((name for name in arguments if name not in known), None):
            name = type(self).__name__
            raise TypeError(f"{name}: unexpected argument {unknown!r}; {nearest(unknown, known)}")
        given = {name: _plain(value) for name, value in arguments.items()}
        if "population_size" in given:
            given["population"] = given.pop("population_size")
        general = {name: given.pop(name) for name in _Arguments.model_fields if name in given}
        try:
            checked = _Arguments(**general)
            options = self.strategy(**given)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            if problem["type"] == "value_error":
                broken: ExperimentError = problem["ctx"]["error"]
                text = str(broken.with_(key=None, rule=f"{broken.key} {broken.rule}"))
                raise ValueError(text.replace("population", "population_size")) from None
            field = str(problem["loc"][0])
            name = "population_size" if field == "population" else field
            raise ValueError(f"{name} {broken_rule(problem)}, got {arguments[name]!r}") from None
        super().__init__(options, **dict(checked))

    def __repr__(self) -> str:
        """Return the constructor's call with the seed, also a drawn one; of a space its names."""
        values = dict(self.options) | {
            "population_size": self.population_size,
            "n_generations": self.n_generations,
            "seed": self.seed,
            "search_space": self.search_space and list(self.search_space),
        }
        names = inspect.signature(type(self)).parameters
        shown = [f"{n}={values[n]!r}" for n in names if n != "search_space" or values[n]]
        return f"{type(self).__name__}({', '.join(shown)})"

    __str__ = __repr__  # Optuna's shows the name alone


class ParticleSwarmSampler(_KeywordSampler, strategy=ParticleSwarmStrategy):
    """Optuna sampler of the particle swarm."""


class QuantumSwarmSampler(_KeywordSampler, strategy=QuantumSwarmStrategy):
    """Optuna sampler of the quantum particle swarm."""


class WhaleSampler(_KeywordSampler, strategy=WhaleStrategy):
    """Optuna sampler of whale optimization."""


class CmaSampler(_KeywordSampler, strategy=CmaEsStrategy):
    """Optuna sampler of CMA-ES."""


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)
