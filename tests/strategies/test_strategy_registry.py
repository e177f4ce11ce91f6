import subprocess
import sys

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tuner.strategies import STRATEGIES, Rhythm
from tuner.strategies.others import RandomStrategy, TPEStrategy
from tuner.strategies.population import PopulationSampler
from tuner.strategies.pso import ParticleSwarmStrategy
from tuner.strategies.woa import WhaleStrategy

SPACE = {"x": FloatDistribution(0, 1)}


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
    sampler = WhaleStrategy().make_sampler(SPACE, 0, trials)
    assert isinstance(sampler, PopulationSampler)
    assert sampler.n_generations == n_generations


def test_an_extended_search_differs_from_a_longer_one():
    def search(*budgets):
        study = optuna.create_study()
        study.sampler = WhaleStrategy().make_sampler(SPACE, 0, budgets[0])  # as it began
        for _ in range(budgets[-1]):
            trial = study.ask(SPACE)
            study.tell(trial, trial.params["x"])
        return [t.params["x"] for t in study.trials]

    assert search(20, 40)[:10] == search(40)[:10]
    assert search(20, 40) != search(40)


def test_options_reach_the_sampler():
    options = ParticleSwarmStrategy(population=5, inertia=0.1, c1=0.2, c2=0.3, velocity_clamp=0.4)
    pso = options.make_sampler(SPACE, 9, 40)
    assert isinstance(pso, PopulationSampler)
    assert (pso.population_size, pso.options, options.clamp) == (5, options, (-0.4, 0.4))
    assert (pso.n_generations, pso.seed, pso.search_space) == (8, 9, SPACE)


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
