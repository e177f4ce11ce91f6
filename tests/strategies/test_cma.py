import math

import numpy as np
import pytest

from tuner.strategies import rng as keys
from tuner.strategies.base import Record
from tuner.strategies.population import CmaSampler


def test_the_distribution_matches_the_package_after_generations():
    import cmaes

    theirs = cmaes.CMA(
        np.full(3, 0.5), 0.3, bounds=np.array([[0.0, 1.0]] * 3), population_size=6, seed=1
    )
    sampler, past = CmaSampler(population_size=6, seed=4), None
    rng = np.random.default_rng(0)
    for generation in range(8):
        points = rng.random((6, 3))
        costs = ((points - 0.3) ** 2).sum(axis=1)
        past = sampler.options.learn(past, generation, [Record(x) for x in points], costs)
        theirs.tell(list(zip(points, costs.tolist(), strict=True)))
        assert past is not None
        assert past.mean == pytest.approx(theirs.mean, rel=1e-9)
        theirs.reseed_rng(keys.seed32(4, "cmaes", generation + 1, 2))
        drawn = sampler.move(past, generation + 1, 2).position
        assert drawn == pytest.approx(theirs.ask(), rel=1e-6)


def test_a_draw_leaves_the_distribution_as_it_was():
    sampler = CmaSampler(population_size=4, seed=0)
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, np.arange(4.0))
    draws = [sampler.move(past, 1, i).position.tolist() for i in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]


def test_a_generation_in_which_all_fail_teaches_nothing():
    sampler = CmaSampler(population_size=4, seed=0)
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, np.array([1.0, math.inf, 0.5, math.inf]))
    assert sampler.options.learn(past, 1, records, np.full(4, math.inf)) is past


def test_the_largest_cost_leaves_room_for_a_failure():
    sampler = CmaSampler(population_size=4, seed=0)
    costs = np.array([1.0, math.inf, np.finfo(float).max, -np.finfo(float).max])
    records = sampler.options.spread(sampler.seed, 0, 2)
    past = sampler.options.learn(None, 0, records, costs)
    ranks = sampler.options.learn(None, 0, records, np.array([3.0, math.inf, 4.0, 2.0]))
    assert past is not None
    assert ranks is not None
    assert past.mean.tolist() == ranks.mean.tolist()


def test_a_search_that_has_converged_begins_anew():
    sampler = CmaSampler(population_size=4, seed=0)
    past, records = None, sampler.options.spread(sampler.seed, 0, 2)
    for generation in range(200):
        past = sampler.options.learn(past, generation, records, np.ones(4))
        if past is None:
            return
        records = [sampler.move(past, generation + 1, i) for i in range(4)]
    pytest.fail("a plateau was searched for 200 generations")


@pytest.mark.parametrize(("argument", "value"), [("population_size", 3), ("sigma", 0.0)])
def test_an_argument_out_of_range_is_refused_by_name_and_value(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {value}$"):
        CmaSampler(**{argument: value})  # type: ignore[arg-type]
