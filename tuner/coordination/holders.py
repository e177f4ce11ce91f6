"""Who holds a journal: its one writer, by a lock that ends with the process however it ends.

A lock says that somebody holds a journal, never who. Who holds a file says so beside it, in
`FILE.held`; who holds a study on a server says so in the name of its connection.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from tuner.errors import JournalError

__all__ = ["PATIENCE_S", "Held", "Holder", "file_is_held", "locked"]

PATIENCE_S = 1.0  # with one who holds the journal: a `tuner sync` is quick
_WRITTEN = re.compile(r"tuner (\d+)@(\S*) (\d{8}T\d{6}Z) ([0-9a-f]{6})")
_SINCE = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Holder:
    """One opening of a journal."""

    pid: int
    host: str  # the beginning of its name
    since: str  # as 20260131T235959Z
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # no other opening has it

    @classmethod
    def here(cls) -> Holder:
        """Return this process, from now on."""
        host = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname())[:24]
        return cls(os.getpid(), host, dt.datetime.now(dt.UTC).strftime(_SINCE))

    @classmethod
    def read(cls, text: str) -> Holder | None:
        """Return what `written` wrote; None where it is something else."""
        if (match := _WRITTEN.fullmatch(text.strip())) is None:
            return None
        pid, host, since, token = match.groups()
        return cls(int(pid), host, since, token)

    @property
    def written(self) -> str:
        """The holder on one line, in the 63 characters that a connection's name may have."""
        return f"tuner {self.pid}@{self.host} {self.since} {self.token}"

    def __str__(self) -> str:
        with contextlib.suppress(ValueError):
            since = dt.datetime.strptime(self.since, _SINCE)  # or a time that never was
            return f"process {self.pid} on {self.host}, since {since} UTC"
        return f"process {self.pid} on {self.host}"


class Held(Exception):
    """Somebody else holds a journal.

    Args:
        by: who, for people; None where that is not known.
        instead: what to give so that it is not needed; None where nothing else will do.
        creating: whether it is held only until its tables are there.
    """

    def __init__(
        self, by: str | None, instead: str | None = None, *, creating: bool = False
    ) -> None:
        if creating:
            who = f": {by}" if by else ""
            super().__init__(f"another search is creating its tables{who}")
        else:
            who = f": {by}" if by else " or a `tuner sync` reading it"
            super().__init__(f"another search is writing to it{who}")
        self.remedy = f"wait for it, stop it, or {instead}" if instead else "wait for it or stop it"


@contextlib.contextmanager
def locked(path: Path, instead: str | None = None, *, shared: bool = False) -> Iterator[FileIO]:
    """Hold a file, alone or with others who share it; an empty one is made where there is none.

    Args:
        path: the file; what is in it stays, also where another process makes it right now.
        instead: what to give where it is held, so that it is not needed.
        shared: whether others may hold it at the same time, who share it as well.

    Raises:
        JournalError: it cannot be opened, or another process holds it; the error names that one.
    """
    try:
        file = FileIO(path, "r+", opener=lambda p, flags: os.open(p, flags | os.O_CREAT, 0o666))
    except OSError as error:
        raise JournalError(
            f"--journal: {path}: cannot be opened: {error.strerror}; give another"
        ) from None
    beside = path.with_name(f"{path.name}.held")
    with file:
        _take(file, path, beside, shared, instead)
        # Of one who was killed, if there is one: nobody writes now.
        with contextlib.suppress(OSError):
            beside.unlink()
        if shared:
            yield file
            return
        with contextlib.suppress(OSError):  # on a full disk the lock still holds
            beside.write_text(Holder.here().written + "\n")
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()


def file_is_held(path: Path) -> bool:
    """Return whether a search holds a file."""
    with path.open("rb") as file:
        try:  # let go at once: a search that begins right now waits that long
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _take(file: FileIO, path: Path, beside: Path, shared: bool, instead: str | None) -> None:
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, how)
            return
        except OSError:
            if time.monotonic() > deadline:
                held = Held(_who(beside), instead)
                raise JournalError(f"{path}: {held}; {held.remedy}") from None
            time.sleep(0.05)


def _who(beside: Path) -> str | None:
    try:
        holder = Holder.read(beside.read_text(errors="replace"))
    except OSError:
        return None
    return str(holder) if holder else None
