"""How long a search takes, and what is in progress."""

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
from helpers.simulated_progress import Clock, complete, epoch, hand_out, simulate, taken_up, trial

from tuner.coordination.coordinator import Asked
from tuner.experiment import Experiment, Override
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.progress.progress import Progress, clock_text

N_EPOCHS = 10
TEMPLATE = Path(__file__).parents[2] / "experiments" / "air_passengers.yaml"


@pytest.fixture
def clock():
    return Clock()


class Paced(Progress):
    """A progress of so many trials, with what it estimates."""

    def __init__(self, clock, n_trials=1000, n_epochs=N_EPOCHS):
        super().__init__(clock=clock)
        overrides = {"budget.trials": n_trials, "budget.epochs": n_epochs, "finalists.top": 0}
        keys = [Override(key, value, "test") for key, value in overrides.items()]
        self.begin(Experiment.load(TEMPLATE, keys), n_workers=1000)

    @property
    def trials(self):
        return self.stages[Role.TRIAL]

    def seconds_left(self, n_left):
        trials = [*self.running.values(), *self.waiting.values()]
        return self.trials.seconds_left(n_left, trials, self.clock())

    def hand_out(self, *numbers, cost=1.0):
        for number in numbers:
            self.dispatched(trial(number), cost)

    def train(self, n_epochs, *numbers):
        """End an epoch of each a second."""
        for _ in range(n_epochs):
            self.clock.now += 1
            for key in map(trial, numbers):
                self.epoch(key, epoch(self.running[key].epochs if key in self.running else 0))

    def finish(self, number):
        self.finished(trial(number), complete())


def estimates(costs, **options):
    """Return, after every trial, the estimate, the truth, and what counting trials would say."""
    clock = Clock()
    paced = Paced(clock, len(costs))
    begun_at, times, found, counted = clock.now, [], [], []

    def after(n_ended):
        left = paced.seconds_left(len(costs) - n_ended)
        times.append(clock.now)
        found.append(-1.0 if left is None else left)
        counted.append((clock.now - begun_at) / n_ended * (len(costs) - n_ended))

    end = simulate(paced, clock, costs, n_epochs=N_EPOCHS, after=after, **options)
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


def test_before_any_end_the_eta_assumes_all_epochs(clock):
    pace = Paced(clock, n_epochs=100)
    pace.hand_out(0, 1, cost=5.0)
    assert pace.seconds_left(2) is None
    clock.now += 49
    pace.train(1, 0)
    assert pace.seconds_left(2) is None  # nothing to compare it with yet
    pace.train(10, 0)
    assert pace.seconds_left(2) == pytest.approx(89 + 100)
    assert not pace.trials.n_ended
    pace.finish(0)
    assert pace.trials.n_ended


def test_an_estimate_falls_while_trials_run(clock):
    pace, left = Paced(clock, n_epochs=100), []
    pace.hand_out(0, cost=5.0)
    for _ in range(90):
        pace.train(1, 0)
        left.append(pace.seconds_left(1))
    known = [seconds for seconds in left if seconds is not None]
    assert len(known) > 80
    assert all(later < earlier for earlier, later in pairwise(known))


def test_an_overlong_trial_is_never_taken_for_done(clock):
    pace = Paced(clock, n_epochs=100)
    for number in range(5):
        pace.hand_out(number)
        pace.train(1, number)
        pace.finish(number)
    pace.hand_out(5)
    pace.train(99, 5)
    assert pace.seconds_left(1) > 0


def test_a_trial_that_runs_again_has_its_work_before_it_again(clock):
    pace = Paced(clock, n_epochs=10)
    pace.hand_out(0, 1)
    pace.train(8, 0, 1)
    before = pace.seconds_left(2)
    pace.lost(trial(0), "its worker died")
    assert pace.seconds_left(2) > 2 * before > 0
    pace.finish(0)
    pace.finish(0)  # told twice, counted once
    pace.lost(trial(7), "its worker died")  # nor does it know this one
    pace.train(1, 7)
    assert pace.seconds_left(0) is None


def test_trials_without_an_epoch_break_no_estimate(clock):
    pace = Paced(clock, n_epochs=10)
    pace.hand_out(*range(4))
    assert pace.seconds_left(4) is None
    clock.now += 3
    pace.finish(0)
    assert pace.seconds_left(3) == pytest.approx(9)
    pace.train(1, 1)
    assert pace.seconds_left(3) is not None


def test_only_the_pace_of_this_run_counts_after_a_resume(folder):
    clock = Clock()
    standing = taken_up(Progress(clock=clock), Experiment.load("air.yaml"))
    standing.stages[Role.TRIAL].total = 60
    for number in range(30):
        standing.asked(Asked(trial(number), None, {}))
        standing.finished(trial(number), complete())
    assert standing.time_left(standing.stages[Role.TRIAL]) == ""
    clock.now += 500  # the workers start
    simulate(standing, clock, [4.0] * 10, n_workers=1, first=30)
    assert standing.stages[Role.TRIAL].done == 40
    assert standing.time_left(standing.stages[Role.TRIAL]) == "1:20 left, then 6 finalists"


