"""How a search came to its best score: after every trial, and after every second."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tuner.coordination.records import StudyRecord, TrialRecord

__all__ = ["Trajectory", "trajectory_of"]


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
