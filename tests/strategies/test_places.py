"""Where a trial stands: its record, else its parameters."""

import numpy as np
import optuna
import pytest
from helpers.swarms import SPACE, N, positions, search
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.strategies.codec import Codec

UNIT = FloatDistribution(0, 1)


def test_individuals_move_from_their_undecoded_positions(make):
    space = {"n": IntDistribution(1, 3), "c": CategoricalDistribution(["a", "b", "c"])}
    sampler = make(search_space=space)
    study = optuna.create_study(sampler=sampler)
    for _ in range(2 * N):
        study.tell(study.ask(space), 1.0)
    past = sampler.past(study, 2, Codec(space))
    assert past is not None
    np.testing.assert_array_equal(past.positions, positions(study, range(N, 2 * N)))
    np.testing.assert_array_equal(past.best_positions, positions(study, range(N)))


def test_an_enqueued_trial_takes_its_place(make):
    best = {"x": 0.3, "y": 0.01, "n": 1, "c": "a", "one": 4}
    study = optuna.create_study(sampler=make(seed=8))
    study.enqueue_trial(best)
    params = search(study, 6 * N)
    assert params[0] == best
    assert all(params[k] != best for k in (N, 2 * N))  # it flies on
    codec = Codec(SPACE)
    distance = np.abs(positions(study, range(5 * N, 6 * N)) - codec.encode(best)).mean()
    assert distance < np.abs(positions(study, range(1, N)) - codec.encode(best)).mean()


def test_a_partly_enqueued_trial_stands_where_its_parameters_are(make):
    study = optuna.create_study(sampler=make())
    study.enqueue_trial({"x": 0.125})
    search(study, N)
    whole = optuna.create_study(sampler=make())
    whole.enqueue_trial(study.trials[0].params)
    assert search(study, 2 * N)[N:] == search(whole, 2 * N)[N:]


def test_trials_of_another_space_take_part_only_by_their_number(make):
    study = optuna.create_study(sampler=make())
    foreign = {"q": FloatDistribution(0, 1)}
    study.add_trial(optuna.create_trial(params={"q": 0.5}, distributions=foreign, value=-99.0))
    search(study, 3 * N)
    assert len(study.trials) == 3 * N


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"lr": UNIT, "y": UNIT}, {"rate": UNIT, "y": UNIT}),
        ({"u": UNIT, "v": UNIT}, {"x": UNIT, "y": UNIT}),
        ({"n": IntDistribution(1, 2)}, {"n": IntDistribution(1, 3)}),
    ],
)
def test_a_record_of_another_space_of_equal_size_is_refused(make, old, new):
    study = optuna.create_study(sampler=make(search_space=old))
    for _ in range(N):
        study.tell(study.ask(old), -99.0)
    assert make(search_space=old).past(study, 1, Codec(old)) is not None
    assert make(search_space=new).past(study, 1, Codec(new)) is None


def test_a_trial_asked_in_another_space_is_placed_there(make):
    old, new = {"u": UNIT, "v": UNIT}, {"x": UNIT, "y": UNIT}
    study = optuna.create_study(sampler=make(seed=9, search_space=old))
    trial = study.ask(old)
    study.sampler = make(search_space=new)
    again = optuna.Trial(study, trial._trial_id)
    other = optuna.create_study(sampler=make(search_space=new))
    assert again.relative_params == other.ask(new).params


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution should be")
def test_choices_may_be_lists(make):
    space = {"c": CategoricalDistribution([(1, 2), [3, 4], [5]]), "x": UNIT}
    study = optuna.create_study(sampler=make(search_space=space))
    for k in range(3 * N):
        study.tell(study.ask(space), float(k))
    assert len({str(t.params["c"]) for t in study.trials}) > 1
