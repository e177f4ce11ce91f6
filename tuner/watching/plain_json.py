"""JSON that every program can read: NaN and infinity, which JSON does not have, become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["to_json"]


def to_json(value: Any, indent: int | None = None) -> str:
    """Write a value as JSON: in one line, unless it is indented."""
    separators = None if indent else (",", ":")
    return json.dumps(_finite(value), allow_nan=False, indent=indent, separators=separators)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
