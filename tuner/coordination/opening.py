"""Opens a study: a new one, a resumed one, or one with a warm start from earlier studies.

Trials of an earlier study with comparable scores on the same data are taken over with their
outcomes, as far as they lie in the search space. The best configurations of any other study are
tried first and trained anew. The plan is in the journal before it is carried out, so a study that
was killed meanwhile is completed as planned.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import platform
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tuner.experiment.space import to_distributions
from tuner.jobs import intermediate_values
from tuner.journal.records import EXTERNAL, FORMAT, StudyRecord, TrialRecord, begun_with
from tuner.journal.storage import ASKED_AFTER_ATTR, OUTCOME_ATTR, RUN_ATTR, STUDY_ATTR, TAKEN_ATTR

CHANGEABLE = {
    "budget.trials",
    "budget.timeout",
    "budget.trial_timeout",
    "budget.retries",
    "resources.cpus",
    "resources.gpus",
    "resources.wait",
    "data.path",
    "data.split.test_file",
    "finalists.top",
    "finalists.repeats",
}
"""Keys that a resumed study may change; a data file that has moved must have the same content."""

_POPULATION, _EXECUTION = "strategy.population", "training.execution"
_RAISED = ("top", "repeats")  # of the finalists; they may grow
_SHOWN = 4  # differences that an error names
_LIBRARIES = ("torch", "optuna", "pyswarms", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class StudyData:
    """The data of a study."""

    file: dict[str, Any]  # path, sha256 and number of rows
    scores: Callable[[], dict[str, Any]] = dict
    """Returns the facts that a new study records: `baselines`, scores on the validation set, and
    others by their keys."""


@dataclass(frozen=True)
class Earlier:
    """A source of a warm start."""

    name: str  # of a study, or a file
    record: StudyRecord | None = None
    configurations: tuple[dict[str, Any], ...] = ()  # of a file, the best first


def open_study(
    storage: BaseStorage,
    location: str,
    name: str,
    experiment: Experiment,
    data: StudyData,
    *,
    finalists: bool = True,
    earlier: Sequence[Earlier] = (),
) -> optuna.Study:
    """Create a study, or open it after checking that it is the same search.

    Args:
        storage: the journal, opened for writing.
        location: of the journal, for messages.
        name: of the study.
        experiment: the experiment to search.
        data: its data.
        finalists: whether this run retrains finalists; else their number is not checked.
        earlier: the sources of a new study; a study that exists must have begun from them.

    Raises:
        StudyError: the study belongs to another experiment, was written by another version of
            tuner, or differs in keys that may not change; it names them with both values.
    """
    study: optuna.Study | None = None
    facts: dict[str, Any] | None = None
    warm: WarmStart | None = None
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        facts = check_study(study, location, experiment, data.file, finalists=finalists)
    if facts is None and earlier:  # a refused plan must leave nothing behind
        warm = plan_warm_start(experiment, data.file["sha256"], earlier)
    if study is None:
        directions = experiment.objective.directions
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
    if facts is None:
        facts = _facts_of_new(experiment, data, warm)
        study.set_user_attr(STUDY_ATTR, facts)
    elif facts["data"] != data.file:  # exports refer to its new place
        facts = facts | {"data": data.file}
        study.set_user_attr(STUDY_ATTR, facts)
    begun = Experiment.of_record(facts["experiment"])
    distributions = to_distributions(experiment.search_space)
    study.sampler = begun.strategy.make_sampler(distributions, begun.seed, begun.budget.trials)
    where = f"{show_location(location)}: study {name!r}"
    if "from" in facts:
        if not _is_complete(study, facts["from"], earlier, where):
            warm = warm or _planned_again(facts, earlier, where)
            warm.begin(study, distributions, experiment)
    elif earlier:
        rule = f"study {name!r} has begun without --from"
        remedy = "leave it out, or give another --study name"
        raise StudyError(rule, where=show_location(location), remedy=remedy)
    elif not study.get_trials(deepcopy=False) and (start := begun.start()):
        study.enqueue_trial(start)  # so that a search never ends worse than its start
    return study


def _facts_of_new(
    experiment: Experiment, data: StudyData, warm: WarmStart | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "experiment": experiment.to_dict(),
        "data": data.file,
        **({} if warm is None else {"from": warm.to_json()}),
        **data.scores(),
        "versions": library_versions(),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def as_begun(study: optuna.Study, experiment: Experiment) -> Experiment:
    """Return the experiment with the strategy and the training of an opened study's beginning.

    The default population follows the first budget: with more trials, generations stay the same.
    How trials are trained together stays, also where a later version has another default.
    """
    begun = Experiment.of_record(study.user_attrs[STUDY_ATTR]["experiment"])
    return experiment.model_copy(update={"strategy": begun.strategy, "training": begun.training})


def check_study(
    study: optuna.Study,
    location: str,
    experiment: Experiment,
    data: dict[str, Any],
    *,
    finalists: bool = True,
) -> dict[str, Any] | None:
    """Check that an existing study is the search of an experiment on this data.

    Returns:
        The facts with which it was begun; None if it was killed before it recorded them.

    Raises:
        StudyError: as `open_study` does.
    """
    where = f"{show_location(location)}: study {study.study_name!r}"
    facts: dict[str, Any] | None = study.user_attrs.get(STUDY_ATTR)
    if facts is not None and EXTERNAL in facts:
        rule = f"{where} is external: its models train elsewhere"
        raise StudyError(rule, remedy="give another --study name")
    if facts is not None:
        _check_same(facts, experiment, data, where)
        if finalists:
            _check_not_lowered(facts, _retrained(study, facts), experiment, where)
    elif study.get_trials(deepcopy=False):
        raise StudyError(f"{where} was not made by tuner", remedy="give another --study name")
    return facts


def _check_same(
    facts: dict[str, Any], experiment: Experiment, data: dict[str, Any], where: str
) -> None:
    if facts["format"] > FORMAT:
        raise StudyError(
            f"{where} was made by a newer tuner (format {facts['format']}, this one writes "
            f"{FORMAT})",
            remedy="upgrade tuner, or give another --study name",
        )
    try:
        begun = Experiment.of_record(facts["experiment"])
    except ValueError as error:
        rule = f"{where} was written by another version of tuner: {one_line(error)[:200]}"
        raise StudyError(rule, remedy="begin it again under another --study name") from None
    old, new = dict(flat(begun.to_dict())), dict(flat(experiment.to_dict()))
    if old["name"] != new["name"]:
        rule = f"{where} belongs to experiment {old['name']!r}"
        raise StudyError(rule, got=repr(new["name"]), remedy="give another --study name")
    given = dict(flat(experiment.model_dump(exclude_unset=True)))
    for kept in {_POPULATION, _EXECUTION} & old.keys() & new.keys() - given.keys():
        new[kept] = old[kept]  # see `as_begun`
    # Names first: with another strategy, all of its options differ as well.
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


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _retrained(study: optuna.Study, facts: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of finalists and repeats: the first ones, or raised by a later run."""
    raised = study.user_attrs.get(RUN_ATTR, {}).get("finalists", {})
    return {key: raised.get(key, begun_with(facts, key)) for key in _RAISED}


