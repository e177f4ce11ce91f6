"""Single-writer locks on journals. The system releases them when the process exits.

A file's lock does not name its owner: the owner is noted beside it, in `FILE.held`. The owner of a
study's lock on a server is the name of its connection.

A server's lock belongs to the connection that writes. It ends with the connection, also where the
process was killed, and a new connection acquires it before anything is written over it.
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
from typing import IO, Any

from tuner.errors import JournalError, JournalInUse

_WAIT_S = 1.0  # for a lock: a `tuner sync` is quick
_CREATION_WAIT_S = 5.0  # creating tables takes a fraction of a second
_OWN_WAIT_S = 30.0  # for the end of a lost connection of this process

_WRITTEN = re.compile(r"tuner (\d+)@(\S*) (\d{8}T\d{6}Z) ([0-9a-f]{6})")
_SINCE = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class LockOwner:
    """A process that has opened a journal for writing."""

    pid: int
    host: str  # the beginning of its name
    since: str  # as 20260131T235959Z
    token: str = field(default_factory=lambda: secrets.token_hex(3))  # no other opening has it

    @classmethod
    def here(cls) -> LockOwner:
        """Return this process, now."""
        host = re.sub(r"[^A-Za-z0-9.-]", "", socket.gethostname())[:24]
        return cls(os.getpid(), host, dt.datetime.now(dt.UTC).strftime(_SINCE))

    @classmethod
    def read(cls, text: str) -> LockOwner | None:
        """Parse `written`; None for any other text."""
        if (match := _WRITTEN.fullmatch(text.strip())) is None:
            return None
        pid, host, since, token = match.groups()
        return cls(int(pid), host, since, token)

    @property
    def written(self) -> str:
        """The owner on one line, within the 63 characters of a connection's name."""
        return f"tuner {self.pid}@{self.host} {self.since} {self.token}"

    def __str__(self) -> str:
        with contextlib.suppress(ValueError):
            since = dt.datetime.strptime(self.since, _SINCE)
            return f"process {self.pid} on {self.host}, since {since} UTC"
        return f"process {self.pid} on {self.host}"


class JournalLocked(Exception):
    """Another process has the lock.

    Args:
        owner: of the lock, for the message; None where it is unknown.
        alternative: to waiting, as a remedy: "give another --journal", say.
        creating: whether the lock is that on creating tables.
    """

    def __init__(
        self, owner: str | None, alternative: str | None = None, *, creating: bool = False
    ) -> None:
        what = "creating its tables" if creating else "writing to it"
        unknown = "" if creating else " or a `tuner sync` reading it"
        super().__init__(f"another search is {what}{f': {owner}' if owner else unknown}")
        stop = f", stop it, or {alternative}" if alternative else " or stop it"
        self.remedy = f"wait for it{stop}"


@contextlib.contextmanager
def lock_file(
    path: Path, alternative: str | None = None, *, shared: bool = False
) -> Iterator[FileIO]:
    """Open and lock a file; a missing one is created, empty.

    Args:
        path: the file; its content stays, also where another process creates it right now.
        alternative: to waiting for the lock, for the message.
        shared: whether other processes may share the lock.

    Raises:
        JournalError: it cannot be opened, or another process has locked it; the error names that.
    """
    try:
        file = FileIO(path, "r+", opener=lambda p, flags: os.open(p, flags | os.O_CREAT, 0o666))
    except OSError as error:
        rule = f"{path}: cannot be opened: {error.strerror}"
        raise JournalError(rule, where="--journal", remedy="give another") from None
    owner_file = path.with_name(f"{path.name}.held")
    with file:
        deadline = time.monotonic() + _WAIT_S
        while not _try_lock(file, shared=shared):
            if time.monotonic() > deadline:
                locked = JournalLocked(_owner_in(owner_file), alternative)
                raise JournalInUse(locked, where=path, remedy=locked.remedy)
            time.sleep(0.05)
        with contextlib.suppress(OSError):  # a killed process may have left it
            owner_file.unlink()
        if shared:
            yield file
            return
        with contextlib.suppress(OSError):  # the lock is valid on a full disk, too
            owner_file.write_text(LockOwner.here().written + "\n")
        try:
            yield file
        finally:
            with contextlib.suppress(OSError):
                owner_file.unlink()


def file_is_locked(path: Path) -> bool:
    """Return whether a search writes to a file."""
    with path.open("rb") as file:
        return not _try_lock(file, shared=True)  # released at once


