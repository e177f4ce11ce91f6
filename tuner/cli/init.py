"""`tuner init`."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

from rich.markup import escape

from tuner.cli.display import console
from tuner.data.baselines import season_of
from tuner.data.guessing import guess_columns
from tuner.data.preparing import check_data
from tuner.data.reading import read_series
from tuner.errors import InputError
from tuner.experiment import Experiment, parse_value
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
  transform: none                        # none, log (for growth), difference
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
    series = read_series(Data(path=str(path), time=time, target=guessed))
    season = season_of(series.frequency)
    window = max(1, min(season or 12, series.rows // 8))
    text = _TEMPLATE.format(
        rows=series.rows,
        file=_printable(path.name),
        frequency=f", frequency {series.frequency}" if series.frequency else "",
        numeric=_printable(", ".join(series.features)),
        name=_quoted(
            re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:100] or "experiment"
        ),
        path=_quoted(os.path.relpath(path.resolve(), path_to_write.absolute().parent)),
        time=f"  time: {_quoted(time)}\n" if time is not None else "",
        target=_quoted(guessed),
        features=", ".join(map(_quoted, series.features)),
        window=window,
        batch_sizes="8, 16, 32, 64" if series.rows < 5000 else "32, 64, 128, 256",
    )
    _check(text, path, path_to_write)
    path_to_write.write_text(text, encoding="utf-8")
    quoted = escape(shlex.quote(str(path_to_write)))
    console.print(
        f"wrote [bold]{escape(str(path_to_write))}[/]: "
        f"forecasts [bold]{escape(guessed)}[/] one row ahead from the {window} before"
    )
    console.print(f"next: [bold]tuner check {quoted}[/], then [bold]tuner run {quoted}[/]")


def _check(text: str, data: Path, file: Path) -> None:
    """Refuse, before it is written, what `tuner check` would refuse."""
    raw = parse_value(text, str(file))
    raw["data"]["path"] = str(data)
    check_data(Experiment.model_validate(raw))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _quoted(name: str) -> str:
    """Write a name as YAML: plain where that is safe, else in quotes."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name) and name.lower() not in (
        *("null", "true", "false", "yes", "no", "on", "off", "y", "n"),  # some read as booleans
    ):
        return name
    text = json.dumps(name, ensure_ascii=False)  # escapes as YAML does, but not all that it must
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
