"""What people call samples: a window by its series and time, a sequence by its id."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tuner.tables.timestamps import show_time

_NAMES, _BOUNDS, _TIMES = "names.json", "bounds.npy", "times.npy"


@dataclass(frozen=True, eq=False)
class SampleNames:
    """The names of samples, by their numbers."""

    names: Sequence[object] | np.ndarray
    """Of the series; without bounds, of the samples themselves."""
    bounds: np.ndarray | None = None
    """(series, 2), the rows [start, end) of each; a sample is then a row."""
    times: pd.DatetimeIndex | None = None
    """Of the rows; None where they are numbered."""

    def __call__(self, sample: int) -> str:
        """Return the name of a sample: for a row its series and the time, or the row in it."""
        if self.bounds is None:
            return str(self.names[sample])
        of = int(self.bounds[:, 1].searchsorted(sample, side="right"))
        row = sample - self.bounds[of, 0] + 1
        place = row if self.times is None else show_time(self.times[sample])
        return f"{self.names[of]} {place}".strip()

    def save(self, folder: Path) -> None:
        """Write them into a folder, which is made."""
        folder.mkdir(parents=True)
        kind = None if self.times is None else str(self.times.dtype)
        record = {"names": list(map(str, self.names)), "times": kind}
        (folder / _NAMES).write_text(json.dumps(record), encoding="utf-8")
        if self.bounds is not None:
            np.save(folder / _BOUNDS, self.bounds)
        if self.times is not None:
            np.save(folder / _TIMES, self.times.asi8)  # in UTC: with a zone it has no plain array

    @classmethod
    def load(cls, folder: Path) -> SampleNames:
        """Read what `save` wrote."""
        record = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        bounds, times = (
            np.load(folder / name) if (folder / name).exists() else None
            for name in (_BOUNDS, _TIMES)
        )
        index = None if times is None else pd.DatetimeIndex(times, dtype=record["times"])
        return cls(record["names"], bounds, index)
