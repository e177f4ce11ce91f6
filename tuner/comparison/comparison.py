"""A comparison: every strategy's searches side by side, and how they differ."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.comparison.statistics import (
    ALPHA,
    Difference,
    Interval,
    fewest_seeds,
    median_interval,
    pairwise,
)
from tuner.comparison.trajectory import Trajectory
from tuner.comparison.verdict import verdict_of
from tuner.experiment import Experiment
from tuner.results.plain import plain_name, ranked_plain

__all__ = ["Comparison", "Row", "compare"]


@dataclass(frozen=True)
class Row:
    """What the searches of one strategy came to, one for each seed."""

    strategy: str
    options: Mapping[str, Any]  # its settings
    searches: tuple[Trajectory, ...]  # by their seeds
    median: float  # of their best scores; infinitely bad where half of them have none
    interval: Interval  # of the median
    seconds: float  # the median of what a search took

    @property
    def scores(self) -> list[float]:
        """The best validation score of each search."""
        return [search.score for search in self.searches]


@dataclass(frozen=True)
class Comparison:
    """Strategies, each searching the same experiment on the same seeds with the same budget."""

    experiment: Experiment  # as the searches share it, but for strategy and seed
    n_trials: int  # trained by each search
    rows: tuple[Row, ...]  # the best median first
    differences: tuple[Difference, ...]  # of every two strategies, the surest first

    @property
    def seeds(self) -> list[int]:
        """The seeds, which all strategies share."""
        return [search.seed for search in self.rows[0].searches]

    @property
    def metric(self) -> str:
        """What the searches optimize, on the validation part."""
        return self.experiment.objective.metric

    @property
    def sign(self) -> int:
        """What a score is multiplied with so that less is better."""
        return -1 if self.experiment.objective.direction == "maximize" else 1

    @property
    def baselines(self) -> list[tuple[str, float]]:
        """Plain predictions and their scores on the validation part, the best first."""
        return ranked_plain(self.metric, self.rows[0].searches[0].baselines)

    @property
    def fewest_seeds(self) -> int:
        """How many seeds it takes to tell any two of so many strategies apart."""
        return fewest_seeds(len(self.rows))

    @property
    def real(self) -> list[Difference]:
        """The differences that are more than chance."""
        if len(self.seeds) < self.fewest_seeds:
            return []
        return [d for d in self.differences if d.adjusted <= ALPHA]

    @property
    def to_beat(self) -> str | None:
        """What has to be beaten on the validation part, in one sentence; None for nothing."""
        known = [f"{plain_name(n, self.metric)} {score:.4g}" for n, score in self.baselines]
        if not known:
            return None
        return f"to beat on the validation part ({self.metric}): {', '.join(known)}"

    @property
    def verdict(self) -> str:
        """Which differences are real, in one sentence."""
        return verdict_of(
            {row.strategy: row.median for row in self.rows},
            self.differences,
            self.real,
            metric=self.metric,
            sign=self.sign,
            n_seeds=len(self.seeds),
            fewest=self.fewest_seeds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it but the curves; what is not finite is for the writer to judge."""
        return {
            "experiment": self.experiment.name,
            "metric": self.metric,
            "direction": self.experiment.objective.direction,
            "trials": self.n_trials,
            "seeds": self.seeds,
            "verdict": self.verdict,
            "fewest_seeds": self.fewest_seeds,
            "baselines": dict(self.baselines),
            "strategies": [_row(row) for row in self.rows],
            "differences": [
                {
                    "better": d.better,
                    "worse": d.worse,
                    "wins": d.wins,
                    "p_value": d.p_value,
                    "p_adjusted": d.adjusted,
                    "real": d in self.real,
                }
                for d in self.differences
            ],
        }


def compare(
    experiments: Sequence[Experiment], trajectories: Sequence[Trajectory], n_trials: int
) -> Comparison:
    """Compare strategies by the best validation scores of their searches.

    Args:
        experiments: what was searched, one for each strategy; they differ in nothing else.
        trajectories: a search for each strategy and each seed.
        n_trials: that each of them trained.
    """
    sign = -1 if experiments[0].objective.direction == "maximize" else 1
    rows = []
    for experiment in experiments:
        strategy = experiment.strategy
        searches = [t for t in trajectories if t.strategy == strategy.name]
        options = strategy.model_dump(mode="json", exclude={"name"}, exclude_none=True)
        rows.append(_row_of(strategy.name, options, sorted(searches, key=lambda t: t.seed)))
    costs = {row.strategy: [sign * score for score in row.scores] for row in rows}
    return Comparison(
        experiment=experiments[0],
        n_trials=n_trials,
        rows=tuple(sorted(rows, key=lambda row: (sign * row.median, row.strategy))),
        differences=tuple(pairwise(costs)),
    )


def _row_of(strategy: str, options: Mapping[str, Any], searches: Sequence[Trajectory]) -> Row:
    scores = [search.score for search in searches]
    return Row(
        strategy=strategy,
        options=options,
        searches=tuple(searches),
        median=statistics.median(scores),
        interval=median_interval(scores),
        seconds=statistics.median(search.seconds[-1] for search in searches),
    )


def _row(row: Row) -> dict[str, Any]:
    low, high = row.interval.low, row.interval.high
    return {
        "strategy": row.strategy,
        "options": dict(row.options),
        "median": row.median,
        "interval": [low, high],
        "confidence": row.interval.confidence,
        "seconds": row.seconds,
        "searches": [
            {
                "study": search.study,
                "seed": search.seed,
                "score": search.score,
                "seconds": search.seconds[-1],
            }
            for search in row.searches
        ],
    }
