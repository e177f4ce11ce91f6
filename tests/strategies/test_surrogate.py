"""The model that chooses among a swarm's candidates."""

import math
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from threadpoolctl import threadpool_info, threadpool_limits

from tuner.strategies import ParticleSwarmSampler, WhaleSampler, surrogate
from tuner.strategies.base import Record, Turn
from tuner.strategies.codec import Codec
from tuner.strategies.surrogate import Told, candidates_of, choose

LINE = Codec({"x": FloatDistribution(0, 1)})
STEPS = Codec({"n": IntDistribution(1, 10)})
SPACE = {
    "x": FloatDistribution(-1, 1),
    "n": IntDistribution(1, 9),
    "c": CategoricalDistribution(["a", "b", "c"]),
}
N = 4


def column(places):
    return np.array(places, dtype=float)[:, np.newaxis]


def chosen(told, *candidates, codec=LINE):
    """Return where each individual goes, in one dimension."""
    records = [[Record(np.array([x])) for x in own] for own in candidates]
    return [float(record.position[0]) for record in choose(told, records, codec)]


def told_of(costs, codec=LINE):
    """What is known: costs by place."""
    return Told(codec.snap(column(list(costs))), np.array(list(costs.values())))


VALLEY = {x: abs(x - 0.3) for x in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}


def test_the_candidate_that_promises_most_is_chosen():
    assert chosen(told_of(VALLEY), [0.9, 0.3, 0.7], [0.1, 0.95]) == [0.3, 0.1]


def test_how_far_off_a_bad_trial_is_does_not_count():
    far = VALLEY | {1.0: 1e12}
    candidates = np.random.default_rng(0).random((9, 5))
    assert chosen(told_of(far), *candidates) == chosen(told_of(VALLEY), *candidates)


def test_a_failed_trial_is_the_worst():
    failed = told_of({0.0: 2.0, 0.3: math.inf, 0.6: 1.0, 0.9: 0.5})
    assert failed.samples()[1].argmax() == 1
    assert chosen(failed, [0.3001, 0.9001]) == [0.9001]


def test_an_unfinished_trial_counts_as_seen_alone():
    running = told_of({0.0: 2.0, 0.3: math.nan, 0.6: 1.0, 0.9: 0.5})
    assert running.samples()[0][:, 0].tolist() == [0.0, 0.6, 0.9]
    assert chosen(running, [0.3, 0.01]) == [0.01]


def test_a_configuration_that_was_trained_is_not_chosen():
    steps = [(k + 0.5) / 10 for k in range(10)]
    told = told_of({x: abs(x - 0.35) for x in steps[:8]}, STEPS)
    best, bad = 0.35, 0.98
    assert chosen(told, [best, 0.31, bad], codec=STEPS) == [bad]  # 0.31 is the best step too
    assert chosen(told, [0.75, best], codec=STEPS) == [best]  # nothing is left


def test_no_two_individuals_take_one_configuration():
    told = told_of({0.05: 1.0, 0.95: 0.5}, STEPS)
    found = chosen(told, *[[0.75, 0.55, 0.35]] * 3, codec=STEPS)
    assert sorted(found) == [0.35, 0.55, 0.75]


def test_a_duplicate_counts_once():
    costs = np.array([3.0, 1.0, 2.0, 1.0, 1.0])
    places, scores = Told(column([0.1, 0.5, 0.9, 0.5, 0.5]), costs).samples()
    assert places[:, 0].tolist() == [0.1, 0.5, 0.9]
    assert scores.tolist() == pytest.approx([0.9674, -0.9674, 0], abs=1e-4)


def test_a_configuration_has_the_best_of_its_scores():
    """As in an Optuna study of one's own, where a duplicate is evaluated again."""
    costs = np.array([math.inf, 2.0, 3.0, 1.0, math.nan])
    places, scores = Told(column([0.1, 0.5, 0.9, 0.1, 0.9]), costs).samples()
    assert places[:, 0].tolist() == [0.1, 0.5, 0.9]
    assert scores.argsort().tolist() == [0, 1, 2]


