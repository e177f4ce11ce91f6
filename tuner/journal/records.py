"""A study, its trials and its test scores as plain records.

Tracking, summaries, export and the command line read a journal through these records alone.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, Self

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import StudyError, one_line, show_location
from tuner.experiment import Experiment
from tuner.experiment.external import ExternalSpec
from tuner.experiment.schema import FINALISTS_SUFFIX, Finalists
from tuner.jobs import Outcome
from tuner.journal.storage import (
    GROUP_ATTR,
    LOST_ATTR,
    OUTCOME_ATTR,
    REOPENED_ATTR,
    REPEAT_ATTR,
    RUN_ATTR,
    STUDY_ATTR,
    TEST_ATTR,
    TIME_ATTR,
    Role,
    TrialKey,
    is_locked,
    load_study,
    params_of,
    seed_of,
    trial_key,
)

FORMAT = 2
"""The version of a study's contents. In format 1, equal scores rank by trial number alone."""


BATCHED_ROUNDING = 1e-3
"""How far the score of a training in a group may be from that of the same training alone.

At usual learning rates they differ by about 1e-6; at very large ones training is chaotic, and
rounding makes two scores of it.
"""


def same_but_for_rounding(score: float, other: float, *, ratios: bool) -> bool:
    """Return whether scores of a training, in a group and alone, differ by rounding at most.

    That is a share of a score where `ratios` mean something (`Metric.ratios`). Else, as of R² that
    is near 0 of a model as good as the mean, it is a difference.
    """
    differs = 0.0 if ratios else BATCHED_ROUNDING
    return math.isclose(score, other, rel_tol=BATCHED_ROUNDING, abs_tol=differs)


EXTERNAL = "external"
"""The fact of an external study that holds its specification."""


