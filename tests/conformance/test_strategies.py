"""What every strategy must hold to; a new one is tested by being registered."""

import json
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import PartialFixedSampler
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalStorage
from optuna.trial import TrialState
from pydantic import TypeAdapter

from tuner.experiment import SearchSpace
from tuner.experiment.space import to_distributions
from tuner.strategies import STRATEGIES

Space = dict[str, BaseDistribution]
Params = list[dict[str, Any]]


def space_of(**changes):
    domains = {
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
    return to_distributions(TypeAdapter(SearchSpace).validate_python(domains | changes))


SPACE = space_of()
FINITE_SPACE = space_of(
    rate={"type": "float", "low": 0.02, "high": 0.1, "step": 0.02},
    decay={"type": "float", "low": -1.0, "high": 1.0, "step": 0.2},
    units={"type": "int", "low": 8, "high": 128, "step": 40},
)


class Journal(BaseJournalBackend):
    """A journal in memory: text as in a file, without waiting for the disk."""

    def __init__(self):
        self.lines = []

    def read_logs(self, log_number_from):
        return [json.loads(line) for line in self.lines[log_number_from:]]

    def append_logs(self, logs):
        self.lines += [json.dumps(log) for log in logs]


@dataclass(frozen=True)
class Subject:
    """A strategy under test, with options so small that it is soon past its beginning."""

    options: Any
    space: Space
    n_trials: int

    def sampler(self, seed=0, space=None):
        space = self.space if space is None else space
        return self.options.make_sampler(space, seed, self.n_trials)

    def study(self, seed=0, **options):
        return optuna.create_study(sampler=self.sampler(seed), **options)

    def open(self, journal):
        """As a new process does: all that it knows is in the journal."""
        storage = JournalStorage(journal)
        return self.study(study_name="s", storage=storage, load_if_exists=True)

    def search(self, study, n_trials=None):
        while len(study.trials) < (n_trials or self.n_trials):
            tell(study, study.ask(self.space))
        return [t.params for t in study.trials]

    def search_in_flight(self, study, told_before, n_trials):
        """Ask for trials as soon as `told_before` allows, and tell them in order."""
        running = [
            optuna.Trial(study, t._trial_id) for t in study.trials if not t.state.is_finished()
        ]
        while (number := len(study.trials)) < n_trials:
            while number - len(running) < told_before(number):
                tell(study, running.pop(0))
            running.append(study.ask(self.space))
        return [t.params for t in study.trials]


pytestmark = pytest.mark.usefixtures("quiet_optuna")


WITH_CANDIDATES = [name for name, s in STRATEGIES.items() if "candidates" in s.model_fields]


@pytest.fixture(params=[*STRATEGIES, *(f"{name}, candidates" for name in WITH_CANDIDATES)])
def subject(request):
    name, *candidates = request.param.split(", ")
    small = {"population": 5, "batch": 4, "n_startup_trials": 4}
    small |= dict.fromkeys(candidates, 6)
    model = STRATEGIES[name]
    options = model(**{k: v for k, v in small.items() if k in model.model_fields})
    space = FINITE_SPACE if name == "brute" else SPACE
    return Subject(options, space, n_trials=8 if name == "gp" else 12)


def value_of(params):
    return float(
        abs(params["decay"] - 0.4)
        + abs(params["units"] - 60) / 60
        + params["rate"]
        + (params["cell"] != "gru")
        + params["dropout"]
    )


def tell(study, trial):
    """Finish the trial: every fifth fails and every fourth is pruned."""
    if trial.number % 5 == 2:
        study.tell(trial, state=TrialState.FAIL)
    elif trial.number % 4 == 1:
        trial.report(value_of(trial.params), 3)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value_of(trial.params))


def assert_inside(space, found):
    for params in found:
        assert set(params) == set(space)
        for name, value in params.items():
            assert space[name]._contains(space[name].to_internal_repr(value))


def test_every_value_lies_in_its_distribution(subject):
    assert_inside(subject.space, subject.search(subject.study()))


def test_a_seed_determines_the_trials(subject):
    a, b, c = (subject.search(subject.study(seed)) for seed in (1, 1, 2))
    assert a == b
    assert a != c
    assert len({str(params) for params in a}) > subject.n_trials / 2


def test_a_seed_of_any_size_is_taken(subject):
    huge = [subject.search(subject.study(seed), 6) for seed in (0, 2**32, 2**70)]
    assert huge[0] != huge[1] != huge[2]


def test_the_order_of_the_space_changes_nothing(subject):
    turned = dict(reversed(subject.space.items()))
    study = optuna.create_study(sampler=subject.sampler(space=turned))
    while len(study.trials) < subject.n_trials:
        tell(study, study.ask(turned))
    assert [t.params for t in study.trials] == subject.search(subject.study())