def test_two_failed_trials_are_equally_bad():
    costs = np.array([math.inf, 2.0, math.inf, 1.0])
    _, scores = Told(column([0.1, 0.4, 0.7, 0.9]), costs).samples()
    assert scores[0] == scores[2] > scores[1] > scores[3]


def test_of_equal_promises_the_better_expectation_is_chosen(monkeypatch):
    means, promises = np.array([0.3, 0.1, 0.2, 0.0]), np.array([1.0, 1.0, 1.0, 0.5])
    monkeypatch.setattr(surrogate, "_promise", lambda *_: (means, promises))
    assert chosen(told_of(VALLEY), [0.91, 0.92, 0.93, 0.94]) == [0.92]


def test_of_many_trials_the_best_and_the_latest_are_fitted():
    rng = np.random.default_rng(0)
    costs = rng.permutation(1000).astype(float)
    numbers = np.arange(1000)
    places, _ = Told(column(numbers), costs).samples()
    kept = set(places[:, 0].astype(int).tolist())
    best = set(numbers[costs < 100].tolist())
    latest = [k for k in numbers.tolist() if k not in best][-100:]
    assert kept == best | set(latest)


def test_trials_that_end_late_lead_to_no_duplicates():
    """Those of the generation before, as with `n_jobs`."""
    space = {"n": IntDistribution(1, 30)}
    for seed in range(5):
        sampler = WhaleSampler(population_size=N, candidates=60, seed=seed, search_space=space)
        study = optuna.create_study(sampler=sampler)
        late = [study.ask(space) for _ in range(N)]
        study.tell(late[0], 5.0)
        found = []
        for trial, value in zip([*late[1:], None], (3.0, 1.0, 4.0, None), strict=True):
            found.append(study.ask(space).params["n"])
            if trial is not None:
                study.tell(trial, value)
        assert len({*found, *(trial.params["n"] for trial in late)}) == 2 * N, (seed, found)


def swarm_past(sampler, seed=0):
    first = np.random.default_rng(seed).random((N, 6))
    records = [Record(x, np.zeros(6)) for x in first]
    return sampler.options.learn(None, 0, records, np.arange(N, dtype=float))


@pytest.mark.parametrize("sampler_class", [ParticleSwarmSampler, WhaleSampler])
def test_every_second_candidate_is_a_mutated_move(sampler_class):
    sampler = sampler_class(population_size=N, candidates=40, seed=1)
    past, turn = swarm_past(sampler), Turn(1, 0, 20, 1)
    found = candidates_of(sampler.options, past, turn)
    assert [len(own) for own in found] == [40] * N
    shares = []
    for i, own in enumerate(found):
        assert own[0].position.tolist() == sampler.move(past, 1, i).position.tolist()
        for c, record in enumerate(own):
            moved = sampler.options.move(past, Turn(1, i, 20, 1, c))
            redrawn = record.position != moved.position
            if c % 2 == 0:
                assert not redrawn.any()
            else:
                assert redrawn.any()
                shares.append(redrawn.mean())
            if record.velocity is not None:
                assert (record.velocity == moved.velocity).all()
        if i > 0:  # the leader does not fly
            assert len({record.position.tobytes() for record in own}) == 40
    assert 0.25 < np.mean(shares) < 0.4  # 1 / 6, and then one of five in five
    mutations = {record.position.tobytes() for own in found for record in own[1::2]}
    assert len(mutations) == 20 * N


def test_the_record_is_that_of_the_chosen_candidate():
    sampler = ParticleSwarmSampler(population_size=N, candidates=9, seed=1, search_space=SPACE)
    study = optuna.create_study(sampler=sampler)
    for _ in range(3 * N):
        trial = study.ask(SPACE)
        study.tell(trial, abs(trial.params["x"] - 0.2) + trial.params["n"])
    codec = Codec(SPACE)
    found = candidates_of(sampler.options, sampler.past(study, 2, codec), Turn(2, 0, 20, 1))
    others = 0
    for trial, own in zip(study.trials[2 * N :], found, strict=True):
        record = trial.system_attrs["swarm"]
        matching = [r for r in own if r.position.tolist() == record["position"]]
        assert [r.velocity.tolist() for r in matching] == [record["velocity"]]
        assert codec.decode(matching[0].position) == trial.params
        others += matching[0] is not own[0]
    assert others > 0


