"""The registry of strategies, and the arguments of their samplers."""

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import optuna
import pytest
from helpers.swarms import SPACE
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.errors import SpaceError
from tuner.strategies import (
    STRATEGIES,
    ParticleSwarmSampler,
    QuantumSwarmSampler,
    Rhythm,
    WhaleSampler,
    installed,
)
from tuner.strategies.grid import (
    BruteForceStrategy,
    GridStrategy,
    QuasiRandomStrategy,
    every_value,
    spaced_values,
)
from tuner.strategies.optuna_strategies import RandomStrategy, TPEStrategy
from tuner.strategies.population import CmaSampler, PopulationSampler
from tuner.strategies.swarms import ParticleSwarmStrategy, WhaleStrategy

SMALL_SPACE = {"x": FloatDistribution(0, 1)}


def test_own_strategies_need_no_look_at_the_installed_packages(monkeypatch):
    monkeypatch.delattr("tuner.strategies.entry_points")
    assert [installed(name) for name in STRATEGIES] == [None] * len(STRATEGIES)


def test_every_strategy_is_registered_under_its_name():
    assert list(STRATEGIES) == [
        *("random", "tpe", "cmaes", "gp", "qmc", "grid", "brute", "pso", "qpso", "woa", "nsga2")
    ]
    for name, strategy in STRATEGIES.items():
        assert strategy().name == name
        assert strategy.summary().endswith(".")


def test_a_population_makes_a_generation_and_a_batch_does_not():
    assert ParticleSwarmStrategy(population=7).rhythm == Rhythm(7, generational=True)
    assert WhaleStrategy().rhythm == Rhythm(10, generational=True)
    assert RandomStrategy().rhythm == Rhythm(4, generational=False)
    assert TPEStrategy(batch=1).rhythm == Rhythm(1, generational=False)


def test_a_generation_waits_for_the_one_before_it():
    rhythm = Rhythm(3, generational=True)
    assert [rhythm.told_before(k) for k in range(8)] == [0, 0, 0, 3, 3, 3, 6, 6]


def test_a_batch_keeps_as_many_trials_in_flight_as_its_size():
    rhythm = Rhythm(3, generational=False)
    assert [rhythm.told_before(k) for k in range(6)] == [0, 0, 0, 1, 2, 3]
    assert [Rhythm(1, generational=False).told_before(k) for k in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(("trials", "n_generations"), [(40, 4), (41, 5), (1, 1), (None, 20)])
def test_schedules_last_as_many_generations_as_the_budget_allows(trials, n_generations):
    sampler = WhaleStrategy().make_sampler(SMALL_SPACE, 0, trials)
    assert isinstance(sampler, PopulationSampler)
    assert sampler.n_generations == n_generations


def test_an_extended_search_differs_from_a_longer_one():
    def search(*budgets):
        study = optuna.create_study()
        study.sampler = WhaleStrategy().make_sampler(SMALL_SPACE, 0, budgets[0])  # as it began
        for _ in range(budgets[-1]):
            trial = study.ask(SMALL_SPACE)
            study.tell(trial, trial.params["x"])
        return [t.params["x"] for t in study.trials]

    assert search(20, 40)[:10] == search(40)[:10]
    assert search(20, 40) != search(40)


def test_options_reach_the_sampler():
    options = ParticleSwarmStrategy(population=5, inertia=0.1, c1=0.2, c2=0.3, velocity_clamp=0.4)
    pso = options.make_sampler(SMALL_SPACE, 9, 40)
    assert isinstance(pso, PopulationSampler)
    assert (pso.population_size, pso.options, options.clamp) == (5, options, (-0.4, 0.4))
    assert (pso.n_generations, pso.seed, pso.search_space) == (8, 9, SMALL_SPACE)


def test_listing_strategies_imports_no_library_behind_them():
    code = (
        "import sys\n"
        "from tuner.strategies import STRATEGIES\n"
        "[s.summary() for s in STRATEGIES.values()]\n"
        "heavy = {'optuna', 'pandas', 'pyswarms', 'scipy', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


@pytest.mark.parametrize("value", [np.array(["star", "ring"]), ["star"], None])
def test_a_name_that_is_no_string_is_refused_by_name_and_value(value):
    got = f"got {re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=rf"^topology must be 'star' or 'ring', {got}"):
        ParticleSwarmSampler(topology=value)


@pytest.mark.parametrize("value", [b"\x00\x01", bytearray(b"\x00\x01")])
def test_bytes_are_no_velocities(value):
    with pytest.raises(ValueError, match=r"^velocity_clamp must be .*, got b"):
        ParticleSwarmSampler(velocity_clamp=value)


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
    with pytest.raises(SpaceError, match=r"search_space.rate: must have finitely .* a step$"):
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


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_quasi_random_trials_cover_every_range_evenly(sequence):
    space = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a", "b", "c", "d"])}
    sampler = QuasiRandomStrategy(sequence=sequence).make_sampler(space, 0, None)
    study = optuna.create_study(sampler=sampler)
    search(study, space, 64)
    x = np.array([t.params["x"] for t in study.trials])
    counts = np.histogram(x, bins=8, range=(0, 1))[0]
    assert counts.min() >= 7
    choices = [t.params["c"] for t in study.trials]
    assert all(14 <= choices.count(c) <= 18 for c in "abcd")
