"""Files of this user in the folder of temporary files, where anybody can put what they like.

Nothing is opened through a link, and nothing that is another user's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

__all__ = ["alone", "alone_if_possible", "open_own", "own_path"]


def own_path(kind: str, what: str, ending: str) -> Path:
    """Return where this user's file of a kind is.

    Args:
        kind: what such files are for.
        what: tells those of a kind apart.
        ending: of the name, with its dot.
    """
    return Path(tempfile.gettempdir()) / f"lstm-tuner-{kind}-{os.getuid()}-{what}{ending}"


def open_own(path: Path, mode: str) -> FileIO:
    """Open a file for bytes, as `open` does with `r`, `r+` or `w`; `r+` makes one as well.

    Raises:
        OSError: it is a link, no file, or another user's, among all else.
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if mode == "r+" else 0)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC | more, 0o600)  # not before it is known whose

    file = FileIO(path, mode, opener=opener)
    facts = os.fstat(file.fileno())
    if facts.st_uid != os.getuid() or not stat.S_ISREG(facts.st_mode):
        file.close()
        raise PermissionError(errno.EPERM, "is not a file of yours", str(path))
    if mode == "w":
        file.truncate(0)
    return file


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same path; the file goes when this ends.

    The lock ends with the process however it ends; what is left of a killed one is taken over.

    Raises:
        OSError: as `open_own` does.
    """
    while True:
        with open_own(path, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):
                continue  # who had it before has removed it: the next one waits for another file
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()  # before the lock goes
            return


@contextlib.contextmanager
def alone_if_possible(path: Path) -> Iterator[None]:
    """Wait as `alone` does; where the path cannot be locked nobody waits."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(alone(path))
        yield


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False
