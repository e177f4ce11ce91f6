"""How long a search takes, and what is in progress."""

import math
import random
from itertools import pairwise

import pytest
from helpers.simulated_progress import Clock, complete, epoch, simulate

from tuner.coordination.events import Asked, Observer
from tuner.experiment import Experiment, Override
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role
from tuner.progress.watcher import Pace, Standing, clock_text

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


TRIAL, FINALIST = Role.TRIAL, Role.FINALIST


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def standing(folder, clock):
    return Standing(Experiment.load("air.yaml"), 2, clock=clock)


def hand_out(standing, *numbers):
    for number in numbers:
        standing.asked(Asked(TRIAL, number, None, {"hidden_size": number}))
        standing.dispatched(TRIAL, number, 1.0)


def running(standing):
    return [number for _, number in standing.running]


def waiting(standing):
    return [number for _, number in standing.waiting]


def test_as_many_trials_run_as_there_are_workers(standing):
    hand_out(standing, 3, 0, 2, 1)
    assert (running(standing), waiting(standing)) == ([3, 0], [2, 1])
    standing.finished(TRIAL, 3, complete())
    assert (running(standing), waiting(standing)) == ([0, 2], [1])
    assert standing.running[TRIAL, 2].params == {"hidden_size": 2}


def test_a_trial_that_reports_an_epoch_runs_whatever_the_order(standing):
    hand_out(standing, 0, 1, 2, 3)
    standing.epoch(TRIAL, 3, epoch(0, 21.5))
    assert running(standing) == [0, 1, 3]
    assert (standing.running[TRIAL, 3].epochs, standing.running[TRIAL, 3].value) == (1, 21.5)
    standing.finished(TRIAL, 0, complete())
    assert (running(standing), waiting(standing)) == ([1, 3], [2])


def test_the_time_of_a_trial_counts_from_when_it_began_to_train(folder, clock):
    wall = Clock()
    wall.now = 1.7e9
    standing = Standing(Experiment.load("air.yaml"), 2, clock=clock, wall=wall)
    begun = clock.now
    hand_out(standing, 0, 1, 2)
    assert [trial.since for trial in standing.running.values()] == [None, None]
    clock.now += 60
    wall.now += 60
    standing.began(TRIAL, 0, wall.now - 40)
    standing.epoch(TRIAL, 0, epoch(0))
    assert standing.running[TRIAL, 0].since == begun + 20
    assert standing.running[TRIAL, 1].since is None
    standing.began(TRIAL, 2, wall.now - 10)  # it has a worker after all
    assert standing.running[TRIAL, 2].since == begun + 50
    standing.lost(TRIAL, 0, "its worker died")
    assert standing.waiting[TRIAL, 0].since is None


@pytest.mark.parametrize(("ago", "since"), [(1e6, 0), (-1e6, 60)])
def test_a_wrong_remote_clock_gives_no_impossible_times(folder, clock, ago, since):
    standing = Standing(Experiment.load("air.yaml"), 2, clock=clock, wall=clock)
    begun = clock.now
    hand_out(standing, 0)
    clock.now += 60
    standing.began(TRIAL, 0, clock.now - ago)
    assert standing.running[TRIAL, 0].since == begun + since


def with_timeout(clock, seconds, **budget):
    keys = {"timeout": seconds, "trials": 4} | budget
    overrides = [Override(f"budget.{key}", value, "test") for key, value in keys.items()]
    return Standing(Experiment.load("air.yaml", overrides), 1, clock=clock)


def train_one_in(standing, clock, seconds):
    hand_out(standing, 0, 1, 2, 3)
    for k in range(3):
        clock.now += seconds / 3
        standing.epoch(TRIAL, 0, epoch(k))
    standing.finished(TRIAL, 0, complete())


@pytest.mark.parametrize(
    ("timeout", "used", "left"),
    [
        (1000, 0, "0:30 left, then 6 finalists"),
        (30, 0, "at most 0:20 left, then 6 finalists"),
        (1000, 975, "at most 0:15 left, then 6 finalists"),
        (5, 0, "the time is up"),
        (1000, 1000, "the time is up"),
    ],
)
def test_the_time_left_is_never_more_than_the_budget_has(folder, clock, timeout, used, left):
    standing = with_timeout(clock, timeout)
    clock.now += 100  # until it begins: no part of its time
    standing.used(used)
    train_one_in(standing, clock, 10)
    assert standing.time_left(TRIAL) == left


def test_a_search_without_a_trial_budget_shows_its_time(folder, clock):
    standing = with_timeout(clock, 18, trials=None)
    train_one_in(standing, clock, 10)
    assert standing.time_left(TRIAL) == "at most 0:08 left, then 6 finalists"


def test_the_time_left_of_finalists_is_theirs_alone(folder, clock):
    standing = with_timeout(clock, 5)
    for number in range(2):
        standing.asked(Asked(FINALIST, number, None, {}))
        standing.dispatched(FINALIST, number, 1.0)
    for k in range(3):
        clock.now += 4
        standing.epoch(FINALIST, 0, epoch(k))
    standing.finished(FINALIST, 0, complete())
    assert standing.time_left(FINALIST) == "0:12 left"