def test_maximizing_is_minimizing_the_negative(subject):
    found = []
    for direction, sign in (("minimize", 1), ("maximize", -1)):
        study = subject.study(direction=direction)
        for _ in range(subject.n_trials):
            trial = study.ask(subject.space)
            study.tell(trial, sign * value_of(trial.params))
        found.append([t.params for t in study.trials])
    assert found[0] == found[1]


def test_a_study_reopened_before_any_trial_ends_the_same(subject):
    expected = subject.search(subject.study())
    for k in range(1, subject.n_trials):
        journal = Journal()
        subject.search(subject.open(journal), k)
        assert subject.search(subject.open(journal)) == expected


@pytest.mark.parametrize("kind", ["journal file", pytest.param("database", marks=pytest.mark.slow)])
def test_every_storage_gets_the_same_trials(subject, kind, tmp_path):
    def reopened():
        path = tmp_path / "study"
        storage = (
            JournalStorage(JournalFileBackend(str(path)))
            if kind == "journal file"
            else f"sqlite:///{path}"
        )
        return subject.study(study_name="s", storage=storage, load_if_exists=True)

    subject.search(reopened(), 5)
    assert subject.search(reopened(), 7) == subject.search(subject.study(), 7)


def test_a_study_reopened_with_trials_in_flight_ends_the_same(subject):
    rhythm, n = subject.options.rhythm, subject.n_trials
    expected = subject.search_in_flight(subject.study(), rhythm.told_before, n)
    for k in range(1, n):
        journal = Journal()
        subject.search_in_flight(subject.open(journal), rhythm.told_before, k)
        found = subject.search_in_flight(subject.open(journal), rhythm.told_before, n)
        assert found == expected


def test_more_workers_than_a_generation_has_trials_get_one_each(subject):
    def told_before(number):  # twelve in flight, and generations of eight
        return max(0, number - 11)

    eight = {"population": 8} if "population" in type(subject.options).model_fields else {}
    subject = Subject(subject.options.model_copy(update=eight), subject.space, 30)
    if subject.options.name == "gp":
        subject = Subject(subject.options, subject.space, 18)
    expected = subject.search_in_flight(subject.study(), told_before, subject.n_trials)
    assert_inside(subject.space, expected)
    assert len({str(params) for params in expected}) > subject.n_trials * 2 / 3
    journal, half = Journal(), subject.n_trials // 2
    subject.search_in_flight(subject.open(journal), told_before, half)
    reopened = subject.open(journal)
    assert subject.search_in_flight(reopened, told_before, subject.n_trials) == expected


def test_threads_share_a_sampler(subject):
    def objective(trial):
        return value_of({name: trial._suggest(name, d) for name, d in subject.space.items()})

    study = subject.study()
    study.optimize(objective, n_trials=subject.n_trials, n_jobs=4)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    found = [t.params for t in study.trials]
    assert_inside(subject.space, found)
    assert len({str(params) for params in found}) > subject.n_trials / 2


def test_a_trial_killed_between_parameters_gets_the_same_rest(subject):
    expected = subject.search(subject.study())
    for k in range(subject.n_trials):
        journal = Journal()
        study = subject.open(journal)
        while len(study.trials) < k:
            tell(study, study.ask(subject.space))
        half = study.ask()
        for name in list(subject.space)[: len(subject.space) // 2]:
            half._suggest(name, subject.space[name])
        again = optuna.Trial(subject.open(journal), half._trial_id)
        for name, distribution in subject.space.items():
            again._suggest(name, distribution)
        assert again.params == expected[k]


def test_an_enqueued_start_is_tried_first(subject):
    start = subject.search(subject.study(99), 1)[0]
    study = subject.study()
    study.enqueue_trial(start)
    params = subject.search(study)
    assert params[0] == start
    assert params.count(start) == 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_parameter_can_be_fixed_and_let_go_again(subject):
    sampler = subject.sampler()
    study = optuna.create_study(sampler=PartialFixedSampler({"decay": 0.2}, sampler))
    assert {params["decay"] for params in subject.search(study)} == {0.2}
    assert subject.search(optuna.create_study(sampler=sampler)) == subject.search(subject.study())


def test_a_search_in_which_every_trial_fails_goes_on(subject):
    study = subject.study()
    for _ in range(subject.n_trials):
        study.tell(study.ask(subject.space), state=TrialState.FAIL)
    assert len({str(t.params) for t in study.trials}) == subject.n_trials
    subject.search(study, 2 * subject.n_trials)


@pytest.mark.filterwarnings("ignore:'.*' is sampled at random")
def test_parameters_decided_at_run_time_are_sampled(subject):
    study = optuna.create_study(sampler=subject.sampler(space={}))

    def objective(trial):
        if trial.suggest_categorical("deep", [True, False]):
            return trial.suggest_float("x", 0, 1)
        return trial.suggest_float("y", 1, 2)

    study.optimize(objective, n_trials=subject.n_trials)
    assert len({t.value for t in study.trials}) == subject.n_trials
