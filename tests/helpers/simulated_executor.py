"""An executor that trains nothing: curves are a function of the job, timing is random."""

from __future__ import annotations

import math
import random
import statistics

from tuner.executors.base import Event, Finished, Lost, Reported
from tuner.jobs import Epoch, Outcome, OutcomeState, TrainJob


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
    after `die_after` results; `fails(job)` is whether a job fails.
    """

    def __init__(self, n_workers, chaos=0, p_lost=0.0, die_after=None, fails=lambda job: False):
        self.n_workers = n_workers
        self._rng = random.Random(chaos)
        self._p_lost, self._die_after, self._fails = p_lost, die_after, fails
        self._queue: list[TrainJob] = []
        self._running: dict[str, tuple[TrainJob, list[Epoch]]] = {}
        self._waiting: set[str] = set()
        self._stopped: set[str] = set()
        self.begun: list[str] = []
        self.delivered: list[str] = []
        self.finished = 0

    def curve(self, job):
        return curve(job)

    def loss(self, job, epoch):
        return 1.0

    def submit(self, job):
        self._queue.append(job)

    def withdraw(self):
        keys = [job.key for job in self._queue]
        self._queue.clear()
        return keys

    def close(self):
        self._running.clear()

    def answer(self, key, go_on):
        self._waiting.discard(key)
        if not go_on:
            self._stopped.add(key)

    def poll(self, timeout_s) -> list[Event]:
        while self._queue and len(self._running) < self.n_workers:
            job = self._queue.pop(0)
            self._running[job.key] = (job, [])
            self.begun.append(job.key)
        assert not self._waiting, "the coordinator must answer every report before it polls again"
        key = self._rng.choice(sorted(self._running))
        job, epochs = self._running[key]
        if self._rng.random() < self._p_lost:
            del self._running[key]
            self._stopped.discard(key)
            return [Lost(key, "killed by signal 9")]
        values = self.curve(job)
        if key in self._stopped:
            self._stopped.discard(key)
            return self._finish(key, OutcomeState.PRUNED, epochs)
        if self._fails(job):
            return self._finish(key, OutcomeState.FAILED, epochs)
        if len(epochs) == len(values):
            return self._finish(key, OutcomeState.COMPLETE, epochs)
        number = len(epochs)
        fold, score = number // job.epochs, None
        if len(job.folds) > 1 and (number + 1) % job.epochs == 0:
            score = min(values[number + 1 - job.epochs : number + 1])
        loss = self.loss(job, number)
        epoch = Epoch(number, 1.0, loss, values[number], 1e9 + number, fold, score)
        epochs.append(epoch)
        if job.can_be_pruned:
            self._waiting.add(key)
        return [Reported(key, epoch)]

    def _finish(self, key, state, epochs):
        if self._die_after is not None and self.finished >= self._die_after:
            raise Killed
        self.finished += 1
        self.delivered.append(key)
        job, _ = self._running.pop(key)
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
