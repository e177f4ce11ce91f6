"""A study's result as plain data, for scripts and for whoever draws it."""

from __future__ import annotations

from typing import Any

from tuner.coordination.finalists import Finalist, default_of, rank_finalists
from tuner.coordination.records import Status, StudyRecord, TrialRecord
from tuner.results.advice import advice_after
from tuner.results.differences import compare
from tuner.results.openings import opened_in_words
from tuner.results.verdict import Verdict, verdict_of
from tuner.results.winner import Winner, find_winner

__all__ = ["minute", "summarize"]

_OF_AN_OPENING = ("opened_at", "after_trials", "configuration", "metric", "scores", "mean", "std")
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
        "metric": experiment.objective.metric,
        "direction": experiment.objective.direction,
        "trials": {
            "trained": len(record.trained),
            **{status.value: record.count(status) for status in Status},
            "repeats": sum(trial.repeat_of is not None for trial in record.trials),
        },
        "budget": experiment.n_trials,
        "baselines": dict(record.baselines),
        "left_out": dict(record.left_out) | (record.test or {}).get("left_out", {}),
        "default": _default(record),
        "best": None,
        "finalists": [
            {
                "trial": f.trial.number,
                "search_score": f.trial.value,
                "gap": _gap(f),
                "mean": f.mean,
                "std": f.std,
                "scores": f.scores,
                "params": dict(f.trial.params),
            }
            for f in finalists
        ],
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
            "trial": winner.trial.number,
            "search_score": winner.trial.value,
            "gap": _gap(winner.finalist) if winner.finalist else None,
            "mean": winner.finalist.mean if winner.finalist else None,
            "std": winner.finalist.std if winner.finalist else None,
            "params": dict(winner.trial.params),
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
        "trial": default.trial.number if default.trial else None,
        "mean": default.mean if default.scores else None,
        "std": default.std,
        "scores": default.scores,
        "failed": default.failed,
        "params": default.params,
    }


def _first_and_second(record: StudyRecord, finalists: list[Finalist]) -> str | None:
    """Say whether the best two finalists differ beyond the luck of their seeds.

    None where there is one, and before all are retrained.
    """
    if len(finalists) < 2 or any(run.outcome is None for run in record.finalists):
        return None
    first, second = finalists[:2]
    numbers = [first.trial.number, second.trial.number]
    seed, metric = [record.experiment.seed, *numbers], record.experiment.objective.metric
    difference = compare(metric, first.scores, second.scores, seed)
    return difference.in_words(*(f"trial {number}" for number in numbers))


def _verdict(record: StudyRecord, winner: Winner | None, verdict: Verdict | None) -> str | None:
    """Return the sentence, with whom it is about where that is not the winner."""
    if verdict is None or record.test is None:
        return None
    tested = record.test["configuration"]
    still_wins = winner is None or winner.trial.number == tested
    of = "" if still_wins else f"of trial {tested}, which no longer wins: "
    return f"{of}{verdict.sentence}"


def _gap(finalist: Finalist) -> float | None:
    """Return how far the mean lies from the search's score: the luck of the search."""
    return None if finalist.trial.value is None else finalist.mean - finalist.trial.value


def _scores(record: StudyRecord) -> dict[str, Any] | None:
    """Return the newest test record without what only pictures need."""
    if record.test is None:
        return None
    shown = {key: value for key, value in record.test.items() if key not in _NOT_SHOWN}
    return shown | {"unseen": not record.earlier_tests}


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
        "reason": outcome.reason if outcome else None,
    }
