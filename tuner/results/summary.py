"""A study's result as plain data, for scripts and for whoever draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tuner.results.winner import find_winner
from tuner.search.finalists import rank_finalists
from tuner.search.records import Status, StudyRecord, TrialRecord

__all__ = ["summarize"]


def summarize(record: StudyRecord, *, with_trials: bool = False) -> dict[str, Any]:
    """Return what is known of a study, as JSON.

    Keys without a value yet (no complete trial, test part not opened) are None.
    """
    experiment = record.experiment
    winner = find_winner(record) if record.best else None
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
        "best": None,
        "finalists": [
            {
                "trial": f.trial.number,
                "search_score": f.trial.value,
                "mean": f.mean,
                "std": f.std,
                "scores": f.scores,
                "params": dict(f.trial.params),
            }
            for f in rank_finalists(record)
        ],
        "test": _scores(record.test) if record.test else None,
        "verdict": _verdict(record.test, experiment.objective.direction) if record.test else None,
    }
    if winner:
        summary["best"] = {
            "trial": winner.trial.number,
            "search_score": winner.trial.value,
            "mean": winner.finalist.mean if winner.finalist else None,
            "std": winner.finalist.std if winner.finalist else None,
            "params": dict(winner.trial.params),
            "hyperparameters": winner.hyperparameters(record),
        }
    if with_trials:
        summary["all_trials"] = [_trial(t) for t in record.trials]
    return summary


def _verdict(test: Mapping[str, Any], direction: str) -> str:
    """Say in one sentence whether the model is worth having, by the rows it never saw."""
    pick = max if direction == "maximize" else min
    name, baseline = pick(test["baselines"].items(), key=lambda item: float(item[1]))
    name, score = name.replace("_", " "), test["mean"]
    if score is None:
        return "the forecasts of the test part are beyond all bounds: do not use this model"
    if pick(score, baseline) != score or score == baseline:
        return f"no better than {name} on the test part: do not use this model as it is"
    margin = abs(baseline - score) / abs(baseline) if baseline else math.inf
    better = f" by {100 * margin:.0f} %" if direction == "minimize" else ""
    return f"better than {name}, the best baseline, on the test part{better}"


def _scores(test: Mapping[str, Any]) -> dict[str, Any]:
    """Return the test record without what only pictures need."""
    return {key: value for key, value in test.items() if key not in ("parts", "predictions")}


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