def test_an_asynchronous_eta_counts_trials_not_asked_yet(folder):
    clock = Clock()
    standing = taken_up(Progress(clock=clock), Experiment.load("air.yaml"), 2)
    standing.stages[Role.TRIAL].total = 100
    simulate(standing, clock, [4.0] * 20, n_workers=2, generation=2)
    left = standing.time_left(standing.stages[Role.TRIAL])
    assert left in [f"2:{s} left, then 6 finalists" for s in (39, 40)]


TRIAL, FINALIST = Role.TRIAL, Role.FINALIST


@pytest.fixture
def standing(folder, clock):
    return taken_up(Progress(clock=clock), Experiment.load("air.yaml"), 2)


def running(standing):
    return [key.number for key in standing.running]


def waiting(standing):
    return [key.number for key in standing.waiting]


def test_as_many_trials_run_as_there_are_workers(standing):
    hand_out(standing, 3, 0, 2, 1)
    assert (running(standing), waiting(standing)) == ([3, 0], [2, 1])
    standing.finished(trial(3), complete())
    assert (running(standing), waiting(standing)) == ([0, 2], [1])
    assert standing.running[trial(2)].params == {}


def test_a_trial_that_reports_an_epoch_runs_whatever_the_order(standing):
    hand_out(standing, 0, 1, 2, 3)
    standing.epoch(trial(3), epoch(0, 21.5))
    assert running(standing) == [0, 1, 3]
    third = standing.running[trial(3)]
    assert (third.epochs, third.value) == (1, 21.5)
    standing.finished(trial(0), complete())
    assert (running(standing), waiting(standing)) == ([1, 3], [2])


def test_the_time_of_a_trial_counts_from_when_it_began_to_train(folder, clock):
    wall = Clock()
    wall.now = 1.7e9
    standing = taken_up(Progress(clock=clock, wall=wall), Experiment.load("air.yaml"), 2)
    begun = clock.now
    hand_out(standing, 0, 1, 2)
    assert [each.since for each in standing.running.values()] == [None, None]
    clock.now += 60
    wall.now += 60
    standing.began(trial(0), wall.now - 40)
    standing.epoch(trial(0), epoch(0))
    assert standing.running[trial(0)].since == begun + 20
    assert standing.running[trial(1)].since is None
    standing.began(trial(2), wall.now - 10)  # it has a worker after all
    assert standing.running[trial(2)].since == begun + 50
    standing.lost(trial(0), "its worker died")
    assert standing.waiting[trial(0)].since is None


@pytest.mark.parametrize(("ago", "since"), [(1e6, 0), (-1e6, 60)])
def test_a_wrong_remote_clock_gives_no_impossible_times(folder, clock, ago, since):
    standing = taken_up(Progress(clock=clock, wall=clock), Experiment.load("air.yaml"), 2)
    begun = clock.now
    hand_out(standing, 0)
    clock.now += 60
    standing.began(trial(0), clock.now - ago)
    assert standing.running[trial(0)].since == begun + since


def with_timeout(clock, seconds, used=0, **budget):
    keys = {"timeout": seconds, "trials": 4} | budget
    overrides = [Override(f"budget.{key}", value, "test") for key, value in keys.items()]
    return taken_up(Progress(clock=clock), Experiment.load("air.yaml", overrides), 1, used)


def train_one_in(standing, clock, seconds):
    hand_out(standing, 0, 1, 2, 3)
    for k in range(3):
        clock.now += seconds / 3
        standing.epoch(trial(0), epoch(k))
    standing.finished(trial(0), complete())


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
    standing = with_timeout(clock, timeout, used)
    train_one_in(standing, clock, 10)
    assert standing.time_left(standing.stages[TRIAL]) == left


def test_a_search_without_a_trial_budget_shows_its_time(folder, clock):
    standing = with_timeout(clock, 18, trials=None)
    train_one_in(standing, clock, 10)
    assert standing.time_left(standing.stages[TRIAL]) == "at most 0:08 left, then 6 finalists"


def test_the_time_left_of_finalists_is_theirs_alone(folder, clock):
    standing = with_timeout(clock, 5)
    for number in range(2):
        hand_out(standing, TrialKey(FINALIST, number))
    for k in range(3):
        clock.now += 4
        standing.epoch(TrialKey(FINALIST, 0), epoch(k))
    standing.finished(TrialKey(FINALIST, 0), complete())
    assert standing.time_left(standing.stages[FINALIST]) == "0:12 left"


