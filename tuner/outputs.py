"""Files that people ask for: what would be lost is refused beforehand, what is written is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tuner.errors import InputError, RunError

__all__ = ["check_file", "check_model_folder", "written_whole"]


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
        raise InputError(f"{argument}: must end in {' or '.join(endings)}, got {path}; rename it")
    if path.is_dir():
        raise InputError(f"{argument}: {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise InputError(
            f"{argument}: must be a file in an existing folder, got {path}; create it first"
        )
    if path.exists() and is_ours is not None and not is_ours(path):
        raise InputError(
            f"{argument}: {path} exists and is no {what}; write elsewhere, or {or_else}"
        )
    _check_rights(argument, path, path if path.exists() else path.parent)


def check_model_folder(option: str, folder: Path) -> None:
    """Refuse a folder that cannot be made, or that holds something else than a model.

    Raises:
        InputError: naming the option, the path and the remedy.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    if not existing.is_dir():
        raise InputError(f"{option}: must be a folder, got the file {existing}; give another name")
    if existing is folder and any(folder.iterdir()) and not (folder / "pipeline.json").exists():
        raise InputError(f"{option}: {folder} is not empty and holds no model; give another name")
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
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}; make room, or write elsewhere"
        ) from None


def _check_rights(option: str, path: Path, existing: Path) -> None:
    if not os.access(existing, os.W_OK):
        raise InputError(f"{option}: {existing} may not be written to, got {path}; write elsewhere")
