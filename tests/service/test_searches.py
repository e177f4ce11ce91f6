"""Queue and threads of searches, on workers that train nothing."""

import contextlib
import json
import threading
import time
from types import SimpleNamespace

import pytest
from helpers.gates import Gate
from helpers.simulated_study import SPACE, WAVES, everything, waves_experiment
from helpers.thread_pool import ThreadPool

from tuner.coordination.finalists import find_winner
from tuner.errors import InputError, Interrupted, JournalAway
from tuner.experiment import Experiment
from tuner.journal.records import read_study
from tuner.journal.storage import read_journal
from tuner.orchestrator import SearchOptions, search
from tuner.service import searches
from tuner.service.access import Owner
from tuner.service.confined_data import ConfinedData
from tuner.service.events import EventLogs
from tuner.service.fair_share import FairShare
from tuner.service.pool import SharedPool
from tuner.service.problems import Problem
from tuner.service.records import hold_records
from tuner.service.searches import Searches
from tuner.service.settings import Limits, Settings
from tuner.service.studies import Facts, Kind, State, Studies
from tuner.service.submissions import SubmissionBody, parse_submission
from tuner.service.trial_table import TrialTables

SOON_S = 120
pytestmark = pytest.mark.usefixtures("quick_baselines")
DATASET = "ab" * 32
ANA, BEN = Owner("ana"), Owner("ben")


class Uploaded:
    """One file, as everybody's dataset."""

    confined = None

    def __init__(self, path):
        self.path = path

    def path_of(self, owner, dataset):
        assert dataset == DATASET
        return self.path


@pytest.fixture(autouse=True)
def confined(shared, tmp_path):
    shared._root, Uploaded.confined = tmp_path / "root", shared


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "root" / "datasets" / "ana" / DATASET / "waves.csv"
    path.parent.mkdir(parents=True)
    path.write_text(WAVES)
    return path


def experiment(**changes):
    return waves_experiment(f"dataset:{DATASET}", **changes)


class Bench:
    """The parts of a service around its searches."""

    def __init__(self, root, data, n_workers=2, epoch_s=0.0, url=None):
        self.root, self.datasets, self.epoch_s = root, Uploaded(data), epoch_s
        root.mkdir(exist_ok=True)
        self._stack = contextlib.ExitStack()
        self.records = self._stack.enter_context(hold_records(root, url, print))
        self.studies, self.events = Studies(self.records), EventLogs(root / "events")
        self.pools = []
        self.pool = SharedPool(self._make, n_workers, FairShare())
        self.searches = Searches(
            self.studies,
            self.records,
            self.pool,
            self.events,
            TrialTables(root / "trials"),
            self.datasets,
            root,
        )

    def _make(self, n_workers):
        self.pools.append(ThreadPool(n_workers, self.epoch_s))
        return self.pools[-1]

    def __enter__(self):
        self.searches.start()
        return self

    def __exit__(self, *_):
        self.searches.stop()
        self.pool.close()
        self.events.close()
        self._stack.close()

    def submit(self, owner=ANA, changes=None, **fields):
        body = SubmissionBody(experiment=experiment(**(changes or {})), tracking=False, **fields)
        submission = parse_submission(body, owner, self.datasets, Settings(root=self.root))
        study, _ = self.searches.submit(owner, submission)
        return study

    def events_of(self, study, name=None):
        lines = self.events.of(study.owner, study.name).lines()
        found = [json.loads(line) for line in lines]
        return [e for e in found if name in (None, e["event"])]

    def record(self, study):
        place = self.records.place_of(study.owner, study.name)
        return read_study(read_journal(place.location), place.study, place.location)


def until(true):
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def until_ended(*studies):
    until(lambda: all(study.state.has_ended for study in studies))


@pytest.fixture
def bench(tmp_path, data):
    with Bench(tmp_path / "root", data) as bench:
        yield bench


@pytest.fixture
def slow_bench(tmp_path, data):
    """Trials take long enough for something to happen meanwhile."""
    with Bench(tmp_path / "root", data, n_workers=1, epoch_s=0.02) as bench:
        yield bench


def run_locally(tmp_path, data, **changes):
    raw = experiment(**changes)
    raw["data"]["path"] = str(data)
    pool = ThreadPool(2)
    options = SearchOptions("s", str(tmp_path / "local.journal"), workers=2, tracking=False)
    return search(Experiment.from_dict(raw), options, make_executor=lambda n: pool)