def _check_not_lowered(
    facts: dict[str, Any], retrained: dict[str, int], experiment: Experiment, where: str
) -> None:
    """Refuse lower numbers, except those of the beginning, which the file may still have."""
    for key, n in retrained.items():
        got = getattr(experiment.finalists, key)
        if got < n and got != begun_with(facts, key):
            rule = f"{where} has finalists.{key}={n}, which may be raised and not lowered"
            remedy = f"write --set finalists.{key}={n}, or give another --study name"
            raise StudyError(rule, got=got, remedy=remedy)


@contextlib.contextmanager
def recorded_run(
    study: optuna.Study, experiment: Experiment, *, finalists: bool = True
) -> Iterator[None]:
    """Record the budget of this run, raised numbers of finalists, and how the run ended.

    Nothing is written if the journal says the same already.
    """
    facts = study.user_attrs[STUDY_ATTR]
    run: dict[str, Any] = {"budget": experiment.budget.model_dump(mode="json")}
    retrained = _retrained(study, facts)
    if finalists:
        retrained = {k: max(n, getattr(experiment.finalists, k)) for k, n in retrained.items()}
    if any(begun_with(facts, key) != n for key, n in retrained.items()):
        run["finalists"] = retrained

    def write(**ended: str) -> None:
        if study.user_attrs.get(RUN_ATTR) != run | ended:
            study.set_user_attr(RUN_ATTR, run | ended)

    if study.user_attrs.get(RUN_ATTR) != run | {"ended": "done"}:
        write()
    try:
        yield
    except RunError:
        raise  # nothing can be written, or nothing was completed
    except BaseException:
        write(ended="interrupted")
        raise
    write(ended="done")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that can change a search or a training."""
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"tuner": __version__, "python": platform.python_version(), **found}


_COMPARED = ("data", "task", "objective", "training", "budget.epochs", "budget.patience")
"""Keys that make scores comparable, beside the configuration; the data's path may differ."""

