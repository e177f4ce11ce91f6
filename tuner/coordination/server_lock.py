"""Keeps two coordinators from one study on a PostgreSQL server.

The lock belongs to the connection over which its holder writes: a connection that is there holds
it, and it goes with the connection, also where the holder was killed. A new connection takes it
again before anything is written over it.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from tuner.coordination.holders import PATIENCE_S, Held, Holder

__all__ = ["StudyLock"]

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
                raise Held(_who(holders), self._instead(name), creating=creating)
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


def _who(holders: list[Any]) -> str | None:
    for pid, written, user, _ in holders:
        return str(Holder.read(written) or f"session {pid} of the server, of user {user}")
    return None