def test_a_search_has_the_trials_of_a_local_one(bench, tmp_path, data):
    study = bench.submit()
    until_ended(study)
    assert (study.state, study.error) == (State.DONE, None)
    assert everything(bench.record(study)) == everything(run_locally(tmp_path, data))
    assert study.progress.trained == 8
    winner = find_winner(bench.record(study))
    assert study.progress.best["trial"] == winner.number
    assert study.progress.best["score"] == winner.mean  # the untuned default wins here


@pytest.mark.slow  # it fits classical baselines in three preparations, twice
def test_preparations_and_baselines_are_those_of_a_local_search(bench, tmp_path, data, monkeypatch):
    """The data is read in other processes for the search, its baselines, its refit and its test."""
    monkeypatch.undo()  # of the quick baselines
    transform = {"type": "categorical", "choices": ["none", "log", "difference"]}
    changes = {"search_space": SPACE | {"transform": transform}, "finalists": {"top": 1}}
    study = bench.submit(changes=changes)
    until_ended(study)
    assert (study.state, study.error) == (State.DONE, None)
    record, local = bench.record(study), run_locally(tmp_path, data, **changes)
    assert everything(record) == everything(local)
    assert record.baselines == local.baselines
    assert record.baselines
    assert record.test.refit is not None


def test_events_tell_the_search_from_begin_to_end(bench):
    study = bench.submit()
    until(lambda: bench.events_of(study, "ended"))
    names = [event["event"] for event in bench.events_of(study)]
    assert names[0] == "begun"
    assert names[-2:] == ["result", "ended"]
    trials = [e["trial"] for e in bench.events_of(study, "finished") if e["role"] == "trial"]
    assert sorted(trials) == list(range(8))


def test_no_path_of_the_server_is_in_an_event(bench, tmp_path):
    study = bench.submit(datasets={"data/waves.csv": DATASET}, changes={"name": "other"})
    until(lambda: bench.events_of(study, "ended"))
    assert str(tmp_path) not in json.dumps(bench.events_of(study))


def test_the_same_search_again_is_the_same_study(bench):
    study = bench.submit()
    assert bench.submit() is study
    until_ended(study)
    assert bench.submit() is study
    assert study.state is State.DONE


def test_another_search_of_the_same_name_is_refused(bench):
    study = bench.submit()
    with pytest.raises(Problem, match="strategy.batch=4, got 2") as problem:
        bench.submit(changes={"strategy": {"name": "random", "batch": 2}})
    assert problem.value.status == 409
    assert bench.studies.of("ana") == [study]


def test_an_external_study_of_the_same_name_is_another(bench):
    facts = Facts("waves", "random", 0, "rmse", "minimize", 8)
    bench.studies.add("ana", "taken", Kind.EXTERNAL, {"name": "taken"}, facts)
    with pytest.raises(Problem, match="'taken' is external: .*; give another name") as refused:
        bench.submit(name="taken")
    assert refused.value.status == 409


def test_options_alone_interrupt_nothing(slow_bench):
    study = slow_bench.submit(priority=5, max_workers=2)
    until(lambda: study.progress.trained >= 2)
    slow_bench.submit(changes={"budget": {"trials": 2, "epochs": 3}})  # without options
    assert (study.spec["priority"], study.spec["max_workers"]) == (5, 2)
    slow_bench.submit(priority=3)
    assert (study.state, study.spec["priority"], study.spec["max_workers"]) == ("running", 3, 2)
    slow_bench.submit(priority=5, max_workers=2)  # as at first
    assert (study.state, study.spec["priority"]) == ("running", 5)
    until(lambda: study.state is State.DONE)
    ended = study.ended
    slow_bench.submit(max_workers=1, changes={"budget": {"trials": 2, "epochs": 3}})
    assert (study.state, study.ended, study.spec["max_workers"]) == (State.DONE, ended, 1)
    names = [event["event"] for event in slow_bench.events_of(study)]
    assert names.count("begun") == 1
    assert Studies(slow_bench.records).get("ana", study.name).spec == study.spec


def test_a_larger_submission_keeps_to_the_limits(bench):
    study = bench.submit(changes={"budget": {"trials": 8, "epochs": 3}})
    few = Owner("ana", limits=Limits(trials=7))
    retries = {"budget": {"trials": 4, "epochs": 3, "retries": 9}}
    with pytest.raises(Problem, match="at most 7 here, got 8"):
        bench.submit(few, changes=retries)
    assert bench.submit(few, changes={"budget": {"trials": 4, "epochs": 3}}) is study


def test_owners_may_use_the_same_names(bench):
    studies = [bench.submit(owner) for owner in (ANA, BEN)]
    until_ended(*studies)
    records = [bench.record(study) for study in studies]
    assert everything(records[0]) == everything(records[1])
    assert records[0].id != records[1].id


