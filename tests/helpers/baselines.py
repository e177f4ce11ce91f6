"""Plain forecasts that are fitted once, for tests that search the same data again and again."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tuner.data import DataRef, prepared

_fit = prepared.baselines_record
_fitted: dict[tuple[Any, ...], dict[str, Any]] = {}


@contextmanager
def fitted_once() -> Iterator[None]:
    """Have searches of this process take the scores of baselines on arrays that were met before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "baselines_record", _record)
        yield


def _record(
    metric: str,
    folds: Sequence[DataRef],
    season: int | None,
    others: Sequence[tuple[Mapping[str, str], Sequence[DataRef]]] = (),
) -> dict[str, Any]:
    of_others = [(sorted(of.items()), [*map(_content, refs)]) for of, refs in others]
    key = (metric, season, str([*map(_content, folds)]), str(of_others))
    if key not in _fitted:
        _fitted[key] = _fit(metric, folds, season, others)
    return copy.deepcopy(_fitted[key])


def _content(ref: DataRef) -> str:
    """Return what a reference says, and the hash of its arrays, without where they are."""
    digest = hashlib.sha256(repr(dataclasses.replace(ref, folder="")).encode())
    for path in sorted(Path(ref.folder).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
