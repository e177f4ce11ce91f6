"""Pieces of YAML that people read: names in quotes where they need them, comments in a column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["commented", "flow_list", "flow_map", "listed", "printable", "quoted"]

_MOST_NAMES = 8  # of a list that people read
_COLUMN = 39  # in which comments stand, where what is before them is short enough


def listed(names: Sequence[str]) -> str:
    """Write names for people: of a long list the first ones, and how many more there are."""
    if len(names) <= _MOST_NAMES + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMES])} and {len(names) - _MOST_NAMES} more"


def printable(text: str) -> str:
    """Return a text that stands in a comment: what is no letter is a blank."""
    return "".join(c if c.isprintable() else " " for c in text)


def quoted(name: str) -> str:
    """Write a name as YAML: plain where that is safe, else in quotes."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name) and name.lower() not in (
        *("null", "true", "false", "yes", "no", "on", "off", "y", "n"),  # some read as booleans
    ):
        return name
    text = json.dumps(name, ensure_ascii=False)  # escapes as YAML does, but not all that it must
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def flow_list(values: Iterable[str | int | float | bool]) -> str:
    """Write values as a list on one line."""
    return "[" + ", ".join(quoted(v) if isinstance(v, str) else json.dumps(v) for v in values) + "]"


def flow_map(values: Mapping[str, object]) -> str:
    """Write keys and values on one line; texts are quoted, so that `;` and `1.0` are texts."""
    shown = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return "{" + ", ".join(shown) + "}"


def commented(text: str, why: str) -> str:
    """Return a line with a comment behind it."""
    return f"{text:<{_COLUMN}}  # {why}" if why else text
