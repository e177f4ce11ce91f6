"""Compares strategies: best score by trial and by second, and which differences are significant.

- Interval of a median: order statistics, whose coverage is a binomial probability whatever the
  scores' distribution is (Thompson, Annals of Mathematical Statistics 7, 1936).
- Difference of two strategies: Mann and Whitney's U test (Annals of Mathematical Statistics 18,
  1947), two-sided, not paired.
- All pairs together: Holm's correction (Scandinavian Journal of Statistics 6, 1979).
- Size of a difference: Vargha and Delaney's A (Journal of Educational and Behavioral Statistics
  25, 2000).
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuner.experiment import Experiment
from tuner.journal.records import StudyRecord, TrialRecord
from tuner.results.verdict import plain_name, ranked_plain

ALPHA = 0.05
"""How likely it may be, at most, that any difference is called real where none is."""

_FEWEST = 5  # seeds, however few the pairs are
_MOST_PERMUTED = 8  # values in a sample whose permutations are counted one by one


@dataclass(frozen=True)
class Interval:
    """Where a median lies."""

    low: float
    high: float
    confidence: float  # that it covers the median; 0.95 at least from six values on


def median_interval(values: Sequence[float]) -> Interval:
    """Return the interval between the two values that covers the median in 95 % of all cases.

    Of fewer than six values it is their range, which covers it less often.

    Args:
        values: independent, one at least; infinite ones are the outermost.
    """
    ordered, n = sorted(values), len(values)

    def below(k: int) -> float:
        """How likely fewer than `k` of the values lie below the median."""
        return float(sum(math.comb(n, i) for i in range(k)) / 2**n)

    k = max((k for k in range(2, n // 2 + 1) if below(k) <= ALPHA / 2), default=1)
    return Interval(ordered[k - 1], ordered[n - k], 1 - 2 * below(k))


@dataclass(frozen=True)
class Difference:
    """Two strategies, and whether the one is better than the other."""

    better: str
    worse: str
    wins: float  # share of the pairs of their searches that the better one wins; a draw is half
    p_value: float  # of this pair alone
    adjusted: float  # the p-value after the correction for all pairs


def pairwise(costs: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Compare every two strategies, the surest difference first.

    Args:
        costs: by strategy what each of its searches came to, less being better; infinite where
            it came to nothing.
    """
    found = []
    for a, b in itertools.combinations(sorted(costs), 2):
        wins, p_value = _mann_whitney(costs[a], costs[b])
        better, worse = (a, b) if wins >= 0.5 else (b, a)
        found.append((p_value, better, worse, max(wins, 1 - wins)))
    found.sort()
    adjusted = _holm([p_value for p_value, *_ in found])
    return [
        Difference(better, worse, wins, p_value, p)
        for (p_value, better, worse, wins), p in zip(found, adjusted, strict=True)
    ]


def fewest_seeds(n_strategies: int) -> int:
    """Return how many seeds it takes to tell two of the strategies apart, if they never overlap."""
    n_pairs = math.comb(n_strategies, 2)
    return next(n for n in itertools.count(_FEWEST) if 2 * n_pairs / math.comb(2 * n, n) <= ALPHA)


