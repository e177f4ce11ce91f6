"""Files of series, and what is read or refused of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuner.data.prepared import check_data
from tuner.data.series_table import Series, read_series
from tuner.errors import DataError
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
    with pytest.raises(DataError) as caught:
        check_data(experiment)
    message = str(caught.value)
    assert message.startswith(f"{experiment.data.path}: ")
    assert "\n" not in message
    assert [p for p in parts if p not in message] == [], message


def read(path: Path, **keys: Any) -> Series:
    return read_series(Data(**{"path": str(path), "target": "y", **keys}))


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "series.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def dated(index: Any) -> str:
    return "t,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(index))


def assert_read_refuses(path: Path, *parts: str, **keys: Any) -> None:
    """The message is one line that begins with the file and holds every part."""
    with pytest.raises(DataError) as caught:
        read(path, **keys)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert [p for p in parts if p not in message] == [], message
    assert caught.value.exit_status == 2
