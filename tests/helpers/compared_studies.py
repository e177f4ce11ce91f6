"""Records of searches that nobody has made, and comparisons of them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence

from helpers.records import study_record, trial_record
from tuner.experiment import Experiment
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.records import StudyRecord
from tuner.report.comparison import Comparison, compare, trajectory_of

NOON = 1.7e9  # when searches begin, seconds since 1970


def experiment(strategy: str = "tpe", seed: int = 0, metric: str = "rmse") -> Experiment:
    return Experiment.model_validate(
        {
            "name": "made",
            "data": {"path": "/nowhere/made.csv", "target": "y"},
            "search_space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5}},
            "strategy": {"name": strategy},
            "objective": {"metric": metric},
            "budget": {"trials": 4},
            "seed": seed,
        }
    )


def search(
    scores: Sequence[float | None],
    *,
    strategy: str = "tpe",
    seed: int = 0,
    metric: str = "rmse",
    spans: Sequence[tuple[float, float]] | None = None,
    recorded_s: float = 0.0,
    repeats: Mapping[int, int] | None = None,
    groups: Mapping[int, tuple[int, ...]] | None = None,
    asked_s: float | None = None,
) -> StudyRecord:
    """A search of trials with these scores; None stands for one that failed.

    Each trained for a second, in turn, unless `spans` says when, in seconds after noon. `repeats`
    are trials that take the outcome of an earlier one, `groups` those of trials that trained
    together. All trials were asked `asked_s` after noon.
    """
    outcomes: list[Outcome] = []
    for number, score in enumerate(scores):
        begun, ended = spans[number] if spans else (number, number + 1)
        state = OutcomeState.FAILED if score is None else OutcomeState.COMPLETE
        outcomes.append(
            Outcome(state, objective=score, seconds=ended - begun, finished_at=NOON + ended)
        )
    for number, original in (repeats or {}).items():
        outcomes[number] = outcomes[original]
    trials = [
        trial_record(
            number,
            outcome,
            params={"dropout": number / 1000},
            repeat_of=(repeats or {}).get(number),
            group=(groups or {}).get(number, ()),
            asked_at=None if asked_s is None else dt.datetime.fromtimestamp(NOON + asked_s, dt.UTC),
        )
        for number, outcome in enumerate(outcomes)
    ]
    return study_record(
        experiment(strategy, seed, metric),
        trials,
        name=f"made-{strategy}-{seed}",
        seconds_recorded=recorded_s,
    )


def comparison(
    scores: Mapping[str, Sequence[float | None]], metric: str = "rmse", n_trials: int = 2
) -> Comparison:
    """Searches that came to these scores, on the seeds 0, 1 and so on; None: nothing complete."""
    worst = 0.0 if metric == "r2" else math.inf
    found = [
        trajectory_of(
            search(
                [None, *([score if score is None else worst] * (n_trials - 2)), score],
                strategy=strategy,
                seed=seed,
                metric=metric,
            ),
            n_trials,
        )
        for strategy, of_seeds in scores.items()
        for seed, score in enumerate(of_seeds)
    ]
    return compare([experiment(name, metric=metric) for name in scores], found, n_trials)
