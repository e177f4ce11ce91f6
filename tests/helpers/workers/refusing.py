"""A template that has no room for a fork, in place of `tuner.executors.forking`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from tuner import template

if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    template.send(connection, {"ready": True})
    with contextlib.suppress(EOFError):
        while True:
            _, files = template.receive(connection)
            for file in files:
                os.close(file)
            template.send(connection, {"refused": "Cannot allocate memory"})
