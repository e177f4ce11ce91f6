"""Connections: the socket that is listened at, and clients that vanish or dawdle."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import resource
import socket
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tuner.errors import InputError

HEADERS_S = 15.0
"""Time for the headers of a request to arrive."""

_VANISHED_S = 60  # a client that acknowledges nothing for so long has vanished
_MOST_FILES = 65_536


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP as uvicorn speaks it, which ends the connection of a client that sends no request.

    The system ends that of a client that has vanished, or that reads nothing.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        _notice_vanished(transport.get_extra_info("socket"))
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._has_request:
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(HEADERS_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self._has_request:
            self.transport.abort()


def _notice_vanished(connection: socket.socket) -> None:
    """Have the system end a connection whose other end does not answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _VANISHED_S // 2),
        ("TCP_KEEPINTVL", _VANISHED_S // 6),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _VANISHED_S * 1000),  # also for a full buffer that is not read
    ):
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound.

    Raises:
        InputError: there is no such address on this machine, or the port cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        remedy = "give an address of this machine"
        raise InputError("unknown host", where="--host", got=repr(host), remedy=remedy) from None
    family, kind, protocol, _, address = min(found, key=lambda f: f[0] != socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        raise _not_bound(error, host, port) from None
    return bound


def _not_bound(error: OSError, host: str, port: int) -> InputError:
    match error.errno:
        case errno.EADDRINUSE:
            rule = f"port {port} is in use"
            return InputError(rule, where="--port", remedy="give another, or 0 for any free one")
        case errno.EACCES:
            rule = f"port {port} needs the rights of root"
            return InputError(rule, where="--port", remedy="give one above 1023")
        case errno.EADDRNOTAVAIL:
            remedy = "give an address of this machine"
            return InputError("is not of this machine", where="--host", got=host, remedy=remedy)
    return InputError(f"cannot be bound: {error.strerror}", where="--host", got=host)


def is_loopback(host: str) -> bool:
    """Return whether an address, or all addresses of a name, are of loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(f[4][0])).is_loopback for f in found)


def allow_open_files() -> int:
    """Raise the limit on open files as far as it goes, and return it: a connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
