"""`tuner.Client` and models that train here: ask, report, tell, over a real server."""

import gc
import math
import threading
import time

import pandas as pd
import pytest
from helpers.running_service import running_service
from helpers.scripted_server import Answer, problem, serving
from helpers.thread_pool import ThreadPool

from tuner import Best, Client, InputError, RunError
from tuner.client import ExternalStudy, ObjectiveError, Pruned, RefusedError, ServiceError
from tuner.errors import NotReadyError

SPACE = {
    "x": {"type": "float", "low": -1.0, "high": 1.0},
    "n": {"type": "int", "low": 1, "high": 9},
    "kind": {"type": "categorical", "choices": ["a", "b", True, 2]},
}
RANDOM = {"name": "random", "batch": 4}
EXTERNAL = {"name": "s", "kind": "external", "state": "running"}
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


def test_a_function_is_minimized_until_the_budget_is_used(make_study, client):
    study = make_study().optimize(objective)
    again = client.study(study.name)
    trials = study.trials
    assert list(trials.index) == list(range(12))
    assert set(trials.status) == {"complete"}
    assert (trials.value == trials.x**2 + trials.n).all()
    assert set(trials.kind) <= {"a", "b", True, 2}
    best = study.best
    assert isinstance(best, Best)
    assert (best.trial, best.search_score) == (trials.value.idxmin(), trials.value.min())
    assert best.params == best.hyperparameters
    assert (best.name, best.metric) == (f"trial {best.trial}", "value")
    assert repr(again) == repr(study)
    assert f"done, 12 of 12 trials, best value {best.search_score:.6g} in trial" in repr(study)
    assert study.done
    assert (study.ask(), study.ask_many(2)) == (None, [])


@pytest.mark.parametrize("how", ["optimize", "iterate"])
def test_an_extended_study_goes_on_from_the_same_object(make_study, how):
    study = make_study(trials=2).optimize(objective)
    study.extend(trials=5)
    assert not study.done
    if how == "optimize":
        study.optimize(objective)
    else:
        for trial in study:
            trial.tell(objective(trial))
    assert list(study.trials.status) == ["complete"] * 5
    assert study.done


def test_a_study_that_another_client_extends_goes_on(make_study, client):
    study = make_study(trials=1, strategy={"name": "tpe"}).optimize(objective)
    client.study(study.name).extend(trials=2)
    trial = study.ask()
    assert (trial.number, study.done) == (1, False)
    trial.tell(objective(trial))
    assert (study.ask(), study.done) == (None, True)


def test_nothing_to_ask_yet_is_not_the_end():
    nothing = Answer(204)
    gone = problem(410, "study 's' is done: its budget is used")
    with serving([Answer(200, EXTERNAL), gone, Answer(200, EXTERNAL), nothing]) as server:
        study = Client(server.url).study("s")
        assert study.ask() is None
        with pytest.raises(NotReadyError, match="there is nothing to ask yet"):
            study.ask(wait_s=0)
        assert not study.done


def test_a_study_without_a_value_has_no_best_trial(make_study):
    study = make_study()
    assert list(study.trials.columns) == ["status", "value", "reason"]
    with pytest.raises(RunError, match="no trial is complete"):
        study.best  # noqa: B018


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
    assert study.optimize(broken, catch=ValueError).done
    trials = study.trials
    assert trials.status[1] == "failed"
    assert trials.reason[1] == "ValueError: x is odd"
    assert pd.isna(trials.reason[0])
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


@pytest.mark.parametrize(
    ("value", "rule", "remedy"),
    [
        (None, "must be a number, got None", "return the value"),
        ("best", "must be a number, got 'best'", "return a float"),
        (math.nan, "must be a finite number, got nan", "return a float"),
        (-math.inf, "must be a finite number, got -inf", "return a float"),
    ],
    ids=["none", "text", "nan", "infinity"],
)
def test_an_objective_without_a_value_fails_its_trial(make_study, value, rule, remedy):
    study = make_study(trials=3)
    with pytest.raises(ObjectiveError) as refused:
        study.optimize(lambda trial: value if trial.number == 0 else 1.0)
    assert str(refused.value) == f"trial 0 of {study.name}: value: {rule}; {remedy}"
    assert study.trials.reason[0] == f"the objective returned {value!r}"
    assert study.optimize(lambda trial: 1.0).done


def test_trials_without_a_value_may_be_caught(make_study):
    study = make_study(trials=3)
    values = iter([math.nan, None, 1.0])
    study.optimize(lambda trial: next(values), catch=[ValueError])
    assert sorted(study.trials.status) == ["complete", "failed", "failed"]


def test_a_value_that_is_not_finite_may_be_told(make_study):
    study = make_study(trials=1)
    trial = study.ask()
    with trial, pytest.raises(ObjectiveError, match=f"trial 0 of {study.name}: value: must be"):
        trial.tell(None)
    trial = study.ask()
    trial.tell(math.nan)
    assert study.trials.reason[0] == "the value is nan"


def test_a_parameter_may_have_the_name_of_a_column(make_study):
    x = {"type": "float", "low": 0.0, "high": 1.0}
    study = make_study(trials=1, space={"value": x, "reason": x}).optimize(lambda trial: 2.0)
    row = study.trials.loc[0]
    assert (row["value"], row["status"]) == (2.0, "complete")
    assert pd.isna(row["reason"])
    assert 0 <= row["params_value"] <= 1
    assert 0 <= row["params_reason"] <= 1


