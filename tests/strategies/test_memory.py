"""What a swarm remembers between asks changes nothing but the time that an ask takes."""

import copy
import functools
import pickle
import time

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import get_storage
from optuna.trial import TrialState

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler
from tuner.strategies.codec import Codec
from tuner.strategies.population import CmaSampler

SPACE = {name: FloatDistribution(0, 1) for name in "uvwxyz"}
N = 4


SAMPLERS = [ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler, CmaSampler]
CANDIDATES = functools.partial(ParticleSwarmSampler, candidates=4)


@pytest.fixture(params=[*SAMPLERS, pytest.param(CANDIDATES, id="candidates")])
def make(request):
    def made(**options):
        defaults = {"population_size": N, "seed": 3, "search_space": SPACE}
        sampler = request.param(**(defaults | options))
        return sampler

    return made


@pytest.mark.parametrize("space", [SPACE, None])
def test_late_and_unordered_trials_count_from_their_end(make, space):
    def search(fresh_each_time):
        study = optuna.create_study(sampler=make(search_space=space))
        rng, running = np.random.default_rng(1), []
        for _ in range(12 * N):
            if fresh_each_time:
                study.sampler = make(search_space=space)
            running.append(study.ask(SPACE))
            while len(running) > rng.integers(2 * N):
                trial = running.pop(rng.integers(len(running)))
                if rng.random() < 0.2:
                    study.tell(trial, state=TrialState.FAIL)
                else:
                    study.tell(trial, sum(trial.params.values()))
        return [t.params for t in study.trials]

    assert search(fresh_each_time=False) == search(fresh_each_time=True)


@pytest.mark.parametrize("space", [SPACE, None])
@pytest.mark.parametrize("known_by", ["record and parameters", "record", "parameters"])
def test_a_running_trial_is_shown_as_soon_as_it_is_known(make, known_by, space):
    def search(fresh_each_time):
        study = optuna.create_study(sampler=make(search_space=space))
        for k in range(2 * N - 1):
            study.tell(study.ask(SPACE), float(k % 3))
        if known_by == "parameters":
            study.enqueue_trial(dict.fromkeys(SPACE, 0.25))
        slow = study.ask()  # Optuna asks for its place with the first parameter
        study.ask(SPACE)  # of the next generation
        if known_by == "record":
            assert slow.relative_params
        else:
            assert [slow.suggest_float(name, 0, 1) for name in SPACE]
        for _ in range(2 * N + 1, 3 * N):
            if fresh_each_time:
                study.sampler = make(search_space=space)
            study.ask(SPACE)
        return [t.params for t in study.trials]

    assert search(fresh_each_time=False) == search(fresh_each_time=True)


def test_studies_do_not_share_what_is_remembered(make):
    sampler = make()
    studies = [optuna.create_study(sampler=sampler) for _ in range(2)]
    for k in range(4 * N):
        for study, sign in zip(studies, (1, -1), strict=True):
            trial = study.ask(SPACE)
            study.tell(trial, sign * trial.params["u"] + k % 3)
    alone = optuna.create_study(sampler=make())
    for k in range(4 * N):
        trial = alone.ask(SPACE)
        alone.tell(trial, -trial.params["u"] + k % 3)
    assert [t.params for t in studies[1].trials] == [t.params for t in alone.trials]


def test_a_sampler_can_be_copied_and_pickled(make):
    sampler = make()
    study = optuna.create_study(sampler=sampler)
    for _ in range(2 * N):
        study.tell(study.ask(SPACE), 1.0)
    codec = Codec(SPACE)
    moved = [
        other.move(other.past(study, 2, codec), 2, 1).position.tolist()
        for other in (sampler, copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler)))
    ]
    assert moved[0] == moved[1] == moved[2]


def test_a_generation_of_old_is_worked_out_again(make):
    sampler = make()
    study = optuna.create_study(sampler=sampler)
    for _ in range(12 * N):
        trial = study.ask(SPACE)
        study.tell(trial, trial.params["u"])
    codec = Codec(SPACE)
    for generation in (12, 2, 11, 1):
        a, b = (s.past(study, generation, codec) for s in (sampler, make()))
        moved = [sampler.move(past, generation, 1).position.tolist() for past in (a, b)]
        assert moved[0] == moved[1]


@functools.cache
def full(n_trials):
    rng = np.random.default_rng(0)
    study = optuna.create_study()
    study.add_trials(
        optuna.create_trial(
            params={name: float(x) for name, x in zip(SPACE, rng.random(6), strict=True)},
            distributions=SPACE,
            value=float(rng.random()),
        )
        for _ in range(n_trials)
    )
    return study


@pytest.mark.slow
@pytest.mark.parametrize("make", SAMPLERS, indirect=True)
@pytest.mark.parametrize("space", [SPACE, None])
def test_asking_stays_cheap_with_many_trials(make, space):
    def cost_s(n_trials):
        """The processor time of an ask, over two generations."""
        study = full(n_trials)
        study.sampler = make(population_size=10, search_space=space)
        study.tell(study.ask(SPACE), 1.0)  # reads the trials for the first time
        spent = 0.0
        for k in range(20):
            before = time.thread_time()
            trial = study.ask(SPACE)
            spent += time.thread_time() - before
            study.tell(trial, float(k))
        return spent / 20

    few = min(cost_s(100) for _ in range(2))
    many = min(cost_s(3_000) for _ in range(2))
    assert few < 0.005
    assert many < 2 * few + 0.0005


def test_a_reused_study_number_is_a_new_study(make):
    """SQLite gives out the numbers of deleted studies and trials again."""
    sampler, storage = make(search_space=None), get_storage("sqlite:///:memory:")

    def run(first, then, names):
        """A study whose last generation asks another sampler than the ones before."""
        space = {name: FloatDistribution(0, 1) for name in names}
        study = optuna.create_study(storage=storage, study_name="s", sampler=first)
        for k in range(4 * N):
            study.sampler = then if k >= 3 * N else first
            study.tell(study.ask(space), float(k % 3))
        params = [t.params for t in study.trials]
        optuna.delete_study(study_name="s", storage=storage)
        return params

    run(sampler, sampler, "uv")
    others = optuna.samplers.RandomSampler
    after = run(others(seed=1), sampler, "xy")
    assert after == run(others(seed=1), make(search_space=None), "xy")


def test_a_trial_that_never_ends_does_not_make_later_asks_dearer(make, monkeypatch):
    learned = []
    sampler = make()
    learn = sampler.options.learn

    def counting(self, past, generation, *rest):
        learned.append(generation)
        return learn(past, generation, *rest)

    monkeypatch.setattr(type(sampler.options), "learn", counting)
    # What is chosen does not count here, and a model to choose by takes long to fit.
    monkeypatch.setattr(
        "tuner.strategies.population.choose",
        lambda _, candidates, *rest: [c[0] for c in candidates],
    )
    study = optuna.create_study(sampler=sampler)
    running = [study.ask(SPACE) for _ in range(24)]  # far more than a generation holds
    running.pop(0)
    for k in range(250):
        before = len(learned)
        study.tell(running.pop(0), float(k % 7))
        running.append(study.ask(SPACE))
        assert len(learned) - before <= 12  # what 24 trials in flight reach back, twice over
