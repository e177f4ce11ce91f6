"""What a folder holds."""

from __future__ import annotations

from pathlib import Path


def files_of(folder: Path) -> dict[Path, bytes | None]:
    """The paths below a folder and their content, but for files that name who read a journal."""
    found = [path for path in folder.rglob("*") if path.suffix != ".held"]
    return {path: path.read_bytes() if path.is_file() else None for path in found}