def test_a_lost_trial_requeues_last_and_restarts(standing, clock):
    hand_out(standing, 0, 1, 2)
    standing.epoch(TRIAL, 0, epoch(6))
    standing.lost(TRIAL, 0, "its worker died")
    assert (running(standing), waiting(standing)) == ([1, 2], [0])
    standing.finished(TRIAL, 1, complete())
    assert running(standing) == [2, 0]
    assert standing.running[TRIAL, 0].epochs == 0
    assert standing.running[TRIAL, 0].params == {"hidden_size": 0}
    assert standing.done(TRIAL) == 1


def test_once_it_is_stopping_what_waits_is_not_begun_any_more(folder):
    stopping = False
    standing = Standing(Experiment.load("air.yaml"), 1, stopping=lambda: stopping)
    hand_out(standing, 0, 1)
    stopping = True
    standing.finished(TRIAL, 0, complete())
    assert running(standing) == []
    assert standing.time_left(TRIAL) == ""


def test_before_any_end_the_time_left_is_an_upper_bound(standing, clock):
    hand_out(standing, 0)
    for k in range(2):
        clock.now += 10
        standing.epoch(TRIAL, 0, epoch(k))
    assert standing.time_left(TRIAL) == "up to 1:40 left, then 6 finalists"
    standing.finished(TRIAL, 0, complete())
    assert not standing.time_left(TRIAL).startswith("up to")


def test_trials_of_an_earlier_run_were_never_in_progress(standing):
    standing.asked(Asked(TRIAL, 0, None, {}))
    assert not standing.in_progress(TRIAL, 0)
    standing.finished(TRIAL, 0, complete(3.0))
    standing.asked(Asked(TRIAL, 1, None, {}))
    standing.dispatched(TRIAL, 1, 1.0)
    assert standing.in_progress(TRIAL, 1)
    assert standing.done(TRIAL) == 1
    assert standing.best == (3.0, 0)


def test_a_repeat_is_no_trial_that_was_trained(standing):
    hand_out(standing, 0)
    standing.asked(Asked(TRIAL, 1, 0, {}))
    standing.finished(TRIAL, 0, complete())
    assert (standing.done(TRIAL), standing.repeats) == (1, 1)
    assert (running(standing), waiting(standing)) == ([], [])


def test_a_trial_lost_for_good_is_a_failed_one(standing):
    hand_out(standing, 0)
    standing.finished(TRIAL, 0, Outcome(OutcomeState.FAILED, reason="lost 3 times"))
    assert standing.counts[TRIAL][OutcomeState.FAILED] == 1
    assert running(standing) == []
    assert standing.best is None


@pytest.mark.parametrize(
    ("metric", "values", "best"), [("rmse", [2, 1, 1, 3], 1), ("r2", [0.1, -5, 0.9, 0.9], 2)]
)
def test_the_best_is_the_first_of_equals_in_the_search(folder, metric, values, best):
    experiment = Experiment.load("air.yaml", [Override("objective.metric", metric, "test")])
    standing = Standing(experiment)
    for number, value in enumerate(values):
        hand_out(standing, number)
        standing.finished(TRIAL, number, complete(value))
    standing.asked(Asked(FINALIST, 0, None, {}))
    standing.dispatched(FINALIST, 0, 1.0)
    standing.finished(FINALIST, 0, complete(math.inf if metric == "r2" else 0.0))
    assert standing.best == (values[best], best)


def test_the_totals_are_what_can_be_trained(folder):
    path = folder / "small.yaml"
    path.write_text(
        "name: small\ndata: {path: air.csv, target: passengers}\n"
        "search_space: {num_layers: {type: int, low: 1, high: 2}}\nfinalists: {top: 3}\n"
    )
    standing = Standing(Experiment.load(path))
    assert standing.totals[TRIAL] == 2
    for number in range(6):  # two configurations, three repeats
        standing.asked(Asked(FINALIST, number, None, {}))
    assert standing.totals[FINALIST] == 6


def test_the_time_of_a_stage_stands_still_when_it_is_over(standing, clock):
    assert standing.elapsed(TRIAL) == 0
    hand_out(standing, 0, 1, 2, 3)
    clock.now += 30
    assert standing.elapsed(TRIAL) == 30
    for number in range(4):
        standing.finished(TRIAL, number, complete())
    clock.now += 12
    standing.asked(Asked(FINALIST, 0, None, {}))
    clock.now += 7
    assert (standing.elapsed(TRIAL), standing.elapsed(FINALIST)) == (30, 7)


def test_nothing_of_a_trial_that_ended_is_kept(standing):
    for number in range(1000):
        hand_out(standing, number)
        standing.epoch(TRIAL, number, epoch(0))
        standing.finished(TRIAL, number, complete())
        standing.asked(Asked(TRIAL, 1000 + number, None, {}))  # an earlier run's
        standing.finished(TRIAL, 1000 + number, complete())
    kept = [standing.running, standing.waiting, standing._asked]
    kept.append(standing._paces[TRIAL]._in_progress)
    assert [len(what) for what in kept] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599.4, "59:59"), (90061, "25:01:01")]
)
def test_durations_are_written_as_on_a_clock(seconds, text):
    assert clock_text(seconds) == text
