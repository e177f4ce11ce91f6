"""Finalists and the winner, on records made by the real coordinator."""

import dataclasses

import pytest
from helpers.search_bench import make_experiment
from helpers.simulated_executor import SimulatedExecutor

from tuner.coordination.finalists import default_of, enqueue_finalists, rank_finalists
from tuner.errors import RunError
from tuner.journal.records import Status, TrialRecord
from tuner.journal.storage import FINALIST_ATTR, Role, training_seed, write_journal
from tuner.results.winner import find_winner


@pytest.fixture
def record(bench):
    return bench.run(make_experiment("random", trials=8), SimulatedExecutor(2))[1]


def repeats(record, scores):
    """Retrainings with these scores: {configuration: [score, or None for a failure]}."""
    made = []
    for configuration, values in scores.items():
        for repeat, value in enumerate(values):
            outcome = record.trials[configuration].outcome
            made.append(
                TrialRecord(
                    number=len(made),
                    role=Role.FINALIST,
                    params=record.trials[configuration].params,
                    seed=training_seed(3, Role.FINALIST, configuration, repeat),
                    status=Status.COMPLETE if value is not None else Status.FAILED,
                    asked_at=None,
                    outcome=dataclasses.replace(outcome, objective=value),
                    configuration=configuration,
                    repeat=repeat,
                )
            )
    return dataclasses.replace(record, finalists=tuple(made))


def no_default(record, **fields):
    """The record of a study without the untuned default, which trial 0 is."""
    finalists = record.experiment.finalists.model_copy(update={"baseline": False})
    experiment = record.experiment.model_copy(update={"finalists": finalists})
    return dataclasses.replace(record, experiment=experiment, **fields)


def top(record):
    return [t.number for t in record.ranked()[:3]]


def test_the_mean_over_fresh_seeds_decides_and_not_the_luckiest(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [1.0, 9.0, 9.0], b: [5.0, 5.0, 5.0], c: [6.0, 6.0, 6.0]})
    assert [f.trial.number for f in rank_finalists(judged)] == [b, c, a]
    winner = find_winner(judged)
    assert winner.trial.number == b
    assert winner.reproducible.seed == training_seed(3, Role.FINALIST, b, 0)


def test_a_finalist_with_a_failed_repeat_ranks_last(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [1.0, 1.0, None], b: [5.0, 5.0, 5.0], c: [None, None, None]})
    assert [f.trial.number for f in rank_finalists(no_default(judged))] == [b, a]


def test_unless_it_is_the_default_or_failed_as_often(record):
    assert default_of(repeats(record, {0: [1.0]})).number == 0
    a, b, c = top(record)
    others = [n for n in (a, b, c) if n]
    judged = repeats(record, {0: [3.0, None, 3.0], others[0]: [5.0] * 3, others[1]: [None, 2.0, 2]})
    assert [f.trial.number for f in rank_finalists(judged)] == [others[1], 0, others[0]]


def test_of_repeats_that_failed_as_often_the_better_mean_decides(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [1.0, 1.0, None], b: [None, 5.0, 5.0], c: [9.0, None, None]})
    assert [f.trial.number for f in rank_finalists(no_default(judged))] == [a, b, c]


def test_repeats_that_are_missing_have_not_failed(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [5.0, 5.0, 5.0], b: [1.0, 1.0], c: [3.0, 3.0, None]})
    judged = no_default(judged, first_repeats=2)
    assert [f.trial.number for f in rank_finalists(judged)] == [b, c, a]


def test_where_no_repeat_is_common_those_with_most_are_compared(record):
    a, b, c = top(record)
    judged = repeats(record, {a: [5.0, 5.0, 5.0], b: [3.0, 3.0, 3.0], c: [1.0, 9.0, 9.0]})
    left = {(a, 1), (a, 2), (b, 1), (c, 0)}
    judged = dataclasses.replace(
        no_default(judged, first_repeats=1),
        finalists=tuple(r for r in judged.finalists if (r.configuration, r.repeat) in left),
    )
    assert [f.trial.number for f in rank_finalists(judged)] == [b, a, c]


def test_without_finalists_the_best_trial_wins(record):
    winner = find_winner(record)
    assert winner.trial is record.ranked()[0]
    assert winner.reproducible is winner.trial


def test_a_study_without_a_complete_trial_has_no_winner(bench):
    _, record = bench.run(
        make_experiment("random", trials=3), SimulatedExecutor(1, fails=lambda job: True)
    )
    with pytest.raises(RunError, match="no complete trial; the last failure: it failed"):
        find_winner(record)


def test_finalists_are_queued_once_and_new_ones_are_added(bench, record):
    for _ in range(2):
        with write_journal(bench.location) as storage:
            study = enqueue_finalists(storage, record)
            queued = [tuple(t.user_attrs[FINALIST_ATTR]) for t in study.get_trials()]
        assert sorted(queued) == sorted((c, r) for c in top(record) for r in range(3))


def test_training_seeds_differ_between_roles_and_numbers():
    seeds = [training_seed(s, Role.TRIAL, n) for s in range(3) for n in range(50)]
    seeds += [
        training_seed(s, Role.FINALIST, n, r) for s in range(3) for n in range(50) for r in (0, 1)
    ]
    seeds += [training_seed(s, Role.BASELINE, r) for s in range(3) for r in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
