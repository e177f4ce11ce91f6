"""The result of a study in one object: for the terminal, the HTML page and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tuner.coordination.finalists import (
    Default,
    Finalist,
    Winner,
    default_of,
    find_winner,
    objectives,
    pareto_front,
    rank_finalists,
    tested_name,
)
from tuner.journal.records import Status, StudyRecord, TestScore, TrialRecord
from tuner.results.advice import Advice, advice_after
from tuner.results.differences import compare
from tuner.results.verdict import (
    Worth,
    difference_in_words,
    evaluations_in_words,
    verdict_of,
    with_article,
)

_SCORES = ("mean", "std", "scores")
_FINALIST = ("trial", "name", "search_score", "gap", *_SCORES, "params")
_DEFAULT = ("name", "trial", *_SCORES, "failed", "params")
_BEST = ("trial", "name", "is_default", "tested", "search_score", "gap", *_SCORES, "params",
         "hyperparameters")  # fmt: skip
_EVALUATION = ("opened_at", "after_trials", "configuration", "metric", "scores", "mean", "std")
_NOT_SHOWN = ("parts", "predictions", "verdict")  # of the newest evaluation
_NO_TRIAL = 2**32  # part of the random generator's key for a configuration without a trial


@dataclass(frozen=True)
class Configuration:
    """A configuration and its scores on the validation set."""

    name: str  # trial 3, or default LSTM
    trial: int | None  # number; None for a default that is no trial of the search
    params: Mapping[str, Any]  # of the search space
    scores: Sequence[float]  # of the retrainings
    mean: float | None  # of `scores`
    std: float | None
    search_score: float | None = None
    gap: float | None = None  # mean - search_score
    failed: int = 0  # retrainings without a score; of the default alone
    is_default: bool = False
    tested: bool = False  # whether the newest test score is of this configuration
    hyperparameters: Mapping[str, Any] | None = None  # all of them; of the winner alone

    def to_json(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the values under some keys."""
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class FrontTrial:
    """A trial of the Pareto front."""

    trial: int
    values: Mapping[str, float]  # by objective
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """The result of a study; None for what does not exist yet."""

    study: str
    id: str
    experiment: str
    strategy: str
    seed: int
    created: str  # ISO 8601, UTC
    begun_from: Sequence[str]  # sources of a warm start
    metric: str
    direction: str  # minimize or maximize
    trials: Mapping[str, int]  # trained, repeats (duplicates), and by status
    budget: int | None  # number of trials
    baselines: Mapping[str, float]  # on the validation set
    left_out: Mapping[str, str]  # baselines without a score, with the reason
    default: Configuration | None
    best: Configuration | None
    finalists: Sequence[Configuration]  # best mean first
    front: Sequence[FrontTrial] | None  # None for a search with one objective
    first_and_second: str | None  # whether the best two finalists differ, in words
    test: TestScore | None  # the newest
    openings: Sequence[TestScore]  # all evaluations on the test set, oldest first
    opened: Sequence[str]  # the same in words
    verdict: str | None
    worth: Worth | None
    advice: Sequence[Advice]

    def to_json(self) -> dict[str, Any]:
        """Return what `tuner show --json` prints."""
        raw: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        raw |= {
            "default": self.default and self.default.to_json(_DEFAULT),
            "best": self.best and self.best.to_json(_BEST),
            "finalists": [finalist.to_json(_FINALIST) for finalist in self.finalists],
            "front": None if self.front is None else [asdict(trial) for trial in self.front],
            "openings": [{key: o.raw.get(key) for key in _EVALUATION} for o in self.openings],
            "advice": [advice.to_json() for advice in self.advice],
        }
        if self.test is not None:
            test = {key: v for key, v in self.test.to_json().items() if key not in _NOT_SHOWN}
            name, unseen = tested_name(self.test), len(self.openings) == 1
            raw["test"] = test | {"name": name, "unseen": unseen}
        return {"from" if key == "begun_from" else key: value for key, value in raw.items()}


