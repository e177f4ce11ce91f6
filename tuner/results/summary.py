"""A study's result as plain data, for scripts and for whoever draws it."""

from __future__ import annotations

from typing import Any

from tuner.coordination.finalists import Finalist, default_of, rank_finalists
from tuner.journal.records import Status, StudyRecord, TrialRecord
from tuner.results.advice import advice_after
from tuner.results.test_score import opened_in_words
from tuner.results.verdict import Verdict, compare, verdict_of
from tuner.results.winner import Winner, find_winner, judged, objectives, pareto_front, tested_name

__all__ = ["minute", "summarize"]

_OF_AN_OPENING = ("opened_at", "after_trials", "configuration", "metric", "scores", "mean", "std")
_NO_TRIAL = 2**32  # keys what is drawn for a configuration without a trial; no trial is so late
_NOT_SHOWN = ("parts", "predictions", "verdict")  # of the newest


def minute(time: str) -> str:
    """Write a time of a record for people, to the minute."""
    return f"{time[:16].replace('T', ' ')} UTC"


def summarize(record: StudyRecord, *, with_trials: bool = False) -> dict[str, Any]:
    """Return what is known of a study, as JSON.

    Keys without a value yet (no complete trial, test part not opened) are None.
    """
    experiment = record.experiment
    winner = find_winner(record) if record.best else None
    finalists, verdict = rank_finalists(record), verdict_of(record)
    summary: dict[str, Any] = {
        "study": record.name,
        "id": record.id,
        "experiment": experiment.name,
        "strategy": experiment.strategy.name,
        "seed": experiment.seed,
        "created": record.created,
        "from": list(record.begun_from),
        "metric": experiment.objective.metric,
        "direction": experiment.objective.direction,
        "trials": {
            "trained": len(record.trained),
            **{status.value: record.count(status) for status in Status},
            "repeats": sum(trial.repeat_of is not None for trial in record.trials),
        },
        "budget": experiment.n_trials,
        "baselines": dict(record.baselines),
        "left_out": dict(record.left_out) | judged(record.test or {}).get("left_out", {}),
        "default": _default(record),
        "best": None,
        "finalists": [
            {
                "trial": f.number,
                "name": f.name,
                "search_score": f.search_score,
                "gap": _gap(f),
                "mean": f.mean,
                "std": f.std,
                "scores": f.scores,
                "params": dict(f.params),
            }
            for f in finalists
        ],
        "front": _front(record),
        "first_and_second": _first_and_second(record, finalists),
        "test": _scores(record),
        "openings": [
            {key: opening.get(key) for key in _OF_AN_OPENING} for opening in record.openings
        ],
        "opened": opened_in_words(record),
        "verdict": _verdict(record, winner, verdict),
        "worth": verdict.worth if verdict else None,
        "advice": [advice.to_json() for advice in advice_after(record)],
    }
    if winner:
        summary["best"] = {
            "trial": winner.number,
            "name": winner.name,
            "is_default": winner.is_default,
            "tested": winner.was_tested(record.test),
            "search_score": winner.search_score,
            "gap": _gap(winner.finalist) if winner.finalist else None,
            "mean": winner.finalist.mean if winner.finalist else None,
            "std": winner.finalist.std if winner.finalist else None,
            "scores": winner.finalist.scores if winner.finalist else [],
            "params": winner.params,
            "hyperparameters": winner.hyperparameters(record),
        }
    if with_trials:
        summary["all_trials"] = [_trial(t) for t in record.trials]
    return summary


def _default(record: StudyRecord) -> dict[str, Any] | None:
    """Return the untuned default's scores on the validation part."""
    default = default_of(record)
    if default is None:
        return None
    return {
        "name": default.name,
        "trial": default.number,
        "mean": default.mean if default.scores else None,
        "std": default.std,
        "scores": default.scores,
        "failed": default.failed,
        "params": default.params,
    }


def _front(record: StudyRecord) -> list[dict[str, Any]] | None:
    """Return the trials that no other beats in both objectives; None where there is one."""
    objective = record.experiment.objective
    if objective.metrics is None:
        return None
    return [
        {
            "trial": trial.number,
            "values": dict(zip(objective.metrics, objectives(record, trial) or (), strict=True)),
            "params": dict(trial.params),
        }
        for trial in pareto_front(record)
    ]


def _first_and_second(record: StudyRecord, finalists: list[Finalist]) -> str | None:
    """Say whether the best two finalists differ beyond the luck of their seeds.

    None where there is one, and before all are retrained.
    """
    if len(finalists) < 2 or any(run.outcome is None for run in record.finalists):
        return None
    first, second = finalists[:2]
    numbers = [_NO_TRIAL if f.number is None else f.number for f in (first, second)]
    seed, metric = [record.experiment.seed, *numbers], record.experiment.objective.metric
    difference = compare(metric, first.scores, second.scores, seed)
    return difference.in_words(*(_with_article(f) for f in (first, second)))


def _with_article(finalist: Finalist) -> str:
    return finalist.name if finalist.trial is not None else f"the {finalist.name}"


def _verdict(record: StudyRecord, winner: Winner | None, verdict: Verdict | None) -> str | None:
    """Return the sentence, with whom it is about where that is not the winner."""
    if verdict is None or record.test is None:
        return None
    still_wins = winner is None or winner.was_tested(record.test)
    of = "" if still_wins else f"of {tested_name(record.test)}, which no longer wins: "
    return f"{of}{verdict.sentence}"


def _gap(finalist: Finalist) -> float | None:
    """Return how far the mean lies from the search's score: the luck of the search."""
    searched = finalist.search_score
    return None if searched is None else finalist.mean - searched


def _scores(record: StudyRecord) -> dict[str, Any] | None:
    """Return the newest test record without what only pictures need."""
    if record.test is None:
        return None
    shown = {key: value for key, value in record.test.items() if key not in _NOT_SHOWN}
    return shown | {"name": tested_name(record.test), "unseen": not record.earlier_tests}


def _trial(trial: TrialRecord) -> dict[str, Any]:
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
