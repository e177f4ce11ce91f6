"""Finalists, which are trained again on new seeds, the winner, and the Pareto front.

Finalists are the best configurations and the untuned default. They are a second study in the same
journal, `NAME.finalists`, run by the same coordinator. The default is trained as often as the
others and shows the gain of the search; if no configuration of the search is better, it wins.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import BaseStorage

from tuner.coordination.history import configuration_key
from tuner.errors import InputError, RunError
from tuner.experiment.data import PREPARED
from tuner.experiment.experiment import Experiment
from tuner.experiment.hyperparameters import CELLS, WIDTH, Hyperparameters
from tuner.experiment.rules import check_rules
from tuner.experiment.schema import FINALISTS_SUFFIX
from tuner.journal.records import Status, StudyRecord, TestScore, TrialRecord
from tuner.journal.storage import BASELINE_ATTR, FINALIST_ATTR, Role


def model_name(cell: str) -> str:
    """Return the name of a model by its cell; for the user's own cell, the name of its class."""
    return CELLS[cell].title if cell in CELLS else cell.rpartition(":")[2]


def untuned(experiment: Experiment) -> dict[str, Any]:
    """Return the defaults of the searched hyperparameters.

    A searched preparation of the data is that of `data`. If the fixed hyperparameters contradict
    the defaults, those outside the search space are moved into it. The window is at most the
    longest that is searched, so the model is scored on the same rows as every trial.
    """
    space = experiment.search_space
    values: dict[str, Any] = {}
    for name in space:
        if WIDTH.fullmatch(name):
            values |= {n: experiment.default_of(n) for n in ("hidden_size", "num_layers")}
        elif name == "window":
            values[name] = min(experiment.task.window, max(space[name].bounds()))
        elif name in PREPARED:
            values[name] = experiment.given(name)
        else:
            values[name] = experiment.default_of(name)
    if not _is_allowed(experiment, values):
        outside = {n: domain for n, domain in space.items() if values.get(n) not in domain}
        values |= {name: domain.bounds()[0] for name, domain in outside.items()}
        if any(WIDTH.fullmatch(name) for name in outside):
            del values["hidden_size"], values["num_layers"]  # each layer has its own now
    return values


