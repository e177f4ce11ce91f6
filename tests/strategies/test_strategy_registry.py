import subprocess
import sys

import optuna
import pytest
from optuna.distributions import FloatDistribution

from tuner.experiment.strategy import (
    ParticleSwarmStrategy,
    RandomStrategy,
    TPEStrategy,
    WhaleStrategy,
)
from tuner.strategies import (
    STRATEGIES,
    ParticleSwarmSampler,
    Rhythm,
    WhaleSampler,
    make_sampler,
    rhythm_of,
)

SPACE = {"x": FloatDistribution(0, 1)}


def test_every_strategy_is_registered_under_its_name():
    assert list(STRATEGIES) == [
        *("random", "tpe", "cmaes", "gp", "qmc", "grid", "brute", "pso", "qpso", "woa", "nsga2")
    ]
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert strategy.options().name == name  # type: ignore[attr-defined]
        assert strategy.summary.endswith(".")


def test_a_population_makes_a_generation_and_a_batch_does_not():
    assert rhythm_of(ParticleSwarmStrategy(population=7)) == Rhythm(7, generational=True)
    assert rhythm_of(WhaleStrategy()) == Rhythm(10, generational=True)
    assert rhythm_of(RandomStrategy()) == Rhythm(4, generational=False)
    assert rhythm_of(TPEStrategy(batch=1)) == Rhythm(1, generational=False)


def test_a_generation_waits_for_the_one_before_it():
    rhythm = Rhythm(3, generational=True)
    assert [rhythm.told_before(k) for k in range(8)] == [0, 0, 0, 3, 3, 3, 6, 6]


def test_a_batch_keeps_as_many_trials_in_flight_as_its_size():
    rhythm = Rhythm(3, generational=False)
    assert [rhythm.told_before(k) for k in range(6)] == [0, 0, 0, 1, 2, 3]
    assert [Rhythm(1, generational=False).told_before(k) for k in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(("trials", "n_generations"), [(40, 4), (41, 5), (1, 1), (None, 20)])
def test_schedules_last_as_many_generations_as_the_budget_allows(trials, n_generations):
    sampler = make_sampler(WhaleStrategy(), SPACE, 0, trials)
    assert isinstance(sampler, WhaleSampler)
    assert sampler.n_generations == n_generations


def test_an_extended_search_differs_from_a_longer_one():
    def search(*budgets):
        study = optuna.create_study()
        study.sampler = make_sampler(WhaleStrategy(), SPACE, 0, budgets[0])  # as it began
        for _ in range(budgets[-1]):
            trial = study.ask(SPACE)
            study.tell(trial, trial.params["x"])
        return [t.params["x"] for t in study.trials]

    assert search(20, 40)[:10] == search(40)[:10]
    assert search(20, 40) != search(40)


def test_options_reach_the_sampler():
    options = ParticleSwarmStrategy(population=5, inertia=0.1, c1=0.2, c2=0.3, velocity_clamp=0.4)
    pso = make_sampler(options, SPACE, 9, 40)
    assert isinstance(pso, ParticleSwarmSampler)
    assert (pso.population_size, pso.inertia, pso.c1, pso.c2) == (5, 0.1, 0.2, 0.3)
    assert (pso.velocity_clamp, pso.seed, pso.search_space) == ((-0.4, 0.4), 9, SPACE)
    assert (pso.topology, pso.neighbors) == ("star", 3)
    assert (pso.inertia_end, pso.c1_end, pso.c2_end) == (0.1, 0.2, 0.3)  # constant
    woa = make_sampler(WhaleStrategy(population=5, b=2, a_start=1.5, a_end=0.5), SPACE, 9, 40)
    assert isinstance(woa, WhaleSampler)
    assert (woa.b, woa.a_start, woa.a_end, woa.seed) == (2, 1.5, 0.5, 9)


def test_listing_strategies_imports_no_library_behind_them():
    code = (
        "import sys\n"
        "from tuner.strategies import STRATEGIES\n"
        "[s.summary for s in STRATEGIES.values()]\n"
        "heavy = {'numpy', 'optuna', 'pandas', 'pyswarms', 'scipy', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
