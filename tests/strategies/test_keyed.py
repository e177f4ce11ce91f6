import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler, TPESampler

from tuner.strategies.optuna_samplers import KeyedSampler

SPACE = {"x": FloatDistribution(0, 1), "y": CategoricalDistribution(["a", "b", "c"])}


def test_a_reopened_study_does_not_repeat_the_first_draws():
    study = optuna.create_study(sampler=KeyedSampler(RandomSampler, seed=0))
    for _ in range(5):
        study.tell(study.ask(SPACE), 1.0)
    study.sampler = KeyedSampler(RandomSampler, seed=0)
    for _ in range(5):
        study.tell(study.ask(SPACE), 1.0)
    assert len({t.params["x"] for t in study.trials}) == 10


def test_parameters_of_one_trial_have_separate_generators():
    study = optuna.create_study(sampler=KeyedSampler(RandomSampler, seed=0))
    trial = study.ask()
    assert len({trial.suggest_float(name, 0, 1) for name in "abcdef"}) == 6


def test_every_trial_has_a_sampler_with_a_seed_of_its_own():
    seeds = []

    def build(seed):
        seeds.append(seed)
        return RandomSampler(seed)

    study = optuna.create_study(sampler=KeyedSampler(build, seed=0))
    trials = [study.ask() for _ in range(3)]
    assert all(trial.relative_params == {} for trial in trials)
    assert len(set(seeds)) == 3
    once = set(seeds)
    assert all(optuna.Trial(study, trial._trial_id).relative_params == {} for trial in trials)
    assert set(seeds) == once


def test_the_sampler_inside_still_learns_from_the_trials():
    sampler = KeyedSampler(lambda seed: TPESampler(seed=seed, n_startup_trials=10), seed=0)
    study = optuna.create_study(sampler=sampler)
    for _ in range(60):
        trial = study.ask(SPACE)
        study.tell(trial, abs(trial.params["x"] - 0.7) + (trial.params["y"] != "b"))
    late = study.trials[40:]
    assert sum(t.params["y"] == "b" for t in late) >= 11
    assert sum(abs(t.params["x"] - 0.7) < 0.1 for t in late) >= 10


def test_a_seed_that_is_not_given_is_drawn():
    assert KeyedSampler(RandomSampler).seed != KeyedSampler(RandomSampler).seed