def _mann_whitney(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return in which share of the pairs `a` is less than `b`, and the p-value.

    It is exact where no two values are equal, or the samples are small.
    """
    from scipy.stats import PermutationMethod, mannwhitneyu, rankdata

    ranks = rankdata([*a, *b])  # infinite values have ranks like others
    ranks_a, ranks_b = ranks[: len(a)], ranks[len(a) :]
    n_distinct = len(np.unique(ranks))
    if n_distinct == 1:
        return 0.5, 1.0
    if n_distinct == len(ranks):
        method: Any = "exact"
    elif max(len(a), len(b)) <= _MOST_PERMUTED:
        method = PermutationMethod(n_resamples=math.comb(len(ranks), len(a)))  # all of them
    else:
        method = "asymptotic"
    result = mannwhitneyu(ranks_a, ranks_b, method=method)
    return 1 - float(result.statistic) / (len(a) * len(b)), min(1.0, float(result.pvalue))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Return rising p-values, each as the correction for all of them leaves it."""
    n = len(p_values)
    steps = [min(1.0, (n - i) * p_value) for i, p_value in enumerate(p_values)]
    return list(itertools.accumulate(steps, max))


_METHOD = "Mann-Whitney with Holm's correction"
_MOST_IN_DETAIL = 4  # differences, each with its numbers


def verdict_of(
    medians: Mapping[str, float],
    differences: Sequence[Difference],
    real: Sequence[Difference],
    *,
    metric: str,
    sign: int,
    n_seeds: int,
    fewest: int,
) -> str:
    """Say in a sentence which strategies are better than which.

    Args:
        medians: of the strategies' best scores, the best first.
        differences: of every two strategies.
        real: those of them that are more than chance.
        metric: what the scores are.
        sign: what a score is multiplied with so that less is better.
        n_seeds: how many searches each strategy made.
        fewest: how many it takes to tell any two apart.
    """
    names = list(medians)
    if n_seeds < fewest:
        who = f"{len(names)} strategies"
        return f"too few seeds to tell a difference from chance ({n_seeds}; {who} need {fewest})"
    if not real:
        return f"{_listed(names)} cannot be told apart with {n_seeds} seeds ({_METHOD})"

    in_detail = len(real) <= _MOST_IN_DETAIL

    def loser(difference: Difference) -> str:
        if not in_detail:
            return difference.worse
        gap = _gap(medians[difference.better], medians[difference.worse], metric, sign)
        size = gap or f"ahead in {difference.wins:.0%} of the pairs"
        return f"{difference.worse} ({size}, p {p_text(difference.adjusted)})"

    parts = []
    for betters, worses in _alike(names, real):
        wins = [d for d in real if d.better in betters]
        if len(betters) == 1:
            of = {d.worse: d for d in wins}
            parts.append(f"{betters[0]} is better than {_listed([loser(of[n]) for n in worses])}")
        else:
            surest = f" ({_at_most(wins)})" if in_detail else ""
            parts.append(f"{_listed(betters)} are better than {_listed(worses)}{surest}")
    if rest := len(differences) - len(real):
        others = "the other two" if rest == 1 else "others"
        parts.append(f"{others} cannot be told apart with {n_seeds} seeds")
    return f"{'; '.join(parts)} ({_METHOD}{'' if in_detail else f', {_at_most(real)}'})"


def _alike(names: Sequence[str], real: Sequence[Difference]) -> list[tuple[list[str], list[str]]]:
    """Return which strategies are better than which, those together that beat the same ones."""
    found: list[tuple[list[str], list[str]]] = []
    for name in names:
        beaten = {d.worse for d in real if d.better == name}
        worses = [n for n in names if n in beaten]
        same = next((betters for betters, others in found if others == worses), None)
        if same is not None:
            same.append(name)
        elif worses:
            found.append(([name], worses))
    return found


def score_text(score: float) -> str:
    """Write a score with four significant digits; `none` for an infinitely bad one."""
    if not math.isfinite(score):
        return "none"
    return f"{score:.4g}" if abs(score) < 10_000 else f"{score:.0f}"


def p_text(p_value: float) -> str:
    """Write what follows `p`: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.2g}"


def _at_most(differences: Sequence[Difference]) -> str:
    p_value = max(d.adjusted for d in differences)
    return f"p {p_text(p_value).replace('=', '<=')}"


def _gap(better: float, worse: float, metric: str, sign: int) -> str:
    """Say by how much a median is better; nothing where it is not."""
    if not sign * better < sign * worse:
        return ""
    if sign > 0 and better > 0 and math.isfinite(worse):  # an error, of which shares make sense
        percent = 100 * (worse - better) / worse
        return f"median {metric} {percent:{'.0f' if percent >= 10 else '.2g'}} % lower"
    return f"median {metric} {score_text(better)} against {score_text(worse)}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


@dataclass(frozen=True)
class Trajectory:
    """The best score so far of one search.

    Where no trial is complete yet it is infinitely bad.
    """

    study: str
    strategy: str
    seed: int
    best: tuple[float, ...]  # after each trained trial, by their numbers
    seconds: tuple[float, ...]  # of the search, when each trial had ended; rising
    best_then: tuple[float, ...]  # at each of these times
    baselines: Mapping[str, float] = field(default_factory=dict, hash=False)  # of the same rows

    @property
    def score(self) -> float:
        """The best score in the end."""
        return self.best[-1]


def trajectory_of(record: StudyRecord, n_trials: int) -> Trajectory:
    """Follow a search through its first trained trials, `n_trials` of them, 1 at least.

    Seconds are those of the search, over all its runs: without the pauses between them, and
    without the start of its first workers. Of the trials the journal knows when they trained;
    what else the search took, most of it its strategy's computing, is spread over that time.
    """
    trained = record.trained
    first = trained[:n_trials]
    clock = _Clock(trained, record.seconds - _waited_s(trained))
    in_time = sorted(first, key=lambda t: (clock.at(_ended_at(t)), t.number))
    return Trajectory(
        study=record.name,
        strategy=record.experiment.strategy.name,
        seed=record.experiment.seed,
        best=_best_so_far(first, record.sign),
        seconds=tuple(clock.at(_ended_at(t)) for t in in_time),
        best_then=_best_so_far(in_time, record.sign),
        baselines=record.baselines,
    )


class _Clock:
    """The seconds that a search had taken at a time, by what its trials say.

    Args:
        trials: that have ended.
        seconds: that the search took in all; where it is less than its trials did, as long.
    """

    def __init__(self, trials: Iterable[TrialRecord], seconds: float) -> None:
        self._times: list[float] = []  # when some trial began to train, and when none did any more
        self._busy: list[float] = []  # for how many seconds trials had trained then
        spans = sorted((_ended_at(t) - _seconds(t), _ended_at(t)) for t in trials)
        for begun, ended in spans:
            busy = self._busy[-1] if self._busy else 0.0
            if not self._times or begun > self._times[-1]:
                self._times += [begun, ended]
                self._busy += [busy, busy + ended - begun]
            elif ended > self._times[-1]:
                self._busy[-1] += ended - self._times[-1]
                self._times[-1] = ended
        total = self._busy[-1] if self._busy else 0.0
        self._scale = max(1.0, seconds / total) if total > 0 else 1.0

    def at(self, time: float) -> float:
        """Return the seconds until then, while it trained."""
        return self._scale * float(np.interp(time, self._times, self._busy))


def _waited_s(trials: Sequence[TrialRecord]) -> float:
    """Return for how long a search had asked for trials before the first of them trained."""
    asked = [t.asked_at.timestamp() for t in trials if t.asked_at is not None]
    began = [_ended_at(t) - _seconds(t) for t in trials if _seconds(t) > 0]
    return max(0.0, min(began) - min(asked)) if asked and began else 0.0


def _best_so_far(trials: Sequence[TrialRecord], sign: int) -> tuple[float, ...]:
    scores = (t.value for t in trials)
    costs = (math.inf if s is None or math.isnan(s) else sign * s for s in scores)
    return tuple(sign * cost for cost in itertools.accumulate(costs, min))


def _ended_at(trial: TrialRecord) -> float:
    return trial.outcome.finished_at if trial.outcome else 0.0


def _seconds(trial: TrialRecord) -> float:
    return trial.outcome.seconds if trial.outcome else 0.0


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
