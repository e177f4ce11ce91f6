"""The index of studies: names, states and progress, durable."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tuner.errors import RunError
from tuner.service.problems import Problem
from tuner.service.records import hold_records
from tuner.service.studies import Facts, Kind, State, Studies

FACTS = Facts("sales", "tpe", 0, "rmse", "minimize", 40)


@pytest.fixture
def records(tmp_path):
    with hold_records(tmp_path, None, print) as records:
        yield records


def add(studies, owner="ana", name="a", kind=Kind.SEARCH):
    return studies.add(owner, name, kind, {"experiment": {"name": "sales"}}, FACTS)


def test_studies_are_read_again(records):
    studies = Studies(records)
    study = add(studies)
    study.progress.trained, study.progress.best = 3, {"trial": 1, "score": 0.5, "params": {}}
    studies.change(study, State.RUNNING)
    studies.change(study, State.FAILED, "no worker can be started")
    add(studies, "ana", "b", Kind.EXTERNAL)
    again = Studies(records)
    study.progress.is_old = True  # trials may have ended since it was written
    assert vars(again.get("ana", "a")) | {"heard": study.heard} == vars(study)
    assert again.get("ana", "b").kind is Kind.EXTERNAL
    assert [s.name for s in again.of("ana")] == ["b", "a"]
    assert add(again, "ana", "c").number == 3


def test_a_name_is_taken_once_per_owner(records):
    studies = Studies(records)
    add(studies)
    add(studies, "ben")
    with pytest.raises(Problem) as problem:
        add(studies)
    assert problem.value.status == 409


def test_a_study_of_another_owner_is_not_found(records):
    studies = Studies(records)
    add(studies)
    with pytest.raises(Problem) as problem:
        studies.get("ben", "a")
    assert problem.value.status == 404
    assert studies.of("ben") == []


def test_a_removed_study_stays_removed(records):
    studies = Studies(records)
    studies.remove(add(studies))
    assert studies.find("ana", "a") is None
    assert Studies(records).of("ana") == []
    add(studies)


def test_a_resumed_study_has_no_end(records):
    studies = Studies(records)
    study = add(studies)
    studies.change(study, State.RUNNING)
    began = study.began
    studies.change(study, State.CANCELLED)
    assert study.ended is not None
    studies.change(study, State.QUEUED)
    studies.change(study, State.RUNNING)
    assert (study.began, study.ended, study.error) == (began, None, None)


def test_a_change_that_cannot_be_written_is_undone(records, monkeypatch):
    studies = Studies(records)
    study = add(studies)

    def full(*args):
        raise RunError("cannot be written: No space left on device")

    monkeypatch.setattr(records, "put", full)
    with pytest.raises(RunError):
        studies.change(study, State.RUNNING)
    with pytest.raises(RunError):
        studies.respecify(study, {}, FACTS)
    with pytest.raises(RunError):
        add(studies, "ana", "b")
    assert (study.state, study.began) == (State.QUEUED, None)
    assert study.spec
    assert studies.find("ana", "b") is None


def test_of_two_changes_at_once_one_happens(records, monkeypatch):
    studies = Studies(records)
    study = add(studies)
    studies.change(study, State.RUNNING)
    began, both = [], threading.Barrier(2)
    put = records.put

    def slow(key, value):
        began.append(value["state"])
        put(key, value)

    monkeypatch.setattr(records, "put", slow)

    def change(state):
        both.wait(10)
        return studies.change(study, state, expected=(State.RUNNING,))

    with ThreadPoolExecutor(2) as pool:
        changed = list(pool.map(change, (State.DONE, State.CANCELLED)))
    assert sorted(changed) == [False, True]
    assert began == [study.state]
    assert study.state is (State.DONE, State.CANCELLED)[changed.index(True)]
    assert Studies(records).get("ana", "a").state is study.state
