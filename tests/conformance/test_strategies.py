"""What every strategy must hold to; a new one is tested by being registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState
from pydantic import TypeAdapter

from tuner.experiment import SearchSpace
from tuner.strategies import STRATEGIES, make_sampler, rhythm_of, to_distributions

N_TRIALS = 12

SPACE: dict[str, BaseDistribution] = to_distributions(
    TypeAdapter(SearchSpace).validate_python(
        {
            "rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True},
            "dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 0.1},
            "decay": {"type": "float", "low": -1.0, "high": 1.0},
            "units": {"type": "int", "low": 8, "high": 128, "log": True},
            "window": {"type": "int", "low": 4, "high": 25, "step": 3},
            "batch": {"type": "categorical", "choices": [64, 32, 16]},
            "cell": {"type": "categorical", "choices": ["lstm", "gru", "rnn"]},
            "flag": {"type": "categorical", "choices": [True, False]},
            "only": {"type": "int", "low": 7, "high": 7},
        }
    )
)


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture(params=STRATEGIES)
def options(request: pytest.FixtureRequest) -> Any:
    small = {"population": 5, "batch": 4, "n_startup_trials": 4}  # several generations, soon past
    model = STRATEGIES[request.param].options
    return model(**{k: v for k, v in small.items() if k in model.model_fields})


@pytest.fixture
def sampler(options: Any) -> Callable[..., BaseSampler]:
    return lambda seed=0, space=SPACE: make_sampler(options, space, seed, N_TRIALS)


def value_of(params: dict[str, Any]) -> float:
    return float(
        abs(params["decay"] - 0.4)
        + abs(params["units"] - 60) / 60
        + params["rate"]
        + (params["cell"] != "gru")
        + params["dropout"]
    )


def tell(study: optuna.Study, trial: optuna.Trial) -> None:
    """Finish the trial: every fifth fails and every fourth is pruned."""
    if trial.number % 5 == 2:
        study.tell(trial, state=TrialState.FAIL)
    elif trial.number % 4 == 1:
        trial.report(value_of(trial.params), 3)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value_of(trial.params))


def search(study: optuna.Study, n_trials: int = N_TRIALS) -> list[dict[str, Any]]:
    while len(study.trials) < n_trials:
        tell(study, study.ask(SPACE))
    return [t.params for t in study.trials]


def test_every_value_lies_in_its_distribution(sampler: Callable[..., BaseSampler]) -> None:
    study = optuna.create_study(sampler=sampler())
    for params in search(study):
        assert set(params) == set(SPACE)
        for name, value in params.items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


def test_the_same_seed_gives_the_same_trials_and_another_one_does_not(
    sampler: Callable[..., BaseSampler],
) -> None:
    a, b, c = (search(optuna.create_study(sampler=sampler(seed))) for seed in (1, 1, 2))
    assert a == b
    assert a != c
    assert len({str(params) for params in a}) > N_TRIALS / 2


def test_a_seed_of_any_size_is_taken(sampler: Callable[..., BaseSampler]) -> None:
    huge = [search(optuna.create_study(sampler=sampler(s)), 6) for s in (0, 2**32, 2**70)]
    assert huge[0] != huge[1] != huge[2]


def test_the_order_of_the_space_changes_nothing(sampler: Callable[..., BaseSampler]) -> None:
    turned = dict(reversed(SPACE.items()))
    study = optuna.create_study(sampler=sampler(space=turned))
    while len(study.trials) < N_TRIALS:
        tell(study, study.ask(turned))
    assert [t.params for t in study.trials] == search(optuna.create_study(sampler=sampler()))


def test_maximizing_is_minimizing_the_negative(sampler: Callable[..., BaseSampler]) -> None:
    found = []
    for direction, sign in (("minimize", 1), ("maximize", -1)):
        study = optuna.create_study(sampler=sampler(), direction=direction)
        for _ in range(N_TRIALS):
            trial = study.ask(SPACE)
            study.tell(trial, sign * value_of(trial.params))
        found.append([t.params for t in study.trials])
    assert found[0] == found[1]


def open_study(path: Path, sampler: BaseSampler) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.create_study(
        study_name="s", storage=storage, sampler=sampler, load_if_exists=True
    )


def test_a_study_reopened_before_any_trial_ends_like_one_that_was_not(
    sampler: Callable[..., BaseSampler], tmp_path: Path
) -> None:
    expected = search(optuna.create_study(sampler=sampler()))
    for k in range(1, N_TRIALS):
        search(open_study(tmp_path / f"{k}", sampler()), k)
        assert search(open_study(tmp_path / f"{k}", sampler())) == expected


def in_rhythm(study: optuna.Study, options: Any, n_trials: int) -> list[dict[str, Any]]:
    """Ask for trials as soon as the rhythm allows, and tell them in order."""
    rhythm = rhythm_of(options)
    running = [optuna.Trial(study, t._trial_id) for t in study.trials if not t.state.is_finished()]
    while len(study.trials) < n_trials:
        number = len(study.trials)
        while number - len(running) < rhythm.told_before(number):
            tell(study, running.pop(0))
        running.append(study.ask(SPACE))
    return [t.params for t in study.trials]


def test_a_study_reopened_with_trials_in_flight_ends_like_one_that_was_not(
    sampler: Callable[..., BaseSampler], options: Any, tmp_path: Path
) -> None:
    expected = in_rhythm(optuna.create_study(sampler=sampler()), options, N_TRIALS)
    for k in range(1, N_TRIALS):
        in_rhythm(open_study(tmp_path / f"{k}", sampler()), options, k)
        assert in_rhythm(open_study(tmp_path / f"{k}", sampler()), options, N_TRIALS) == expected


def test_a_trial_that_died_between_two_parameters_gets_the_same_rest(
    sampler: Callable[..., BaseSampler], tmp_path: Path
) -> None:
    expected = search(optuna.create_study(sampler=sampler()))
    for k in range(N_TRIALS):
        study = open_study(tmp_path / f"{k}", sampler())
        search(study, k)
        half = study.ask()
        for name in list(SPACE)[: len(SPACE) // 2]:
            half._suggest(name, SPACE[name])
        reopened = open_study(tmp_path / f"{k}", sampler())
        again = optuna.Trial(reopened, half._trial_id)
        for name, distribution in SPACE.items():
            again._suggest(name, distribution)
        assert again.params == expected[k]


def test_an_enqueued_start_is_tried_first_and_the_search_goes_on_from_it(
    sampler: Callable[..., BaseSampler],
) -> None:
    start = search(optuna.create_study(sampler=sampler(99)), 1)[0]
    study = optuna.create_study(sampler=sampler())
    study.enqueue_trial(start)
    params = search(study)
    assert params[0] == start
    assert params.count(start) == 1


def test_a_search_in_which_every_trial_fails_goes_on(sampler: Callable[..., BaseSampler]) -> None:
    study = optuna.create_study(sampler=sampler())
    for _ in range(N_TRIALS):
        study.tell(study.ask(SPACE), state=TrialState.FAIL)
    assert len({str(t.params) for t in study.trials}) == N_TRIALS
    search(study, 2 * N_TRIALS)


def test_parameters_that_the_study_decides_on_in_the_run_are_sampled_too(
    sampler: Callable[..., BaseSampler],
) -> None:
    study = optuna.create_study(sampler=sampler(space={}))

    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("deep", [True, False]):
            return trial.suggest_float("x", 0, 1)
        return trial.suggest_float("y", 1, 2)

    study.optimize(objective, n_trials=N_TRIALS)
    assert len({t.value for t in study.trials}) == N_TRIALS
