"""Opens a study: a new one, a resumed one, or one that starts from earlier studies.

Where an earlier study asked the same question, on the same data, the trials that still lie in the
search space are taken over with what came of them: the space may have changed. Else its best
configurations are tried first, trained anew. What is done stands in the journal before it is
done, so that a study which was killed meanwhile is completed and never begun otherwise.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import platform
import shlex
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import create_trial

from tuner import __version__
from tuner.coordination.history import STATES, configuration_key, objectives_of
from tuner.errors import RunError, StudyError, one_line, show_location
from tuner.experiment import Experiment, flat
from tuner.experiment.data import PREPARED
from tuner.jobs import intermediate_values
from tuner.journal.records import FORMAT, StudyRecord, TrialRecord, begun_with
from tuner.journal.storage import OUTCOME_ATTR, RUN_ATTR, STUDY_ATTR, TAKEN_ATTR, TOLD_ATTR

__all__ = [
    "CHANGEABLE",
    "Earlier",
    "WarmStart",
    "as_begun",
    "check_study",
    "library_versions",
    "open_study",
    "plan_warm_start",
    "recorded_run",
]

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
    rhythm = experiment.strategy.rhythm
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
        rule = (
            f"leaves nothing to train: {len(taken)} trials are taken over, and trials are "
            f"{n_trials} in all"
        )
        raise StudyError(rule, where="--from", remedy=f"write --trials {len(taken) + n_trials}")
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


# What a resumed study may change; the data file may move, but its content must be the same.
CHANGEABLE = {
    "budget.trials",
    "budget.timeout",
    "budget.trial_timeout",
    "budget.retries",
    "resources.cpus",
    "resources.gpus",
    "data.path",
    "data.split.test_file",
    "finalists.top",
    "finalists.repeats",
}

_POPULATION = "strategy.population"

_RAISED = ("top", "repeats")  # of the finalists: what was retrained is not taken back

_SHOWN = 4  # differences that an error names

_LIBRARIES = ("torch", "optuna", "pyswarms", "numpy", "pandas", "scikit-learn")


def open_study(
    storage: BaseStorage,
    location: str,
    name: str,
    experiment: Experiment,
    data: dict[str, Any],
    plain: Callable[[], dict[str, Any]],
    distributions: dict[str, BaseDistribution],
    *,
    finalists: bool = True,
    earlier: Sequence[Earlier] = (),
) -> optuna.Study:
    """Create the study `name`, or open it after checking that it is the same search.

    Args:
        storage: the journal, held for writing.
        location: where it is, for messages.
        name: the study's.
        experiment: what is searched.
        data: the data file's path, sha256 and number of rows.
        plain: returns what is kept of a new study's data: `baselines`, the plain predictions'
            scores on the validation part, and others by their keys.
        distributions: the search space.
        finalists: whether this run retrains any; else how many they are does not matter.
        earlier: what a new study begins from; one that is there has begun from it, or is refused.

    Raises:
        StudyError: the study belongs to another experiment, was written by another version of
            tuner, or differs in keys that may not change; it names them with both values.
    """
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        facts = check_study(study, location, experiment, data, finalists=finalists)
        if facts is not None and facts["data"] != data:  # elsewhere: exports point to it there
            facts = facts | {"data": data}
            study.set_user_attr(STUDY_ATTR, facts)
    else:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=experiment.objective.directions
        )
        facts = None
    warm: WarmStart | None = None
    if facts is None:
        if earlier:
            warm = plan_warm_start(experiment, data["sha256"], earlier)
        facts = {
            "format": FORMAT,
            "id": uuid.uuid4().hex,
            "experiment": experiment.to_dict(),
            "data": data,
            **({} if warm is None else {"from": warm.to_json()}),
            **plain(),
            "versions": library_versions(),
            "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        study.set_user_attr(STUDY_ATTR, facts)
    begun = Experiment.of_record(facts["experiment"])
    study.sampler = begun.strategy.make_sampler(distributions, begun.seed, begun.budget.trials)
    if "from" in facts:
        _begin_from(study, facts, distributions, experiment, earlier, warm, location)
    elif earlier:
        rule = f"study {name!r} has begun without --from"
        remedy = "leave it out, or give another --study name"
        raise StudyError(rule, where=show_location(location), remedy=remedy)
    elif not study.get_trials(deepcopy=False) and (start := begun.start()):
        study.enqueue_trial(start)  # so that a search never ends worse than what it started from
    return study


def _begin_from(
    study: optuna.Study,
    facts: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    experiment: Experiment,
    earlier: Sequence[Earlier],
    warm: WarmStart | None,
    location: str,
) -> None:
    """Have a study begin with what the journal says; complete one that was killed meanwhile."""
    recorded = facts["from"]
    where = f"{show_location(location)}: study {study.study_name!r}"
    n_there = len(study.get_trials(deepcopy=False))
    complete = n_there >= len(recorded["taken"]) + len(recorded["tried"])
    if complete:
        others = [source.name for source in earlier if source.name not in recorded["sources"]]
        if others:
            began = " and ".join(recorded["sources"])
            rule = f"{where} was begun from {began}"
            got = f"--from {others[0]}"
            raise StudyError(rule, got=got, remedy="leave it out, or give another --study name")
        return
    if warm is None:  # this one was killed before all was written
        begun = Experiment.of_record(facts["experiment"])
        warm = plan_warm_start(begun, facts["data"]["sha256"], earlier)
        if warm.to_json() != recorded:
            began = " ".join(f"--from {shlex.quote(name)}" for name in recorded["sources"])
            rule = f"{where} was stopped before it had begun"
            raise StudyError(rule, remedy=f"write {began} again, or give another --study name")
    warm.begin(study, distributions, experiment)


def as_begun(study: optuna.Study, experiment: Experiment) -> Experiment:
    """Return the experiment with the strategy that an opened study was begun with.

    A population that is not written follows the budget of the study's beginning: with more trials
    the generations stay what they were.
    """
    begun = Experiment.of_record(study.user_attrs[STUDY_ATTR]["experiment"])
    return experiment.model_copy(update={"strategy": begun.strategy})


def check_study(
    study: optuna.Study,
    location: str,
    experiment: Experiment,
    data: dict[str, Any],
    *,
    finalists: bool = True,
) -> dict[str, Any] | None:
    """Check that a study which is there is the search of an experiment on this data.

    Returns:
        What it was begun with; None where it was killed before it had begun.

    Raises:
        StudyError: as `open_study` does.
    """
    where = f"{show_location(location)}: study {study.study_name!r}"
    facts: dict[str, Any] | None = study.user_attrs.get(STUDY_ATTR)
    if facts is not None:
        _check_same(facts, experiment, data, where)
        if finalists:
            _check_not_lowered(facts, _retrained(study, facts), experiment, where)
    elif study.get_trials(deepcopy=False):
        raise StudyError(f"{where} was not made by tuner", remedy="give another --study name")
    return facts


@contextlib.contextmanager
def recorded_run(
    study: optuna.Study, experiment: Experiment, *, finalists: bool = True
) -> Iterator[None]:
    """Journal the budget of this run and how it ended, where that is news.

    So is how much it retrains, where it does that and it is more than the study was begun with.
    """
    run: dict[str, Any] = {"budget": experiment.budget.model_dump(mode="json")}
    if raised := _raised(study, experiment if finalists else None):
        run["finalists"] = raised

    def write(**ended: str) -> None:
        if study.user_attrs.get(RUN_ATTR) != run | ended:
            study.set_user_attr(RUN_ATTR, run | ended)

    if study.user_attrs.get(RUN_ATTR) != run | {"ended": "done"}:
        write()
    try:
        yield
    except RunError:
        raise  # nothing more can be written, or nothing was brought to an end
    except BaseException:
        write(ended="interrupted")
        raise
    write(ended="done")


def library_versions() -> dict[str, str]:
    """Return the versions that decide what is searched, and what a training run computes."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"tuner": __version__, "python": platform.python_version(), **found}