def test_a_lost_trial_requeues_last_and_restarts(standing, clock):
    hand_out(standing, 0, 1, 2)
    standing.epoch(trial(0), epoch(6))
    standing.lost(trial(0), "its worker died")
    assert (running(standing), waiting(standing)) == ([1, 2], [0])
    standing.finished(trial(1), complete())
    assert running(standing) == [2, 0]
    assert standing.running[trial(0)].epochs == 0
    assert standing.running[trial(0)].params == {}
    assert standing.stages[TRIAL].done == 1


def test_once_it_is_stopping_what_waits_is_not_begun_any_more(folder):
    stopping = False
    standing = taken_up(Progress(stopping=lambda: stopping), Experiment.load("air.yaml"), 1)
    hand_out(standing, 0, 1)
    stopping = True
    standing.finished(trial(0), complete())
    assert running(standing) == []
    assert standing.time_left(standing.stages[TRIAL]) == ""


def test_before_any_end_the_time_left_is_an_upper_bound(standing, clock):
    hand_out(standing, 0)
    for k in range(2):
        clock.now += 10
        standing.epoch(trial(0), epoch(k))
    assert standing.time_left(standing.stages[TRIAL]) == "up to 1:40 left, then 6 finalists"
    standing.finished(trial(0), complete())
    assert not standing.time_left(standing.stages[TRIAL]).startswith("up to")


def test_trials_of_an_earlier_run_were_never_in_progress(standing):
    standing.asked(Asked(trial(0), None, {}))
    standing.finished(trial(0), complete(3.0), earlier=True)
    hand_out(standing, 1)
    assert running(standing) == [1]
    assert standing.stages[TRIAL].done == 1
    assert standing.best == (3.0, 0)


def test_a_repeat_is_no_trial_that_was_trained(standing):
    hand_out(standing, 0)
    standing.asked(Asked(trial(1), 0, {}))
    standing.finished(trial(0), complete())
    assert standing.stages[TRIAL].done == 1
    assert (running(standing), waiting(standing)) == ([], [])


def test_a_trial_lost_for_good_is_a_failed_one(standing):
    hand_out(standing, 0)
    standing.finished(trial(0), Outcome(OutcomeState.FAILED, reason="lost 3 times"))
    assert standing.stages[TRIAL].counts[OutcomeState.FAILED] == 1
    assert running(standing) == []
    assert standing.best is None


@pytest.mark.parametrize(
    ("metric", "values", "best"), [("rmse", [2, 1, 1, 3], 1), ("r2", [0.1, -5, 0.9, 0.9], 2)]
)
def test_the_best_is_the_first_of_equals_in_the_search(folder, metric, values, best):
    experiment = Experiment.load("air.yaml", [Override("objective.metric", metric, "test")])
    standing = taken_up(Progress(), experiment)
    for number, value in enumerate(values):
        hand_out(standing, number)
        standing.finished(trial(number), complete(value))
    hand_out(standing, TrialKey(FINALIST, 0))
    standing.finished(TrialKey(FINALIST, 0), complete(math.inf if metric == "r2" else 0.0))
    assert standing.best == (values[best], best)


def test_the_totals_are_what_can_be_trained(folder):
    path = folder / "small.yaml"
    path.write_text(
        "name: small\ndata: {path: air.csv, target: passengers}\n"
        "search_space: {num_layers: {type: int, low: 1, high: 2}}\nfinalists: {top: 3}\n"
    )
    standing = taken_up(Progress(), Experiment.load(path))
    assert standing.stages[TRIAL].total == 2
    for number in range(6):  # two configurations, three repeats
        standing.asked(Asked(TrialKey(FINALIST, number), None, {}))
    assert standing.stages[FINALIST].total == 6


def test_the_time_of_a_stage_stands_still_when_it_is_over(standing, clock):
    assert standing.elapsed(standing.stages[TRIAL]) == 0
    hand_out(standing, 0, 1, 2, 3)
    clock.now += 30
    assert standing.elapsed(standing.stages[TRIAL]) == 30
    for number in range(4):
        standing.finished(trial(number), complete())
    clock.now += 12
    standing.asked(Asked(TrialKey(FINALIST, 0), None, {}))
    clock.now += 7
    assert [standing.elapsed(stage) for stage in standing.stages.values()] == [30, 7]


def test_nothing_of_a_trial_that_ended_is_kept(standing):
    for number in range(1000):
        hand_out(standing, number)
        standing.epoch(trial(number), epoch(0))
        standing.finished(trial(number), complete())
        standing.asked(Asked(trial(1000 + number), None, {}))  # an earlier run's
        standing.finished(trial(1000 + number), complete())
    kept = [standing.running, standing.waiting, standing._asked]
    assert [len(what) for what in kept] == [0, 0, 0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599.4, "59:59"), (90061, "25:01:01")]
)
def test_durations_are_written_as_on_a_clock(seconds, text):
    assert clock_text(seconds) == text
