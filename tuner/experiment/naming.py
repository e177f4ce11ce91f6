"""What experiments and studies may be called: all that file systems and MLflow can hold."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["EXPERIMENT_BYTES", "STUDY_BYTES", "mended", "normalized", "why_refused"]

EXPERIMENT_BYTES = 200
"""Most bytes of an experiment's name in UTF-8: a study's name adds strategy and seed."""

STUDY_BYTES = 240
"""Most bytes of a study's: a file's name has 255 of them, and `.journal.held` follows."""

_IN_NO_FILE = '/\\:*?"<>|'
_NOT_PRINTED = ("Cc", "Cs", "Cn", "Zl", "Zp")  # Unicode's: controls, half characters, line ends


def normalized(name: str) -> str:
    """Return a name in Unicode's composed form: however it is typed, it names one file."""
    return unicodedata.normalize("NFC", name)


def why_refused(name: str, most_bytes: int) -> str | None:
    """Return which rule a name breaks; None where it breaks none.

    Args:
        name: an experiment's or a study's, normalized.
        most_bytes: that it may have in UTF-8.
    """
    if not name.strip():
        return "must not be empty"
    if refused := next(filter(_is_refused, name), None):
        return f"must not hold {refused!r}, which file names cannot have everywhere"
    if name[0] in ".-" or name != name.strip():
        return "must not begin with '.', '-' or a space, nor end with a space"
    if (n_bytes := len(name.encode())) > most_bytes:
        return f"must have at most {most_bytes} bytes in UTF-8, has {n_bytes}"
    return None


def mended(name: str, most_bytes: int) -> str:
    """Return a name that breaks no rule and is near one that does; empty where nothing is left."""
    kept = "".join("_" if _is_refused(c) else c for c in normalized(name))
    kept = re.sub(r"^[\s._-]+|[\s_]+$", "", re.sub(r"__+", "_", kept))
    return re.sub(r"[\s_]+$", "", kept.encode()[:most_bytes].decode(errors="ignore"))


def _is_refused(character: str) -> bool:
    return character in _IN_NO_FILE or unicodedata.category(character) in _NOT_PRINTED
