"""Files and streams: results are written whole or not at all, never over other files.

Also the temporary folders and the private files that a process needs meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tuner.errors import InputError, RunError, TunerError

if TYPE_CHECKING:
    import numpy as np


def check_file(
    path: Path,
    what: str,
    endings: tuple[str, ...],
    is_ours: Callable[[Path], bool] | None,
    *,
    argument: str = "-o",
    or_else: str = "add --force",
) -> None:
    """Refuse a file that cannot be written, or that exists and is of another kind.

    Args:
        path: the file.
        what: its kind, for the message: an export, say.
        endings: of such files; a name without any is allowed too.
        is_ours: whether a file is of that kind; None if any file may be overwritten.
        argument: that gives the path, for the message.
        or_else: a remedy if the file exists.

    Raises:
        InputError: with the argument, the path and the remedy.
    """
    if path.suffix and not path.name.lower().endswith(endings):
        rule = f"must end in {' or '.join(endings)}"
        raise InputError(rule, where=argument, got=path, remedy="rename it")
    if path.is_dir():
        rule = f"{path} is a folder"
        raise InputError(rule, where=argument, remedy="give the name of a file in it")
    if not path.parent.is_dir():
        rule = "must be a file in an existing folder"
        raise InputError(rule, where=argument, got=path, remedy="create it first")
    if path.exists() and is_ours is not None and not is_ours(path):
        rule = f"{path} exists and is no {what}"
        raise InputError(rule, where=argument, remedy=f"write elsewhere, or {or_else}")
    _check_rights(argument, path, path if path.exists() else path.parent)


def check_model_folder(option: str, folder: Path) -> None:
    """Refuse a folder that cannot be made, or that holds other files than a model's.

    Raises:
        InputError: with the option, the path and the remedy.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not existing.is_dir():
        rule = "must be a folder"
        raise InputError(rule, where=option, got=f"the file {existing}", remedy="give another name")
    if existing is folder and any(folder.iterdir()) and not (folder / "pipeline.json").exists():
        rule = f"{folder} is not empty and holds no model"
        raise InputError(rule, where=option, remedy="give another name")
    _check_rights(option, folder, existing)


def _check_rights(option: str, path: Path, existing: Path) -> None:
    if not os.access(existing, os.W_OK):
        rule = f"{existing} may not be written to"
        raise InputError(rule, where=option, got=path, remedy="write elsewhere")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the file replaces `path` at the end.

    Until then, and on failure, an earlier file stays as it is. A device, a pipe, and a file in a
    read-only folder are written directly.

    Raises:
        RunError: the file cannot be written, on a full disk for example.
    """
    target = path.resolve()
    new = target.with_name(f".{os.getpid()}.{target.name}")  # endings have a meaning
    try:
        if (target.exists() and not target.is_file()) or not os.access(target.parent, os.W_OK):
            yield path
            return
        try:
            yield new
            if target.exists():
                shutil.copymode(target, new)
            new.replace(target)
        finally:
            new.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        rule = f"cannot be written: {error.strerror or error}"
        raise RunError(rule, where=path, remedy="make room, or write elsewhere") from None


def to_nowhere(stream: IO[str]) -> None:
    """Discard what is written to a stream from now on: it has no reader any more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Stream:
    """A stream of text that may fail."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        to_nowhere(self._stream)


class _Output(_Stream):
    """Standard output that raises TunerError if it cannot be written, on a full disk for example.

    BrokenPipeError is raised as it is: the command decides what to do without a reader.
    """

    def _failed(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        super()._failed(error)  # ENOSPC, EIO
        rule = f"standard output: {error.strerror}: stopped"
        raise TunerError(rule, remedy="send it elsewhere") from None


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Let standard output raise TunerError while the context lasts, if it cannot be written."""
    before = sys.stdout
    sys.stdout = _Output(before)
    try:
        yield
    finally:
        sys.stdout = before


class Terminal(_Stream):
    """A stream to a terminal that may be closed meanwhile: further output is discarded.

    SIGHUP decides whether the process continues.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(stream._stream if isinstance(stream, _Output) else stream)


def temporary_folder(owner: object, prefix: str) -> Path:
    """Make a folder that is removed with its owner, an object."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


_PREFIX = "lstm-tuner-arrays-"
_YOUNG_S = 60.0  # age of a folder that its owner may not have locked yet


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is removed with the context, or after a kill by the next call.

    The owner holds a lock on its folder. The system releases it when the process ends.
    """
    _remove_orphans(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system that cannot lock folders
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(name)
        finally:
            os.close(descriptor)


def _remove_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # of another user, say, or just removed
            if folder.is_symlink() or time.time() - folder.stat().st_mtime < _YOUNG_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into a folder, which is made if necessary.

    Raises:
        RunError: they cannot be written, on a full disk for example.
    """
    import numpy as np  # slow to import: `tuner --help` does without

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    except OSError as error:  # numpy's own has no reason
        why = error.strerror or "the disk may be full"
        rule = f"the prepared data cannot be written: {why}"
        remedy = "make room, or set TMPDIR to another folder"
        raise RunError(rule, where=folder, remedy=remedy) from None


def private_path(kind: str, what: str, ending: str) -> Path:
    """Return the path of a private file; `kind` and `what` identify it, `ending` has a dot."""
    return Path(tempfile.gettempdir()) / f"lstm-tuner-{kind}-{os.getuid()}-{what}{ending}"


def open_private(path: Path, mode: str) -> FileIO:
    """Open a file for bytes, as `open` with `r`, `r+` or `w`; `r+` also creates it.

    Raises:
        OSError: among others, it is a link, no file, or another user's.
    """
    more = os.O_NOFOLLOW | os.O_NONBLOCK | (os.O_CREAT if mode == "r+" else 0)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC | more, 0o600)  # truncated once the owner is known

    file = FileIO(path, mode, opener=opener)
    facts = os.fstat(file.fileno())
    if facts.st_uid != os.getuid() or not stat.S_ISREG(facts.st_mode):
        file.close()
        raise PermissionError(errno.EPERM, "is not a file of yours", str(path))
    if mode == "w":
        file.truncate(0)
    return file


@contextlib.contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is removed afterwards.

    The system releases the lock of a killed process.

    Raises:
        OSError: as of `open_private`.
    """
    from filelock import FileLock  # slow to import: `tuner --help` does without

    open_private(path, "r+").close()
    with FileLock(path, poll_interval=0.01):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # under the lock: a waiting process then creates the file anew


@contextlib.contextmanager
def lock_if_possible(path: Path) -> Iterator[None]:
    """Hold the lock as `exclusive_lock` does, or none if the path cannot be locked."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(exclusive_lock(path))
        yield