def _try_lock(file: IO[bytes] | FileIO, *, shared: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner_in(owner_file: Path) -> str | None:
    try:
        owner = LockOwner.read(owner_file.read_text(errors="replace"))
    except OSError:
        return None
    return str(owner) if owner else None


_CREATION = "\0tables"  # no study has such a name

# The server shows the two halves of a key.
_OWNERS = """\
SELECT a.pid, a.application_name, a.usename, l.mode
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND a.pid <> pg_backend_pid()
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
AND l.classid = {high} AND l.objid = {low}"""


class StudyLock:
    """The lock on one study of a journal in PostgreSQL, or on all of them.

    A journal is a schema of a database. The lock on a study is exclusive, and shares the journal's
    lock with those on other studies; without a study it is the journal's lock, exclusively.

    Args:
        study: its name; None for all of them.
        shared: whether other processes may share the study's lock, to read.
    """

    def __init__(self, study: str | None, *, shared: bool = False) -> None:
        self._study, self._shared = study, shared
        self._me = LockOwner.here()

    def acquire(self, connection: Any) -> None:
        """Lock the study until a connection of the driver ends.

        Raises:
            JournalLocked: another process has the lock.
        """
        self._name_connection(connection)
        # A write must survive a crash of the server, as this process does.
        _query(
            connection,
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') = 'off'",
        )
        self._acquire(connection, "", shared=self._study is not None)
        if self._study is not None:
            self._acquire(connection, self._study, shared=self._shared)

    def acquire_for_schema_creation(self, connection: Any) -> None:
        """Lock the creation of a journal's tables until a connection ends.

        Searches that start together wait for each other. A suspended process is not waited for.

        Raises:
            JournalLocked: another process has been creating them for too long.
        """
        self._name_connection(connection)
        self._acquire(connection, _CREATION, shared=False)

    def is_locked(self, connection: Any) -> bool:
        """Return whether a search writes to the study."""
        keys = {_key(connection, name) for name in ("", self._study or "")}
        return any(mode == "ExclusiveLock" for key in keys for *_, mode in _owners(connection, key))

    def _name_connection(self, connection: Any) -> None:
        _query(connection, f"SELECT set_config('application_name', '{self._me.written}', false)")

    def _acquire(self, connection: Any, name: str, *, shared: bool) -> None:
        key = _key(connection, name)
        function = f"pg_try_advisory_lock{'_shared' if shared else ''}"
        creating = name == _CREATION
        wait_s = _CREATION_WAIT_S if creating else _WAIT_S
        began, before = time.monotonic(), set[int]()
        deadline = began + wait_s
        while not _query(connection, f"SELECT {function}({key})")[0][0]:
            owners = _owners(connection, key)
            own = [pid for pid, written, *_ in owners if written == self._me.written]
            for pid in own:  # a lost connection of this process, which the server has not missed
                _query(connection, f"SELECT pg_terminate_backend({int(pid)})")
            if creating and (now := {pid for pid, *_ in owners}) != before:
                deadline, before = time.monotonic() + wait_s, now  # another process has its turn
            if own:  # its locks are released a moment after it has ended
                deadline = max(deadline, min(time.monotonic() + _WAIT_S, began + _OWN_WAIT_S))
            if time.monotonic() > deadline:
                raise JournalLocked(
                    _first_owner(owners), self._alternative(name), creating=creating
                )
            time.sleep(0.05)

    def _alternative(self, name: str) -> str | None:
        if self._shared:  # a reader needs this very study
            return None
        return "give another --study name" if name == self._study else "give another --journal"


def _query(connection: Any, statement: str) -> list[Any]:
    """Return a statement's rows, in a transaction of its own that sees the latest state."""
    cursor = connection.cursor()
    cursor.execute(statement)
    rows = list(cursor.fetchall())
    cursor.close()
    connection.commit()
    return rows


def _key(connection: Any, name: str) -> int:
    schema = _query(connection, "SELECT current_schema()")[0][0]
    digest = hashlib.blake2b(f"tuner\0{schema}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def _owners(connection: Any, key: int) -> list[Any]:
    high, low = key >> 32 & 0xFFFFFFFF, key & 0xFFFFFFFF
    return _query(connection, _OWNERS.format(high=high, low=low))


def _first_owner(owners: list[Any]) -> str | None:
    for pid, written, user, _ in owners:
        return str(LockOwner.read(written) or f"session {pid} of the server, of user {user}")
    return None
