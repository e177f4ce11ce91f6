"""The GPUs of this machine, found without torch, and who shares which."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["find_gpus", "least_used"]

_LISTED = re.compile(r"^(?P<part>\s+MIG )?.*\(UUID: (?P<uuid>[\w/-]+)\)\s*$")


def find_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    Those of that variable where it is set, else those that nvidia-smi lists; none where that is
    missing or fails. Of a GPU that is cut into MIG instances its instances are returned.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return _usable(visible.split(","))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    return _parse(listed.splitlines())


def least_used(gpus: Sequence[str], in_use: Iterable[str], n: int) -> list[str]:
    """Return the `n` GPUs that stand least often in `in_use`, the first ones of equals."""
    users = Counter(in_use)
    return sorted(gpus, key=lambda gpu: users[gpu])[:n]


def _usable(names: list[str]) -> tuple[str, ...]:
    """Return the names before the first that CUDA would not understand: it reads no further."""
    found: list[str] = []
    for name in map(str.strip, names):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", name):
            break
        found.append(name)
    return tuple(found)


def _parse(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the GPUs by UUID, as CUDA counts them in another order than nvidia-smi."""
    found: list[str] = []
    whole: str | None = None  # the GPU that the next lines may be parts of
    for match in filter(None, map(_LISTED.match, lines)):
        if match["part"] is None:
            whole = match["uuid"]
            found.append(whole)
        else:
            if whole in found:
                found.remove(whole)
            found.append(match["uuid"])
    return tuple(found)
