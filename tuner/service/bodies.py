"""Bodies of requests: how large they may be, how long they may take, and strict JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tuner.service import threads
from tuner.service.problems import Problem
from tuner.service.settings import Limits
from tuner.service.strict_json import check_json

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

BODY_S = 30.0
"""Time in which each part of `PART_BYTES`, or the end of the body, must arrive."""

PART_BYTES = 256 * 1024
"""A JSON body is one part; an upload has many, so a client that trickles holds nothing for long."""

_MOST_DIGITS = 18  # of a length
_INLINE = 16 * 1024  # bytes of JSON that are checked in the loop: 8 ms at worst


class Body:
    """A body that is read: within its limit and its time, and strictly if it is JSON.

    Args:
        receive: returns the parts.
        headers: of the request.
        limits: of who sends it.
        is_upload: whether it is a file, which its route reads part by part, whatever its type.

    Raises:
        Problem: 413, it says that it is too large.
    """

    def __init__(
        self, receive: Receive, headers: Headers, limits: Limits, *, is_upload: bool
    ) -> None:
        self._receive = receive
        self._limit = limits.upload_bytes if is_upload else limits.body_bytes
        self._read, self._is_complete = 0, False
        self._arrived, self._waited = 0, 0.0  # of the part that arrives: bytes, seconds
        self._whole: bytes | None = None
        length = headers.get("content-length", "0")
        if length.isdecimal() and (len(length) > _MOST_DIGITS or int(length) > self._limit):
            raise _too_large(self._limit)
        has_body = length != "0" or "transfer-encoding" in headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_json = kind == "application/json" or kind.endswith("+json")
        self._is_json = has_body and is_json and not is_upload

    async def check(self) -> None:
        """Read the body and check it, if it is JSON; else `receive` reads it.

        Raises:
            Problem: 400 it is no JSON, 408 it comes too slowly, 413 it is too large.
            ClientDisconnect: the client has left.
        """
        if not self._is_json:
            return
        parts = list[bytes]()
        while not self._is_complete:
            message = await self._next()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
        self._whole = b"".join(parts)
        try:
            if len(self._whole) <= _INLINE:
                check_json(self._whole)
            else:
                await threads.run_in(threads.PARSING, check_json, self._whole)
        except ValueError as error:
            raise Problem(400, f"{error}; correct it") from None

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            HTTPException: 408 or 413; the application answers it.
        """
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return {"type": "http.request", "body": whole, "more_body": False}
        if self._is_complete:
            return await self._receive()  # it waits for the end of the connection
        try:
            return await self._next()
        except Problem as refused:
            raise HTTPException(refused.status, refused.detail, refused.headers) from None

    async def _next(self) -> Message:
        """Return the next part; only time that passes while the client is waited for counts."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(BODY_S - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise _too_slow() from None
        n_bytes = len(message.get("body", b""))
        self._read += n_bytes
        self._arrived += n_bytes
        self._waited += loop.time() - began
        self._is_complete = not message.get("more_body", False)
        if self._read > self._limit:
            raise _too_large(self._limit)
        if self._arrived >= PART_BYTES:
            self._arrived, self._waited = 0, 0.0
        return message


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body has more than {limit} bytes, the limit; send less")


def _too_slow() -> Problem:
    what = f"{PART_BYTES // 1024} KiB of the body, or its end, have"
    detail = f"{what} not arrived within {BODY_S:g} s; send it faster"
    return Problem(408, detail, headers={"Connection": "close"})
