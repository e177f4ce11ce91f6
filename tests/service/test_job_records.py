"""Jobs and events as JSON and blobs: what comes back is what went out, bit for bit."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data import SeriesRef, Shape
from tuner.data.preprocessing import Transform
from tuner.data.reference import PairsRef, SequencesRef
from tuner.executors import Finished, Lost, Reported
from tuner.executors.base import Returned
from tuner.jobs import (
    Epoch,
    Exported,
    ExportJob,
    GroupJob,
    Outcome,
    OutcomeState,
    PredictJob,
    TrainJob,
)
from tuner.service.job_records import (
    event_from_record,
    event_to_record,
    job_from_record,
    job_to_record,
    sha256_of,
)

SHAPE = Shape("forecast", 3, horizon=4, targets=2, quantiles=(0.1, 0.9), categories=((1, 5),),
              lag_columns=((2, 0),), known_columns=(1,))  # fmt: skip
SERIES = SeriesRef("/s", SHAPE, window=8, longest_window=16, offset=(0.1, 1 / 3),
                   transform=Transform("box_cox", (1, 12), (0.3,)), scale=(2.5, np.float64(0.7)),
                   step_weights=(1.0, 0.5, 0.25, 0.1))  # fmt: skip
REFS = [
    SERIES,
    SequencesRef("/q", Shape("classify", 2, classes=3), mean_errors=(0.5,), weighted=True),
    PairsRef("/p", Shape("translate", 0, vocabulary=9, classes=7)),
]
WEIGHTS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "a": np.array(2.5),
    "n": np.array([1, 2], np.int64),
    "empty": np.zeros((0, 3), np.float32),
}
HYPERPARAMETERS = {"hidden_size": 4, "dropout": 0.1, "cell": "lstm", "bidirectional": False}
JOBS = [
    TrainJob("3:trial 1", HYPERPARAMETERS, 2**62, 5, 3, "rmse", tuple(REFS), timeout_s=1.5),
    TrainJob("t", {}, 1, 5, 3, "mae", (SERIES,), can_be_pruned=True, schedule_epochs=9),
    PredictJob("p", HYPERPARAMETERS, WEIGHTS, SERIES, others=(WEIGHTS, WEIGHTS)),
    ExportJob("e", HYPERPARAMETERS, WEIGHTS, SHAPE, steps=12),
]
JOBS.append(GroupJob("g", (JOBS[0], JOBS[1])))
FOLDERS = {ref.folder: f"/here{ref.folder}" for ref in REFS}
BLOBS = {}


def put(content):
    BLOBS[sha256_of(content)] = content
    return sha256_of(content)


def through_json(record):
    return json.loads(json.dumps(record, allow_nan=False))


def plain(value):
    """A value that compares equal where every bit does."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(name, plain(each)) for name, each in value.items()]
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return type(value), [plain(getattr(value, f.name)) for f in dataclasses.fields(value)]
    return float.hex(value) if isinstance(value, float) else value


def here(job):
    """The job with its folders here."""
    moved = {f.name: getattr(job, f.name) for f in dataclasses.fields(job)}
    for name, value in moved.items():
        if name == "jobs":
            moved[name] = tuple(map(here, value))
        if name == "folds":
            moved[name] = tuple(dataclasses.replace(r, folder=FOLDERS[r.folder]) for r in value)
        if name == "data":
            moved[name] = dataclasses.replace(value, folder=FOLDERS[value.folder])
    return type(job)(**moved)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_job_comes_back_bit_for_bit(job):
    found = job_from_record(through_json(job_to_record(job, put)), BLOBS.__getitem__, FOLDERS)
    assert plain(found) == plain(here(job))


numbers = st.floats(allow_nan=True, allow_infinity=True)
epochs = st.builds(Epoch, st.integers(0, 99), numbers, numbers, numbers,
                   st.floats(0, 1e10))  # fmt: skip
folded = st.builds(dataclasses.replace, epochs, fold=st.integers(0, 9), fold_score=numbers)


@given(st.lists(epochs | folded, max_size=5), numbers | st.none(), st.booleans())
def test_an_outcome_comes_back_bit_for_bit(history, objective, has_arrays):
    numbered = tuple(dataclasses.replace(e, epoch=n) for n, e in enumerate(history))
    outcome = Outcome(
        OutcomeState.COMPLETE, objective, 0, numbered, None, 1.5, 1e9, 300.0, "cpu", 12, math.inf
    )
    if has_arrays:
        predictions = np.array([[1.0, math.nan], [math.inf, -0.0]])
        exported = Exported(b"onnx", math.nan)
        arrays = {"weights": WEIGHTS, "predictions": predictions, "exported": exported}
        outcome = dataclasses.replace(outcome, attention=np.ones((2, 3), np.float32), **arrays)
    event = Finished("k", outcome)
    found = event_from_record(through_json(event_to_record(event, put)), BLOBS.__getitem__)
    assert plain(found) == plain(event)


@given(epochs | folded)
def test_a_report_comes_back_bit_for_bit(epoch):
    event = Reported("k", epoch, 0.1)
    found = event_from_record(through_json(event_to_record(event, put)), BLOBS.__getitem__)
    assert plain(found) == plain(event)


def test_a_long_history_is_a_blob():
    history = tuple(Epoch(n, 1.0, 2.0, math.nan, 1e9) for n in range(10_000))
    event = Finished("k", Outcome(OutcomeState.COMPLETE, 1.0, 0, history))
    record = event_to_record(event, put)
    assert len(json.dumps(record)) < 1000
    assert plain(event_from_record(record, BLOBS.__getitem__)) == plain(event)


def test_a_loss_and_a_failure_come_back():
    failed = Finished("k", Outcome(OutcomeState.FAILED, reason="no memory"))
    for event in (Lost("k", "killed"), Returned("k"), failed):
        found = event_from_record(through_json(event_to_record(event, put)), BLOBS.__getitem__)
        assert found == event
