"""A folder for prepared arrays that does not outlive its search for long."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tuner.errors import RunError

__all__ = ["save_arrays", "scratch_folder"]

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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
    except OSError as error:  # numpy's own says no more than how much it has written
        why = error.strerror or "the disk may be full"
        raise RunError(
            f"{folder}: the prepared data cannot be written: {why}; make room, or set TMPDIR to "
            f"another folder"
        ) from None


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
