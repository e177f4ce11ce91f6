"""`tuner.Client` and models that train here: ask, report, tell, over a real server."""

import gc
import math
import threading
import time

import pytest
from helpers.running_service import running_service
from helpers.scripted_server import Answer, problem, serving
from helpers.thread_pool import ThreadPool

from tuner import Client, InputError
from tuner.client import Pruned, RefusedError

SPACE = {
    "x": {"type": "float", "low": -1.0, "high": 1.0},
    "n": {"type": "int", "low": 1, "high": 9},
    "kind": {"type": "categorical", "choices": ["a", "b", True, 2]},
}
RANDOM = {"name": "random", "batch": 4}
SOON_S = 30


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    monkeypatch.delenv("TUNER_TOKEN", raising=False)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    from tuner.service.settings import Settings

    settings = Settings(root=tmp_path_factory.mktemp("service") / "root", workers=1)
    with running_service(settings, lambda n: ThreadPool(n)) as running:
        yield running


@pytest.fixture
def client(running):
    with Client(running.url) as client:
        yield client


@pytest.fixture
def make_study(client, request):
    """Creates an external study, named after the test."""

    def make(trials=12, space=SPACE, strategy=RANDOM, **options):
        name = request.node.name[:60].replace("[", "-").rstrip("]")
        return client.external(name, space, strategy, trials=trials, **options)

    return make


def objective(trial):
    return trial.params["x"] ** 2 + trial.params["n"]


def test_a_function_is_minimized_until_the_budget_is_used(make_study):
    study = make_study().optimize(objective)
    trials = study.trials
    assert list(trials.index) == list(range(12))
    assert set(trials.status) == {"complete"}
    assert (trials.value == trials.x**2 + trials.n).all()
    assert set(trials.kind) <= {"a", "b", True, 2}
    assert study.best["trial"] == trials.value.idxmin()
    assert study.done
    assert study.ask() == []


def test_threads_share_the_trials_of_a_study(make_study):
    seen, lock = [], threading.Lock()

    def count(trial):
        with lock:
            seen.append(trial.number)
        return objective(trial)

    study = make_study(trials=30).optimize(count, n_jobs=4)
    assert sorted(seen) == list(range(30))
    assert len(study.trials) == 30


def test_any_number_of_threads_gives_the_same_trials(make_study, client):
    found = []
    for n_jobs in (1, 3):
        study = client.external(f"same-{n_jobs}", SPACE, RANDOM, trials=12, seed=5)
        found.append(study.optimize(objective, n_jobs=n_jobs).trials)
    assert found[0].equals(found[1])


def test_the_same_call_is_the_same_study_and_another_is_refused(make_study):
    first, again = make_study(), make_study()
    assert first.name == again.name
    with pytest.raises(RefusedError) as refused:
        make_study(trials=13)
    assert refused.value.status == 409


def test_a_trial_that_raises_has_failed_with_the_reason(make_study):
    def broken(trial):
        if trial.number == 1:
            raise ValueError("x is\nodd")
        return 1.0

    study = make_study(trials=4)
    with pytest.raises(ValueError, match="odd"):
        study.optimize(broken)
    assert study.optimize(broken, catch=[ValueError]).done
    trials = study.trials
    assert trials.status[1] == "failed"
    assert math.isnan(trials.value[1])
    assert list(trials.status).count("complete") == 3


def test_the_pruner_ends_bad_trials(make_study):
    pruner = {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}
    study = make_study(trials=12, pruner=pruner, steps=3)

    def in_steps(trial):
        for _ in range(3):
            if trial.report(trial.number):  # each trial is worse than those before
                raise Pruned
        return float(trial.number)

    statuses = list(study.optimize(in_steps).trials.status)
    assert statuses[:2] == ["complete", "complete"]
    assert "pruned" in statuses


def test_optuna_prunes_with_its_own_exception_too(make_study):
    import optuna

    def prune(trial):
        raise optuna.TrialPruned

    study = make_study(trials=2)
    for trial in study:
        with trial:
            trial.report(1.0)
            prune(trial)
    assert set(study.trials.status) == {"pruned"}


