import math

import numpy as np
import pytest

from tuner.strategies import WhaleSampler
from tuner.strategies import rng as keys
from tuner.strategies.base import Record
from tuner.strategies.woa import move_whale

X = np.array([0.5, -0.5])
LEADER = np.array([0.2, 0.4])
OTHER = np.array([-0.6, 0.1])


def step(**drawn):
    return move_whale(
        X, LEADER, OTHER, **({"A": 0.0, "C": 1.0, "ell": 0.0, "b": 1.0} | drawn)
    ).tolist()


def test_a_whale_encircles_the_leader_as_worked_by_hand():
    # D = |1.5 X* - X| = (0.2, 1.1); X' = X* - 0.5 D
    assert step(p=0.49, A=0.5, C=1.5) == pytest.approx([0.1, -0.15])
    assert step(p=0.49, A=-0.5, C=1.5) == pytest.approx([0.3, 0.95])


def test_a_whale_searches_around_another_as_worked_by_hand():
    # D = |0.5 X_rand - X| = (0.8, 0.55); X' = X_rand - A D
    assert step(p=0.49, A=-1.0, C=0.5) == pytest.approx([0.2, 0.65])
    assert step(p=0.49, A=1.5, C=0.5) == pytest.approx([-1.8, -0.725])


def test_a_whale_spirals_towards_the_leader_as_worked_by_hand():
    # D' = |X* - X| = (0.3, 0.9); cos(2 pi l) = 1 at 0, 0 at 1/4, -1 at -1/2
    assert step(p=0.5, A=1.5) == pytest.approx([0.5, 1.3])
    assert step(p=0.9, ell=0.25) == pytest.approx([0.2, 0.4])
    shrunk = math.exp(-0.5 * 2)
    assert step(p=0.9, ell=-0.5, b=2.0) == pytest.approx([0.2 - 0.3 * shrunk, 0.4 - 0.9 * shrunk])


def past_of(*generations):
    """What the whales know after these positions and costs."""
    sampler, past = WhaleSampler(), None
    for g, (whales, costs) in enumerate(generations):
        records = [Record(x) for x in np.array(whales, dtype=float)]
        past = sampler.options.learn(past, g, records, np.array(costs))
    assert past is not None
    return past


@pytest.mark.parametrize("individual", [0, 1, 2])
def test_a_whale_moves_in_unit_bounds_by_the_leader(individual):
    first, last = np.random.default_rng(0).random((2, 3, 2))
    past = past_of((first, [3.0, 1.0, 2.0]), (last, [4.0, 5.0, 6.0]))
    for seed in range(20):
        rng = keys.generator(seed, "woa", 2, individual)
        r1, r2, p = rng.random(3)
        ell, other = rng.uniform(-1, 1), rng.integers(3)
        a = 2 - 2 * 2 / 5
        x, leader, prey = (2 * z - 1 for z in (last[individual], first[1], last[other]))
        expected = move_whale(x, leader, prey, A=2 * a * r1 - a, C=2 * r2, p=p, ell=ell, b=1)
        sampler = WhaleSampler(population_size=3, n_generations=5, seed=seed)
        moved = 2 * sampler.move(past, 2, individual).position - 1
        assert moved == pytest.approx(expected.clip(-1, 1))


def test_a_late_whale_that_encircles_comes_close_to_the_leader():
    past = past_of(([[0.5, 0.5], [0.9, 0.7]], [1.0, 2.0]))  # the leader is the origin: X' = -A |X|

    def share_close(generation):
        samplers = [WhaleSampler(population_size=2, n_generations=99, seed=s) for s in range(200)]
        moved = np.array([s.move(past, generation, 1).position for s in samplers])
        return float((np.abs(2 * moved - 1).max(axis=1) < 2 / 99).mean())

    assert 0.4 < share_close(98) < 0.6  # all but the spirals
    assert share_close(99) < 0.1  # the next cycle has begun


def test_a_new_cycle_starts_where_the_first_one_did():
    past = past_of(([[0.3, 0.5], [0.9, 0.7]], [1.0, 2.0]))
    a_of_cycle_start = WhaleSampler(population_size=2, n_generations=7, a_end=0, seed=1)
    constant_a = WhaleSampler(population_size=2, n_generations=7, a_end=2, seed=1)
    for generation, same in ((7, True), (14, True), (13, False)):
        moved = [
            [s.move(past, generation, i).position.tolist() for i in range(2)]
            for s in (a_of_cycle_start, constant_a)
        ]
        assert (moved[0] == moved[1]) is same


def test_whales_never_leave_the_cube():
    sampler = WhaleSampler(population_size=3, a_start=4, a_end=4, b=10, seed=0)
    past = past_of(([[0.0, 1.0], [1.0, 0.0], [0.1, 0.5]], [3.0, 1.0, math.inf]))
    moved = np.array([sampler.move(past, g, 0).position for g in range(1, 200)])
    assert moved.min() == 0.0
    assert moved.max() == 1.0


def test_whales_converge_on_a_sphere_in_ten_dimensions():
    sampler = WhaleSampler(population_size=20, n_generations=100, seed=0)
    records, past, best = sampler.options.spread(sampler.seed, 0, 10), None, math.inf
    for generation in range(1, 100):
        positions = np.array([r.position for r in records])
        costs = ((2 * positions - 1) ** 2).sum(axis=1)  # in the middle, where C pulls to
        best = min(best, costs.min())
        past = sampler.options.learn(past, generation - 1, records, costs)
        records = [sampler.move(past, generation, i) for i in range(20)]
    assert best < 1e-12


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("population_size", 1),
        ("n_generations", 0),
        ("b", 0.0),
        ("b", float("nan")),
        ("a_start", 4.5),
        ("a_start", 0.0),
        ("a_end", -0.1),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name_and_value(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {value}$"):
        WhaleSampler(**{argument: value})