class Status(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"  # asked for, and not ended (or lost with the machine: it runs again)
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search, one retraining of a finalist, or one training of the default."""

    number: int
    role: Role
    params: Mapping[str, Any]  # the searched hyperparameters
    seed: int  # of its training
    status: Status
    asked_at: dt.datetime | None
    outcome: Outcome | None  # None while it runs; of a repeat, the original's
    repeat_of: int | None = None  # the earlier trial with its configuration and outcome
    generation: int | None = None
    individual: int | None = None
    configuration: int | None = None  # of a finalist: the trial that it retrains
    repeat: int | None = None  # of a finalist or the default: the number of its seed, from 0
    lost: tuple[str, ...] = ()  # why earlier attempts at its training were lost
    group: tuple[int, ...] = ()  # the trials that were trained together, if it was not alone

    @property
    def key(self) -> TrialKey:
        """Identifies it among the trainings of its study."""
        return TrialKey(self.role, self.number, self.configuration, self.repeat)

    @property
    def value(self) -> float | None:
        """The objective; None unless the trial is complete."""
        return self.outcome.objective if self.outcome else None

    def is_reproduced_by(self, score: float | None, *, ratios: bool) -> bool:
        """Return whether a single training with this score is the same one.

        One of a group may differ by `BATCHED_ROUNDING`; see `same_but_for_rounding`.
        """
        if not self.group or score is None or self.value is None:
            return score == self.value
        return same_but_for_rounding(score, self.value, ratios=ratios)


@dataclass(frozen=True)
class Scores:
    """The scores of all trainings of one configuration."""

    scores: Sequence[float]  # () if a forecast is not finite
    mean: float | None
    std: float | None

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read an object of JSON; keys without a field of the class are ignored."""
        known = {name: raw[name] for f in fields(cls) if (name := f.name) in raw}
        return cls(**{"scores": (), "mean": None, "std": None} | known)


@dataclass(frozen=True)
class DefaultScores(Scores):
    """The untuned default's scores on the test set."""

    name: str
    is_winner: bool
    params: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None  # of a refit
    failed: str | None = None  # why its refit failed


@dataclass(frozen=True)
class Coverage:
    """How many test rows an interval covers."""

    level: float  # that was asked for, in (0, 1)
    coverage: float  # share of the rows within the interval, in [0, 1]
    width: float | None  # mean, in the units of the target


@dataclass(frozen=True)
class ModelScores(Scores):
    """The scores of the winner's models, of their ensemble, and of what they must beat."""

    ensemble: float | None = None
    default: DefaultScores | None = None
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  # baselines, with the reason
    intervals: Sequence[Coverage] = ()  # of the first model
    ensemble_intervals: Sequence[Coverage] = ()
    epochs: int | None = None  # of a refit

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read an object of JSON; older records lack keys."""
        default = raw.get("default")
        read: dict[str, Any] = {"default": default and DefaultScores.from_json(default)}
        for key in ("intervals", "ensemble_intervals"):
            read[key] = tuple(Coverage(**each) for each in raw.get(key) or ())
        return super().from_json({**raw, "baselines": raw.get("baselines") or {}, **read})


@dataclass(frozen=True)
class TestScore(ModelScores):
    """One evaluation on the test set."""

    __test__: ClassVar[bool] = False  # pytest takes it for no test

    metric: str = ""
    opened_at: str | None = None  # ISO 8601, UTC
    after_trials: int = 0
    configuration: int | None = None  # trial number of the winner then; None: the untuned default
    repeats: int = 0  # models of the winner
    finalists: Sequence[int] | None = None  # top and repeats of the experiment then
    rows: int = 0
    first: str | None = None  # time of the first row
    last: str | None = None
    refit: ModelScores | None = None
    refit_failed: str | None = None
    parts: Sequence[Mapping[str, Any]] = ()  # name, count, unit, first, last of every data split
    by: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    predictions: Mapping[str, Any] = field(default_factory=dict)  # for plots; {} for none
    verdict: str | None = None
    retrained_differently: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Read the record of a journal; older records lack keys."""
        refit = raw.get("refit") or {}
        read: dict[str, Any] = {
            "repeats": raw.get("repeats", len(raw.get("scores", ()))),
            "first": raw.get("from"),
            "last": raw.get("to"),
            "by": raw.get("by") or {},
            "parts": raw.get("parts") or (),
            "predictions": raw.get("predictions") or {},
            "refit": ModelScores.from_json(refit) if refit and "failed" not in refit else None,
            "refit_failed": refit.get("failed"),
            "raw": raw,
        }
        return super().from_json({**raw, **read})

    def to_json(self) -> dict[str, Any]:
        """Return the record as the journal holds it."""
        return dict(self.raw)

    @property
    def judged(self) -> ModelScores:
        """The scores that the verdict is about: those of the refitted models if there are any.

        The default and the baselines are refitted as well then.
        """
        return self.refit or self


class StudyState(StrEnum):
    """Where the search of a study stands."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped or killed; the same command resumes
    UNKNOWN = "unknown"  # running or killed; its database has no locks


@dataclass(frozen=True)
class StudyRecord:
    """One study: its experiment, its trials and their outcomes."""

    id: str  # random, given when the study was created
    name: str
    experiment: Experiment  # of its last run: a resumed study may have another budget
    data: Mapping[str, Any]  # sha256, rows, path
    baselines: Mapping[str, float]  # scores of the baselines on the validation set
    versions: Mapping[str, str]
    created: str
    trials: tuple[TrialRecord, ...]
    finalists: tuple[TrialRecord, ...]  # retrainings, and trainings of the untuned default
    test: TestScore | None  # the newest evaluation on the test set
    ended: str | None = None  # how its last run ended: done or interrupted
    seconds_recorded: float = 0.0  # of the runs that were not killed
    earlier_tests: tuple[TestScore, ...] = ()  # the evaluations before it, in order
    format: int = FORMAT  # at its beginning
    first_repeats: int = 1  # `finalists.repeats` at its beginning
    raised: bool = False  # whether more is retrained than at its beginning
    left_out: Mapping[str, str] = field(default_factory=dict)  # baselines, with the reason
    begun_from: tuple[str, ...] = ()  # its warm start: a line for each source
    remarks: tuple[Mapping[str, str], ...] = ()  # on the data; see `tuner.results.advice`

    @property
    def trained(self) -> list[TrialRecord]:
        """The trials that have ended, in order, without repeats."""
        return [t for t in self.trials if t.repeat_of is None and t.outcome is not None]

    @property
    def sign(self) -> int:
        """The factor of an objective with which less is better."""
        return -1 if self.experiment.objective.direction == "maximize" else 1

    @property
    def openings(self) -> list[TestScore]:
        """All evaluations on the test set, in order."""
        return [*self.earlier_tests, self.test] if self.test is not None else []

    def ranked(self) -> list[TrialRecord]:
        """Return the complete trials, each configuration once, best first.

        Of equal scores, the smaller validation loss is better, or the earlier trial if losses are
        not comparable.
        """
        complete = [t for t in self.trained if t.status is Status.COMPLETE]
        return sorted(complete, key=lambda t: (*self.rank_of(t), t.number))

    def rank_of(self, trial: TrialRecord) -> tuple[float, float]:
        """Return the rank of a complete trial, score then loss; less is better."""
        assert trial.outcome is not None
        by_loss = self.format > 1 and self.experiment.losses_compare
        loss = trial.outcome.val_loss(self.sign) if by_loss else 0.0
        return self.sign * (trial.value or 0.0), loss

    @property
    def spans(self) -> list[tuple[float, float]]:
        """When each training began and ended, seconds since 1970, in order; a group's is one."""
        groups: dict[tuple[int, ...], list[Outcome]] = {}  # a trial's seconds are its share of one
        for trial in self.trained:
            if trial.outcome is not None:
                groups.setdefault(trial.group or (trial.number,), []).append(trial.outcome)
        spans = []
        for outcomes in groups.values():
            ended = max(outcome.finished_at for outcome in outcomes)
            spans.append((ended - sum(outcome.seconds for outcome in outcomes), ended))
        return sorted(spans)

    @property
    def seconds(self) -> float:
        """How long the search has run, over all its runs.

        A run that was killed recorded no time: it took at least the time of its trials.
        """
        training, covered_to = 0.0, 0.0
        for begun, ended in self.spans:
            training += max(0.0, ended - max(begun, covered_to))
            covered_to = max(covered_to, ended)
        return max(training, self.seconds_recorded)

    @property
    def best(self) -> TrialRecord | None:
        """The complete trial with the best objective."""
        return next(iter(self.ranked()), None)

    @property
    def is_full(self) -> bool:
        """Whether as many trials are trained as the budget has."""
        n_trials = self.experiment.n_trials
        return n_trials is not None and len(self.trained) >= n_trials

    @property
    def time_is_up(self) -> bool:
        """Whether the time budget is used up before the trials are."""
        limit_s = self.experiment.budget.timeout
        return limit_s is not None and self.seconds >= limit_s and not self.is_full

    def state(self, running: bool | None = False) -> StudyState:
        """Return where the search stands.

        Args:
            running: whether a search writes to the study; None if that is unknown.
        """
        if self.ended is not None:  # also while the same command only prints it again
            done = self.ended == "done"
        elif running is not False:
            return StudyState.UNKNOWN if running is None else StudyState.RUNNING
        else:
            done = self._is_complete()
        return StudyState.DONE if done else StudyState.INTERRUPTED

    def _is_complete(self) -> bool:
        """Return whether a search that was killed has nothing left to do.

        It evaluates on the test set last, so the test score has to cover all trials and finalists.
        """
        test, settings = self.test, self.experiment.finalists
        if test is None or test.after_trials < len(self.trained):
            return False
        then = list(test.finalists or ())
        as_tested = not self.raised or then == [settings.top, settings.repeats]
        return as_tested and (self.is_full or self.time_is_up)

    def why_ended(self, exhausted: bool, out_of_time: bool) -> str | None:
        """Return why the search trains no further trial; None if the budget is used.

        Args:
            exhausted: whether no configuration is left.
            out_of_time: whether the time is up.
        """
        budget, n_trained = self.experiment.budget, len(self.trained)
        if not self.experiment.search_space or (
            budget.trials is not None and n_trained >= budget.trials
        ):
            return None
        of = "" if budget.trials is None else f" of {budget.trials}"
        if exhausted:
            return f"every configuration of the search space ({n_trained}) has been trained"
        if out_of_time:
            return f"the time is up ({budget.timeout:g} s): {n_trained}{of} trials were trained"
        return (
            f"no better score in {budget.stagnation} generations: the search ends after "
            f"{n_trained}{of} trials"
        )

    def count(self, status: Status) -> int:
        """Return how many trials have a status, without repeats."""
        return sum(t.status is status and t.repeat_of is None for t in self.trials)


def checked_facts(study: optuna.Study, where: str) -> dict[str, Any]:
    """Return the facts with which a study was created.

    Raises:
        StudyError: it is not one of ours, or of a newer version.
    """
    name, facts = study.study_name, study.user_attrs.get(STUDY_ATTR)
    if not isinstance(facts, dict):
        rule = f"study {name!r} was not made by tuner"
        raise StudyError(rule, where=where, remedy="give another --study")
    if facts["format"] > FORMAT:
        rule = (
            f"study {name!r} was made by a newer tuner (format {facts['format']}, this one reads "
            f"{FORMAT})"
        )
        raise StudyError(rule, where=where, remedy="upgrade tuner")
    return facts


def has_begun(storage: BaseStorage, name: str) -> bool:
    """Return whether a journal holds a study, and the facts with which its search begins."""
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return False
    return STUDY_ATTR in study.user_attrs


def read_study(storage: BaseStorage, name: str, location: str) -> StudyRecord:
    """Read a study and its finalists from a journal.

    Raises:
        StudyError: the journal does not hold it, or it is not one of ours.
    """
    where = show_location(location)
    study = load_study(storage, name, location)
    facts = checked_facts(study, where)
    if EXTERNAL in facts:
        rule = f"study {name!r} is external: its models train elsewhere"
        raise StudyError(rule, where=where, remedy="see it in the service that holds it")
    run = study.user_attrs.get(RUN_ATTR, {})
    try:
        experiment = _experiment(facts, run)
    except (KeyError, ValueError) as error:
        rule = f"study {name!r} was written by another version of tuner: {one_line(error)[:200]}"
        remedy = "begin it again under another --study name"
        raise StudyError(rule, where=where, remedy=remedy) from None
    finalists: list[TrialRecord] = []
    if (second := name + FINALISTS_SUFFIX) in optuna.get_all_study_names(storage):
        retrained = begun_trials(load_study(storage, second, location))
        finalists = [read_trial(frozen, experiment) for frozen in retrained]
    trials: list[TrialRecord] = []
    for frozen in begun_trials(study):
        trials.append(read_trial(frozen, experiment, trials))
    first = study.user_attrs.get(TEST_ATTR)
    later = study.user_attrs.get(REOPENED_ATTR, ())
    tests = [TestScore.from_json(raw) for raw in (first, *later) if raw is not None]
    return StudyRecord(
        id=facts["id"],
        name=name,
        experiment=experiment,
        data=facts["data"],
        baselines=facts.get("baselines", {}),
        versions=facts["versions"],
        created=facts["created"],
        trials=tuple(trials),
        finalists=tuple(finalists),
        test=tests[-1] if tests else None,
        ended=run.get("ended"),
        seconds_recorded=study.user_attrs.get(TIME_ATTR, 0.0),
        earlier_tests=tuple(tests[:-1]),
        format=facts["format"],
        first_repeats=begun_with(facts, "repeats"),
        raised="finalists" in run,
        left_out=facts.get("left_out", {}),
        begun_from=tuple(facts.get("from", {}).get("said", ())),
        remarks=tuple(facts.get("remarks", ())),
    )


def read_with_state(
    storage: BaseStorage, name: str, location: str
) -> tuple[StudyRecord, StudyState]:
    """Read a study and the state of its search.

    It is read again if its end is not recorded and no search writes to it: the search may have
    ended in the meantime.

    Raises:
        StudyError: as `read_study` does.
    """
    record = read_study(storage, name, location)
    if record.ended is not None:
        return record, record.state()
    if not (held := is_locked(location, name)) and held is not None:
        record = read_study(storage, name, location)
    return record, record.state(held)


def _experiment(facts: Mapping[str, Any], run: Mapping[str, Any]) -> Experiment:
    """Return a study's experiment with the data's path, budget and finalists of its last run."""
    raw = facts["experiment"]
    moved = {"path": facts["data"]["path"]}
    if (test_file := facts["data"].get("test_file")) is not None:
        moved["split"] = {**raw["data"]["split"], "test_file": test_file}
    changed = {"data": {**raw["data"], **moved}}
    if "budget" in run:
        changed["budget"] = run["budget"]
    if "finalists" in run:
        changed["finalists"] = {**raw.get("finalists", {}), **run["finalists"]}
    return Experiment.of_record({**raw, **changed})


def begun_with(facts: Mapping[str, Any], key: str) -> int:
    """Return a number under `finalists` at the beginning of a study."""
    begun = facts["experiment"].get("finalists", {})
    return int(begun.get(key, Finalists.model_fields[key].default))


def read_trial(
    frozen: FrozenTrial,
    experiment: Experiment | ExternalSpec,
    earlier: Mapping[int, TrialRecord] | Sequence[TrialRecord] | None = None,
) -> TrialRecord:
    """Read one trial; `earlier` are the records of the trials before it, for repeats."""
    attrs = frozen.user_attrs
    repeat_of = attrs.get(REPEAT_ATTR)
    if repeat_of is not None and earlier is not None:
        outcome = earlier[repeat_of].outcome
    else:
        outcome = Outcome.from_json(attrs[OUTCOME_ATTR]) if OUTCOME_ATTR in attrs else None
    key, rhythm = trial_key(frozen.number, attrs), experiment.strategy.rhythm
    generation = individual = None
    if key.role is Role.TRIAL and rhythm.generational:
        generation, individual = divmod(frozen.number, rhythm.size)
    return TrialRecord(
        number=frozen.number,
        role=key.role,
        params=params_of(frozen, attrs),
        seed=seed_of(attrs, frozen.number, experiment.seed),
        status=Status(outcome.state.value) if outcome else Status.RUNNING,
        asked_at=frozen.datetime_start,
        outcome=outcome,
        repeat_of=repeat_of if key.role is Role.TRIAL else None,
        generation=generation,
        individual=individual,
        configuration=key.configuration,
        repeat=key.repeat,
        lost=tuple(attrs.get(LOST_ATTR, ())),
        group=tuple(group) if len(group := attrs.get(GROUP_ATTR, ())) > 1 else (),
    )


def begun_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have been asked, by number."""
    states = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    return sorted(study.get_trials(deepcopy=False, states=states), key=lambda t: t.number)
