"""Files and streams for results: written whole or not at all, never over something else."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tuner.errors import InputError, RunError, TunerError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Terminal",
    "check_file",
    "check_model_folder",
    "checked_output",
    "save_arrays",
    "scratch_folder",
    "to_nowhere",
    "written_whole",
]


def check_file(
    path: Path,
    what: str,
    endings: tuple[str, ...],
    is_ours: Callable[[Path], bool] | None,
    *,
    argument: str = "-o",
    or_else: str = "add --force",
) -> None:
    """Refuse a file that cannot be written, or that is there and none of ours.

    Args:
        path: the file.
        what: its kind, for the message: an export, say.
        endings: of the names of such files; a name without any is one, too.
        is_ours: says whether a file is of that kind; None where any file may be overwritten.
        argument: what names the file, for the message.
        or_else: what to do where a file that is there may go.

    Raises:
        InputError: naming the argument, the path and the remedy.
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
    """Refuse a folder that cannot be made, or that holds something else than a model.

    Raises:
        InputError: naming the option, the path and the remedy.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not existing.is_dir():
        rule = "must be a folder"
        raise InputError(rule, where=option, got=f"the file {existing}", remedy="give another name")
    if existing is folder and any(folder.iterdir()) and not (folder / "pipeline.json").exists():
        rule = f"{folder} is not empty and holds no model"
        raise InputError(rule, where=option, remedy="give another name")
    _check_rights(option, folder, existing)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write at; what is written there takes the place of `path` at the end.

    Until then, and if that fails, an earlier file stays as it was. A device or a pipe, and a file
    in a folder that may not be written to, are written to directly.

    Raises:
        RunError: the disk is full, say; naming the path.
    """
    target = path.resolve()
    new = target.with_name(f".{os.getpid()}.{target.name}")  # ends alike: endings have a meaning
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


def _check_rights(option: str, path: Path, existing: Path) -> None:
    if not os.access(existing, os.W_OK):
        rule = f"{existing} may not be written to"
        raise InputError(rule, where=option, got=path, remedy="write elsewhere")


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
            rule = f"standard output: {error.strerror}: stopped"
            raise TunerError(rule, remedy="send it elsewhere") from None


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


_PREFIX = "lstm-tuner-arrays-"

_YOUNG_S = 60.0  # its owner may be about to lock it


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is removed in the end; that of a process killed before, by the next call.

    The owner holds a lock on its folder, which ends with the process however that ends.
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


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into a folder of their own, which is made.

    Raises:
        RunError: they cannot be written, on a full disk for example.
    """
    import numpy as np  # slow to import: `tuner --help` does without

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    except OSError as error:  # numpy's own says no more than how much it has written
        why = error.strerror or "the disk may be full"
        rule = f"the prepared data cannot be written: {why}"
        remedy = "make room, or set TMPDIR to another folder"
        raise RunError(rule, where=folder, remedy=remedy) from None


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
