"""The audit log: who changed something, and what was refused."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import time
from pathlib import Path
from typing import IO

from tuner.service.guard import Answered

_REOPENED_EVERY_S = 1.0
_log = logging.getLogger("tuner.service")


class AuditLog:
    """Appends a line of JSON for each request that changes something or is refused.

    A line has the time, the owner, the method, the path, the status and the client's address, and
    neither a body nor a token. The file may be moved away at any time (logrotate): a new one is
    begun within a second.

    Args:
        path: the file; it is made with mode 0600.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._checked = 0.0
        self._failed = False

    def __call__(self, request: Answered) -> None:
        """Write the line of an answer."""
        if request.method in ("GET", "HEAD") and request.status < 400:
            return
        entry = {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "owner": request.owner,
            "method": request.method,
            "path": request.path,
            "status": request.status,
            "client": request.client,
        }
        try:
            file = self._open()
            file.write(json.dumps(entry) + "\n")  # in ASCII: a path cannot forge a line
            file.flush()
            self._failed = False
        except OSError as error:  # the service goes on
            if not self._failed:
                _log.error("the audit log cannot be written: %s", error)
            self._failed, self._file = True, None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> IO[str]:
        now = time.monotonic()
        if self._file is not None and now - self._checked > _REOPENED_EVERY_S:
            self._checked = now
            if not self._is_current(self._file):
                self.close()
        if self._file is None:
            self._file = open(self._path, "a", encoding="ascii", opener=_private)  # noqa: SIM115
        return self._file

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except OSError:
            return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
