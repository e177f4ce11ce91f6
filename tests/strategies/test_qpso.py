import math
import re

import numpy as np
import pytest

from tuner.strategies import QuantumSwarmSampler
from tuner.strategies import rng as keys
from tuner.strategies.base import Record
from tuner.strategies.pso import move_particle


def test_a_step_is_the_formula_worked_by_hand():
    # attractor = (0.25 * 0.4 + 0.75 * 0.8, 0.5 * 0.2 + 0.5 * 0.6) = (0.7, 0.4)
    # |mean_best - x| = (0.2, 0.1); ln(1 / u) = (1, 2)
    moved = move_particle(
        np.array([0.5, 0.5]),
        np.array([0.4, 0.2]),
        np.array([0.8, 0.6]),
        np.array([0.3, 0.6]),
        alpha=0.75,
        phi=np.array([0.25, 0.5]),
        u=np.exp([-1.0, -2.0]),
        sign=np.array([1.0, -1.0]),
    )
    assert moved == pytest.approx([0.7 + 0.75 * 0.2, 0.4 - 0.75 * 0.1 * 2])


def test_a_particle_jumps_by_its_best_the_leader_and_the_mean():
    first, last = np.random.default_rng(0).random((2, 3, 4))
    for seed in range(20):
        sampler = QuantumSwarmSampler(population_size=3, n_generations=5, seed=seed)
        learn = sampler.options.learn
        past = learn(None, 0, [Record(x) for x in first], np.array([3.0, 1.0, 2.0]))
        past = sampler.options.learn(
            past, 1, [Record(x) for x in last], np.array([2.5, 4.0, math.inf])
        )
        phi, u, coin = keys.generator(seed, "qpso", 2, 0).random((3, 4))
        expected = move_particle(
            last[0],
            last[0],
            first[1],
            (last[0] + first[1] + first[2]) / 3,
            alpha=1 - 0.5 * 2 / 5,
            phi=phi,
            u=1 - u,
            sign=np.where(coin < 0.5, -1.0, 1.0),
        )
        assert sampler.move(past, 2, 0).position == pytest.approx(expected.clip(0, 1))


def test_a_particle_without_a_value_is_outside_the_mean():
    x = np.array([[0.1, 0.9], [0.4, 0.4], [0.6, 0.2]])
    sampler = QuantumSwarmSampler(population_size=3, seed=2)
    past = sampler.options.learn(None, 0, [Record(p) for p in x], np.array([math.inf, 1.0, 2.0]))
    _, u, coin = keys.generator(2, "qpso", 1, 0).random((3, 2))
    jump = (1 - 0.5 / 20) * np.abs(np.array([0.5, 0.3]) - x[0]) * -np.log(1 - u)
    expected = x[1] + np.where(coin < 0.5, -jump, jump)
    assert sampler.move(past, 1, 0).position == pytest.approx(expected.clip(0, 1))


def test_particles_never_leave_the_cube():
    sampler = QuantumSwarmSampler(population_size=2, alpha_start=1.7, alpha_end=1.7, seed=0)
    corners = [Record(np.array([0.0, 1.0])), Record(np.array([1.0, 0.0]))]
    past = sampler.options.learn(None, 0, corners, np.array([1.0, 2.0]))
    moved = np.array([sampler.move(past, g, 0).position for g in range(1, 100)])
    assert (moved.min(), moved.max()) == (0, 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("population_size", 1),
        ("alpha_start", 0.0),
        ("alpha_start", 1.8),
        ("alpha_end", 0.0),
        ("alpha_end", float("nan")),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name_and_value(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {re.escape(repr(value))}$"):
        QuantumSwarmSampler(**{argument: value})  # type: ignore[arg-type]
