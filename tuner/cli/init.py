"""`tuner init`."""

from __future__ import annotations

import csv
import os
import re
import shlex
from pathlib import Path

from rich.markup import escape

from tuner.cli.forecast_file import FILLED, forecast_file
from tuner.cli.sequence_file import kind_of, sequence_file
from tuner.cli.written import Asked, Written, check_text
from tuner.cli.yaml_text import quoted
from tuner.data.guessing import guess_columns
from tuner.errors import InputError
from tuner.outputs import written_whole
from tuner.watching.display import console

__all__ = ["init"]


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
    horizon: int | None,
    task: str | None,
    force: bool,
) -> None:
    """Write an experiment file for a data file; refuses to overwrite one."""
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        raise InputError(f"{path}: must be a CSV or Parquet file; tuner check takes experiments")
    if no_time and time is not None:
        raise InputError(f"--no-time: contradicts --time {time}; give one of them")
    if no_time and resample is not None:
        raise InputError(f"--no-time: contradicts --resample {resample}; give one of them")
    if horizon is not None and not 1 <= horizon <= 10_000:
        raise InputError(f"--horizon: must be from 1 to 10000, got {horizon}; write --horizon 12")
    path_to_write = output or Path(f"{path.stem}.yaml")
    chosen = _names(features)
    columns = guess_columns(
        path, time=time, id_=id_, no_time=no_time, target=target, features=chosen
    )
    _check_output(path_to_write, path, force)
    asked = Asked(
        path=path,
        columns=columns,
        features=chosen,
        resample=resample,
        time_given=time is not None,
        horizon=horizon,
        name=quoted(_name_of(path_to_write)),
        written_path=quoted(os.path.relpath(path.resolve(), path_to_write.parent.resolve())),
    )
    kind, why = kind_of(asked, task)
    if kind != "forecast":
        _check_asked_of_sequences(kind, why, horizon, resample)
    written = forecast_file(asked) if kind == "forecast" else sequence_file(asked, kind)
    check_text(written.text, path, path_to_write)
    with written_whole(path_to_write) as new:
        new.write_text(written.text, encoding="utf-8")
    _tell(path_to_write, written, asked, kind, given=target is not None)


def _tell(file: Path, written: Written, asked: Asked, kind: str, *, given: bool) -> None:
    """Print what was written, what it rests on, and what comes next."""
    columns = asked.columns
    console.print(f"wrote [bold]{escape(str(file))}[/]: {written.does}")
    if written.found:
        console.print(f"found: {escape(written.found)}")
    if written.filled:
        console.print(
            f"values or rows are missing: each is filled with the last known one "
            f"(data.missing: {FILLED}); its target is neither trained on nor scored"
        )
    others = [c for c in columns.numbers if c != columns.target]
    if not given and others:
        console.print(f"other columns: {escape(', '.join(others))}; choose with --target")
    if kind == "forecast" and asked.features is None and written.not_read:
        names = escape(", ".join(written.not_read))
        console.print(f"not read, as they do not help a linear forecast: {names}; see --features")
    if asked.features is None and columns.left_out:
        left_out = ", ".join(
            f"{c} ({what})" for c, what in columns.left_out.items() if c != columns.target
        )
        if left_out:
            console.print(f"left out: {escape(left_out)}")
        texts = [c for c, what in columns.left_out.items() if what == "text"]
        if texts and columns.id is None:
            name = escape(shlex.quote(texts[0]))
            console.print(f"if the rows are of several series or sequences, say which: --id {name}")
    name = escape(shlex.quote(str(file)))
    console.print(f"next: [bold]tuner check {name}[/], then [bold]tuner run {name}[/]")


def _check_asked_of_sequences(
    kind: str, why: str, horizon: int | None, resample: str | None
) -> None:
    for option, value in (("--horizon", horizon), ("--resample", resample)):
        if value is not None:
            raise InputError(
                f"{option}: is of forecasts, got {value}, and {why}: {kind}; leave it out"
            )


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


def _name_of(file: Path) -> str:
    """Return the name of an experiment in a file: two files beside each other are two studies."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", file.stem).strip("_.-")[:100] or "experiment"


def _names(features: str | None) -> list[str] | None:
    """Split A,B as a line of the data file is split: a name may stand in double quotes."""
    if features is None:
        return None
    names = [name.strip() for name in next(csv.reader([features], skipinitialspace=True), [])]
    if not all(names) or not names:
        raise InputError(f"--features: must name columns, got {features!r}; write --features A,B")
    return names
