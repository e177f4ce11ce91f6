"""Data files: upload, list, show, delete."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel

from tuner.service import threads
from tuner.service.access import Owner, Reader, Writer
from tuner.service.datasets import Dataset, DatasetStore
from tuner.service.problems import Problem

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_PART = 1 << 20  # bytes that are written at once
_UPLOADS = CapacityLimiter(32)  # threads that write parts of uploads; others are not held up

Id = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content.")]
Name = Annotated[
    str,
    Query(min_length=1, max_length=1000, description="Of the file; its ending gives the format."),
]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Datasets(BaseModel):
    """A page of data files."""

    items: list[Dataset]
    next: str | None
    """The cursor of the next page; null on the last one."""


@router.put("/{dataset}", openapi_extra=_BODY, responses={201: {"model": Dataset}})
async def upload_known(
    request: Request, response: Response, owner: Writer, dataset: Id, name: Name = "data.csv"
) -> Dataset:
    """Upload a CSV, Excel, JSON lines or Parquet file whose SHA-256 is known.

    200 if the owner has the same content already.
    """
    return await _received(request, response, owner, name, dataset)


@router.post("", openapi_extra=_BODY, responses={201: {"model": Dataset}})
async def upload(
    request: Request, response: Response, owner: Writer, name: Name = "data.csv"
) -> Dataset:
    """Upload a CSV, Excel, JSON lines or Parquet file; the answer has its SHA-256.

    200 if the owner has the same content already.
    """
    return await _received(request, response, owner, name, None)


async def _received(
    request: Request, response: Response, owner: Owner, name: str, expected: str | None
) -> Dataset:
    store: DatasetStore = request.app.state.service.datasets
    in_thread = partial(to_thread.run_sync, limiter=_UPLOADS)
    arriving = await in_thread(partial(store.upload, owner, name, expected))
    try:
        waiting = bytearray()
        async for part in request.stream():
            waiting += part
            if len(waiting) >= _PART:
                await in_thread(arriving.write, bytes(waiting))
                waiting.clear()
        await in_thread(arriving.write, bytes(waiting))
        found, is_new = await threads.READING.run(owner.name, arriving.commit)
    finally:
        arriving.close()
    response.status_code = 201 if is_new else 200
    return _with_users(request, owner, found)


@router.get("")
def datasets(
    request: Request,
    owner: Reader,
    cursor: Annotated[str | None, Query(max_length=20)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Datasets:
    """List the owner's data files, the newest first."""
    store: DatasetStore = request.app.state.service.datasets
    if cursor is not None and not (cursor.isascii() and cursor.isdigit()):
        raise Problem(422, "cursor: must be the `next` of the page before; leave it out")
    found, start = store.list(owner.name), int(cursor or 0)
    more = str(start + limit) if len(found) > start + limit else None
    items = [_with_users(request, owner, one) for one in found[start : start + limit]]
    return Datasets(items=items, next=more)


@router.get("/{dataset}")
def dataset(request: Request, owner: Reader, dataset: Id) -> Dataset:
    """Return what is known of a data file."""
    store: DatasetStore = request.app.state.service.datasets
    return _with_users(request, owner, store.get(owner.name, dataset))


@router.delete("/{dataset}", status_code=204)
def delete(request: Request, owner: Writer, dataset: Id) -> None:
    """Delete a data file that no study uses."""
    service = request.app.state.service
    used_by = partial(service.used_by, owner.name, dataset)
    service.datasets.delete(owner.name, dataset, used_by)


def _with_users(request: Request, owner: Owner, found: Dataset) -> Dataset:
    used_by = request.app.state.service.used_by(owner.name, found.id)
    return found.model_copy(update={"used_by": tuple(used_by)})
