"""Study records by hand, and a store that the tests of a session share."""

import dataclasses
import time
import uuid

import pytest
from helpers.records import study_record, trial_record

from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.records import TestScore
from tuner.tracking import open_store

START_S = 1_700_000_000.0


def _trial(
    number,
    state=OutcomeState.COMPLETE,
    *,
    objective=None,
    epochs=3,
    params=None,
    reason=None,
    finished_at=None,
    **fields,
):
    """One trial that took a second an epoch; `state` None is one that still runs."""
    end_s = START_S + 100 * number if finished_at is None else finished_at
    outcome = None
    if state is not None:
        complete = state is OutcomeState.COMPLETE
        outcome = Outcome(
            state=state,
            objective=(10.0 - number if objective is None else objective) if complete else None,
            best_epoch=epochs - 1 if complete else None,
            history=tuple(
                Epoch(e, 1.0 / (e + 1), 2.0 / (e + 1), 30.0 / (e + 1), end_s - epochs + e + 1)
                for e in range(epochs)
            ),
            reason=reason,
            seconds=float(epochs),
            finished_at=end_s,
        )
    params = {"hidden_size": 8 + number} if params is None else params
    return trial_record(number, outcome, params=params, seed=1000 + number, **fields)


@pytest.fixture
def make_trial():
    return _trial


@pytest.fixture
def make_record():
    """Makes a study of an experiment that no other test has."""
    name = f"exp-{uuid.uuid4().hex[:8]}"

    def make(*trials, **fields):
        experiment = Experiment.model_validate(
            {
                "name": name,
                "data": {"path": "air.csv", "target": "passengers"},
                "search_space": {"hidden_size": {"type": "int", "low": 8, "high": 99}},
                "strategy": {"name": "woa", "population": 4},
                "budget": {"trials": 4, "epochs": 100},
                "finalists": {"top": 1, "repeats": 2},
                **fields.pop("experiment", {}),
            }
        )
        known = {
            "id": uuid.uuid4().hex,
            "name": "s1",
            "baselines": {"last_value": 1.0},
            "data": {"sha256": "ab" * 32, "rows": 144, "path": "air.csv"},
            "versions": {"torch": "2.13.0", "python": "3.11.7"},
            "created": "2023-11-14T22:00:00+00:00",
        }
        fields["finalists"] = tuple(fields.get("finalists", ()))
        if "test" in fields:
            fields["test"] = TestScore.from_json(fields["test"])
        return study_record(experiment, trials, **known | fields)

    return make


@pytest.fixture
def four_trials(make_trial):
    """One of each kind: complete, pruned, failed, and a repeat of the first."""
    first = make_trial(0, generation=0, individual=0)
    repeat = dataclasses.replace(first, number=3, repeat_of=0, generation=0, individual=3)
    return [
        first,
        make_trial(1, OutcomeState.PRUNED, generation=0, individual=1),
        make_trial(2, OutcomeState.FAILED, reason="loss is nan", generation=0, individual=2),
        repeat,
    ]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("a store with spaces")


@pytest.fixture(autouse=True)
def folder(shared_folder, monkeypatch, no_mlflow_settings):
    """Every test stands in the folder of the shared store, with no MLflow settings but ours."""
    monkeypatch.chdir(shared_folder)
    return shared_folder


@pytest.fixture
def client(folder):
    return open_store()


@pytest.fixture
def wait_for():
    def wait(condition):
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    return wait
