"""What every executor must hold to; a new one is tested by adding it to the fixture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared import write_series

from tuner.executors import (
    Event,
    Executor,
    Finished,
    Landscape,
    LocalExecutor,
    Recording,
    Reported,
    SimulatedExecutor,
)
from tuner.jobs import Outcome, OutcomeState, TrainJob

HYPERPARAMETERS = {"hidden_size": 4, "batch_size": 16}
BAD = {"hidden_size": -1, "batch_size": 16}
N_RECORDED = 60

Make = Callable[[int], Executor]
MakeJob = Callable[..., TrainJob]


def simulated(n_workers: int) -> Executor:
    curves = [tuple(3.0 + seed + 1 / (1 + epoch) for epoch in range(N_RECORDED)) for seed in (0, 1)]
    rows = [(HYPERPARAMETERS, Recording(curve, seconds=6.0)) for curve in curves]
    return SimulatedExecutor(Landscape(HYPERPARAMETERS, rows), n_workers)


@pytest.fixture(params=[LocalExecutor, simulated], ids=["local", "simulated"])
def executor(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes executors by the number of workers, and closes them."""
    made: list[Executor] = []

    def make(n_workers: int) -> Executor:
        made.append(request.param(n_workers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> MakeJob:
    """Makes jobs; a model of two weights a gate on a short sine trains at once."""
    folder: Path = tmp_path_factory.mktemp("arrays")
    data = write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)

    def make(key: str = "a", epochs: int = 2, seed: int = 1, **fields: Any) -> TrainJob:
        hyperparameters = fields.pop("hyperparameters", HYPERPARAMETERS)
        return TrainJob(key, hyperparameters, seed, epochs, 1000, "rmse", (data,), **fields)

    return make


def events(
    executor: Executor,
    until: Callable[[list[Event]], bool],
    go_on: Callable[[Reported], bool] = lambda event: True,
    waits: bool = False,
) -> list[Event]:
    """Poll until `until(events)`; answer the reports of jobs that wait."""
    seen: list[Event] = []
    deadline = time.monotonic() + 60
    while not until(seen):
        assert time.monotonic() < deadline, seen
        for event in executor.poll(0.2):
            seen.append(event)
            if waits and isinstance(event, Reported):
                executor.answer(event.key, go_on(event))
    return seen


def n_finished(n: int) -> Callable[[list[Event]], bool]:
    return lambda seen: sum(isinstance(event, Finished) for event in seen) >= n


def outcomes(seen: list[Event]) -> dict[str, Outcome]:
    return {event.key: event.outcome for event in seen if isinstance(event, Finished)}


def keys_of(seen: list[Event], kind: type[Event]) -> list[str]:
    return [event.key for event in seen if isinstance(event, kind)]


def is_idle(executor: Executor) -> bool:
    return executor.poll(0.2) == []


def test_every_job_comes_back_once(executor: Make, job: MakeJob) -> None:
    workers = executor(2)
    for key in "abcde":
        workers.submit(job(key))
    seen = events(workers, n_finished(5))
    assert sorted(keys_of(seen, Finished)) == list("abcde")
    assert is_idle(workers)


def test_one_worker_does_jobs_in_the_order_of_submission(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    for key in "cab":
        workers.submit(job(key))
    seen = events(workers, n_finished(3))
    assert list(dict.fromkeys(event.key for event in seen)) == ["c", "a", "b"]
    assert keys_of(seen, Finished) == ["c", "a", "b"]


def test_a_job_reports_every_epoch_and_then_its_end(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    workers.submit(job(epochs=3))
    *reports, end = events(workers, n_finished(1))
    epochs = tuple(event.epoch for event in reports if isinstance(event, Reported))
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert isinstance(end, Finished)
    assert end.outcome.state is OutcomeState.COMPLETE
    assert end.outcome.history == epochs
    best = min(epochs, key=lambda epoch: epoch.metric)
    assert (end.outcome.objective, end.outcome.best_epoch) == (best.metric, best.epoch)
    assert end.outcome.seconds > 0


def test_a_job_comes_to_the_same_on_one_worker_and_on_two(executor: Make, job: MakeJob) -> None:
    found = []
    for n_workers in (1, 2):
        workers = executor(n_workers)
        for seed, key in enumerate("abcd"):
            workers.submit(job(key, seed=seed))
        ended = outcomes(events(workers, n_finished(4)))
        found.append({key: [e.metric for e in ended[key].history] for key in "abcd"})
    assert found[0] == found[1]
    assert found[0]["a"] != found[0]["b"]  # seeds differ


def test_a_job_that_can_be_pruned_waits_for_an_answer(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    workers.submit(job(can_be_pruned=True))
    seen = events(workers, bool)
    assert keys_of(seen, Reported) == ["a"]
    assert is_idle(workers)
    workers.answer("a", True)
    assert n_finished(1)(events(workers, n_finished(1), waits=True))


def test_pruning_ends_a_job_after_the_refused_epoch(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    workers.submit(job(epochs=50, can_be_pruned=True))
    workers.submit(job("b"))
    seen = events(workers, n_finished(2), go_on=lambda event: event.epoch.epoch < 3, waits=True)
    reported = [e.epoch for e in seen if isinstance(e, Reported) and e.key == "a"]
    assert [epoch.epoch for epoch in reported] == [0, 1, 2, 3]
    pruned = outcomes(seen)["a"]
    assert pruned.state is OutcomeState.PRUNED
    assert pruned.objective is None
    assert pruned.history == tuple(reported)
    assert outcomes(seen)["b"].state is OutcomeState.COMPLETE


def test_withdrawn_jobs_never_begin(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    for key in "abc":
        workers.submit(job(key))
    assert workers.withdraw() == ["b", "c"]
    assert workers.withdraw() == []
    assert set(outcomes(events(workers, n_finished(1)))) == {"a"}
    assert is_idle(workers)
    workers.submit(job("b"))  # its key is free again
    assert set(outcomes(events(workers, n_finished(1)))) == {"b"}


def test_a_job_that_cannot_be_done_fails_alone(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    workers.submit(job("bad", hyperparameters=BAD))
    workers.submit(job("good"))
    ended = outcomes(events(workers, n_finished(2)))
    failed = ended["bad"]
    assert failed.state is OutcomeState.FAILED
    assert failed.objective is None
    assert failed.reason is not None
    assert "hidden_size" in failed.reason
    assert "\n" not in failed.reason
    assert ended["good"].state is OutcomeState.COMPLETE


def test_an_answer_that_nobody_waits_for_is_no_error(executor: Make, job: MakeJob) -> None:
    workers = executor(1)
    workers.answer("a", True)
    workers.submit(job())
    events(workers, n_finished(1))
    workers.answer("a", False)
    assert is_idle(workers)


def test_closing_gives_up_what_is_in_progress_and_may_be_done_twice(
    executor: Make, job: MakeJob
) -> None:
    workers = executor(2)
    for key in "abc":
        workers.submit(job(key, epochs=1_000, can_be_pruned=True))
    events(workers, bool)
    workers.close()
    workers.close()
    executor(1).close()  # nothing was begun


def test_fewer_than_one_worker_is_refused(executor: Make) -> None:
    with pytest.raises(ValueError, match="n_workers must be at least 1, got 0"):
        executor(0)
