"""What every request passes first: where it comes from, who sends it, how much it may take.

Pure ASGI: no route is reached, and no body is read, before these checks have passed. A token is
needed for every path but a few, whose requests have no body.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from tuner.service.access import ANYBODY, Access, Owner
from tuner.service.bodies import Body, Message, Receive
from tuner.service.problems import Problem, unexpected
from tuner.service.settings import Settings

Scope = Message
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SAFE = ("GET", "HEAD")
_STREAMS = ("text/event-stream", "application/x-ndjson")  # types of endless answers
_ALWAYS = ("/health", "/ready", "/metrics")  # also while standing by, or full of requests
_OPEN = ("/", "/health", "/ready", "/openapi.json")  # and static files: without a token
_WITH_BODY = ("/v1/", "/page/")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger("tuner.service")

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Observed(Protocol):
    """Who is informed of each answer."""

    def __call__(self, request: Answered, /) -> None:
        """Handle an answer."""


@dataclass(frozen=True)
class Answered:
    """A request and the status of its answer."""

    method: str
    path: str
    route: str  # the template of the path; "" for an unknown one
    status: int  # 499: the client has left
    seconds: float
    owner: str | None
    client: str | None


class Answer:
    """An answer that is sent; it has the headers of every answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None
        self.is_stream = False
        self.ignores_token = False

    async def send(self, message: Message) -> None:
        """Send the next part."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self.ignores_token:
                headers["Tuner-Token"] = "ignored"  # its user may think that it protects something
            self.is_stream = headers.get("content-type", "").startswith(_STREAMS)
            if self.is_stream:
                headers["X-Accel-Buffering"] = "no"  # nginx passes each event on at once
            message["headers"] = headers.raw
        await self._send(message)


@dataclass
class Condition:
    """Whether the service can take requests; changes while it runs."""

    not_ready: str | None = None
    """Why it cannot, in one line."""

    stopping: bool = False
    """It ends: event streams are closed, and what waits is answered 503."""

    open: dict[asyncio.Task[Any], Answer] = field(default_factory=dict)
    """The tasks of requests, and their answers."""

    def end_requests(self, *, streams_only: bool = False) -> None:
        """End the requests that are open; called in the loop as the service stops."""
        self.stopping, self.not_ready = True, "the service stops"
        for task, answer in list(self.open.items()):
            if answer.is_stream or not streams_only:
                task.cancel()


class Guard:
    """The outermost middleware.

    Args:
        app: the application.
        access: who may call.
        settings: of the server.
        condition: of the service.
        observers: are informed of every answer.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        settings: Settings,
        condition: Condition,
        observers: tuple[Observed, ...] = (),
    ) -> None:
        self._app, self._access, self._settings = app, access, settings
        self._condition, self._observers = condition, observers
        self._hosts = {*_LOOPBACK, settings.host, socket.gethostname(), *settings.allow_hosts}
        self._public = _origin(settings.public_url) if settings.public_url else None
        if settings.public_url:
            self._hosts.add(urlsplit(settings.public_url).hostname or "")
        self._hosts = {name.lower() for name in self._hosts if name}
        self._requests, self._streams = Counter[str](), Counter[str]()

    @property
    def n_streams(self) -> int:
        """Open event streams."""
        return self._streams.total()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, and have the application answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = Answer(send)
        if not self._access.needs_token:
            answer.ignores_token = "authorization" in Headers(scope=scope)
        began = time.perf_counter()
        owner: Owner | None = None
        try:
            owner = self._authenticate(scope)
            await self._serve(scope, receive, answer, owner)
        except Problem as problem:
            await self._refuse(problem, scope, receive, answer)
        except ClientDisconnect:
            answer.status = answer.status or 499
        except asyncio.CancelledError:
            if not self._condition.stopping:
                raise
            _uncancel()
            await self._end(scope, receive, answer)
        except Exception as error:
            await self._refuse(unexpected(error), scope, receive, answer)
        finally:
            self._report(scope, answer, owner, time.perf_counter() - began)

    def _authenticate(self, scope: Scope) -> Owner | None:
        """Check where a request comes from, and return who sends it, if that must be known."""
        headers, path = Headers(scope=scope), scope["path"]
        self._check_origin(scope, headers)
        authorization = headers.get("authorization")
        if self._access.needs_token and not authorization and _is_open(path):
            return None
        owner = scope["tuner.owner"] = self._access.owner(authorization)
        return owner

    async def _serve(
        self, scope: Scope, receive: Receive, answer: Answer, owner: Owner | None
    ) -> None:
        why, path = self._condition.not_ready, scope["path"]
        if why is not None and path not in _ALWAYS:
            raise Problem(503, why, headers={"Retry-After": "5"})
        caller = owner or ANYBODY
        is_upload = _is_upload(scope["method"], path)
        body = Body(receive, Headers(scope=scope), caller.limits, is_upload=is_upload)
        with self._counted(scope, caller), self._opened(answer):
            if path.startswith(_WITH_BODY):
                await body.check()
            await self._app(scope, body.receive, answer.send)

    @contextmanager
    def _opened(self, answer: Answer) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        self._condition.open[task] = answer
        try:
            yield
        finally:
            del self._condition.open[task]

    @contextmanager
    def _counted(self, scope: Scope, owner: Owner) -> Iterator[None]:
        """Count a request among those of its owner, and refuse one too many."""
        if scope["path"] in _ALWAYS:
            yield
            return
        is_stream = scope["method"] == "GET" and scope["path"].endswith("/events")
        counts = [(self._requests, owner.limits.requests, "requests")]
        if is_stream:
            counts.append((self._streams, owner.limits.streams, "event streams"))
        for counter, limit, what in counts:
            if counter[owner.name] >= limit:
                detail = f"{limit} {what} are open, the limit; close one"
                raise Problem(429, detail, headers={"Retry-After": "1"})
        for counter, *_ in counts:
            counter[owner.name] += 1
        try:
            yield
        finally:
            for counter, *_ in counts:
                counter[owner.name] -= 1
                if not counter[owner.name]:
                    del counter[owner.name]

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another site sends, or a name of this server that is not its own.

        A page of an attacker can have its own name resolve to this server (DNS rebinding): then
        the Host header has that name. A literal address cannot be rebound.
        """
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise Problem(400, "the request must have one Host header")
        if (name := _host_name(hosts[0])) is None:
            raise Problem(400, "the Host header must be a name or an address, and a port")
        if name not in self._hosts and not _is_address(name):
            detail = f"unknown host {name[:80]!r}; start the server with --allow-host to allow it"
            raise Problem(421, detail)
        for text in headers.getlist("origin"):
            own = (_origin(f"{scope['scheme']}://{hosts[0]}"), self._public)
            if (origin := _origin(text)) is None or origin not in own:
                detail = "this request comes from a page of another site; it is refused"
                raise Problem(403, detail)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return
        mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        is_link = (mode, target) == ("navigate", "document") and scope["method"] in _SAFE
        if not is_link:  # of a page or a mail, which opens ours
            raise Problem(403, "this request comes from a page of another site; it is refused")

    async def _refuse(
        self, problem: Problem, scope: Scope, receive: Receive, answer: Answer
    ) -> None:
        if answer.status is None:
            await problem.response()(scope, receive, answer.send)
        else:  # the answer has begun: its end must be seen to be missing
            raise ConnectionAbortedError(problem.detail)

    async def _end(self, scope: Scope, receive: Receive, answer: Answer) -> None:
        """Answer a request that was cancelled as the service stops."""
        if answer.status is None:
            headers = {"Retry-After": "5", "Connection": "close"}
            await Problem(503, "the service stops", headers=headers).response()(
                scope, receive, answer.send
            )
        elif answer.is_stream:  # its client connects again
            await answer.send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            raise ConnectionAbortedError("the service stops")

    def _report(self, scope: Scope, answer: Answer, owner: Owner | None, seconds: float) -> None:
        client = scope.get("client")
        answered = Answered(
            method=scope["method"],
            path=scope["path"],
            route=getattr(scope.get("route"), "path", ""),
            status=answer.status or 499,
            seconds=seconds,
            owner=owner.name if owner else None,
            client=client[0] if client else None,
        )
        for observer in self._observers:
            observer(answered)


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith("/static/")


def _is_upload(method: str, path: str) -> bool:
    """Return whether a body is a data file, or arrays of a worker."""
    if path == "/v1/datasets" or path.startswith("/v1/datasets/"):
        return method in ("PUT", "POST")
    return path.startswith("/v1/workers/") and method == "PUT"


def _uncancel() -> None:
    task = asyncio.current_task()
    assert task is not None
    while task.cancelling():
        task.uncancel()


@lru_cache(1024)
def _host_name(host: str) -> str | None:
    """Return the name in a Host header, in lower case; None where it is no host."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in host:
        return None
    return parts.hostname.rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    """Return scheme, host and port of a URL; None for `null` and the like."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
