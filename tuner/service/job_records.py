"""Jobs and events as JSON and blobs, between the service and pull workers: no pickle.

A blob is bytes under their SHA-256. Prepared data is its .npy files, arrays of a model are in the
format of safetensors, a model as ONNX is its file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from tuner.data import DataRef, Shape
from tuner.data.reference import PairsRef, SequencesRef, SeriesRef
from tuner.executors.base import Event, Finished, Lost, Reported, Returned
from tuner.jobs import (
    Epoch,
    Exported,
    ExportJob,
    GroupJob,
    Job,
    Outcome,
    PredictJob,
    TrainJob,
    Weights,
)

Record = dict[str, Any]
Put = Callable[[bytes], str]
"""Keeps a blob and returns its SHA-256."""
Get = Callable[[str], bytes]
"""Returns the blob of a SHA-256."""

_JOBS = {"train": TrainJob, "predict": PredictJob, "export": ExportJob}
_REFS = {ref.__name__: ref for ref in (SeriesRef, SequencesRef, PairsRef)}
_LONG = 500  # epochs, above which a history is a blob
_ARRAYS = ("weights", "predictions", "attention", "exported")  # of an outcome

_NUMBERS = {
    "objective": float | None,
    "best_epoch": int | None,
    "reason": str | None,
    "seconds": float,
    "finished_at": float,
    "peak_memory_mb": float,
    "device": str,
    "n_weights": int | None,
    "latency_ms": float | None,
}  # of an outcome; texts stand for nan and infinity, which JSON does not have


def sha256_of(content: bytes) -> str:
    """Return the name of a blob."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the name of a file as a blob."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def job_to_record(job: Job, put: Put) -> Record:
    """Return a job as JSON; `put` keeps its weights. Folders of data stay as they are."""
    if isinstance(job, GroupJob):
        jobs = [job_to_record(each, put) for each in job.jobs]
        return {"kind": "group", "key": job.key, "jobs": jobs}
    kind = next(kind for kind, type_ in _JOBS.items() if isinstance(job, type_))
    record = {f.name: getattr(job, f.name) for f in dataclasses.fields(job)}
    if isinstance(job, TrainJob):
        record["folds"] = [ref_to_record(ref) for ref in job.folds]
    else:
        record["weights"] = _arrays_to_record(job.weights, put)
        record["others"] = [_arrays_to_record(weights, put) for weights in job.others]
    if isinstance(job, PredictJob):
        record["data"] = ref_to_record(job.data)
    if isinstance(job, ExportJob):
        record["shape"] = dataclasses.asdict(job.shape)
    return {"kind": kind, **plain(record)}


def job_from_record(record: Record, get: Get, folder_of: Mapping[str, str]) -> Job:
    """Return the job of a record by `job_to_record`.

    Args:
        record: the record.
        get: returns its blobs.
        folder_of: the folders of its data here, by their names in the record.

    Raises:
        ValueError: it is no such record.
    """
    fields = dict(record)
    if (kind := fields.pop("kind")) == "group":
        jobs = tuple(job_from_record(each, get, folder_of) for each in fields["jobs"])
        if not all(isinstance(each, TrainJob) for each in jobs):
            raise ValueError("a group has jobs that train")
        return GroupJob(fields["key"], jobs)  # type: ignore[arg-type]
    type_ = _JOBS[kind]
    if type_ is TrainJob:
        fields["folds"] = tuple(ref_from_record(ref, folder_of) for ref in fields["folds"])
    else:
        fields["weights"] = _arrays_from_record(fields["weights"], get)
        fields["others"] = tuple(_arrays_from_record(each, get) for each in fields["others"])
    if type_ is PredictJob:
        fields["data"] = ref_from_record(fields["data"], folder_of)
    if type_ is ExportJob:
        fields["shape"] = _adapter(Shape).validate_python(fields["shape"])
    job: Job = type_(**fields)
    return job


def event_to_record(event: Event, put: Put) -> Record:
    """Return an event as JSON; `put` keeps the arrays of an outcome."""
    match event:
        case Reported():
            epoch = plain(dataclasses.asdict(event.epoch))
            return {"key": event.key, "epoch": epoch, "trained_s": event.trained_s}
        case Finished():
            return {"key": event.key, "outcome": _outcome_to_record(event.outcome, put)}
        case Lost(key, reason):
            return {"key": key, "lost": reason}
        case Returned(key):
            return {"key": key, "returned": True}