def _check_same(
    facts: dict[str, Any], experiment: Experiment, data: dict[str, Any], where: str
) -> None:
    if facts["format"] > FORMAT:
        raise StudyError(
            f"{where} was made by a newer tuner (format {facts['format']}, this one writes "
            f"{FORMAT})",
            remedy="upgrade tuner, or give another --study name",
        )
    old, new = dict(flat(_completed(facts["experiment"], where))), dict(flat(experiment.to_dict()))
    if old["name"] != new["name"]:
        rule = f"{where} belongs to experiment {old['name']!r}"
        raise StudyError(rule, got=repr(new["name"]), remedy="give another --study name")
    given = dict(flat(experiment.model_dump(exclude_unset=True)))
    if _POPULATION in old.keys() & new.keys() - given.keys():
        new[_POPULATION] = old[_POPULATION]  # see `as_begun`
    # Names first: with another strategy all of its options differ as well.
    keys = sorted((old.keys() | new.keys()) - CHANGEABLE, key=lambda k: (".name" not in k, k))
    differences = []
    for key in (k for k in keys if old.get(k) != new.get(k)):
        was, now = (_shown(keys[key]) if key in keys else "nothing" for keys in (old, new))
        default = ", the default" if key in new and key not in given else ""
        differences.append(f"{key}={was}, got {now}{default}")
    if differences:
        n_more = len(differences) - _SHOWN
        more = f"; and {n_more} more differ" if n_more > 0 else ""
        it = "it" if len(differences) == 1 else "them"
        rule = f"{where} was begun with {'; with '.join(differences[:_SHOWN])}{more}"
        raise StudyError(rule, remedy=f"put {it} back, or give another --study name")
    if facts["data"]["sha256"] != data["sha256"]:
        rule = f"{where} was begun on other data: {data['path']} has changed since"
        raise StudyError(rule, remedy="put it back, or give another --study name")


