"""What MLflow takes: names and texts of limited length and alphabet, requests of limited size.

A text that is too long is cut, a character that is not allowed is replaced. Databases are
stricter than MLflow itself: PostgreSQL keeps run names of at most 250 characters, and none of
them takes half of a surrogate pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MAX_PARAM", "MAX_TAG", "Batch", "Point", "batches", "run_name", "storable", "texts"]

MAX_PARAM, MAX_TAG = 6000, 8000  # characters of a value
_MAX_KEY = 250
_MAX_RUN_NAME = 250
_MAX_TEXTS = 100  # params of one request, and tags
_MAX_ENTITIES = 1000  # points, params and tags of one request together
_MAX_BYTES = 900_000  # of one request: MLflow says a million
_POINT_BYTES = 600  # of one point in a request, at most
_TEXT_BYTES = 100  # of one param or tag besides its key and value, at most


@dataclass(frozen=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time_ms: int  # since 1970
    step: int


@dataclass(frozen=True)
class Batch:
    """What one request writes to a run."""

    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.points) + len(self.params) + len(self.tags)


def texts(values: Mapping[str, Any], limit: int) -> dict[str, str]:
    """Write keys and values as MLflow takes them; what is None is left out.

    Args:
        values: of params or tags.
        limit: `MAX_PARAM` or `MAX_TAG`.
    """
    found: dict[str, str] = {}
    for key, value in values.items():
        if value is not None:
            found[_key(str(key), found)] = _cut(storable(str(value)), limit)
    return found


def storable(text: str) -> str:
    """Replace what no database keeps: halves of surrogate pairs and, in PostgreSQL, NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def run_name(name: str) -> str:
    """Write the name of a run as MLflow takes it."""
    return _cut(storable(name), _MAX_RUN_NAME)


def batches(
    points: Iterable[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[Batch]:
    """Divide what a run is given among as few requests as MLflow's limits allow."""
    batch, size = Batch(), 0
    for kind, given in (("params", params), ("tags", tags)):
        for key, value in given.items():
            n_bytes = len(json.dumps(key)) + len(json.dumps(value)) + _TEXT_BYTES
            if len(getattr(batch, kind)) == _MAX_TEXTS or size + n_bytes > _MAX_BYTES:
                yield batch
                batch, size = Batch(), 0
            getattr(batch, kind)[key] = value
            size += n_bytes
    for point in points:
        if len(batch) == _MAX_ENTITIES or size + _POINT_BYTES > _MAX_BYTES:
            yield batch
            batch, size = Batch(), 0
        batch.points.append(point)
        size += _POINT_BYTES
    if len(batch):
        yield batch


def _key(name: str, taken: Container[str]) -> str:
    """Write a key as MLflow takes it, and unlike those that are taken."""
    allowed = re.sub(r"[^\w.\- ]|^\.", "_", name)[:_MAX_KEY] or "_"
    key, n = allowed, 1
    while key in taken:
        n += 1
        key = f"{allowed[: _MAX_KEY - 8]} {n}"
    return key


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
