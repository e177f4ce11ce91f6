"""Streams whose other end may go away: a pipe's reader, a terminal that is closed."""

from __future__ import annotations

import os
from typing import IO, Any

__all__ = ["Terminal", "to_nowhere"]


def to_nowhere(stream: IO[str]) -> None:
    """Let what is still written to a stream vanish, as nobody can read it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Terminal:
    """A stream to a terminal that may be closed while something is drawn on it.

    Who draws goes on; whether the process does is for SIGHUP to say.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or let it vanish."""
        try:
            return self._stream.write(text)
        except OSError:
            to_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush, or let it vanish."""
        try:
            self._stream.flush()
        except OSError:
            to_nowhere(self._stream)
