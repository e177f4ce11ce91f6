"""`tuner init`."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from tuner.cli.display import console
from tuner.data.baselines import season_of
from tuner.data.guessing import guess_columns
from tuner.data.reading import read_series
from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.experiment.schema import Data

__all__ = ["init"]

_TEMPLATE = """\
# {rows} rows of {file}{frequency}. Columns of numbers: {numeric}.
name: {name}
data:
  path: {path}
{time}  target: {target}
  features: [{features}]
  split: {{validation: 0.2, test: 0.15}}   # the last rows: fractions, numbers of rows, or dates
  transform: none                        # none, log, difference
  scale: standard                        # standard, minmax, none
task: {{kind: forecast, window: {window}, horizon: 1}}
hyperparameters: {{learning_rate: 0.005}}
search_space:
  hidden_size: {{type: int, low: 8, high: 128, log: true}}
  num_layers: {{type: int, low: 1, high: 3}}
  dropout: {{type: float, low: 0.0, high: 0.5}}
  batch_size: {{type: categorical, choices: [{batch_sizes}]}}
strategy: {{name: tpe}}                    # tuner strategies lists them
budget: {{trials: 40, epochs: 100, patience: 15, timeout: null}}
pruner: {{name: median}}
objective: {{metric: rmse}}              # rmse, mae, mape, r2
finalists: {{top: 3, repeats: 3}}
seed: 0
"""


def init(path: Path, output: Path | None, target: str | None) -> None:
    """Write an experiment file for a data file; refuses to overwrite one."""
    path_to_write = output or Path(f"{path.stem}.yaml")
    if path_to_write.exists():
        raise InputError(f"{path_to_write}: exists already; give another name with -o")
    if not path_to_write.parent.is_dir():
        raise InputError(f"-o: no such folder {path_to_write.parent}; create it first")
    time, guessed = guess_columns(path, target)
    series = read_series(Data(path=str(path.resolve()), time=time, target=guessed))
    season = season_of(series.frequency)
    window = max(1, min(season or 12, series.rows // 8))
    text = _TEMPLATE.format(
        rows=series.rows,
        file=path.name,
        frequency=f", frequency {series.frequency}" if series.frequency else "",
        numeric=", ".join(series.features),
        name=re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).lstrip("_.-") or "experiment",
        path=_quoted(os.path.relpath(path.resolve(), path_to_write.absolute().parent)),
        time=f"  time: {_quoted(time)}\n" if time is not None else "",
        target=_quoted(guessed),
        features=", ".join(map(_quoted, series.features)),
        window=window,
        batch_sizes="8, 16, 32, 64" if series.rows < 5000 else "32, 64, 128, 256",
    )
    path_to_write.write_text(text)
    Experiment.load(path_to_write)
    quoted = shlex.quote(str(path_to_write))
    console.print(
        f"wrote [bold]{path_to_write}[/]: forecasts [bold]{guessed}[/] one row ahead from the "
        f"{window} before"
    )
    console.print(f"next: [bold]tuner check {quoted}[/], then [bold]tuner run {quoted}[/]")


def _quoted(name: str) -> str:
    """Write a name as YAML: plain where that is safe, else in quotes."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name) and name.lower() not in (
        "null",
        "true",
        "false",
    ):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
