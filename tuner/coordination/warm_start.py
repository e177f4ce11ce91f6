"""A new study that begins from earlier ones: their trials are taken over, or the best tried first.

Where an earlier study asked the same question, on the same data, the trials that still lie in the
search space are taken over with what came of them: the space may have changed. Else its best
configurations are tried first, trained anew. What is done stands in the journal before it is
done, so that a study which was killed meanwhile is completed and never begun otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial

from tuner.coordination.attributes import OUTCOME_ATTR, TAKEN_ATTR, TOLD_ATTR
from tuner.coordination.fresh import configuration_key
from tuner.coordination.records import StudyRecord, TrialRecord
from tuner.coordination.telling import STATES, objectives_of
from tuner.errors import StudyError
from tuner.experiment import Experiment, flat
from tuner.experiment.preparations import PREPARED
from tuner.jobs import intermediate_values
from tuner.strategies.registry import rhythm_of

__all__ = ["Earlier", "WarmStart", "plan_warm_start"]

_ASKED = ("data", "task", "objective", "training", "budget.epochs", "budget.patience")
"""What makes two scores comparable, beside the configuration; the data's place may differ."""


_TRIED = 5
"""Configurations of earlier studies that are tried first; by a swarm, half of a generation."""


@dataclass(frozen=True)
class Earlier:
    """What to begin from."""

    name: str  # of a study, or a file
    record: StudyRecord | None = None
    configurations: tuple[dict[str, Any], ...] = ()  # of a file, the best first


@dataclass(frozen=True)
class WarmStart:
    """What a new study begins with."""

    taken: tuple[tuple[str, str, TrialRecord, dict[str, Any]], ...]
    """Study, its id, trial, and the parameters that it has in the new space."""
    tried: tuple[dict[str, Any], ...]  # configurations, in order
    sources: tuple[str, ...]  # what it begins from
    said: tuple[str, ...]  # a line for each of them

    def to_json(self) -> dict[str, Any]:
        """Return what the journal keeps of it."""
        return {
            "taken": [[study, study_id, t.number] for study, study_id, t, _ in self.taken],
            "tried": list(self.tried),
            "sources": list(self.sources),
            "said": list(self.said),
        }

    def begin(
        self,
        study: optuna.Study,
        distributions: dict[str, BaseDistribution],
        experiment: Experiment,
    ) -> None:
        """Add to a study what it lacks of this."""
        n_there = len(study.get_trials(deepcopy=False))
        for number, (name, study_id, trial, params) in enumerate(self.taken):
            if number < n_there:
                continue
            assert trial.outcome is not None
            values = objectives_of(trial.outcome, experiment.objective.cost)
            steps = intermediate_values(trial.outcome.history, experiment.n_folds)
            taken = {"study": name, "id": study_id, "trial": trial.number, "seed": trial.seed}
            attrs = {
                OUTCOME_ATTR: trial.outcome.to_json(),
                TOLD_ATTR: number,
                TAKEN_ATTR: taken,
            }
            study.add_trial(
                create_trial(
                    state=STATES[trial.outcome.state],
                    values=values,
                    params=params,
                    distributions=distributions,
                    user_attrs=attrs,
                    intermediate_values=steps,
                )
            )
        for number, params in enumerate(self.tried, len(self.taken)):
            if number >= n_there:
                study.enqueue_trial(params)