def test_a_larger_budget_extends_a_search(bench, tmp_path, data):
    study = bench.submit()
    until_ended(study)
    assert bench.submit(changes={"budget": {"trials": 12, "epochs": 3}}) is study
    until(lambda: study.state is State.DONE and study.progress.trained == 12)
    assert [trial.number for trial in bench.record(study).trials] == list(range(12))


def test_extend_raises_the_budget_of_a_running_search(slow_bench):
    study = slow_bench.submit()
    until(lambda: study.progress.trained >= 2)
    slow_bench.searches.extend(study, {"trials": 10}, ANA)
    until(lambda: study.state is State.DONE)
    assert len(slow_bench.record(study).trained) == 10


def test_a_submission_that_was_there_before_lowers_nothing(bench):
    study = bench.submit()
    until_ended(study)
    bench.searches.extend(study, {"trials": 12}, ANA)
    until(lambda: study.state is State.DONE and study.progress.trained == 12)
    ended = study.ended
    for changes in ({}, {"budget": {"trials": 12, "epochs": 3}}):
        assert bench.submit(changes=changes) is study
        assert (study.state, study.ended, study.facts.trials) == (State.DONE, ended, 12)
    again = Studies(bench.records).get("ana", study.name)
    assert again.was_submitted(study.spec)
    assert again.submissions == study.submissions


def test_a_running_search_keeps_its_budget(slow_bench):
    study = slow_bench.submit()
    until(lambda: study.progress.trained >= 2)
    spec = study.spec
    with pytest.raises(Problem, match="has 8, and a budget is only raised, got 2; ") as refused:
        slow_bench.searches.extend(study, {"trials": 2}, ANA)
    assert refused.value.status == 422
    with pytest.raises(Problem, match="timeout: .* has no limit"):
        slow_bench.searches.extend(study, {"timeout": "1s"}, ANA)
    smaller = {"trials": 2, "epochs": 3, "timeout": 1}
    for changes in ({"budget": smaller}, {"finalists": {"top": 1, "refit": False}}):
        assert slow_bench.submit(changes=changes) is study
    assert study.spec == spec
    until(lambda: study.state is State.DONE)
    assert len(slow_bench.record(study).trained) == 8
    names = [event["event"] for event in slow_bench.events_of(study)]
    assert names.count("begun") == 1  # nothing has interrupted it


def test_extend_keeps_to_the_limits(bench):
    study = bench.submit()
    with pytest.raises(Problem, match="at most 9 here"):
        bench.searches.extend(study, {"trials": 10}, Owner("ana", limits=Limits(trials=9)))
    with pytest.raises(InputError, match="budget.timeout"):
        bench.searches.extend(study, {"timeout": "soon"}, ANA)


def test_a_cancelled_search_frees_its_worker_at_once(slow_bench):
    slow_bench.epoch_s = 1.0
    first, second = slow_bench.submit(), slow_bench.submit(BEN)
    until(lambda: slow_bench.pool.busy)
    begun = time.monotonic()
    for study in (first, second):
        slow_bench.searches.cancel(study)
    until(lambda: not slow_bench.pool.busy and not slow_bench.searches._running)
    assert time.monotonic() - begun < 0.9  # less than an epoch
    assert [study.state for study in (first, second)] == [State.CANCELLED] * 2
    until(lambda: slow_bench.events_of(first, "ended"))
    assert slow_bench.events_of(first, "ended")[0]["state"] == "interrupted"


def test_a_search_cancelled_as_it_ends_has_an_end(bench, monkeypatch):
    with Gate(monkeypatch, searches, "_winner") as gate:
        study = bench.submit()
        gate.reached()  # nothing looks for a cancel any more
        bench.searches.cancel(study)
    until(lambda: not bench.searches._running)
    assert study.state is State.CANCELLED
    assert [event["state"] for event in bench.events_of(study, "ended")] == ["interrupted"]