_TRIED = 5
"""Configurations that are tried first; for a population, half of a generation."""


@dataclass(frozen=True)
class WarmStart:
    """The plan for the first trials of a new study."""

    taken: tuple[tuple[str, str, TrialRecord, dict[str, Any]], ...]
    """Study, its id, trial, and the parameters that the trial has in the new space."""
    tried: tuple[dict[str, Any], ...]  # configurations, in order
    sources: tuple[str, ...]  # their names
    said: tuple[str, ...]  # a line for each of them

    def to_json(self) -> dict[str, Any]:
        """Return the plan as the journal keeps it."""
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
        """Add the planned trials that a study does not hold yet."""
        n_there = len(study.get_trials(deepcopy=False))
        for number, (name, study_id, trial, params) in list(enumerate(self.taken))[n_there:]:
            assert trial.outcome is not None
            taken = {"study": name, "id": study_id, "trial": trial.number, "seed": trial.seed}
            attrs = {
                OUTCOME_ATTR: trial.outcome.to_json(),
                ASKED_AFTER_ATTR: number,
                TAKEN_ATTR: taken,
            }
            steps = intermediate_values(trial.outcome.history, experiment.n_folds)
            study.add_trial(
                create_trial(
                    state=STATES[trial.outcome.state],
                    values=objectives_of(trial.outcome, experiment.objective.cost),
                    params=params,
                    distributions=distributions,
                    user_attrs=attrs,
                    intermediate_values=steps,
                )
            )
        for params in self.tried[max(0, n_there - len(self.taken)) :]:
            study.enqueue_trial(params)


def _is_complete(
    study: optuna.Study, recorded: dict[str, Any], earlier: Sequence[Earlier], where: str
) -> bool:
    """Return whether a study holds its planned trials; refuse sources that it did not have."""
    n_there = len(study.get_trials(deepcopy=False))
    if n_there < len(recorded["taken"]) + len(recorded["tried"]):
        return False
    others = [source.name for source in earlier if source.name not in recorded["sources"]]
    if others:
        rule, got = f"{where} was begun from {' and '.join(recorded['sources'])}", others[0]
        remedy = "leave it out, or give another --study name"
        raise StudyError(rule, got=f"--from {got}", remedy=remedy)
    return True


def _planned_again(facts: dict[str, Any], earlier: Sequence[Earlier], where: str) -> WarmStart:
    """Return the plan of a study that was killed before it held all planned trials."""
    begun = Experiment.of_record(facts["experiment"])
    warm = plan_warm_start(begun, facts["data"]["sha256"], earlier)
    if warm.to_json() != facts["from"]:
        began = " ".join(f"--from {shlex.quote(name)}" for name in facts["from"]["sources"])
        rule = f"{where} was stopped before it had begun"
        raise StudyError(rule, remedy=f"write {began} again, or give another --study name")
    return warm