def plan_warm_start(experiment: Experiment, sha256: str, earlier: Sequence[Earlier]) -> WarmStart:
    """Say what a new study begins with.

    Args:
        experiment: what it searches.
        sha256: of its data.
        earlier: what to begin from, in order; of equal configurations the first counts.

    Raises:
        StudyError: what is taken over leaves nothing to train.
    """
    taken: list[tuple[str, str, TrialRecord, dict[str, Any]]] = []
    tried: list[dict[str, Any]] = []
    said: list[str] = []
    seen: set[str] = set()

    def is_new(params: dict[str, Any]) -> bool:
        key = configuration_key(params)
        new = key not in seen
        seen.add(key)
        return new

    start = experiment.start()
    start_key = configuration_key(start)
    rhythm = rhythm_of(experiment.strategy)
    room = max(1, rhythm.size // 2) if rhythm.generational else _TRIED
    for source in earlier:
        record, why_not = source.record, None
        if record is not None and (why_not := _why_other(experiment, sha256, record)) is None:
            own = [(t, _same(experiment, record.experiment, t)) for t in record.trained]
            found = [(t, params) for t, params in own if params is not None]
            new = [(record.name, record.id, t, params) for t, params in found if is_new(params)]
            taken += new
            outside = len(own) - len(found)
            left_out = f"; {outside} lie outside of what is searched here" if outside else ""
            said.append(f"takes over {len(new)} of {len(own)} trials of {source.name}{left_out}")
            continue
        if record is not None:
            known = [_within(experiment, record.experiment, t) for t in record.ranked()]
            configurations = [params for params in known if params is not None]
        else:
            configurations = list(source.configurations)
        others = (p for p in configurations if configuration_key(p) != start_key)
        best = [params for params in others if is_new(params)][: room - len(tried)]
        tried += best
        of = f", which has {why_not}" if why_not else ""
        which = "best configuration" if len(best) == 1 else f"{len(best)} best configurations"
        said.append(
            f"tries the {which} of {source.name} first{of}"
            if best
            else f"no configuration of {source.name}{of} is new and lies in the search space"
        )
    if start and is_new(start):
        tried.insert(0, start)
    n_trials = experiment.n_trials
    if taken and n_trials is not None and len(taken) >= n_trials:
        raise StudyError(
            f"--from: leaves nothing to train: {len(taken)} trials are taken over, and trials are "
            f"{n_trials} in all; write --trials {len(taken) + n_trials}"
        )
    sources = tuple(source.name for source in earlier)
    return WarmStart(tuple(taken), tuple(tried), sources, tuple(said))


def _why_other(experiment: Experiment, sha256: str, record: StudyRecord) -> str | None:
    """Say what makes the scores of a study incomparable with the new one's; None where nothing."""
    if record.data["sha256"] != sha256:
        return "other data"
    new, old = (dict(flat(e.to_dict())) for e in (experiment, record.experiment))
    searched = {f"data.{name}" for name in PREPARED} | {"data.path", "objective.metrics"}
    for key in sorted((new.keys() | old.keys()) - searched):
        asked = any(f"{key}.".startswith(f"{part}.") for part in _ASKED)
        if asked and new.get(key) != old.get(key):
            return f"{key}={old.get(key)!r}, not {new.get(key)!r}"
    for name in (*PREPARED, "window"):  # they decide which rows are scored
        bounds = [
            sorted({str(e.given(name)), *map(str, _ends(e, name))})
            for e in (experiment, record.experiment)
        ]
        if name in ("transform", "lags", "window") and bounds[0] != bounds[1]:
            return f"another {name}"
    return None


def _ends(experiment: Experiment, name: str) -> tuple[Any, ...]:
    domain = experiment.search_space.get(name)
    return () if domain is None else tuple(domain.bounds())


def _within(
    experiment: Experiment, before: Experiment, trial: TrialRecord
) -> dict[str, Any] | None:
    """Return a trial's configuration as parameters of the new space; None where it lies outside."""
    params: dict[str, Any] = {}
    for name, domain in experiment.search_space.items():
        value = trial.params[name] if name in trial.params else before.given(name)
        if value not in domain:
            return None
        params[name] = float(value) if domain.type == "float" else value
    return params


def _same(experiment: Experiment, before: Experiment, trial: TrialRecord) -> dict[str, Any] | None:
    """Return the parameters with which a trial is one of the new space; None where it is none."""
    params = _within(experiment, before, trial)
    if params is None:
        return None
    same = experiment.configuration(params) == before.configuration(dict(trial.params))
    same &= _prepared(experiment, params) == _prepared(before, trial.params)
    return params if same else None


def _prepared(experiment: Experiment, params: Any) -> dict[str, str]:
    return {name: str(params.get(name, experiment.given(name))) for name in PREPARED}