def test_values_that_are_not_finite_are_failures(make_study):
    study = make_study(trials=3)
    values = iter([math.nan, math.inf, 1.0])
    study.optimize(lambda trial: next(values))
    assert sorted(study.trials.status) == ["complete", "failed", "failed"]


def test_a_trial_that_is_not_told_is_given_out_again(make_study):
    study = make_study(trials=2)
    (trial,) = study.ask()
    with trial:
        pass
    assert not trial.is_open
    with pytest.raises(KeyboardInterrupt), study.ask()[0] as again:
        raise KeyboardInterrupt
    (third,) = study.ask()
    assert (trial.number, again.number, third.number) == (0, 0, 0)
    assert trial.params == again.params == third.params
    assert (trial.seed, third.attempt) == (third.seed, 3)
    third.tell(1.0)
    study.optimize(objective)


def test_a_lease_is_renewed_while_the_trial_exists(make_study):
    study = make_study(trials=1, lease_s=1)
    (trial,) = study.ask()
    other = make_study(trials=1, lease_s=1)
    time.sleep(2.0)
    assert other.ask() == []
    trial.tell(0.5)
    assert study.best["score"] == 0.5


def test_a_trial_that_is_forgotten_goes_to_another_client(make_study):
    study = make_study(trials=1, lease_s=1)
    forgotten = study.ask()
    number = forgotten[0].number
    forgotten.clear()
    gc.collect()
    (again,) = make_study(trials=1, lease_s=1).ask(wait_s=10)
    assert (again.number, again.attempt) == (number, 2)
    again.tell(1.0)


def test_a_late_client_is_refused_and_its_work_goes_on(make_study):
    study, other = make_study(trials=2, lease_s=1), make_study(trials=2, lease_s=1)
    (late,) = study.ask()
    late._is_open = False  # its lease is renewed no more
    deadline = time.monotonic() + SOON_S
    while not (again := [t for t in other.ask(2, wait_s=2) if t.number == late.number]):
        assert time.monotonic() < deadline
    again[0].tell(1.0)
    with pytest.raises(RefusedError) as refused:
        late.tell(2.0)
    assert refused.value.status == 409


def test_waiting_clients_get_the_next_generation(make_study):
    study = make_study(trials=8, strategy={"name": "random", "batch": 4})
    first = study.ask(8)
    assert len(first) == 4
    waiting = []
    thread = threading.Thread(target=lambda: waiting.extend(study.ask(1, wait_s=20)))
    thread.start()
    assert study.ask() == []
    for trial in first:
        trial.tell(objective(trial))
    thread.join(SOON_S)
    assert [trial.number for trial in waiting] == [4]
    waiting[0].tell(1.0)
    study.optimize(objective)


def test_an_external_study_is_cancelled_and_resumed(make_study, client):
    study = make_study(trials=4, lease_s=1)
    study.ask()  # and nobody holds the trial
    study.cancel()
    assert study.state == "cancelled"
    with pytest.raises(RefusedError):
        study.ask()
    study.resume()
    assert study.optimize(objective).state == "done"
    assert study.name in [s["name"] for s in client.studies(state="done")]
    assert "ended" in [event["event"] for event in study.events()]


def test_what_breaks_a_rule_is_refused_in_one_line(client):
    for options, part in (
        ({"space": {"x": {"type": "float", "low": 2, "high": 1}}}, "space.x"),
        ({"space": SPACE, "strategy": "nonsense"}, "strategy"),
        ({"space": SPACE, "direction": "sideways"}, "direction"),
    ):
        with pytest.raises(RefusedError, match=part) as refused:
            client.external("refused", **options)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="n_jobs: must be at least 1, got 0"):
        client.external_study("refused").optimize(objective, n_jobs=0)


def test_a_tell_that_was_cut_is_told_again():
    trial = {"number": 0, "params": {}, "seed": 1, "lease": "l", "expires_s": 9, "attempt": 1}
    told = Answer(200, {"number": 0, "state": "complete", "value": 1.0})
    answers = [Answer(200, {"trials": [trial]}), Answer(None), told, problem(410, "used")]
    with serving(answers) as server:
        study = Client(server.url).external_study("s")
        assert study.optimize(lambda trial: 1.0).done
    bodies = [asked.json for asked in server.asked]
    assert bodies[1] == bodies[2] == {"lease": "l", "value": 1.0}