def test_a_trial_that_is_not_told_is_given_out_again(make_study):
    study = make_study(trials=2)
    trial = study.ask()
    with trial:
        pass
    assert not trial.is_open
    with pytest.raises(KeyboardInterrupt), study.ask() as again:
        raise KeyboardInterrupt
    third = study.ask()
    assert (trial.number, again.number, third.number) == (0, 0, 0)
    assert trial.params == again.params == third.params
    assert (trial.seed, third.attempt) == (third.seed, 3)
    third.tell(1.0)
    study.optimize(objective)


def test_a_refusal_of_the_service_gives_the_trial_back(make_study):
    study = make_study(trials=1)
    trial = study.ask()
    with pytest.raises(RefusedError, match="is cancelled"), trial:  # noqa: PT012
        study.cancel()
        trial.report(1.0)
    assert repr(trial).endswith("; released)")
    study.resume()
    again = study.ask()
    assert (again.number, again.attempt) == (0, 2)
    again.tell(1.0)
    assert study.trials.status[0] == "complete"


def test_a_cancelled_study_ends_its_workers_and_loses_no_trial(make_study):
    study = make_study(trials=4)

    def report(trial):
        if trial.number == 1:
            study.cancel()
        trial.report(1.0)
        return 1.0

    with pytest.raises(RefusedError, match="is cancelled"), pytest.warns(match="ended elsewhere"):
        study.optimize(report)
    study.resume()
    assert set(study.optimize(objective).trials.status) == {"complete"}


def test_a_report_that_breaks_a_rule_fails_the_trial(make_study):
    study = make_study(trials=1, steps=1)

    def too_often(trial):
        trial.report(1.0)
        trial.report(1.0)

    with pytest.raises(RefusedError, match="has at most 1 steps"):
        study.optimize(too_often)
    assert "has at most 1 steps" in study.trials.reason[0]


def test_an_outage_leaves_the_trial_to_its_lease(monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    trial = {"number": 0, "params": {}, "seed": 1, "lease": "l", "expires_s": 99, "attempt": 1}
    answers = [Answer(200, EXTERNAL), Answer(200, {"trials": [trial]}), Answer(None)]
    with serving(answers) as server:
        study = Client(server.url).external_study("s")
        with pytest.raises(ServiceError):
            study.optimize(lambda trial: trial.report(1.0))
    assert {asked.path.rpartition("/")[2] for asked in server.asked} == {"s", "ask", "report"}


def test_the_own_error_is_raised_where_the_service_is_away(monkeypatch):
    monkeypatch.setattr("urllib3.util.Retry.sleep", lambda *_: None)
    trial = {"number": 0, "params": {}, "seed": 1, "lease": "l", "expires_s": 99, "attempt": 1}
    answers = [Answer(200, EXTERNAL), Answer(200, {"trials": [trial]}), Answer(None)]
    with serving(answers) as server, pytest.raises(ZeroDivisionError):
        Client(server.url).external_study("s").optimize(lambda trial: 1 / 0)


def test_a_lease_is_renewed_while_the_trial_exists(make_study):
    study = make_study(trials=1, lease_s=1)
    trial = study.ask()
    other = make_study(trials=1, lease_s=1)
    time.sleep(2.0)
    assert other.ask_many(1) == []
    trial.tell(0.5)
    assert study.best.search_score == 0.5


def test_a_trial_that_is_forgotten_goes_to_another_client(make_study):
    study = make_study(trials=1, lease_s=1)
    forgotten = study.ask()
    number = forgotten.number
    del forgotten
    gc.collect()
    again = make_study(trials=1, lease_s=1).ask(wait_s=10)
    assert (again.number, again.attempt) == (number, 2)
    again.tell(1.0)


def test_a_late_client_is_refused_and_its_work_goes_on(make_study):
    study, other = make_study(trials=2, lease_s=1), make_study(trials=2, lease_s=1)
    late = study.ask()
    late._is_open = False  # its lease is renewed no more
    deadline = time.monotonic() + SOON_S
    while not (again := [t for t in other.ask_many(2, wait_s=2) if t.number == late.number]):
        assert time.monotonic() < deadline
    again[0].tell(1.0)
    with pytest.raises(RefusedError) as refused:
        late.tell(2.0)
    assert refused.value.status == 409


def test_waiting_clients_get_the_next_generation(make_study):
    study = make_study(trials=8, strategy={"name": "random", "batch": 4})
    first = study.ask_many(8)
    assert len(first) == 4
    waiting = []
    thread = threading.Thread(target=lambda: waiting.extend(study.ask_many(1, wait_s=20)))
    thread.start()
    assert study.ask_many(1) == []
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
        client.external("jobs", SPACE).optimize(objective, n_jobs=0)


def test_an_external_study_is_found_by_its_name(make_study, client):
    study = make_study(trials=3)
    for found in (client.study(study.name), client.external_study(study.name)):
        assert isinstance(found, ExternalStudy)
        assert f"'{study.name}' at {client.server}: running, 0 of 3 trials" in repr(found)
    with pytest.raises(RefusedError, match=f"did you mean '{study.name}'") as refused:
        client.study(study.name[:-1])
    assert refused.value.status == 404


def test_a_tell_that_was_cut_is_told_again():
    trial = {"number": 0, "params": {}, "seed": 1, "lease": "l", "expires_s": 9, "attempt": 1}
    told = Answer(200, {"number": 0, "state": "complete", "value": 1.0})
    asked = Answer(200, {"trials": [trial]})
    answers = [Answer(200, EXTERNAL), asked, Answer(None), told, problem(410, "used")]
    with serving(answers) as server:
        study = Client(server.url).external_study("s")
        assert study.optimize(lambda trial: 1.0).done
    bodies = [asked.json for asked in server.asked if asked.body]
    assert bodies[1] == bodies[2] == {"lease": "l", "value": 1.0}
