"""How long `tuner init` takes on 100 MB: one series of minutes, and a thousand series of days.

Each command runs as a process of its own, from start to exit; the fastest of the rounds counts;
on a busy machine its processor seconds tell more. The files are made here, of random numbers.

    python benchmarks/large_file.py [--rounds 3] [--megabytes 100]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

_TARGET = 2.0  # seconds


def one_series(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return minutes of one series."""
    wave = 100 + 10 * np.sin(np.arange(rows) / 1440 * 2 * np.pi)
    times = pd.date_range("2022-01-01", periods=rows, freq="min").strftime("%Y-%m-%d %H:%M:%S")
    return pd.DataFrame({"time": times, "load": wave, "temp": 0.0} | _noise(rng, wave, "load temp"))


def many_series(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Return days of a thousand series, one after another."""
    days, n = np.arange(rows // 1000), 1000
    times = pd.date_range("2015-01-01", periods=len(days)).strftime("%Y-%m-%d")
    wave = np.tile(100 + 10 * np.sin(days / 7 * 2 * np.pi), n)
    stores = np.repeat([f"store_{i}" for i in range(n)], len(days))
    return pd.DataFrame(
        {"date": np.tile(times, n), "store": stores} | _noise(rng, wave, "sales price")
    )


def _noise(rng: np.random.Generator, wave: np.ndarray, names: str) -> dict[str, np.ndarray]:
    return {name: (wave + rng.normal(size=len(wave))).round(3) for name in names.split()}


FILES: dict[str, Callable[[np.random.Generator, int], pd.DataFrame]] = {
    "one series": one_series,
    "a thousand series": many_series,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=100.0)
    options = parser.parse_args()
    table = Table(title="tuner init", title_justify="left")
    for heading in ("file", "MB", "seconds", "processor", "target", "met"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in FILES.items():
            path = Path(folder) / f"{name.replace(' ', '_')}.csv"
            rows = max(4000, int(options.megabytes * 1e6 / 34))  # 34 bytes, about
            make(np.random.default_rng(0), rows).to_csv(path, index=False)
            command = [sys.executable, "-m", "tuner", "init", path.name, "--force"]
            seconds, before = [], os.times()
            for _ in range(options.rounds):
                begun = time.perf_counter()
                subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
                seconds.append(time.perf_counter() - begun)
            after = os.times()
            used = after.children_user + after.children_system
            used -= before.children_user + before.children_system
            processor = f"{used / options.rounds:.2f}"
            size = path.stat().st_size / 1e6
            met = "yes" if min(seconds) <= _TARGET else "no"
            table.add_row(
                name, f"{size:.0f}", f"{min(seconds):.2f}", processor, f"{_TARGET:g}", met
            )
    Console().print(table)


if __name__ == "__main__":
    main()
