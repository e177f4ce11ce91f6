"""How long the rest takes: estimates against what came to be, under a clock of its own."""

import random
from itertools import pairwise

import pytest
from helpers.simulated_progress import Clock, complete, epoch, simulate

from tuner.coordination.events import Asked, Observer
from tuner.experiment import Experiment
from tuner.journal.storage import Role
from tuner.progress.watcher import Pace, Standing

N_EPOCHS = 10


class Paced(Observer):
    """Hands what a coordinator tells to a pace."""

    def __init__(self, pace):
        self._pace = pace

    def dispatched(self, role, number, cost):
        self._pace.dispatched(number, cost)

    def epoch(self, role, number, epoch):
        self._pace.epoch(number)

    def lost(self, role, number, reason):
        self._pace.lost(number)

    def finished(self, role, number, outcome):
        self._pace.finished(number)


def estimates(costs, **options):
    """Return, after every trial, the estimate, the truth, and what counting trials would say."""
    clock = Clock()
    pace = Pace(N_EPOCHS, clock)
    begun, times, found, counted = clock.now, [], [], []

    def after(n_ended):
        left = pace.seconds_left(len(costs) - n_ended)
        times.append(clock.now)
        found.append(-1.0 if left is None else left)
        counted.append((clock.now - begun) / n_ended * (len(costs) - n_ended))

    end = simulate(Paced(pace), clock, costs, n_epochs=N_EPOCHS, after=after, **options)
    return found, [end - time for time in times], counted


