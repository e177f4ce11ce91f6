import subprocess
import sys

import numpy as np
import optuna
import pytest
from helpers.swarms import SPACE, N, positions, search, value_of
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler


def test_the_first_generation_covers_every_range_evenly(make):
    study = optuna.create_study(sampler=make())
    search(study, N)
    strata = np.floor(positions(study, range(N)) * N)
    assert (np.sort(strata, axis=0) == np.arange(N)[:, np.newaxis]).all()


def test_a_generation_does_not_see_itself(make):
    one_by_one = optuna.create_study(sampler=make())
    expected = search(one_by_one, 5 * N)

    together = optuna.create_study(sampler=make())
    for _ in range(5):
        asked = [together.ask(SPACE) for _ in range(N)]
        for trial in reversed(asked):
            together.tell(trial, value_of(trial.params))
    assert [t.params for t in together.trials] == expected


def test_the_next_generation_depends_on_the_last_results(make):
    low, high = (optuna.create_study(sampler=make()) for _ in range(2))
    a = search(low, 2 * N, lambda params: params["x"])
    b = search(high, 2 * N, lambda params: -params["x"])
    assert a[:N] == b[:N]
    assert a[N:] != b[N:]


def test_every_generation_is_spread_in_its_own_way(make):
    first, second = (make().options.spread(make().seed, generation, 3)[0] for generation in (0, 1))
    assert (first.position != second.position).all()
    if first.velocity is not None:
        assert second.velocity is not None
        assert (first.velocity != second.velocity).all()


def finish(study, trial, how):
    if how == "pruned":
        trial.report(5.0, 0)
        trial.report(value_of(trial.params), 1)
        study.tell(trial, state=TrialState.PRUNED)
    elif how == "pruned at nan":
        trial.report(1.0, 0)
        trial.report(float("nan"), 1)
        study.tell(trial, state=TrialState.PRUNED)
    elif how == "failed":
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, float(how))


@pytest.mark.parametrize("how", ["failed", "pruned at nan", "inf", "-inf"])
def test_a_trial_without_a_finite_value_ranks_worst(make, how):
    broken, poor = (optuna.create_study(sampler=make()) for _ in range(2))
    for study, ending in ((broken, how), (poor, "1e9")):
        for k in range(3 * N):
            trial = study.ask(SPACE)
            if k in (1, N + 1, N + 3):
                finish(study, trial, ending)
            else:
                study.tell(trial, value_of(trial.params))
    # A particle without a value has no best of its own, one with a poor value has: a quantum
    # particle moves by that at once, another one from where it has been twice, a whale never.
    same = {WhaleSampler: 3 * N, ParticleSwarmSampler: 2 * N, QuantumSwarmSampler: N}
    k = same[type(broken.sampler)]
    assert [t.params for t in broken.trials[:k]] == [t.params for t in poor.trials[:k]]


def test_a_pruned_trial_counts_with_its_last_value(make):
    pruned, complete = (optuna.create_study(sampler=make()) for _ in range(2))
    for k in range(3 * N):
        trial = pruned.ask(SPACE)
        if k % 3:
            finish(pruned, trial, "pruned")
        else:
            pruned.tell(trial, value_of(trial.params))
    assert [t.params for t in pruned.trials] == search(complete, 3 * N)


def test_a_trial_pruned_before_its_first_value_counts_as_failed(make):
    study = optuna.create_study(sampler=make())
    for _ in range(2 * N):
        study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    assert len({str(t.params) for t in study.trials}) == 2 * N


def test_without_a_space_a_swarm_moves_in_the_shared_one(make):
    study = optuna.create_study(sampler=make(search_space=None))
    search(study, 2 * N)
    moved = ["swarm" in t.system_attrs for t in study.trials]
    assert moved == [False] * N + [True] * N


@pytest.mark.filterwarnings("ignore:'p' is sampled at random")
def test_a_parameter_outside_the_space_is_random_by_name(make):
    def extra(sampler):
        study = optuna.create_study(sampler=sampler)
        trials = [study.ask(SPACE) for _ in range(3)]
        return [t.suggest_float(name, 0, 1) for t in trials for name in ("p", "q")]

    assert extra(make()) == extra(make())
    assert len(set(extra(make()))) == 6
    assert extra(make()) != extra(make(seed=4))


def test_a_space_of_single_values_leaves_nothing_to_move_in(make):
    space = {"one": IntDistribution(4, 4)}
    study = optuna.create_study(sampler=make(search_space=space))
    for _ in range(2 * N):
        study.tell(study.ask(space), 1.0)
    assert all(t.params == {"one": 4} for t in study.trials)


def test_a_swarm_runs_under_hyperband(make):
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9)
    study = optuna.create_study(sampler=make(), pruner=pruner)

    def objective(trial):
        params = {name: trial._suggest(name, d) for name, d in SPACE.items()}
        for step in range(9):
            trial.report(value_of(params) + 1 / (step + 1), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value_of(params)

    study.optimize(objective, n_trials=4 * N)
    states = {t.state for t in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all("swarm" in t.system_attrs for t in study.trials)


@pytest.mark.slow
def test_processes_share_a_study_and_none_waits_for_another(make, tmp_path):
    name = type(make()).__name__
    code = f"""
import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from tuner.strategies import {name}

optuna.logging.set_verbosity(optuna.logging.WARNING)
storage = JournalStorage(JournalFileBackend("journal"))
sampler = {name}(population_size=3, seed=0)
study = optuna.create_study(
    study_name="s", storage=storage, sampler=sampler, load_if_exists=True
)
study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=8)
"""
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in started] == [0, 0]
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 16
    assert len({t.params["x"] for t in trials}) > 12
    assert all("swarm" in t.system_attrs for t in trials[6:])


def test_several_objectives_are_refused(make):
    study = optuna.create_study(sampler=make(), directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="is for one objective, got a study with 2"):
        study.ask(SPACE)


def test_a_range_wider_than_a_float_holds_is_refused_by_name(make):
    space = {"w": FloatDistribution(-1.7e308, 1e308)}
    study = optuna.create_study(sampler=make(search_space=space))
    with pytest.raises(ValueError, match=r"^search_space.w: the range must fit in a float"):
        study.ask(space)
