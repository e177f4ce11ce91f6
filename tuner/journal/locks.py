"""Single-writer locks on journals. The system releases them when the process exits.

A lock says that somebody holds a journal, never who. Who holds a file says so beside it, in
`FILE.held`; who holds a study on a server says so in the name of its connection.

The lock belongs to the connection over which its holder writes: a connection that is there holds
it, and it goes with the connection, also where the holder was killed. A new connection takes it
again before anything is written over it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from tuner.errors import JournalError

__all__ = ["PATIENCE_S", "Held", "Holder", "StudyLock", "file_is_held", "locked"]

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


_CREATING = "\0tables"  # no study has such a name

_CREATING_S = 5.0  # for one who creates tables; it takes a fraction of a second

_OWN_S = 30.0  # that our own lost connection may take to end

# The server shows the two halves of a key.
_HOLDERS = """\
SELECT a.pid, a.application_name, a.usename, l.mode
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.pid <> pg_backend_pid()
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid = {high} AND l.objid = {low}"""


class StudyLock:
    """The right to write to one study of a journal, or to all of them.

    A journal is a schema of a database. Who writes to one study shares the journal with others
    and has the study alone; who names no study has the journal alone.

    Args:
        study: its name; None for all of them.
        shared: whether others may have it at the same time, who read.
    """

    def __init__(self, study: str | None, *, shared: bool = False) -> None:
        self._study, self._shared = study, shared
        self._me = Holder.here()

    def take(self, connection: Any) -> None:
        """Take the lock for as long as a connection of the driver lives.

        Raises:
            Held: somebody else has it.
        """
        self._introduce(connection)
        # What is written must outlive a crash of the server: this process goes on after it.
        _ask(
            connection,
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'",
        )
        if self._study is None:
            self._take(connection, "", shared=False)
        else:
            self._take(connection, "", shared=True)
            self._take(connection, self._study, shared=self._shared)

    def take_to_create(self, connection: Any) -> None:
        """Be the only one who creates a journal's tables, as long as a connection lives.

        Those who begin together wait for one another; one who was suspended there is not
        waited for.

        Raises:
            Held: somebody else has been creating them for too long.
        """
        self._introduce(connection)
        self._take(connection, _CREATING, shared=False)

    def is_taken(self, connection: Any) -> bool:
        """Return whether somebody writes to the study."""
        keys = {_key(connection, name) for name in ("", self._study or "")}
        return any(
            mode == "ExclusiveLock" for key in keys for *_, mode in _holders(connection, key)
        )

    def _introduce(self, connection: Any) -> None:
        _ask(connection, f"SELECT set_config('application_name', '{self._me.written}', false)")

    def _take(self, connection: Any, name: str, *, shared: bool) -> None:
        key = _key(connection, name)
        function = f"pg_try_advisory_lock{'_shared' if shared else ''}"
        creating = name == _CREATING
        patience_s = _CREATING_S if creating else PATIENCE_S
        begun, before = time.monotonic(), set[int]()
        deadline = begun + patience_s
        while not _ask(connection, f"SELECT {function}({key})")[0][0]:
            holders = _holders(connection, key)
            own = [pid for pid, written, *_ in holders if written == self._me.written]
            for pid in own:  # our own lost connection, not missed yet
                _ask(connection, f"SELECT pg_terminate_backend({int(pid)})")
            if creating and (now := {pid for pid, *_ in holders}) != before:
                deadline, before = time.monotonic() + patience_s, now  # it is another one's turn
            if own:  # what it held is free a moment after it has ended
                deadline = max(deadline, min(time.monotonic() + PATIENCE_S, begun + _OWN_S))
            if time.monotonic() > deadline:
                raise Held(_server_holder(holders), self._instead(name), creating=creating)
            time.sleep(0.05)

    def _instead(self, name: str) -> str | None:
        if self._shared:  # a reader, who wants this one
            return None
        return "give another --study name" if name == self._study else "give another --journal"


def _ask(connection: Any, statement: str) -> list[Any]:
    """Return a statement's rows; in a transaction of its own, or it would see what was before."""
    cursor = connection.cursor()
    cursor.execute(statement)
    rows = list(cursor.fetchall())
    cursor.close()
    connection.commit()
    return rows


def _key(connection: Any, name: str) -> int:
    schema = _ask(connection, "SELECT current_schema()")[0][0]
    digest = hashlib.blake2b(f"tuner\0{schema}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def _holders(connection: Any, key: int) -> list[Any]:
    high, low = key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF
    return _ask(connection, _HOLDERS.format(high=high, low=low))


def _server_holder(holders: list[Any]) -> str | None:
    for pid, written, user, _ in holders:
        return str(Holder.read(written) or f"session {pid} of the server, of user {user}")
    return None