def test_a_search_that_ends_as_it_is_deleted_raises_nothing(bench, monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with Gate(monkeypatch, searches, "_winner") as gate:
        study = bench.submit()
        gate.reached()
        bench.searches.cancel(study)
        bench.studies.begin_removal(study)
    until(lambda: not bench.searches._running)
    assert (raised, study.state) == ([], State.CANCELLED)


def test_a_resumed_search_ends_like_one_that_was_not(slow_bench, tmp_path, data):
    study = slow_bench.submit()
    until(lambda: study.progress.trained >= 3)
    slow_bench.searches.cancel(study)
    slow_bench.searches.cancel(study)
    slow_bench.searches.resume(study, ANA)
    until_ended(study)
    assert study.state is State.DONE
    assert everything(slow_bench.record(study)) == everything(run_locally(tmp_path, data))


def test_a_queued_search_is_cancelled_with_an_event(tmp_path, data):
    bench = Bench(tmp_path / "root", data)  # which starts nothing
    study = bench.submit()
    assert bench.searches.positions("ana") == {study: 1}
    bench.searches.cancel(study)
    assert [e["state"] for e in bench.events_of(study)] == ["interrupted"]
    assert bench.searches.positions("ana") == {}
    bench.__enter__()
    bench.__exit__()


def test_what_has_ended_is_not_cancelled(bench):
    study = bench.submit()
    until_ended(study)
    with pytest.raises(Problem, match="is done: nothing is to cancel"):
        bench.searches.cancel(study)
    with pytest.raises(Problem, match="extend it"):
        bench.searches.resume(study, ANA)


def test_priority_decides_within_an_owner_and_turns_between(tmp_path, data):
    bench = Bench(tmp_path / "root", data)
    names = [("ana", "a", 0), ("ana", "b", 5), ("ben", "c", 0)]
    for owner, name, priority in names:
        bench.submit(Owner(owner), name=name, priority=priority)
    order = []
    while (study := bench.searches._next()) is not None:
        order.append(study.name)
        bench.searches._running[study.owner, study.name] = SimpleNamespace(starting=False)
    assert order == ["b", "c", "a"]


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr("tuner.service.searches._PAUSE_S", 0.01)


def failing_once(monkeypatch, owner, name, error=ZeroDivisionError):
    """Let the first call of a method fail."""
    method, failed = getattr(owner, name), []

    def fails(*args, **keys):
        if not failed:
            failed.append(True)
            raise error
        return method(*args, **keys)

    monkeypatch.setattr(owner, name, fails)


@pytest.mark.parametrize(("part", "method"), [("pool", "executor"), ("studies", "change")])
def test_a_search_that_cannot_be_started_fails_alone(
    bench, no_pause, monkeypatch, caplog, part, method
):
    failing_once(monkeypatch, getattr(bench, part), method)
    first = bench.submit(name="a")
    until_ended(first)
    assert (first.state, first.error[:17]) == (State.FAILED, "the server failed")
    assert "ZeroDivisionError" in caplog.text
    until(lambda: bench.events_of(first, "ended"))
    second = bench.submit(name="b")
    until_ended(second)
    assert second.state is State.DONE
    bench.searches.resume(first, ANA)
    until(lambda: first.state is State.DONE)


def test_the_scheduler_goes_on_after_an_error(bench, no_pause, monkeypatch, caplog):
    failing_once(monkeypatch, bench.searches, "_next")
    study = bench.submit()
    until_ended(study)
    assert study.state is State.DONE
    assert bench.searches.failed is None
    assert "ZeroDivisionError" in caplog.text


def test_a_dead_scheduler_is_known(bench, monkeypatch):
    failing_once(monkeypatch, bench.searches, "_next", SystemExit)
    bench.submit()
    until(lambda: bench.searches.failed)
    assert bench.searches.failed.startswith("no search is started any more: the server failed")


def test_the_end_of_a_search_waits_for_the_journal(bench, no_pause, monkeypatch):
    put, free, asked = bench.records.put, threading.Event(), threading.Event()

    def away(key, value):
        if key.startswith("state ") and value["state"] == "done" and not free.is_set():
            asked.set()
            raise JournalAway("the journal is away")
        put(key, value)

    monkeypatch.setattr(bench.records, "put", away)
    study = bench.submit()
    assert asked.wait(SOON_S)
    assert study.state is State.RUNNING
    assert not bench.events_of(study, "ended")
    free.set()
    until(lambda: bench.events_of(study, "ended"))
    assert study.state is State.DONE


def test_too_many_open_studies_are_refused(bench):
    owner = Owner("ana", limits=Limits(studies_queued=1))
    study = bench.submit(owner, name="a")
    if not study.state.has_ended:
        with pytest.raises(Problem) as problem:
            bench.submit(owner, name="b")
        assert problem.value.status == 429
        assert "Retry-After" in problem.value.headers
    until_ended(study)
    bench.submit(owner, name="b")


def test_an_ended_study_goes_on_only_where_there_is_room(tmp_path, data):
    bench, owner = Bench(tmp_path / "root", data), Owner("ana", limits=Limits(studies_queued=1))
    first = bench.submit(owner, name="a")
    bench.searches.cancel(first)
    second = bench.submit(owner, name="b")
    longer = {"budget": {"trials": 90, "epochs": 3}}
    for go_on in (
        lambda: bench.searches.resume(first, owner),
        lambda: bench.searches.extend(first, {"trials": 90}, owner),
        lambda: bench.submit(owner, longer, name="a"),
    ):
        with pytest.raises(Problem, match="1 studies have not ended, the limit"):
            go_on()
        assert first.state is State.CANCELLED
    bench.searches.extend(second, {"trials": 90}, owner)  # it is the one
    bench.searches.cancel(second)
    bench.searches.resume(first, owner)
    bench.__enter__()
    bench.__exit__()


def test_a_search_whose_data_is_refused_fails_with_one_line(bench, data):
    data.write_text("y\n1\n2\n")
    study = bench.submit()
    until(lambda: bench.events_of(study, "ended"))
    assert study.state is State.FAILED
    assert "waves.csv" in study.error
    assert "\n" not in study.error
    assert str(data.parent) not in study.error
    ended = bench.events_of(study, "ended")[0]
    assert (ended["state"], ended["reason"]) == ("failed", study.error)


def test_a_service_that_stops_hands_trials_back(tmp_path, data):
    with Bench(tmp_path / "root", data, n_workers=1, epoch_s=0.02) as bench:
        study = bench.submit()
        waits = bench.submit(BEN)
        until(lambda: study.progress.trained >= 2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    with Bench(tmp_path / "root", data, n_workers=1) as again:
        studies = again.studies.get("ana", study.name), again.studies.get("ben", waits.name)
        until_ended(*studies)
        for each in studies:
            assert each.state is State.DONE
            assert everything(again.record(each)) == everything(run_locally(tmp_path, data))
            until(lambda each=each: again.events_of(each, "ended"))
            assert [e["event"] for e in again.events_of(each)].count("begun") == 1
            finished = [
                e["trial"] for e in again.events_of(each, "finished") if e["role"] == "trial"
            ]
            assert sorted(finished) == list(range(8))


def test_a_new_search_can_begin_from_another(bench):
    first = bench.submit()
    until_ended(first)
    changes = {"budget": {"trials": 12, "epochs": 3}}
    second = bench.submit(name="second", changes=changes, **{"from": [first.name]})
    until_ended(second)
    assert (second.state, second.error) == (State.DONE, None)
    taken = [trial.params for trial in bench.record(second).trials[:8]]
    assert sorted(map(str, taken)) == sorted(str(t.params) for t in bench.record(first).trials)


@pytest.mark.slow
def test_searches_share_one_database(tmp_path, data):
    with Bench(tmp_path / "root", data, url=f"sqlite:///{tmp_path}/service.db") as bench:
        studies = [bench.submit(owner) for owner in (ANA, BEN)]
        until_ended(*studies)
        assert [study.error for study in studies] == [None, None]
        expected = everything(run_locally(tmp_path, data))
        for study in studies:
            assert everything(bench.record(study)) == expected


@pytest.mark.slow
def test_many_searches_share_few_workers(tmp_path, data):
    before = threading.active_count()
    with Bench(tmp_path / "root", data, n_workers=2) as bench:
        owners = [Owner(f"owner{i}") for i in range(5)]
        budget = {"budget": {"trials": 3, "epochs": 1}, "finalists": {"top": 1, "repeats": 1}}
        studies = [bench.submit(o, budget, name=f"s{k}") for k in range(8) for o in owners]
        until_ended(*studies)
        assert {study.state for study in studies} == {State.DONE}
        until(lambda: not bench.searches._running)
    until(lambda: threading.active_count() <= before)


def test_slow_data_of_one_owner_holds_no_other_up(bench, monkeypatch):
    """Two searches of an owner prepare at a time; one that is cancelled gives its place up."""
    begun, prepare = [], ConfinedData.prepare

    def slow(self, experiment, folder, **how):
        if self._owner == BEN.name:
            return prepare(self, experiment, folder, **how)
        begun.append(self)
        assert self._stop.wait(SOON_S)
        raise Interrupted("stopped")

    monkeypatch.setattr(ConfinedData, "prepare", slow)
    studies = [bench.submit(ANA, name=f"slow-{number}") for number in range(4)]
    until(lambda: len(begun) == 2)
    quick = bench.submit(BEN)
    until_ended(quick)
    assert quick.state is State.DONE
    assert len(begun) == 2
    bench.searches.cancel(studies[0])
    until(lambda: len(begun) == 3)
