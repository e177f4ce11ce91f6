"""Routes of pull workers, see `tuner.service.workers`; `tuner worker` is their client."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from tuner.service import threads
from tuner.service.access import WorkerCaller
from tuner.service.problems import Problem
from tuner.service.workers import LEASE_S, MOST_SLOTS, PullWorker, PullWorkers, to_json

router = APIRouter(prefix="/v1/workers", tags=["workers"])

_BLOB = "application/octet-stream"
_MOST_WAIT_S = 10.0  # less than the lease


Id = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Sha256 = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]
JobKey = Annotated[str, Query(min_length=1, max_length=1000)]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key gives the same worker again.",
    ),
]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Joining(_Body):
    """A worker that starts."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    version: Annotated[str, Field(max_length=50)]
    slots: Annotated[int, Field(ge=1, le=MOST_SLOTS, strict=True)]


class Worker(BaseModel):
    """A worker that the service knows."""

    id: str
    name: str
    slots: int
    busy: int
    lease_s: float = LEASE_S


class Workers(BaseModel):
    """The workers of the caller."""

    items: list[Worker]


class Lease(_Body):
    """A request for messages."""

    after: Annotated[int, Field(ge=0, strict=True)]  # the number of messages that have arrived
    wait_s: Annotated[float, Field(ge=0, le=_MOST_WAIT_S, strict=True)] = 0


class Messages(BaseModel):
    """Messages for a worker, in order."""

    messages: list[dict[str, Any]]


class WorkerEvent(_Body):
    """What became of a job, by the one key besides `key`."""

    key: Annotated[str, Field(max_length=1000)]
    epoch: dict[str, Any] | None = None
    trained_s: float = 0.0
    outcome: dict[str, Any] | None = None
    lost: Annotated[str, Field(max_length=2000)] | None = None
    returned: bool = False
    ended: bool = False


class Events(_Body):
    """Events of a worker, the first of which has the number `first`."""

    first: Annotated[int, Field(ge=0, strict=True)]
    events: Annotated[list[WorkerEvent], Field(max_length=10_000, fail_fast=True)]


class Received(BaseModel):
    """How many events have been received in all."""

    received: int


def _workers(request: Request) -> PullWorkers:
    workers: PullWorkers = request.app.state.service.workers
    return workers


def _shown(worker: PullWorker) -> Worker:
    return Worker(**to_json(worker))


@router.post("", status_code=201)
def join(
    request: Request, owner: WorkerCaller, body: Joining, idempotency_key: Key = None
) -> Worker:
    """Add a worker."""
    workers = _workers(request)
    return _shown(workers.join(owner, body.name, body.version, body.slots, idempotency_key))


@router.get("")
def list_workers(request: Request, owner: WorkerCaller) -> Workers:
    """Return the workers of the caller."""
    return Workers(items=[_shown(worker) for worker in _workers(request).of(owner)])


@router.delete("/{id}", status_code=204)
def leave(request: Request, owner: WorkerCaller, id: Id) -> Response:
    """Remove a worker, and hand its jobs to others."""
    workers = _workers(request)
    workers.leave(workers.get(owner, id))
    return Response(status_code=204)


@router.post("/{id}/lease", response_model=Messages)
async def lease(request: Request, owner: WorkerCaller, id: Id, body: Lease) -> Response:
    """Return messages for a worker, waiting for the first; renews its lease."""
    workers = _workers(request)
    worker = workers.get(owner, id)
    await worker.wait(body.after, body.wait_s)
    with workers.answering(worker):
        messages = await threads.run_in(threads.JOBS, workers.messages, worker, body.after)
    text = json.dumps({"messages": messages}, allow_nan=False)
    return Response(text, media_type="application/json")


@router.post("/{id}/events")
@threads.in_threads(threads.OUTCOMES)
def events(request: Request, owner: WorkerCaller, id: Id, body: Events) -> Received:
    """Take what became of the jobs of a worker; renews its lease."""
    workers = _workers(request)
    records = [event.model_dump(exclude_none=True) for event in body.events]
    return Received(received=workers.receive(workers.get(owner, id), body.first, records))


@router.get("/{id}/blobs/{sha256}", response_class=Response)
def get_blob(request: Request, owner: WorkerCaller, id: Id, sha256: Sha256) -> Response:
    """Return data or weights of a job that the worker has."""
    workers = _workers(request)
    found = workers.blob(workers.get(owner, id), sha256)
    if isinstance(found, Path):
        return FileResponse(found, media_type=_BLOB)
    return Response(found, media_type=_BLOB)


@router.put("/{id}/blobs/{sha256}", status_code=204)
async def put_blob(
    request: Request, owner: WorkerCaller, id: Id, sha256: Sha256, job: JobKey
) -> Response:
    """Keep arrays of the outcome of a job that the worker has; an event refers to them."""
    workers = _workers(request)
    worker, digest = workers.get(owner, id), hashlib.sha256()
    with workers.uploading(worker, job, sha256) as arriving:
        with arriving.upload.path.open("wb") as file:
            async for part in request.stream():
                arriving.grow(len(part))
                workers.get(owner, id)  # it may take long
                digest.update(part)
                await asyncio.to_thread(file.write, part)
        if digest.hexdigest() != sha256:
            raise Problem(422, f"the body has another SHA-256, {digest.hexdigest()}; send it again")
    return Response(status_code=204)
