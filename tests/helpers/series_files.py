"""Files of series, and what is read or refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.refusals import assert_refused
from tuner.data.prepared import check_data
from tuner.data.series_table import Series, read_series
from tuner.experiment import Experiment
from tuner.experiment.data import Data

SPLIT = {"validation": 10, "test": 8}


def days(n_rows: int = 60, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=n_rows, freq="D")
    return pd.DataFrame(
        {"t": times, "y": rng.uniform(1, 9, n_rows), "x": rng.uniform(1, 9, n_rows)} | columns
    )


def text(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.17g")


def assert_check_refuses(experiment: Experiment, *parts: str) -> None:
    assert_refused(lambda: check_data(experiment), *parts, where=experiment.data.path)


def read(path: Path, **keys: Any) -> Series:
    return read_series(Data(**{"path": str(path), "target": "y", **keys}))


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "series.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def dated(index: Any) -> str:
    return "t,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(index))


def assert_read_refuses(path: Path, *parts: str, **keys: Any) -> None:
    assert_refused(lambda: read(path, **keys), *parts, where=path)
