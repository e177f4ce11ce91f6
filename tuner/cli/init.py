"""`tuner init`."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

from pydantic import ValidationError
from rich.markup import escape

from tuner.data.baselines import season_of
from tuner.data.guessing import Columns, guess_columns
from tuner.data.preparing import check_data
from tuner.data.reading import Series, read_series
from tuner.errors import DataError, InputError
from tuner.experiment import Experiment, parse_value
from tuner.experiment.schema import Data
from tuner.outputs import written_whole
from tuner.watching.display import console

__all__ = ["init"]

_TEMPLATE = """\
# {rows} rows of {file}{frequency}. Columns of numbers: {numeric}.
name: {name}
data:
  path: {path}
{time}{resample}{id}  target: {target}
  features: [{features}]
{missing}  split: {{validation: 0.2, test: 0.15}}   # the last rows: fractions, counts, dates
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
objective: {{metric: rmse}}              # rmse, mae, mape, smape, mase, r2
finalists: {{top: 3, repeats: 3}}
seed: 0
"""


_RESAMPLED = (
    "  resample: {}                           # a row is the mean of a step, see aggregate\n"
)
_FILLED = "ffill"
_MISSING = f"  missing: {_FILLED}                         # or interpolate, or refuse\n"


def init(
    path: Path,
    output: Path | None,
    *,
    target: str | None,
    time: str | None,
    id_: str | None,
    no_time: bool,
    resample: str | None,
    features: str | None,
    force: bool,
) -> None:
    """Write an experiment file for a data file; refuses to overwrite one."""
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        raise InputError(f"{path}: must be a CSV or Parquet file; tuner check takes experiments")
    if no_time and time is not None:
        raise InputError(f"--no-time: contradicts --time {time}; give one of them")
    if no_time and resample is not None:
        raise InputError(f"--no-time: contradicts --resample {resample}; give one of them")
    path_to_write = output or Path(f"{path.stem}.yaml")
    chosen = _names(features)
    columns = guess_columns(
        path, time=time, id_=id_, no_time=no_time, target=target, features=chosen
    )
    _check_output(path_to_write, path, force)
    missing = "refuse"
    try:
        series = _read(path, columns, chosen, missing, resample)
    except DataError as error:
        if f"data.missing: {_FILLED}" not in str(error):
            raise
        missing = _FILLED
        series = _read(path, columns, chosen, missing, resample)
    season = season_of(series.frequency if resample is None else resample)
    window = max(1, min(season or 12, series.rows // 8))
    text = _TEMPLATE.format(
        rows=series.rows,
        file=_printable(path.name),
        frequency=f", frequency {series.frequency}" if series.frequency else "",
        numeric=_printable(", ".join(columns.numbers)),
        name=_quoted(
            re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).strip("_.-")[:100] or "experiment"
        ),
        path=_quoted(os.path.relpath(path.resolve(), path_to_write.parent.resolve())),
        time=f"  time: {_quoted(columns.time)}\n" if columns.time is not None else "",
        resample=_RESAMPLED.format(_quoted(resample)) if resample is not None else "",
        id=f"  id: {_quoted(id_)}\n" if id_ is not None else "",
        target=_quoted(columns.target),
        features=", ".join(map(_quoted, series.features)),
        missing="" if missing == "refuse" else _MISSING,
        window=window,
        batch_sizes="8, 16, 32, 64" if series.rows < 5000 else "32, 64, 128, 256",
    )
    _check(text, path, path_to_write)
    with written_whole(path_to_write) as new:
        new.write_text(text, encoding="utf-8")
    quoted = escape(shlex.quote(str(path_to_write)))
    console.print(
        f"wrote [bold]{escape(str(path_to_write))}[/]: "
        f"forecasts [bold]{escape(columns.target)}[/] one row ahead from the {window} before"
    )
    if missing != "refuse":
        console.print(
            f"values or rows are missing: each is filled with the last known one "
            f"(data.missing: {missing}); its target is neither trained on nor scored"
        )
    others = [c for c in columns.numbers if c != columns.target]
    if target is None and others:
        console.print(f"other columns: {escape(', '.join(others))}; choose with --target")
    if chosen is None and columns.left_out:
        left_out = ", ".join(f"{c} ({kind})" for c, kind in columns.left_out.items())
        console.print(f"left out: {escape(left_out)}")
    console.print(f"next: [bold]tuner check {quoted}[/], then [bold]tuner run {quoted}[/]")


def _check_output(output: Path, data: Path, force: bool) -> None:
    if output.is_dir():
        raise InputError(f"-o: {output} is a folder; give the name of a file in it")
    if output.exists() and output.resolve() == data.resolve():
        raise InputError(f"-o: {output} is the data file; give another name")
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError(f"-o: must end in .yaml or .yml, got {output}; rename it")
    if output.exists() and not force:
        raise InputError(f"{output}: exists already; give another name with -o, or add --force")
    if not output.parent.is_dir():
        raise InputError(f"-o: no such folder {output.parent}; create it first")


def _names(features: str | None) -> list[str] | None:
    """Split A,B as a line of the data file is split: a name may stand in double quotes."""
    if features is None:
        return None
    names = [name.strip() for name in next(csv.reader([features], skipinitialspace=True), [])]
    if not all(names) or not names:
        raise InputError(f"--features: must name columns, got {features!r}; write --features A,B")
    return names


def _read(
    path: Path, columns: Columns, features: list[str] | None, missing: str, resample: str | None
) -> Series:
    try:
        data = Data(
            path=str(path),
            time=columns.time,
            id=columns.id,
            target=columns.target,
            features=features or columns.numbers or None,
            missing=missing,
            resample=resample,
        )
        return read_series(data)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--{problem}") from None
    except DataError as error:
        if ": data.time: " not in str(error):
            raise _with_classes(error, path, columns) from None
        problem = re.sub(r", or leave data\.time out.*", "", str(error))
        problem = re.sub(r"write data\.resample: (\S+), say", r"init with --resample \1", problem)
        problem = problem.replace("as data.id", "with --id")
        again = "with" if "init with --resample" in problem else "init with"
        raise DataError(f"{problem}, or {again} --no-time") from None


def _with_classes(error: DataError, path: Path, columns: Columns) -> DataError:
    """Add the remedy for a target of texts, which may well be classes: init only forecasts."""
    problem = str(error).replace("write a number there (1234.5), or ", "")
    if ": data.target: " not in problem or "; " not in problem:
        return error
    kinds = guess_columns(path, id_=columns.id, no_time=True).left_out
    if kinds.get(columns.target) != "text":
        return error
    by_hand = "for classes write the file by hand: task.kind: classify, see docs/tasks-and-data.md"
    return DataError(f"{problem}, or {by_hand}")


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
