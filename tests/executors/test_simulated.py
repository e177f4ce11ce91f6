"""Recorded landscapes in place of training: what is special about them."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from regret import FRESH, space_of
from regret import LANDSCAPES as TUNED_ON
from simulated import Landscape, Recording, SimulatedExecutor

import tuner.jobs
from tuner.data import SeriesRef, Shape
from tuner.executors import Finished, Reported
from tuner.experiment import Experiment, Override
from tuner.experiment.space import to_distributions
from tuner.jobs import OutcomeState, PredictJob, TrainJob
from tuner.strategies.codec import values_of

ROOT = Path(__file__).parents[2]
LANDSCAPES = sorted((ROOT / "benchmarks/landscapes").glob("*.parquet"))
REF = SeriesRef("/nowhere", Shape("forecast", 1))
SLOW = Recording((5.0, 4.0, 4.5), seconds=6.0)  # two seconds an epoch
FAST = Recording((3.0, 2.0, 1.0), seconds=3.0)

every_landscape = pytest.mark.parametrize("path", LANDSCAPES, ids=lambda path: path.stem)


def landscape():
    return Landscape(["x"], [({"x": 0.3}, SLOW), ({"x": 1}, FAST), ({"x": 1}, SLOW)])


def job(key="a", x=0.3, seed=0, epochs=10, metric="rmse", **fields):
    return TrainJob(key, {"x": x, "cell": "lstm"}, seed, epochs, 1000, metric, (REF,), **fields)


def run(executor, *jobs):
    for each in jobs:
        executor.submit(each)
    seen = []
    while events := executor.poll(0.0):
        seen += events
    return seen


def outcome(*args, **fields):
    return run(SimulatedExecutor(landscape()), job(*args, **fields))[-1].outcome


def test_an_outcome_is_what_was_recorded():
    found = outcome()
    assert [e.metric for e in found.history] == [5.0, 4.0, 4.5]
    assert (found.objective, found.best_epoch) == (4.0, 1)
    assert (found.seconds, found.finished_at) == (6.0, 6.0)
    assert [e.time for e in found.history] == [2.0, 4.0, 6.0]


def test_a_smaller_budget_of_epochs_ends_the_curve_earlier():
    found = outcome(epochs=1)
    assert (found.objective, found.seconds, len(found.history)) == (5.0, 2.0, 1)


def test_a_maximized_score_takes_the_highest_epoch():
    assert outcome(metric="r2").objective == 5.0


def test_the_seed_picks_the_recording():
    found = [outcome(x=1, seed=seed).objective for seed in range(4)]
    assert found == [1.0, 4.0, 1.0, 4.0]


def test_a_value_that_differs_by_rounding_is_found():
    assert outcome(x=0.1 + 0.2).state is OutcomeState.COMPLETE


@pytest.mark.parametrize("x", [0.31, 2, "much", None])
def test_a_configuration_without_a_record_fails_by_name(x):
    found = outcome(x=x)
    assert found.state is OutcomeState.FAILED
    assert found.reason == f"x={x!r} is not recorded in this landscape"


def test_a_recording_without_a_finite_value_fails():
    broken = Landscape(["x"], [({"x": 1}, Recording((float("nan"),), 1.0))])
    found = run(SimulatedExecutor(broken), job(x=1))[-1].outcome
    assert found.state is OutcomeState.FAILED
    assert "finite" in found.reason


def test_a_job_that_forecasts_fails():
    (end,) = run(SimulatedExecutor(landscape()), PredictJob("p", {"x": 1}, {}, REF))
    assert end.outcome.state is OutcomeState.FAILED
    assert "forecast" in end.outcome.reason


def test_the_recorded_pace_decides_in_which_order_workers_report():
    seen = run(SimulatedExecutor(landscape(), 2), job("slow"), job("fast", x=1))
    order = [(e.key, e.epoch.time) for e in seen if isinstance(e, Reported)]
    assert order[:2] == [("fast", 1.0), ("slow", 2.0)]
    assert [e.key for e in seen if isinstance(e, Finished)] == ["fast", "slow"]


def test_a_free_worker_begins_the_next_job_at_once():
    executor = SimulatedExecutor(landscape(), 2)
    seen = run(executor, job("slow"), job("fast", x=1), job("next", x=1))
    ends = {e.key: e.outcome.finished_at for e in seen if isinstance(e, Finished)}
    assert ends == {"fast": 3.0, "slow": 6.0, "next": 6.0}
    assert executor.now == 6.0


def test_a_pruned_job_took_the_time_until_then():
    executor = SimulatedExecutor(landscape())
    executor.submit(job(can_be_pruned=True))
    assert len(executor.poll(0.0)) == 1
    assert executor.poll(0.0) == []
    executor.answer("a", False)
    (end,) = executor.poll(0.0)
    assert (end.outcome.state, end.outcome.seconds) == (OutcomeState.PRUNED, 2.0)


@pytest.mark.parametrize(
    ("timeout_s", "epochs"), [(6.0, 3), (5.9, 2), (4.0, 2), (3.9, 1), (0.5, 0)]
)
def test_a_job_over_its_limit_is_ended_at_it(timeout_s, epochs):
    executor = SimulatedExecutor(landscape())
    seen = run(executor, job(timeout_s=timeout_s), job("b"))
    reports = [e for e in seen if isinstance(e, Reported) and e.key == "a"]
    assert [e.trained_s for e in reports] == [2.0 * (n + 1) for n in range(epochs)]
    (end,) = [e for e in seen if isinstance(e, Finished) and e.key == "a"]
    if epochs == 3:
        assert end.outcome.state is OutcomeState.COMPLETE
    else:
        assert end.outcome == timed_out(job(timeout_s=timeout_s), timeout_s)
    assert executor.now == timeout_s + 6.0


def timed_out(job, now):
    return dataclasses.replace(tuner.jobs.timed_out(job), finished_at=now)


def test_a_limit_excludes_simulated_waiting_time():
    executor = SimulatedExecutor(landscape(), 2)
    executor.submit(job(timeout_s=6.0, can_be_pruned=True))
    executor.submit(job("b", epochs=3))
    seen = []
    while not any(isinstance(e, Finished) for e in seen):  # `a` waits until `b` has ended
        seen += executor.poll(0.0)
    assert executor.now == 6.0
    while not any(e.key == "a" and isinstance(e, Finished) for e in seen):
        executor.answer("a", True)
        seen += executor.poll(0.0)
    assert seen[-1].outcome.state is OutcomeState.COMPLETE
    assert executor.now == 10.0


def test_a_landscape_is_read_back_as_its_table(tmp_path):
    rows = [
        {"size": size, "rate": rate, "seed": seed, "curve": [size + seed, rate], "seconds": 1.5}
        for seed in (1, 0)
        for size in (1, 2)
        for rate in (0.1, 0.2)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "l.parquet")
    found = Landscape.load(tmp_path / "l.parquet")
    assert len(found) == 4
    assert found.recordings({"size": 2, "rate": 0.2, "other": 1}) == (
        Recording((2.0, 0.2), 1.5),
        Recording((3.0, 0.2), 1.5),
    )


def experiment_on(path):
    """The experiment of a landscape, on the space that was recorded."""
    space = space_of(path.stem)
    return Experiment.load(
        ROOT / "experiments" / f"{path.stem}.yaml",
        [Override("search_space", str(space), "SPACE"), Override("budget.trials", 100, "TRIALS")],
    )


def test_three_landscapes_ship():
    assert sorted(path.stem for path in LANDSCAPES) == sorted((*TUNED_ON, *FRESH))


@every_landscape
def test_a_shipped_landscape_holds_its_space_on_three_seeds(path):
    recorded = Landscape.load(path)
    space = to_distributions(experiment_on(path).search_space)
    assert recorded.names == tuple(space)
    assert len(recorded) == np.prod([len(values_of(d)) for d in space.values()]) >= 480
    for recordings in recorded.all_recordings():
        assert len(recordings) == 3
        assert all(np.isfinite(r.curve).all() and r.seconds > 0 for r in recordings)
    assert path.stat().st_size < 1_000_000
