"""What generations came to, remembered so that it need not be worked out at every ask.

Only a cache: everything in it follows from the trials' records, and a copy of it starts empty.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial

from tuner.strategies.records import all_trials

__all__ = ["Memory"]

State = TypeVar("State")

_KEPT = 4  # generations; the latest has often trials that are not finished, so older ones serve


@dataclass(frozen=True)
class _Entry:
    """The state after all trials of the generations before `generation`."""

    generation: int
    state: Any
    unfinished: tuple[int, ...]  # trials that had not ended; once one has, the state is stale


class Memory:
    """Remembers, for each study, the state that its generations led to.

    A finished trial never changes, so a state is good as long as every trial that was unfinished
    then still is. Safe to share between threads.
    """

    def __init__(self) -> None:
        self._studies: weakref.WeakKeyDictionary[
            BaseStorage, dict[tuple[int, Hashable], deque[_Entry]]
        ] = weakref.WeakKeyDictionary()
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
        trials: list[FrozenTrial] | None = None
        with self._lock:
            kept = self._studies.setdefault(study._storage, {}).setdefault(
                (study._study_id, key), deque(maxlen=_KEPT)
            )
            if generation == 0:  # perhaps a new study that got the id of one that was deleted
                kept.clear()
                return None
            if any(entry.unfinished for entry in kept):
                trials = all_trials(study)
                good = [e for e in kept if not _is_stale(e, trials)]
                kept.clear()
                kept.extend(good)
            base = max(
                (entry for entry in kept if entry.generation <= generation),
                key=lambda entry: entry.generation,
                default=_Entry(0, None, ()),
            )
            for g in range(base.generation, generation):
                if trials is None:
                    trials = all_trials(study)
                told = trials[g * size : (g + 1) * size]
                running = tuple(t.number for t in told if not t.state.is_finished())
                base = _Entry(g + 1, learn(base.state, g, told), base.unfinished + running)
                if not kept or kept[-1].generation < base.generation:
                    kept.append(base)
            state: State | None = base.state
            return state


def _is_stale(entry: _Entry, trials: Sequence[FrozenTrial]) -> bool:
    return any(trials[number].state.is_finished() for number in entry.unfinished)
