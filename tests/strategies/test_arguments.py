"""What the constructors make of their arguments."""

import re
from fractions import Fraction

import numpy as np
import optuna
import pytest
from helpers.swarms import SPACE
from optuna.distributions import FloatDistribution

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.listed import QuasiRandomSampler
from tuner.strategies.population import CmaSampler


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("population_size", 2.5),
        ("population_size", "a"),
        ("population_size", True),
        ("population_size", None),
        ("n_generations", 2.5),
        ("n_generations", 0),
        ("seed", -1),
        ("seed", 1.9),
        ("seed", "0"),
        ("search_space", 3),
        ("search_space", {"x": (0, 1)}),
        ("search_space", {1: FloatDistribution(0, 1)}),
    ],
)
def test_an_argument_of_a_wrong_kind_is_refused(make, argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {re.escape(repr(value))}$"):
        make(**{argument: value})


def test_numpys_numbers_are_numbers(make):
    sampler = make(population_size=np.int64(4), seed=np.int32(3), search_space=SPACE)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)


@pytest.mark.parametrize(
    ("sampler", "names"),
    [
        (ParticleSwarmSampler, ["inertia", "inertia_end", "c1", "c1_end", "c2", "c2_end"]),
        (QuantumSwarmSampler, ["alpha_start", "alpha_end"]),
        (WhaleSampler, ["b", "a_start", "a_end"]),
        (CmaSampler, ["sigma"]),
    ],
)
def test_every_kind_of_number_becomes_a_float(sampler, names):
    half = dict.fromkeys(names, Fraction(1, 2))
    made = sampler(population_size=4, seed=0, search_space={"x": FloatDistribution(0, 1)}, **half)
    assert [getattr(made.options, name) for name in names] == [0.5] * len(names)
    assert {type(getattr(made.options, name)) for name in names} == {float}
    study = optuna.create_study(sampler=made)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)


@pytest.mark.parametrize("value", [np.array(["star", "ring"]), ["sobol"], None])
def test_a_name_that_is_no_string_is_refused_by_name_and_value(value):
    got = f"got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=rf"^topology must be 'star' or 'ring', {got}"):
        ParticleSwarmSampler(topology=value)
    with pytest.raises(ValueError, match=rf"^sequence must be 'sobol' or 'halton', {got}"):
        QuasiRandomSampler(SPACE, sequence=value)


@pytest.mark.parametrize("value", [b"\x00\x01", bytearray(b"\x00\x01")])
def test_bytes_are_no_velocities(value):
    with pytest.raises(ValueError, match=r"^velocity_clamp must be .*, got b"):
        ParticleSwarmSampler(velocity_clamp=value)


def test_the_cmaes_message_names_its_least_population():
    for n in (1, 3):
        with pytest.raises(ValueError, match=rf"^population_size must be .* equal to 4, got {n}$"):
            CmaSampler(population_size=n)