def _retrained(study: optuna.Study, facts: dict[str, Any]) -> dict[str, int]:
    """Return how much a study retrains: as it was begun, or as a later run raised it."""
    raised = study.user_attrs.get(RUN_ATTR, {}).get("finalists", {})
    return {key: raised.get(key, begun_with(facts, key)) for key in _RAISED}


def _raised(study: optuna.Study, experiment: Experiment | None) -> dict[str, int] | None:
    """Return how much a study retrains from now on; None where it was begun so."""
    facts = study.user_attrs[STUDY_ATTR]
    before = _retrained(study, facts)
    now = dict(before)
    if experiment is not None:
        now = {key: max(n, getattr(experiment.finalists, key)) for key, n in before.items()}
    return None if all(begun_with(facts, key) == now[key] for key in _RAISED) else now


def _check_not_lowered(
    facts: dict[str, Any], retrained: dict[str, int], experiment: Experiment, where: str
) -> None:
    """Refuse less than is retrained, but for what the study was begun with: that is its file's."""
    for key, n in retrained.items():
        got = getattr(experiment.finalists, key)
        if got < n and got != begun_with(facts, key):
            rule = f"{where} has finalists.{key}={n}, which may be raised and not lowered"
            remedy = f"write --set finalists.{key}={n}, or give another --study name"
            raise StudyError(rule, got=got, remedy=remedy)


def _shown(value: Any) -> str:
    """Write a value as it stands in an experiment file."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _completed(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an experiment as it was recorded, with the keys that came into being since."""
    try:
        return Experiment.of_record(raw).to_dict()
    except ValueError as error:
        rule = f"{where} was written by another version of tuner: {one_line(error)[:200]}"
        raise StudyError(rule, remedy="begin it again under another --study name") from None
