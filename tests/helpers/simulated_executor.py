"""An executor that trains nothing: curves are a function of the job, timing is random."""

from __future__ import annotations

import math
import random
import statistics

from tuner.executors.base import Event, Finished, Lost, Reported
from tuner.jobs import Epoch, GroupJob, Outcome, OutcomeState, TrainJob, members_of


class Killed(BaseException):
    """The coordinator dies here."""


def curve(job: TrainJob) -> list[float]:
    """A learning curve that depends on the job alone."""
    h = {"hidden_size": 32, "dropout": 0.0, "num_layers": 1, "batch_size": 8} | job.hyperparameters
    width = abs(math.log2(h["hidden_size"]) - 5)
    level = width + h["batch_size"] / 64 + 3 * h["dropout"] + 0.2 * h["num_layers"]
    noise = random.Random(job.seed).random() * 0.1
    fold = [level + noise + 2 / (1 + epoch) for epoch in range(job.epochs)]
    return [value + 0.1 * k for k in range(len(job.folds)) for value in fold]


def weights(job: TrainJob) -> int:
    """How large a model is: that too depends on the job alone."""
    h = {"hidden_size": 32, "num_layers": 1} | job.hyperparameters
    return int(h["hidden_size"]) ** 2 * int(h["num_layers"])


class SimulatedExecutor:
    """Some jobs at a time, in an order of events that `chaos` seeds, as on another machine.

    With the probability `p_lost` a worker dies instead of an event; the coordinator is killed
    after `die_after` results; `fails(job)` is whether a job fails. The members of a group report
    together, and end one after another when none of them trains any more.
    """

    has_gpus = False

    def __init__(self, n_workers, chaos=0, p_lost=0.0, die_after=None, fails=lambda job: False):
        self.n_workers = n_workers
        self._rng = random.Random(chaos)
        self._p_lost, self._die_after, self._fails = p_lost, die_after, fails
        self._queue: list[TrainJob | GroupJob] = []
        self._running: dict[str, tuple[TrainJob, list[Epoch]]] = {}  # by the key of a member
        self._workers: list[list[str]] = []  # the members that each has
        self._waiting: set[str] = set()
        self._stopped: set[str] = set()
        self.begun: list[str] = []
        self.groups: list[tuple[str, ...]] = []  # that were begun
        self.delivered: list[str] = []
        self.finished = 0

    def curve(self, job):
        return curve(job)

    def loss(self, job, epoch):
        return 1.0

    def submit(self, job):
        self._queue.append(job)

    def withdraw(self):
        keys = [each.key for job in self._queue for each in members_of(job)]
        self._queue.clear()
        return keys

    def close(self):
        self._running.clear()
        self._workers.clear()

    def answer(self, key, go_on):
        self._waiting.discard(key)
        if not go_on:
            self._stopped.add(key)

    def poll(self, timeout_s) -> list[Event]:
        while self._queue and len(self._workers) < self.n_workers:
            members = members_of(self._queue.pop(0))
            self._running |= {job.key: (job, []) for job in members}
            self._workers.append([job.key for job in members])
            self.begun += self._workers[-1]
            self.groups += [tuple(self._workers[-1])] if len(members) > 1 else []
        assert not self._waiting, "the coordinator must answer every report before it polls again"
        self._workers.sort()
        keys = self._rng.choice(self._workers)
        if self._rng.random() < self._p_lost:
            self._workers.remove(keys)
            self._stopped -= set(keys)
            for key in keys:
                del self._running[key]
            return [Lost(key, "killed by signal 9") for key in keys]
        reports = [self._train(key) for key in keys if self._ended(key) is None]
        if reports:
            return reports
        key = self._rng.choice(keys) if len(keys) > 1 else keys[0]
        return self._finish(keys, key, self._ended(key))

    def _ended(self, key):
        """How a member has ended; None while it trains."""
        job, epochs = self._running[key]
        if key in self._stopped:
            return OutcomeState.PRUNED
        if self._fails(job):
            return OutcomeState.FAILED
        return OutcomeState.COMPLETE if len(epochs) == len(self.curve(job)) else None

    def _train(self, key) -> Reported:
        job, epochs = self._running[key]
        values = self.curve(job)
        number = len(epochs)
        fold, score = number // job.epochs, None
        if len(job.folds) > 1 and (number + 1) % job.epochs == 0:
            score = min(values[number + 1 - job.epochs : number + 1])
        loss = self.loss(job, number)
        epoch = Epoch(number, 1.0, loss, values[number], 1e9 + number, fold, score)
        epochs.append(epoch)
        if job.can_be_pruned:
            self._waiting.add(key)
        return Reported(key, epoch)

    def _finish(self, keys, key, state):
        if self._die_after is not None and self.finished >= self._die_after:
            raise Killed
        self.finished += 1
        self.delivered.append(key)
        job, epochs = self._running.pop(key)
        self._stopped.discard(key)
        keys.remove(key)
        if not keys:
            self._workers.remove(keys)
        best = min(epochs, key=lambda e: e.metric, default=None)
        complete = state is OutcomeState.COMPLETE
        scores = [e.fold_score for e in epochs if e.fold_score is not None]
        score = statistics.fmean(scores) if scores else best.metric if best else None
        return [
            Finished(
                key,
                Outcome(
                    state,
                    objective=score if complete else None,
                    best_epoch=best.epoch if complete else None,
                    history=tuple(epochs),
                    reason="it failed" if state is OutcomeState.FAILED else None,
                    seconds=1.0,
                    finished_at=1e9 + self.finished,
                    n_weights=weights(job) if complete else None,
                    latency_ms=1.0 if complete else None,
                ),
            )
        ]
