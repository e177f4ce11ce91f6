"""A pool of workers that are threads, and train nothing: outcomes are functions of their jobs."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from functools import partial

import numpy as np

from helpers.one_by_one import one_by_one
from helpers.simulated_executor import curve, weights
from tuner import __version__
from tuner.executors.base import Died, Message, PooledWorker, Ready, Work, WorkerPool, serve
from tuner.jobs import Epoch, Job, Outcome, OutcomeState, PredictJob, TrainJob


class _Thread(PooledWorker):
    def __init__(self, pool: ThreadPool) -> None:
        super().__init__()
        self._pool, self._alive = pool, True
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._heard: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def send_job(self, job: Job) -> None:
        self._jobs.put(job)

    def send_answers(self, answers) -> None:
        self._heard.put(answers)

    def end(self) -> None:
        self._alive = False
        self._jobs.put(None)
        self._heard.put([])

    def _run(self) -> None:
        self._send(Ready(__version__))
        while (job := self._jobs.get()) is not None:
            try:
                serve(job, self._pool.work, self._send, self._heard.get)
            except Exception as error:
                self._send(Died(repr(error)))
                return

    def _send(self, message: Message) -> None:
        if self._alive:
            self._pool.messages.put((self, message))


class ThreadPool(WorkerPool[_Thread]):
    """Workers as threads; an epoch takes `epoch_s`."""

    def __init__(self, n_workers: int, epoch_s: float = 0.0) -> None:
        super().__init__(n_workers)
        self.epoch_s = epoch_s
        self.messages: queue.SimpleQueue = queue.SimpleQueue()
        self.trained: list[str] = []
        self.work = Work(self.run_job, partial(one_by_one, self.run_job))

    def run_job(self, job: Job, report) -> Outcome:
        if isinstance(job, PredictJob):
            truth = job.data.truth_of(job.data.evaluate_samples())
            off = np.mean([own["off"] for own in (job.weights, *job.others)])
            return Outcome(OutcomeState.COMPLETE, predictions=truth + off, finished_at=time.time())
        assert isinstance(job, TrainJob), "models of threads cannot be exported"
        values, begun, history = curve(job), time.time(), []
        for number, value in enumerate(values):
            time.sleep(self.epoch_s)
            history.append(Epoch(number, value, value, value, time.time()))
            if not report(history[-1]):
                return self._ended(OutcomeState.PRUNED, job, history, begun)
        self.trained.append(job.key)
        return self._ended(OutcomeState.COMPLETE, job, history, begun)

    def _ended(self, state, job, history, begun):
        best = min(range(len(history)), key=lambda i: history[i].metric)
        outcome = Outcome(
            state,
            history=tuple(history),
            seconds=time.time() - begun,
            finished_at=time.time(),
            n_weights=weights(job),
        )
        if state is OutcomeState.COMPLETE:
            value = history[best].metric
            outcome = dataclasses.replace(outcome, objective=value, best_epoch=best)
            if job.keep_weights:
                outcome = dataclasses.replace(outcome, weights={"off": np.array(value)})
        return outcome

    def wake(self) -> None:
        self.messages.put(None)

    def _start_worker(self) -> _Thread:
        return _Thread(self)

    def _listen(self, timeout_s: float):
        found = []
        try:
            found.append(self.messages.get(timeout=timeout_s))
            while True:
                found.append(self.messages.get_nowait())
        except queue.Empty:
            pass
        return [message for message in found if message is not None]