def canonical(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration in a form that is equal for equal configurations.

    Args:
        experiment: has the fixed hyperparameters.
        params: the searched hyperparameters.
    """
    window = {"window": experiment.task.window} if experiment.task.of_series else {}
    whole = window | experiment.configuration(dict(params))
    if not isinstance(whole["hidden_size"], list):
        whole["hidden_size"] = [whole["hidden_size"]] * whole["num_layers"]
    return whole | experiment.preparation(params)


def _is_allowed(experiment: Experiment, values: Mapping[str, Any]) -> bool:
    """Return whether values obey the rules together with the fixed hyperparameters."""
    configuration = experiment.configuration(dict(values))
    changed = {"search_space": {}, "hyperparameters": Hyperparameters(**configuration)}
    try:
        check_rules(experiment.prepared_as(values).model_copy(update=changed))
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Finalist:
    """A configuration and its retrainings."""

    trial: TrialRecord | None  # of the search; None for a default that it did not find
    repeats: tuple[TrialRecord, ...]  # complete ones; of a default or a winner, maybe none
    name: str  # trial 3, or default LSTM
    params: dict[str, Any]  # the searched hyperparameters

    @property
    def number(self) -> int | None:
        """The number of its trial, if it has one."""
        return None if self.trial is None else self.trial.number

    @property
    def search_score(self) -> float | None:
        """Its score in the search, if it was found there."""
        return None if self.trial is None else self.trial.value

    @property
    def scores(self) -> list[float]:
        """The objective of every repeat."""
        return [r.value for r in self.repeats if r.value is not None]

    @property
    def mean(self) -> float:
        """Mean objective over the repeats."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the repeats; None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def rank(self, record: StudyRecord) -> tuple[float, float]:
        """Return the mean score and the mean loss by which it is ranked; less is better."""
        return _rank(record, self.repeats)


@dataclass(frozen=True)
class Default(Finalist):
    """The untuned default; `trial` is the trial with the same configuration, if any."""

    failed: int = 0  # trainings that failed

    def as_finalist(self) -> Finalist:
        """Return it as one of the finalists; it must have a complete training."""
        if self.trial is None:
            return Finalist(None, self.repeats, self.name, self.params)
        return _finalist(self.trial, self.repeats)


def enqueue_finalists(storage: BaseStorage, record: StudyRecord) -> optuna.Study | None:
    """Open the finalists' study and enqueue every training that it lacks.

    Retrainings of an earlier, shorter search are kept, also if there were fewer repeats. The
    default is not trained separately from a finalist, or from a winner without finalists, with
    the same configuration.

    Returns:
        The study; None if there is nothing to retrain.
    """
    if not _top(record) and not _has_default(record):
        return None
    name, direction = record.name + FINALISTS_SUFFIX, record.experiment.objective.direction
    there = name in optuna.get_all_study_names(storage)  # asking to create it writes a record
    study = optuna.load_study(study_name=name, storage=storage) if there else None
    attrs = [t.user_attrs for t in study.get_trials(deepcopy=False)] if study else []
    retrained = {tuple(a[FINALIST_ATTR]) for a in attrs if FINALIST_ATTR in a}
    baseline = {a[BASELINE_ATTR]["repeat"] for a in attrs if BASELINE_ATTR in a}

    queued: list[tuple[dict[str, Any], dict[str, Any]]] = []  # parameters and attributes
    for trial, repeat in _wanted(record, {n for n, _ in retrained}, bool(baseline)):
        if trial is None and repeat not in baseline:
            params = untuned(record.experiment)
            queued.append(({}, {BASELINE_ATTR: {"repeat": repeat, "params": params}}))
        elif trial is not None and (trial.number, repeat) not in retrained:
            queued.append((dict(trial.params), {FINALIST_ATTR: [trial.number, repeat]}))
    if study is None and queued:
        study = optuna.create_study(study_name=name, storage=storage, direction=direction)
    for params, user_attrs in queued:
        assert study is not None
        study.enqueue_trial(params, user_attrs=user_attrs)
    return study


def _wanted(
    record: StudyRecord, retrained: set[int], has_baseline: bool
) -> list[tuple[TrialRecord | None, int]]:
    """Return every planned training as trial and repeat; None is the default.

    Args:
        record: the study.
        retrained: the numbers of trials with retrainings, done or planned.
        has_baseline: whether the default has trainings of its own, done or planned.
    """
    repeats, top = record.experiment.finalists.repeats, list(_top(record))
    twin = _twin(record, retrained)
    if twin is not None and top:
        if has_baseline:  # it has been trained as the default
            top = [trial for trial in top if trial.number != twin.number]
        elif twin.number not in [trial.number for trial in top]:  # a former finalist
            top.append(twin)
    wanted: list[tuple[TrialRecord | None, int]] = [(t, r) for t in top for r in range(repeats)]
    if _has_default(record) and (twin is None or has_baseline):
        wanted += [(None, repeat) for repeat in range(repeats if _top(record) else 1)]
    return wanted


def rank_finalists(record: StudyRecord) -> list[Finalist]:
    """Return the finalists, best mean first, ties by mean loss.

    The untuned default is one of them as soon as a configuration of the search is. More failed
    repeats rank lower, except that failures up to the number of the default's count as none. A
    configuration without a complete repeat is left out. Until all are retrained, they are
    compared by their common repeats.
    """
    twin, baseline = _twin(record), _baseline(record)
    candidates: list[tuple[Finalist, Sequence[TrialRecord]]] = []  # with all of its repeats
    for trial in _top(record):
        runs = [r for r in record.finalists if r.configuration == trial.number]
        if not _complete(runs) and twin is not None and trial.number == twin.number:
            runs = baseline
        if complete := _complete(runs):
            candidates.append((_finalist(trial, complete), runs))
    default = default_of(record)
    if candidates and default is not None and default.repeats:
        own = default.as_finalist()
        if own.number is None or own.number not in [f.number for f, _ in candidates]:
            runs = [r for r in record.finalists if r.configuration == own.number]
            candidates.append((own, baseline or runs))
    return _by_common_repeats(record, candidates, default)


def _by_common_repeats(
    record: StudyRecord,
    candidates: Sequence[tuple[Finalist, Sequence[TrialRecord]]],
    default: Default | None,
) -> list[Finalist]:
    """Return finalists, best first, by their common repeats; those with too few come last."""
    ended = [{r.repeat: r for r in runs if r.outcome is not None} for _, runs in candidates]
    is_default = [default is not None and default.number == f.number for f, _ in candidates]
    counts = [len(runs) for runs in ended]
    of_default = [n for n, own in zip(counts, is_default, strict=True) if own]
    least = min([record.first_repeats, *(of_default or [max(counts, default=0)])])
    judged = [i for i, count in enumerate(counts) if count >= least]
    common: set[int | None] = set()
    while judged and not (common := set.intersection(*(set(ended[i]) for i in judged))):
        judged.remove(min(judged, key=lambda i: (counts[i], is_default[i], -i)))

    def runs_of(i: int) -> list[TrialRecord]:
        return [run for repeat, run in ended[i].items() if repeat in common]

    ranks = {i: _rank(record, runs) for i in judged if (runs := _complete(runs_of(i)))}
    failed = {i: len(runs_of(i)) - len(_complete(runs_of(i))) for i in ranks}
    forgiven = max((failed[i] for i in ranks if is_default[i]), default=0)

    def key(i: int) -> tuple[bool, int, tuple[float, float]]:
        if i not in ranks:
            return True, 0, candidates[i][0].rank(record)
        return False, max(0, failed[i] - forgiven), ranks[i]

    return [candidates[i][0] for i in sorted(range(len(candidates)), key=key)]


def trial_name(number: int) -> str:
    """Return the name of a configuration that a trial of the search found."""
    return f"trial {number}"


def default_of(record: StudyRecord) -> Default | None:
    """Return the untuned default with its trainings.

    None if the experiment leaves it out or searches nothing, or if no training has begun.
    """
    experiment = record.experiment
    if not _has_default(record):
        return None
    twin, runs = _twin(record), _baseline(record)
    if not runs and twin is not None:
        runs = [r for r in record.finalists if r.configuration == twin.number]
        runs = runs if experiment.finalists.top else [twin]
    if not runs:
        return None
    params = dict(runs[0].params)
    name = f"default {model_name(canonical(experiment, params)['cell'])}"
    failed = sum(r.status is Status.FAILED for r in runs)
    return Default(twin, _complete(runs), name, params, failed)


def retrained_of(record: StudyRecord) -> tuple[int, int]:
    """Return how many trainings of finalists and the default have ended, and how many are planned.

    Both are 0 before the first has begun.
    """
    baseline = _baseline(record)
    retrained = [r for r in record.finalists if r.role is Role.FINALIST]
    of_trials = {r.configuration for r in retrained if r.configuration is not None}
    wanted = {
        (None if trial is None else trial.number, repeat)
        for trial, repeat in _wanted(record, of_trials, bool(baseline))
    }
    begun = [r for r in (*retrained, *baseline) if (r.configuration, r.repeat) in wanted]
    if not begun:
        return 0, 0
    return sum(run.outcome is not None for run in begun), len(wanted)


@dataclass(frozen=True)
class Winner(Finalist):
    """The configuration with the best mean over its repeats, or the best trial without repeats."""

    is_default: bool = False  # whether it is the untuned default, as a trial or not

    @property
    def runs(self) -> list[TrialRecord]:
        """Its trainings: the repeats, or the trial itself."""
        if self.repeats:
            return list(self.repeats)
        assert self.trial is not None
        return [self.trial]

    @property
    def reproducible(self) -> TrialRecord:
        """The training whose score an export reproduces: the first repeat, or the trial."""
        return self.runs[0]

    def hyperparameters(self, record: StudyRecord) -> dict[str, Any]:
        """Return the whole configuration, fixed and searched."""
        return record.experiment.configuration(self.params)

    def was_tested(self, test: TestScore | None) -> bool:
        """Return whether this configuration was the one evaluated on the test set."""
        if test is None:
            return False
        if self.number is not None and test.configuration == self.number:
            return True
        return self.is_default and test.default is not None and test.default.is_winner


def find_winner(record: StudyRecord) -> Winner:
    """Return the winner of a study.

    Raises:
        RunError: no trial is complete.
    """
    default, finalists = default_of(record), rank_finalists(record)
    if finalists:
        return _winner(finalists[0], default)
    if record.best is None:
        reasons = [t.outcome.reason for t in record.trained if t.outcome and t.outcome.reason]
        why = f"; the last failure: {reasons[-1]}" if reasons else ""
        raise RunError(f"study {record.name!r} has no complete trial{why}")
    if default is not None and default.repeats and default.number != record.best.number:
        own = default.as_finalist()
        if own.rank(record) < record.rank_of(record.best):
            return _winner(own, default)
    return _winner(_finalist(record.best, ()), default)


def winner_of(record: StudyRecord, number: int) -> Winner:
    """Return a complete trial as if it had won.

    Raises:
        InputError: there is no such trial.
    """
    chosen = next((t for t in record.ranked() if t.number == number), None)
    if chosen is None:
        known = [t.number for t in record.ranked()[:5]]
        found = next((t for t in record.trials if t.number == number), None)
        remedy = f"; choose another: {', '.join(map(str, known))}, say" if known else ""
        if found is not None and found.repeat_of is not None:
            remedy = f"; it repeats trial {found.repeat_of}: write --trial {found.repeat_of}"
        rule = f"must be a complete trial of {record.name}"
        raise InputError(rule, where="--trial", got=f"{number}{remedy}")
    ranked = rank_finalists(record)
    own = next((f for f in ranked if f.number == number), _finalist(chosen, ()))
    return _winner(own, default_of(record))


def tested_name(test: TestScore) -> str:
    """Return the name of the configuration that was evaluated: trial 3, or default LSTM."""
    if test.configuration is not None:
        return trial_name(test.configuration)
    assert test.default is not None
    return test.default.name


def objectives(record: StudyRecord, trial: TrialRecord) -> tuple[float, float] | None:
    """Return metric and cost of a trial; None without them, or with one objective."""
    cost = record.experiment.objective.cost
    if cost is None or trial.status is not Status.COMPLETE or trial.outcome is None:
        return None
    values = (trial.outcome.objective, trial.outcome.cost(cost))
    return None if values[0] is None or not math.isfinite(values[1]) else (values[0], values[1])


def pareto_front(record: StudyRecord) -> list[TrialRecord]:
    """Return the trials of the Pareto front, best metric first; none for a single objective."""
    known = [(values, t) for t in record.trained if (values := objectives(record, t)) is not None]
    # By metric, then by cost: each of the front costs less than all before it.
    known.sort(key=lambda pair: (record.sign * pair[0][0], pair[0][1], pair[1].number))
    front: list[TrialRecord] = []
    least = math.inf
    for (_, cost), trial in known:
        if cost < least:
            front.append(trial)
            least = cost
    return front


def _winner(own: Finalist, default: Default | None) -> Winner:
    is_default = default is not None and default.number == own.number
    return Winner(own.trial, own.repeats, own.name, own.params, is_default)


def _finalist(trial: TrialRecord, repeats: tuple[TrialRecord, ...]) -> Finalist:
    return Finalist(trial, repeats, trial_name(trial.number), dict(trial.params))


def _top(record: StudyRecord) -> Sequence[TrialRecord]:
    return record.ranked()[: record.experiment.finalists.top]


def _has_default(record: StudyRecord) -> bool:
    experiment = record.experiment
    return experiment.finalists.baseline and bool(experiment.search_space)


def _twin(record: StudyRecord, retrained: Iterable[int] = ()) -> TrialRecord | None:
    """Return the trial with the default's configuration, of those that are retrained or win.

    `retrained` are the numbers of further trials that count as retrained.
    """
    if not _has_default(record):
        return None
    known = {r.configuration for r in record.finalists} | set(retrained)
    top = _top(record) or record.ranked()[:1]
    candidates = [*top, *(t for t in record.trials if t.number in known)]
    default = _key(record, untuned(record.experiment))
    return next((t for t in candidates if _key(record, t.params) == default), None)


def _key(record: StudyRecord, params: Any) -> str:
    return configuration_key(canonical(record.experiment, params))


def _baseline(record: StudyRecord) -> list[TrialRecord]:
    return [r for r in record.finalists if r.role is Role.BASELINE]


def _rank(record: StudyRecord, runs: Iterable[TrialRecord]) -> tuple[float, float]:
    """Return the mean score and the mean loss of complete trainings; less is better."""
    scores, losses = zip(*map(record.rank_of, runs), strict=True)
    return statistics.fmean(scores), statistics.fmean(losses)


def _complete(runs: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    return tuple(run for run in runs if run.status is Status.COMPLETE)