def minute(time: str) -> str:
    """Format an ISO 8601 time to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC"


def summarize(record: StudyRecord) -> Summary:
    """Summarize a study, finished or not."""
    experiment, test = record.experiment, record.test
    winner = find_winner(record) if record.best else None
    finalists, default, verdict = rank_finalists(record), default_of(record), verdict_of(record)
    return Summary(
        study=record.name,
        id=record.id,
        experiment=experiment.name,
        strategy=experiment.strategy.name,
        seed=experiment.seed,
        created=record.created,
        begun_from=list(record.begun_from),
        metric=experiment.objective.metric,
        direction=experiment.objective.direction,
        trials={
            "trained": len(record.trained),
            **{status.value: record.count(status) for status in Status},
            "repeats": sum(trial.repeat_of is not None for trial in record.trials),
        },
        budget=experiment.n_trials,
        baselines=dict(record.baselines),
        left_out=dict(record.left_out) | dict(test.judged.left_out if test else {}),
        default=_configuration(default, failed=default.failed) if default else None,
        best=_of_winner(winner, record) if winner else None,
        finalists=[_of_finalist(finalist) for finalist in finalists],
        front=_front(record),
        first_and_second=_first_and_second(record, finalists),
        test=test,
        openings=record.openings,
        opened=evaluations_in_words(record),
        verdict=verdict.of(record) if verdict else None,
        worth=verdict.worth if verdict else None,
        advice=advice_after(record),
    )


def _configuration(of: Finalist | Default, **more: Any) -> Configuration:
    mean = of.mean if of.scores else None
    return Configuration(of.name, of.number, dict(of.params), of.scores, mean, of.std, **more)


def _of_finalist(finalist: Finalist) -> Configuration:
    searched = finalist.search_score
    gap = None if searched is None or not finalist.repeats else finalist.mean - searched
    return _configuration(finalist, search_score=searched, gap=gap)


def _of_winner(winner: Winner, record: StudyRecord) -> Configuration:
    return replace(
        _of_finalist(winner),
        is_default=winner.is_default,
        tested=winner.was_tested(record.test),
        hyperparameters=winner.hyperparameters(record),
    )


def _front(record: StudyRecord) -> list[FrontTrial] | None:
    metrics = record.experiment.objective.metrics
    if metrics is None:
        return None
    return [
        FrontTrial(t.number, dict(zip(metrics, values, strict=True)), dict(t.params))
        for t in pareto_front(record)
        if (values := objectives(record, t)) is not None
    ]


def _first_and_second(record: StudyRecord, finalists: list[Finalist]) -> str | None:
    """Describe the difference of the best two finalists, if all are retrained."""
    if len(finalists) < 2 or any(run.outcome is None for run in record.finalists):
        return None
    first, second = finalists[:2]
    numbers = [_NO_TRIAL if f.number is None else f.number for f in (first, second)]
    seed, metric = [record.experiment.seed, *numbers], record.experiment.objective.metric
    difference = compare(metric, first.scores, second.scores, seed)
    return difference_in_words(difference, with_article(first), with_article(second))


def trials_to_json(record: StudyRecord) -> list[dict[str, Any]]:
    """Return a row for each trial, as `tuner show --json` prints them."""
    return [trial_to_json(trial) for trial in record.trials]


def trial_to_json(trial: TrialRecord) -> dict[str, Any]:
    """Return the row of a trial."""
    outcome = trial.outcome
    return {
        "number": trial.number,
        "status": trial.status.value,
        "value": trial.value,
        "params": dict(trial.params),
        "repeat_of": trial.repeat_of,
        "seed": trial.seed,
        "epochs": len(outcome.history) if outcome else 0,
        "seconds": outcome.seconds if outcome else None,
        "weights": outcome.n_weights if outcome else None,
        "latency_ms": outcome.latency_ms if outcome else None,
        "reason": outcome.reason if outcome else None,
    }
