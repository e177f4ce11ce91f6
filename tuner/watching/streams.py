"""Streams that may not take what is written: no reader, a closed terminal, a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

from tuner.errors import TunerError

__all__ = ["Terminal", "checked_output", "to_nowhere"]


def to_nowhere(stream: IO[str]) -> None:
    """Let what is still written to a stream vanish, as nobody can read it any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Output:
    """Standard output, which says in one line that it cannot be written to.

    That nobody reads it any more (BrokenPipeError) is for the command to judge.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = self.unchecked = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._checked():
            self._stream.flush()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:  # ENOSPC, EIO
            to_nowhere(self._stream)
            raise TunerError(
                f"standard output: {error.strerror}: stopped; send it elsewhere"
            ) from None


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Let a standard output that cannot be written to raise TunerError, in the block."""
    before = sys.stdout
    sys.stdout = _Output(before)
    try:
        yield
    finally:
        sys.stdout = before


class Terminal:
    """A stream to a terminal that may be closed while something is drawn on it.

    Who draws goes on; whether the process does is for SIGHUP to say.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = getattr(stream, "unchecked", stream)

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
