"""A study's events as a stream, from its beginning or from an id on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse
from starlette.responses import Response

from tuner.service.access import Reader
from tuner.service.events import EventLog, EventReporter
from tuner.service.studies import State, Study

router = APIRouter(tags=["studies"])

NDJSON = "application/x-ndjson"

_QUIET_S = 15.0  # without an event, after which the connection is kept alive
_ENDING_S = 2.0  # the same, where the study has ended and the event of it is missing
_INLINE = 64 * 1024  # bytes that are read without a thread; those of a busy study are cached

_ending = threading.Lock()  # many readers find at once that the event is missing

_ENDED: dict[State, tuple[str, int]] = {  # the state in the event, the exit status
    State.DONE: ("done", 0),
    State.CANCELLED: ("interrupted", 130),
    State.FAILED: ("failed", 1),
}

_Id = Annotated[int | None, Query(ge=0, lt=1 << 63)]
_LastId = Annotated[
    int | None,
    Header(ge=0, lt=1 << 63, description="The id of the newest event that the client has."),
]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events, until one named `ended`.",
        "content": {"text/event-stream": {}, NDJSON: {}},
    },
    204: {"description": "The study has ended, and the client has all events: do not reconnect."},
}


@router.get("/v1/studies/{name}/events", response_class=Response, responses=_STREAM)
async def events(
    name: str,
    owner: Reader,
    request: Request,
    after: _Id = None,
    last_event_id: _LastId = None,
) -> Response:
    """Stream a study's events after an id, or all; `Last-Event-ID` comes before `after`.

    Each event is the object that `tuner run --json` writes. An id that the study does not have
    stands for the beginning. The stream ends after `ended`. With `Accept: application/x-ndjson`,
    events are lines of JSON, and empty lines keep the connection alive.
    """
    service = request.app.state.service
    study: Study = service.studies.get_at_once(owner.name, name)
    log: EventLog = service.events.of(owner.name, name)
    wanted = after if last_event_id is None else last_event_id
    at = log.position(wanted or 0)
    if at and at == log.end and log.ended and study.state.has_ended:
        return Response(status_code=204)
    frames = NDJSON not in request.headers.get("accept", "")
    chunks = _chunks(log, at, lambda: study.state.has_ended, lambda: _end(log, study), frames)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # no proxy holds it back
    return EventSourceResponse(chunks, headers=headers, media_type=None if frames else NDJSON)


async def _chunks(
    log: EventLog,
    at: int,
    has_ended: Callable[[], bool],
    end: Callable[[], None],
    frames: bool,
) -> AsyncIterator[bytes]:
    """Yield the events of a log after `at`, several at a time.

    Args:
        log: of the study.
        at: an id.
        has_ended: whether the study has, by its state.
        end: adds `ended`, which a service that died has not written.
        frames: whether to yield server-sent events, not lines.
    """
    while not log.closed:
        near = log.visible - at <= _INLINE
        batch = log.read(at) if near else await asyncio.to_thread(log.read, at)
        if batch.lines:
            at = batch.end
            yield batch.frames if frames else batch.lines
            continue
        ending = has_ended()
        if ending and at == log.end and log.ended:
            return
        try:
            async with asyncio.timeout(_ENDING_S if ending else _QUIET_S):
                await log.wait(at)
        except TimeoutError:
            if ending and at == log.end and not log.ended:
                await asyncio.to_thread(end)
            yield KEEPALIVE_COMMENT if frames else b"\n"


def _end(log: EventLog, study: Study) -> None:
    state, exit_status = _ENDED[study.state]
    reason = study.error or ("cancelled" if study.state is State.CANCELLED else None)
    with _ending:
        if not log.ended:
            EventReporter(log).ended(state, reason, exit_status)
