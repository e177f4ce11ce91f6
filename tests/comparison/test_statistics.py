"""Statistics of a comparison, and the curve of a search."""

import dataclasses
import datetime as dt
import itertools
import math

import numpy as np
import pytest
from helpers.compared_studies import NOON, search
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import quantile_test, rankdata

from tuner.report.comparison import trajectory_of
from tuner.results.differences import ALPHA, fewest_seeds, median_interval, pairwise

scores = st.floats(0, 100) | st.integers(0, 3).map(float) | st.just(math.inf)
samples = st.integers(1, 6).flatmap(
    lambda n: st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]),
        st.lists(scores, min_size=n, max_size=n),
        min_size=2,
        max_size=4,
    )
)
quickly = settings(max_examples=examples(40))


def by_pair(costs):
    """What `pairwise` finds, in an order of its own: wins of the first name, and p-values."""
    found = {}
    for d in pairwise(costs):
        a, b = sorted((d.better, d.worse))
        wins = d.wins if d.better == a else 1 - d.wins
        found[a, b] = tuple(round(x, 9) for x in (wins, d.p_value, d.p_adjusted))
    return found


@pytest.mark.parametrize("n", range(6, 30))
def test_the_interval_is_the_narrowest_with_95_percent(n):
    values = np.random.default_rng(n).normal(size=n)
    interval = median_interval(values.tolist())
    theirs = quantile_test(values, q=0.0, p=0.5).confidence_interval(0.95)
    assert (interval.low, interval.high) == (theirs.low, theirs.high)
    assert interval.confidence >= 0.95


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_the_interval_covers_the_median_as_often_as_it_says(n):
    samples = np.random.default_rng(n).exponential(size=(20_000, n))
    intervals = [median_interval(sample) for sample in samples.tolist()]
    covered = np.mean([i.low <= math.log(2) <= i.high for i in intervals])
    assert covered == pytest.approx(intervals[0].confidence, abs=0.012)


def test_infinite_scores_are_the_outermost_of_an_interval():
    interval = median_interval([3.0, math.inf, 2.0, 4.0, 1.0])
    assert (interval.low, interval.high) == (1.0, math.inf)


@quickly
@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_strategies_and_seeds_does_not_matter(costs, random):
    names = list(costs)
    random.shuffle(names)
    shuffled = {name: random.sample(costs[name], len(costs[name])) for name in names}
    assert by_pair(shuffled) == by_pair(costs)


@quickly
@given(st.lists(scores, min_size=1, max_size=12), st.integers(2, 4))
def test_identical_scores_are_never_different(values, n_strategies):
    for d in pairwise(dict.fromkeys("abcd"[:n_strategies], values)):
        assert (d.wins, d.p_value, d.p_adjusted) == (0.5, 1.0, 1.0)


@quickly
@given(samples)
def test_only_the_order_of_scores_matters_and_not_their_unit(costs):
    flat = [c for values in costs.values() for c in values]
    ranks = dict(zip(flat, rankdata(flat, method="dense"), strict=True))
    in_ranks = {name: [float(ranks[c]) for c in values] for name, values in costs.items()}
    assert by_pair(in_ranks) == by_pair(costs)


@quickly
@given(samples)
def test_the_better_one_wins_at_least_half_of_the_pairs(costs):
    for d in pairwise(costs):
        pairs = list(itertools.product(costs[d.better], costs[d.worse]))
        wins = sum((a < b) + (a == b) / 2 for a, b in pairs) / len(pairs)
        assert d.wins == pytest.approx(wins)
        assert wins >= 0.5


@quickly
@given(samples)
def test_the_correction_never_increases_certainty_nor_order(costs):
    found = pairwise(costs)
    assert len(found) == math.comb(len(costs), 2)
    assert all(0 < d.p_value <= d.p_adjusted <= 1 for d in found)
    assert [d.p_adjusted for d in found] == sorted(d.p_adjusted for d in found)
    assert [d.p_value for d in found] == sorted(d.p_value for d in found)


def test_the_correction_is_holms():
    # p-values 0.0079, 0.0159 and 0.0556, by the tables of the U test.
    costs = {"a": [1, 2, 3, 4, 5.5], "b": [5, 7, 8, 9, 10], "c": [6, 11, 12, 13, 14]}
    found = {(d.better, d.worse): d for d in pairwise(costs)}
    raw = {pair: d.p_value for pair, d in found.items()}
    smallest, middle, largest = sorted(raw.values())
    expected = [3 * smallest, max(3 * smallest, 2 * middle), max(2 * middle, largest)]
    assert sorted(d.p_adjusted for d in found.values()) == pytest.approx(expected)
    assert raw["a", "c"] == pytest.approx(2 / 252)
    assert raw["a", "b"] == pytest.approx(4 / 252)


