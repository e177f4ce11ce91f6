"""Ports of loopback for the servers of tests."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port that nobody listens at and that nobody else is given, until the tests end.

    A socket that never listens keeps it: who connects is refused, and the server that the port is
    for still binds it, as servers do with `SO_REUSEADDR`.
    """
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port: int = keeper.getsockname()[1]
    keeper.detach()  # open for as long as this process is
    return port
