"""Records of older versions: what the keys that came into being since mean in them."""

from __future__ import annotations

from typing import Any

__all__ = ["completed"]

_OF_TOKENS = ("text", "tokens", "categories")  # keys of data


def completed(record: Any) -> Any:
    """Return a recorded experiment, where what older versions did not know is as it was then.

    Without `unknown_rate` no token was read as unknown. A new experiment has the default.
    """
    if not isinstance(record, dict):
        return record
    data, fixed = record.get("data"), record.get("hyperparameters") or {}
    embeds = isinstance(data, dict) and any(data.get(key) for key in _OF_TOKENS)
    if not (embeds and isinstance(fixed, dict)):
        return record
    if "unknown_rate" in fixed or "unknown_rate" in (record.get("search_space") or {}):
        return record
    return record | {"hyperparameters": fixed | {"unknown_rate": 0.0}}
