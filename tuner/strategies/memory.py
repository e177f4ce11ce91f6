"""What generations came to, remembered so that it need not be worked out at every ask.

Only a cache: everything in it follows from the trials' records, and a copy of it starts empty.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies.records import Standing, all_trials, began, standing

__all__ = ["Memory"]

State = TypeVar("State")


@dataclass(frozen=True)
class _Checkpoint:
    """The state after all trials of the generations before one."""

    state: Any
    unfinished: frozenset[Standing]  # of trials that had not ended; once one changes, it is stale


_START = _Checkpoint(None, frozenset())


@dataclass
class _StudyMemory:
    began: datetime | None  # when its first trial did
    checkpoints: dict[Hashable, dict[int, _Checkpoint]] = field(
        default_factory=lambda: defaultdict(dict)
    )


class Memory:
    """Remembers, for each study, the states that its generations led to.

    A finished trial never changes, so a state is good as long as every trial that was unfinished
    then still stands as it did. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._studies: weakref.WeakKeyDictionary[BaseStorage, dict[int, _StudyMemory]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def after(
        self,
        study: Study,
        key: Hashable,
        generation: int,
        size: int,
        learn: Callable[[State | None, int, Sequence[FrozenTrial]], State | None],
    ) -> State | None:
        """Return the state after the generations before `generation`.

        Args:
            study: The study.
            key: What else the state depends on; the state of another key is another one.
            generation: The first generation that does not count.
            size: Trials in a generation.
            learn: Gives the state after one more generation, from the state before (None at the
                beginning), the generation and its trials. It must depend on these alone and
                leave them as they are.
        """
        if generation == 0:
            return None
        trials: Sequence[FrozenTrial] | None = None
        with self._lock:
            checkpoints = self._of(study).checkpoints[key]
            unfinished = frozenset().union(*(c.unfinished for c in checkpoints.values()))
            if unfinished:
                trials = all_trials(study)
                changed = {s for s in unfinished if s != standing(trials[s.number])}
                for g in [g for g, c in checkpoints.items() if c.unfinished & changed]:
                    del checkpoints[g]
            start = max((g for g in checkpoints if g <= generation), default=0)
            latest = checkpoints.get(start, _START)
            for g in range(start, generation):
                if trials is None:
                    trials = all_trials(study)
                told = trials[g * size : (g + 1) * size]
                running = {standing(t) for t in told if not t.state.is_finished()}
                latest = _Checkpoint(learn(latest.state, g, told), latest.unfinished | running)
                checkpoints[g + 1] = latest
            _thin(checkpoints)
            state: State | None = latest.state
            return state

    def _of(self, study: Study) -> _StudyMemory:
        """Return what is known of the study; nothing, where another one had its number before."""
        studies = self._studies.setdefault(study._storage, {})
        memory = studies.get(study._study_id)
        first = began(study)
        if memory is None or memory.began != first:
            memory = studies[study._study_id] = _StudyMemory(first)
        return memory


def _thin(checkpoints: dict[int, Any]) -> None:
    """Keep ever fewer of the older ones, so that none is far from where a trial ends late.

    The latest four stay, and of those at distance d one in about d / 4: to begin again from
    before a generation costs in proportion to how long ago that was.
    """
    latest = max(checkpoints)
    for g in [g for g in checkpoints if latest - g >= 4 * (g & -g)]:
        del checkpoints[g]
