"""Names of columns that are not the file's."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["differing"]


def differing(names: Sequence[str]) -> list[str]:
    """Return the names, with underscores behind one that was there before."""
    found: list[str] = []
    for name in names:
        while name in found:
            name += "_"
        found.append(name)
    return found