def plan_warm_start(experiment: Experiment, sha256: str, earlier: Sequence[Earlier]) -> WarmStart:
    """Return the plan for the first trials of a new study.

    Args:
        experiment: of the new study.
        sha256: of its data.
        earlier: the sources, in order; of equal configurations the first counts.

    Raises:
        StudyError: the trials that are taken over leave nothing to train.
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
    start_key, rhythm = configuration_key(start), experiment.strategy.rhythm
    room = max(1, rhythm.size // 2) if rhythm.generational else _TRIED
    for source in earlier:
        record = source.record
        why_not = None if record is None else _why_not_comparable(experiment, sha256, record)
        if record is not None and why_not is None:
            own = [(t, _same(experiment, record.experiment, t)) for t in record.trained]
            found = [(t, params) for t, params in own if params is not None]
            new = [(record.name, record.id, t, params) for t, params in found if is_new(params)]
            taken += new
            outside = len(own) - len(found)
            left_out = f"; {outside} lie outside of what is searched here" if outside else ""
            said.append(f"takes over {len(new)} of {len(own)} trials of {source.name}{left_out}")
        else:
            others = (p for p in _ranked(source, experiment) if configuration_key(p) != start_key)
            best = [params for params in others if is_new(params)][: room - len(tried)]
            tried += best
            said.append(_about_best(source, len(best), why_not))
    if start and is_new(start):
        tried.insert(0, start)
    n_taken, n_trials = len(taken), experiment.n_trials
    if taken and n_trials is not None and n_taken >= n_trials:
        trials = f"{n_taken} trials are taken over, and budget.trials is {n_trials}"
        rule, remedy = f"leaves nothing to train: {trials}", f"write --trials {n_taken + n_trials}"
        raise StudyError(rule, where="--from", remedy=remedy)
    sources = tuple(source.name for source in earlier)
    return WarmStart(tuple(taken), tuple(tried), sources, tuple(said))


def _ranked(source: Earlier, experiment: Experiment) -> list[dict[str, Any]]:
    """Return the configurations of a source that lie in the search space, the best first."""
    if source.record is None:
        return list(source.configurations)
    before = source.record.experiment
    known = [_within(experiment, before, trial) for trial in source.record.ranked()]
    return [params for params in known if params is not None]


def _about_best(source: Earlier, n_best: int, why_not: str | None) -> str:
    of = f", which has {why_not}" if why_not else ""
    if not n_best:
        return f"no configuration of {source.name}{of} is new and lies in the search space"
    which = "best configuration" if n_best == 1 else f"{n_best} best configurations"
    return f"tries the {which} of {source.name} first{of}"


def _why_not_comparable(experiment: Experiment, sha256: str, record: StudyRecord) -> str | None:
    """Return the reason why a study's scores are not comparable with the new one's, if any."""
    if record.data["sha256"] != sha256:
        return "other data"
    before = record.experiment
    new, old = (dict(flat(e.to_dict())) for e in (experiment, before))
    searched = {f"data.{name}" for name in PREPARED} | {"data.path", "objective.metrics"}
    searched.add(_EXECUTION)  # scores are the same, but for rounding
    for key in sorted((new.keys() | old.keys()) - searched):
        compared = any(f"{key}.".startswith(f"{part}.") for part in _COMPARED)
        if compared and new.get(key) != old.get(key):
            return f"{key}={old.get(key)!r}, not {new.get(key)!r}"
    for name in ("transform", "lags", "window"):  # they decide which rows are scored
        if _ends(experiment, name) != _ends(before, name):
            return f"another {name}"
    return None


def _ends(experiment: Experiment, name: str) -> set[str]:
    """Return the fixed value and the bounds of a hyperparameter."""
    domain = experiment.search_space.get(name)
    bounds = () if domain is None else domain.bounds()
    return {str(experiment.given(name)), *map(str, bounds)}


def _within(
    experiment: Experiment, before: Experiment, trial: TrialRecord
) -> dict[str, Any] | None:
    """Return a trial's configuration as parameters of the new space; None if it lies outside."""
    params: dict[str, Any] = {}
    for name, domain in experiment.search_space.items():
        value = trial.params[name] if name in trial.params else before.given(name)
        if value not in domain:
            return None
        params[name] = float(value) if domain.type == "float" else value
    return params


def _same(experiment: Experiment, before: Experiment, trial: TrialRecord) -> dict[str, Any] | None:
    """Return the parameters with which a trial belongs to the new space; None if it does not."""
    params = _within(experiment, before, trial)
    if params is None:
        return None
    same = experiment.configuration(params) == before.configuration(dict(trial.params))
    same &= _preparation(experiment, params) == _preparation(before, trial.params)
    return params if same else None


def _preparation(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(params.get(name, experiment.given(name))) for name in PREPARED}