def test_a_model_is_fitted_once_a_generation(monkeypatch):
    fits, threads = [], []
    fitted = surrogate._fitted

    def counting(places, scores):
        fits.append(len(scores))
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        threads.append([pool["num_threads"] for pool in pools])
        return fitted(places, scores)

    monkeypatch.setattr(surrogate, "_fitted", counting)
    sampler = WhaleSampler(population_size=N, candidates=5, seed=1, search_space=SPACE)
    study = optuna.create_study(sampler=sampler)
    with threadpool_limits(2, "blas"):
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert 2 in [pool["num_threads"] for pool in pools]
        for k in range(4 * N):
            trial = study.ask(SPACE)
            if k == 1:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, trial.params["x"])
    assert fits == [N, 2 * N, 3 * N]
    assert {n for numbers in threads for n in numbers} == {1}  # sums have one order


def test_a_finite_space_has_hardly_a_duplicate():
    space = {"n": IntDistribution(1, 9), "m": IntDistribution(1, 9)}

    def n_distinct(candidates):
        sampler = ParticleSwarmSampler(
            population_size=5, candidates=candidates, seed=2, search_space=space
        )
        study = optuna.create_study(sampler=sampler)
        for _ in range(60):
            trial = study.ask(space)
            study.tell(trial, (trial.params["n"] - 3) ** 2 + (trial.params["m"] - 7) ** 2)
        return len({str(t.params) for t in study.trials})

    assert n_distinct(100) >= 59
    assert n_distinct(1) < 50


@pytest.mark.parametrize("sampler_class", [ParticleSwarmSampler, WhaleSampler])
def test_candidates_lead_to_better_trials(sampler_class):
    space = {name: FloatDistribution(0, 1) for name in "uvwx"}

    def least(seed, **options):
        sampler = sampler_class(population_size=5, seed=seed, search_space=space, **options)
        study = optuna.create_study(sampler=sampler)
        for _ in range(30):
            trial = study.ask(space)
            study.tell(trial, sum((x - 0.27) ** 2 for x in trial.params.values()))
        return study.best_value

    plain = np.mean([math.log(least(seed)) for seed in range(12)])
    assert np.mean([math.log(least(seed, candidates=40)) for seed in range(12)]) < plain - 0.4


@pytest.mark.parametrize("value", [0, 1001, 2.5, True, "3"])
def test_a_number_of_candidates_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=r"^candidates must be "):
        ParticleSwarmSampler(candidates=value)


def test_candidates_of_a_generation_are_bounded():
    assert ParticleSwarmSampler(population_size=1000, candidates=100)
    with pytest.raises(ValueError, match="must be at most 100 with a population_size of 1000"):
        ParticleSwarmSampler(population_size=1000, candidates=101)


def test_candidates_are_predicted_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    told = Told(rng.random((30, 1)), rng.random(30))
    candidates = rng.random((9, 5))
    whole = chosen(told, *candidates)
    monkeypatch.setattr("tuner.strategies.surrogate._PART", 7)
    assert chosen(told, *candidates) == whole


def test_a_swarm_without_candidates_imports_no_scikit_learn():
    code = """
import sys, optuna
from tuner.strategies import ParticleSwarmSampler
optuna.logging.set_verbosity(optuna.logging.WARNING)
for candidates in (1, 2):
    study = optuna.create_study(
        sampler=ParticleSwarmSampler(population_size=3, seed=0, candidates=candidates)
    )
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=9)
    print("sklearn" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.slow
def test_a_generation_of_a_long_study_is_chosen_quickly():
    rng = np.random.default_rng(0)
    codec = Codec({name: FloatDistribution(0, 1) for name in "uvwxyz"})
    told = Told(rng.random((1000, 6)), rng.random(1000))
    candidates = [[Record(x) for x in own] for own in rng.random((10, 60, 6))]
    choose(told, candidates, codec)  # imports
    took = []
    for _ in range(3):
        before = time.thread_time()
        choose(told, candidates, codec)
        took.append(time.thread_time() - before)
    assert min(took) < 0.3
