"""How a search came to its best score, by its trials and by its seconds."""

import dataclasses
import datetime as dt
import math

import pytest
from helpers.compared_studies import NOON, search

from tuner.report.comparison import trajectory_of


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