@quickly
@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_with_draws_the_p_value_is_that_of_all_permutations(a, b):
    (d,) = pairwise({"a": a, "b": b})
    ranks = rankdata(a + b)
    sums = [sum(ranks[list(i)]) for i in itertools.combinations(range(6), 3)]
    observed = sum(ranks[:3])
    tails = np.mean(np.array(sums) <= observed + 1e-9), np.mean(np.array(sums) >= observed - 1e-9)
    assert d.p_value == pytest.approx(min(1.0, 2 * min(tails)))


@pytest.mark.parametrize("n_strategies", range(2, 11))
def test_so_many_seeds_are_enough_and_fewer_are_not(n_strategies):
    def surest(n_seeds):
        """Strategies whose scores never overlap."""
        return pairwise({f"{i}": range(100 * i, 100 * i + n_seeds) for i in range(n_strategies)})

    n = fewest_seeds(n_strategies)
    assert n >= 5
    assert surest(n)[0].p_adjusted <= ALPHA
    assert n == 5 or surest(n - 1)[0].p_adjusted > ALPHA


def test_the_best_score_so_far_follows_the_trials_numbers():
    found = trajectory_of(search([3.0, None, 5.0, 2.0]), 4)
    assert found.best == (3.0, 3.0, 3.0, 2.0)
    assert found.score == 2.0
    assert (found.study, found.strategy, found.seed) == ("made-tpe-0", "tpe", 0)


def test_without_a_complete_trial_the_best_is_infinitely_bad():
    assert trajectory_of(search([None, 3.0]), 2).best == (math.inf, 3.0)
    assert trajectory_of(search([None, 0.3], metric="r2"), 2).best == (-math.inf, 0.3)
    assert trajectory_of(search([None, None]), 2).score == math.inf
    assert trajectory_of(search([math.nan, 7.0]), 2).best == (math.inf, 7.0)


def test_a_greater_score_is_better_where_the_metric_says_so():
    assert trajectory_of(search([0.2, 0.1, 0.3], metric="r2"), 3).best == (0.2, 0.2, 0.3)


def test_what_was_trained_beyond_the_budget_does_not_count():
    found = trajectory_of(search([3.0, 2.0, 1.0]), 2)
    assert found.best == found.best_then == (3.0, 2.0)
    assert found.seconds == (1.0, 2.0)


def test_repeats_are_no_trials():
    found = trajectory_of(search([3.0, 9.0, 2.0], repeats={1: 0}), 2)
    assert found.best == (3.0, 2.0)


def test_time_is_known_by_when_trials_ended():
    # Two at a time: trial 1 ends before trial 0, and within its time.
    record = search([5.0, 4.0, 3.0], spans=[(0, 10), (2, 5), (5, 12)])
    found = trajectory_of(record, 3)
    assert found.seconds == (5.0, 10.0, 12.0)
    assert found.best_then == (4.0, 4.0, 3.0)
    assert found.best == (5.0, 4.0, 3.0)


def test_the_pause_between_two_runs_takes_no_seconds():
    day = 86400
    record = search([5.0, 4.0, 3.0], spans=[(0, 10), (3, 12), (day, day + 8)])
    assert trajectory_of(record, 3).seconds == (10.0, 12.0, 20.0)


def test_what_a_search_took_beside_training_is_spread_over_it():
    # It trained for ten seconds, of the twenty that it took.
    record = search([5.0, 4.0], spans=[(1, 5), (12, 18)], recorded_s=20.0)
    assert trajectory_of(record, 2).seconds == (8.0, 20.0)
    assert trajectory_of(record, 1).seconds == (8.0,)


def test_a_trial_lost_too_often_does_no_harm():
    record = search([5.0, None, 4.0])
    lost = dataclasses.replace(record.trials[1].outcome, seconds=0.0, finished_at=0.0)
    trials = list(record.trials)
    trials[1] = dataclasses.replace(trials[1], outcome=lost)
    found = trajectory_of(dataclasses.replace(record, trials=tuple(trials)), 3)
    assert found.seconds == pytest.approx((0.0, 1.0, 2.0))
    assert found.best_then == (math.inf, 5.0, 4.0)


def test_the_start_of_the_first_workers_takes_no_seconds():
    # Asked at noon, it trained from the fifth second to the tenth, and ended two seconds later.
    record = search([5.0, 4.0], spans=[(5, 8), (8, 10)], recorded_s=12.0)
    noon = dt.datetime.fromtimestamp(NOON)
    trials = tuple(dataclasses.replace(t, asked_at=noon) for t in record.trials)
    record = dataclasses.replace(record, trials=trials)
    assert trajectory_of(record, 2).seconds == pytest.approx((3 * 7 / 5, 7.0))
    killed = dataclasses.replace(record, seconds_recorded=0.0)  # it wrote nothing down
    assert trajectory_of(killed, 2).seconds == (3.0, 5.0)
