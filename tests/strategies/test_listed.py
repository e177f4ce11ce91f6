import numpy as np
import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.errors import SpaceError
from tuner.strategies.listed import GridSampler, QuasiRandomSampler, every_value, spaced_values
from tuner.strategies.others import BruteForceStrategy, GridStrategy

FINITE = {
    "n": IntDistribution(1, 4),
    "c": CategoricalDistribution(["a", "b", "c"]),
    "f": FloatDistribution(0.0, 0.2, step=0.1),
}


def search(study, space, n):
    for _ in range(n):
        study.tell(study.ask(space), 1.0)
    return [tuple(t.params[name] for name in sorted(space)) for t in study.trials]


def test_brute_force_tries_every_configuration_once():
    sampler = BruteForceStrategy().make_sampler(FINITE, 0, None)
    found = search(optuna.create_study(sampler=sampler), FINITE, 36)
    assert len(set(found)) == 36
    assert found != sorted(found)


def test_a_configuration_with_other_parameters_is_retried_last():
    study = optuna.create_study(sampler=BruteForceStrategy().make_sampler(FINITE, 0, None))
    for n in (3, 2):
        study.enqueue_trial({"n": n, "c": "b", "f": 0.1})
    assert len(set(search(study, FINITE, 38))) == 36
    search(study, FINITE, 3)  # when nothing is left it goes on, at random


def test_brute_force_refuses_an_infinite_space():
    space = FINITE | {"rate": FloatDistribution(0.1, 1.0)}
    with pytest.raises(SpaceError, match=r"search_space: rate: must have finitely .* a step$"):
        BruteForceStrategy().make_sampler(space, 0, None)


def test_a_grid_that_nobody_could_try_is_refused():
    space = {f"x{i}": FloatDistribution(0, 1) for i in range(9)}
    with pytest.raises(SpaceError, match=r"at most 1,000,000 configurations, got 1,953,125"):
        GridStrategy().make_sampler(space, 0, None)


def test_a_range_too_long_to_list_is_not_listed():
    space = {"n": IntDistribution(0, 2**100)}
    assert spaced_values(space, 3)["n"] == [0, 2**99, 2**100]
    with pytest.raises(SpaceError, match=r"at most 1,000,000 configurations, got 1,267,650,600"):
        BruteForceStrategy().make_sampler(space, 0, None)


def test_a_grid_has_few_values_of_a_number_and_all_choices():
    space = FINITE | {
        "x": FloatDistribution(-1, 1),
        "rate": FloatDistribution(1e-4, 1, log=True),
        "units": IntDistribution(8, 128),
        "two": IntDistribution(1, 2, log=True),
        "one": FloatDistribution(3.0, 3.0),
    }
    values = spaced_values(space, 3)
    assert values.pop("rate") == pytest.approx([1e-4, 1e-2, 1])
    assert values == {
        "n": [1, 3, 4],
        "c": ["a", "b", "c"],
        "f": [0.0, 0.1, 0.2],
        "x": [-1.0, 0.0, 1.0],
        "units": [8, 68, 128],
        "two": [1, 2],
        "one": [3.0],
    }
    assert every_value(FINITE)["n"] == [1, 2, 3, 4]


def test_another_seed_is_another_order():
    found = [
        search(
            optuna.create_study(sampler=GridSampler(FINITE, every_value(FINITE), seed=seed)),
            FINITE,
            36,
        )
        for seed in (0, 1)
    ]
    assert found[0] != found[1]
    assert set(found[0]) == set(found[1])


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_quasi_random_trials_cover_every_range_evenly(sequence):
    space = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a", "b", "c", "d"])}
    sampler = QuasiRandomSampler(space, sequence=sequence, seed=0)
    study = optuna.create_study(sampler=sampler)
    search(study, space, 64)
    x = np.array([t.params["x"] for t in study.trials])
    counts = np.histogram(x, bins=8, range=(0, 1))[0]
    assert counts.min() >= 7
    choices = [t.params["c"] for t in study.trials]
    assert all(14 <= choices.count(c) <= 18 for c in "abcd")


def test_an_unknown_sequence_is_refused():
    with pytest.raises(ValueError, match=r"^sequence must be 'sobol' or 'halton', got 'x'$"):
        QuasiRandomSampler(FINITE, sequence="x")