def spread_costs(seed, n_trials=40):
    rng = random.Random(seed)
    return [10 ** rng.uniform(0, 1.5) for _ in range(n_trials)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n_workers", [1, 2])
def test_the_eta_is_right_though_costly_trials_come_first(seed, n_workers):
    costs = spread_costs(seed)
    for begin in range(0, 40, 10):  # every generation has the same trials, in another order
        costs[begin : begin + 10] = random.Random(begin).sample(costs[:10], 10)
    found, truth, counted = estimates(costs, n_workers=n_workers)
    for n_ended in range(1 + n_workers, 25):
        assert found[n_ended - 1] == pytest.approx(truth[n_ended - 1], rel=0.25), n_ended
    if n_workers == 1:
        assert counted[1] > 1.5 * truth[1]


def test_waiting_for_a_generation_is_learned_from_the_first():
    costs = [30.0, *[2.0] * 9] * 4
    found, truth, _ = estimates(costs, n_workers=5)
    for n_ended in (10, 20, 30):
        assert found[n_ended - 1] == pytest.approx(truth[n_ended - 1], rel=0.25), n_ended


def test_counting_trials_misjudges_one_costly_trial():
    costs = [30.0, *[2.0] * 9] * 4
    found, truth, counted = estimates(costs, n_workers=1)
    assert counted[0] > 2 * truth[0]
    assert found[0] == pytest.approx(truth[0], rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_early_stops_are_learned_from_the_first_ones(seed):
    costs = spread_costs(seed)
    costs = [*costs[:10]] * 4
    rng = random.Random(seed)
    epochs = [rng.randint(3, 5) for _ in costs]
    seconds = [cost * n / N_EPOCHS for cost, n in zip(costs, epochs, strict=True)]
    found, truth, _ = estimates(costs, seconds=seconds, epochs=epochs, n_workers=1)
    for n_ended in (6, 10, 20):
        assert found[n_ended - 1] == pytest.approx(truth[n_ended - 1], rel=0.3), n_ended


def test_starting_the_workers_is_no_part_of_the_pace():
    costs = [10.0] * 20
    slow, truth, counted = estimates(costs, starting_s=1000.0)
    assert slow[1] == pytest.approx(truth[1], rel=0.15)
    assert counted[1] > 5 * truth[1]


def test_before_any_end_the_eta_assumes_all_epochs():
    clock = Clock()
    pace = Pace(100, clock)
    pace.dispatched(0, 5.0)
    pace.dispatched(1, 5.0)
    assert pace.seconds_left(2) is None
    clock.now += 50
    pace.epoch(0)
    assert pace.seconds_left(2) is None  # nothing to compare it with yet
    for _ in range(10):
        clock.now += 1
        pace.epoch(0)
    assert pace.seconds_left(2) == pytest.approx(89 + 100)
    assert not pace.certain
    pace.finished(0)
    assert pace.certain


def test_an_estimate_falls_while_trials_run():
    clock = Clock()
    pace = Pace(100, clock)
    pace.dispatched(0, 5.0)
    left = []
    for _ in range(90):
        clock.now += 1
        pace.epoch(0)
        left.append(pace.seconds_left(1))
    known = [seconds for seconds in left if seconds is not None]
    assert len(known) > 80
    assert all(later < earlier for earlier, later in pairwise(known))


def test_an_overlong_trial_is_never_taken_for_done():
    clock = Clock()
    pace = Pace(100, clock)
    for number in range(5):
        pace.dispatched(number, 1.0)
        clock.now += 1
        pace.epoch(number)
        pace.finished(number)
    pace.dispatched(5, 1.0)
    for _ in range(99):
        clock.now += 1
        pace.epoch(5)
    left = pace.seconds_left(1)
    assert left is not None
    assert left > 0


def test_a_trial_that_runs_again_has_its_work_before_it_again():
    clock = Clock()
    pace = Pace(10, clock)
    pace.dispatched(0, 1.0)
    pace.dispatched(1, 1.0)
    for _ in range(8):
        clock.now += 1
        pace.epoch(0)
        pace.epoch(1)
    before = pace.seconds_left(2)
    pace.lost(0)
    after = pace.seconds_left(2)
    assert before is not None
    assert after is not None
    assert after > 2 * before
    pace.finished(0)
    pace.finished(0)  # told twice, counted once
    pace.lost(7)  # nor does it know this one
    pace.epoch(7)
    assert pace.seconds_left(0) is None


def test_trials_without_an_epoch_break_no_estimate():
    clock = Clock()
    pace = Pace(10, clock)
    for number in range(4):
        pace.dispatched(number, 1.0)
    assert pace.seconds_left(4) is None
    clock.now += 3
    pace.finished(0)
    assert pace.seconds_left(3) == pytest.approx(9)
    pace.epoch(1)
    assert pace.seconds_left(3) is not None


def test_only_the_pace_of_this_run_counts_after_a_resume(folder):
    clock = Clock()
    standing = Standing(Experiment.load("air.yaml"), clock=clock)
    standing.totals[Role.TRIAL] = 60
    for number in range(30):
        standing.asked(Asked(Role.TRIAL, number, None, {}))
        standing.finished(Role.TRIAL, number, complete())
    assert standing.time_left(Role.TRIAL) == ""
    clock.now += 500  # the workers start
    simulate(standing, clock, [4.0] * 10, n_workers=1, first=30)
    assert standing.done(Role.TRIAL) == 40
    assert standing.time_left(Role.TRIAL) == "1:20 left, then 6 finalists"


def test_an_asynchronous_eta_counts_trials_not_asked_yet(folder):
    clock = Clock()
    standing = Standing(Experiment.load("air.yaml"), 2, clock=clock)
    standing.totals[Role.TRIAL] = 100
    simulate(standing, clock, [4.0] * 20, n_workers=2, generation=2)
    assert standing.time_left(Role.TRIAL) in [f"2:{s} left, then 6 finalists" for s in (39, 40)]


def test_a_late_epoch_costs_no_more_than_the_first(folder):
    import time

    def seconds_for_epochs(n_done):
        standing = Standing(Experiment.load("air.yaml"), 4)
        for number in range(n_done):
            standing.asked(Asked(Role.TRIAL, number, None, {}))
            standing.dispatched(Role.TRIAL, number, 1.0)
            standing.finished(Role.TRIAL, number, complete())
        standing.asked(Asked(Role.TRIAL, n_done, None, {}))
        standing.dispatched(Role.TRIAL, n_done, 1.0)
        begun = time.process_time()
        for k in range(20_000):
            standing.epoch(Role.TRIAL, n_done, epoch(k))
            if k % 100 == 0:
                standing.time_left(Role.TRIAL)
        return time.process_time() - begun

    few = min(seconds_for_epochs(10) for _ in range(3))
    many = min(seconds_for_epochs(20_000) for _ in range(3))
    assert many < 4 * few