def event_from_record(record: Record, get: Get) -> Event:
    """Return the event of a record by `event_to_record`.

    Raises:
        ValueError: it is no such record.
    """
    key = record["key"]
    if "epoch" in record:
        epoch = _adapter(Epoch).validate_python(record["epoch"])
        return Reported(key, epoch, float(record["trained_s"]))
    if "outcome" in record:
        return Finished(key, _outcome_from_record(record["outcome"], get))
    if record.get("returned"):
        return Returned(key)
    return Lost(key, str(record["lost"]))


def _outcome_to_record(outcome: Outcome, put: Put) -> Record:
    record: Record = plain(outcome.to_json())
    for row, epoch in zip(record["history"], outcome.history, strict=True):
        row[3] = epoch.time  # the journal rounds it
    if len(record["history"]) > _LONG:
        record["history"] = put(json.dumps(record["history"]).encode())
    if outcome.weights is not None:
        record["weights"] = _arrays_to_record(outcome.weights, put)
    for name in ("predictions", "attention"):
        if (array := getattr(outcome, name)) is not None:
            record[name] = _arrays_to_record({name: array}, put)
    if (model := outcome.exported) is not None:
        record["exported"] = plain({"file": put(model.file), "difference": model.difference})
    return record


def _outcome_from_record(record: Record, get: Get) -> Outcome:
    numbers = {name: value for name, value in record.items() if name not in _ARRAYS}
    rows = record["history"]
    rows = json.loads(get(rows)) if isinstance(rows, str) else rows
    numbers["history"] = [_epoch_row(row) for row in rows]
    for name, type_ in _NUMBERS.items():
        numbers[name] = _adapter(type_).validate_python(record[name])
    outcome = Outcome.from_json(numbers)
    arrays: Record = {}
    if (weights := record.get("weights")) is not None:
        arrays["weights"] = _arrays_from_record(weights, get)
    for name in ("predictions", "attention"):
        if (array := record.get(name)) is not None:
            arrays[name] = _arrays_from_record(array, get)[name]
    if (model := record.get("exported")) is not None:
        arrays["exported"] = Exported(get(model["file"]), float(model["difference"]))
    return dataclasses.replace(outcome, **arrays)


def _epoch_row(row: list[Any]) -> list[Any]:
    numbers = _adapter(list[float | None]).validate_python(row)
    return [*numbers[:4], *(map(int, row[4:5])), *numbers[5:]]  # the fifth is the fold


def ref_to_record(ref: DataRef) -> Record:
    """Return a reference to data as JSON."""
    return {"kind": type(ref).__name__} | dataclasses.asdict(ref)


def ref_from_record(record: Record, folder_of: Mapping[str, str] | None = None) -> DataRef:
    """Return the reference of a record by `ref_to_record`.

    Args:
        record: the record.
        folder_of: the folders of data here, by their names in the record; None if they are the
            same.
    """
    fields = dict(record)
    type_ = _REFS[fields.pop("kind")]
    if folder_of is not None:
        fields["folder"] = folder_of[fields["folder"]]
    ref: DataRef = _adapter(type_).validate_python(fields)
    return ref


def _arrays_to_record(arrays: Weights, put: Put) -> Record:
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    # ascontiguousarray gives an array without axes one.
    shaped = {name: array.reshape(arrays[name].shape) for name, array in contiguous.items()}
    return {"sha256": put(save(shaped)), "names": list(arrays)}


def _arrays_from_record(record: Record, get: Get) -> Weights:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(get(record["sha256"]))
    except SafetensorError as error:
        raise ValueError(f"it has no arrays: {error}") from None
    return {name: arrays[name] for name in record["names"]}


@functools.cache
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: texts for nan and infinity, lists for tuples."""
    match value:
        case float() if not math.isfinite(value):
            return str(float(value))
        case np.generic():
            return plain(value.item())
        case dict():
            return {name: plain(each) for name, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return value
