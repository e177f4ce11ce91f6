"""`tuner init`."""

from __future__ import annotations

import csv
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from rich.markup import escape

from tuner.data.quality import SUSPECTS
from tuner.errors import DataError, InputError, Setting, nearest
from tuner.experiment import parse_value
from tuner.experiment.fields import EXPERIMENT_BYTES, Read, mended
from tuner.experiment.messages import first_problem
from tuner.outputs import written_whole
from tuner.pipeline_steps import Dialect
from tuner.planning.columns import guess_columns
from tuner.planning.forecast_file import FILLED, forecast_file
from tuner.planning.sequences import kind_of, sequence_file
from tuner.planning.text import Asked, Sample, Written, check_text, listed, quoted, sampled
from tuner.progress.display import console
from tuner.tables.rows import WideColumns
from tuner.tables.table import RawTable

__all__ = ["init"]

_MANY = 0.1  # of the rows that are made up
_LONG = 90.0  # seconds of a trial, to be told
_WORDS = ("true", "false")


def init(
    path: Path,
    output: Path | None,
    *,
    target: str | None,
    time: str | None,
    id_: str | None,
    no_time: bool,
    resample: str | None,
    wide: str | None,
    features: str | None,
    horizon: int | None,
    task: str | None,
    read: list[str],
    force: bool,
) -> None:
    """Write an experiment file for a data file; refuses to overwrite one."""
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        rule = "must be a CSV or Parquet file"
        raise InputError(rule, where=path, remedy="tuner check takes experiments")
    if no_time and time is not None:
        raise InputError(f"contradicts --time {time}", where="--no-time", remedy="give one of them")
    if no_time and resample is not None:
        rule = f"contradicts --resample {resample}"
        raise InputError(rule, where="--no-time", remedy="give one of them")
    if horizon is not None and not 1 <= horizon <= 10_000:
        rule = "must be from 1 to 10000"
        raise InputError(rule, where="--horizon", got=horizon, remedy="write --horizon 12")
    path_to_write = output or Path(f"{path.stem}.yaml")
    _check_output(path_to_write, path, force)
    declared = _declared(read)
    with sampled(path) as sample, _as_options():
        table = RawTable.read(sample.path, declared, time)
        asked = _ask(table, sample, path, path_to_write, target, time, id_, no_time, features, wide)
        asked = replace(asked, resample=resample, horizon=horizon)
        kind, why = kind_of(asked, task)
        if kind != "forecast":
            _check_asked_of_sequences(kind, why, horizon, resample)
        written = forecast_file(asked) if kind == "forecast" else sequence_file(asked, kind)
        facts = check_text(written.text, sample.path, path_to_write).facts
    with written_whole(path_to_write) as new:
        new.write_text(written.text, encoding="utf-8")
    _tell(path_to_write, written, asked, kind)
    for what, text in facts.notes:
        if what in SUSPECTS:
            console.print(f"look at: {escape(text)}")
    name = escape(shlex.quote(str(path_to_write)))
    console.print(f"next: [bold]tuner check {name}[/], then [bold]tuner run {name}[/]")


def _declared(options: list[str]) -> Dialect:
    """Return what `--read KEY=VALUE` says of how the file is written.

    Raises:
        InputError: there is no such key, or it cannot have that value.
    """
    keys: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip():
            remedy = "write --read 'decimal=,'"
            raise InputError("must be KEY=VALUE", where="--read", got=repr(option), remedy=remedy)
        text = value.strip()
        held = parse_value(text, "--read") if text[:1] in "[\"'" or text in _WORDS else text
        lines = key.strip() in ("skip_rows", "skip_footer") and text.isdigit()
        keys[key.strip()] = int(text) if lines else held
    try:
        return Read.model_validate(keys).dialect
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            known = [*Read.model_fields]
            rule = f"no key {key!r}"
            raise InputError(rule, where="--read", remedy=nearest(key, known)) from None
        where, broken = f"--read {key}", first_problem(error)
        raise InputError(broken.rule, where=where, got=broken.got, remedy=broken.remedy) from None


@contextmanager
def _as_options() -> Iterator[None]:
    """Write remedies that name a key of `data.read` as the option that does the same here."""
    try:
        yield
    except DataError as error:
        raise error.with_(changes=tuple(map(_as_option, error.changes))) from None


def _as_option(change: str | Setting) -> str | Setting:
    if not isinstance(change, Setting) or not change.key.startswith("data.read."):
        return change
    option = shlex.quote(f"{change.key.removeprefix('data.read.')}={change.value}")
    return f"init with --read {option}{change.note}"


def _ask(
    table: RawTable,
    sample: Sample,
    path: Path,
    file: Path,
    target: str | None,
    time: str | None,
    id_: str | None,
    no_time: bool,
    features: str | None,
    wide: str | None,
) -> Asked:
    """Find the columns in the rows that are looked at."""
    chosen = None if features is None else _names("--features", features)
    names = table.names
    targets = [] if target is None else [target]
    if target is not None and target not in names and "," in target:
        targets = _names("--target", target)
    of_wide = None if wide is None else _wide(wide, names, id_, target)
    columns = guess_columns(
        table,
        time=time,
        id_=id_,
        no_time=no_time,
        target=targets,
        features=chosen,
        wide=of_wide,
    )
    return Asked(
        path=sample.path,
        columns=columns,
        features=chosen,
        resample=None,
        time_given=time is not None,
        horizon=None,
        name=quoted(_name_of(file)),
        written_path=quoted(os.path.relpath(path.resolve(), file.parent.resolve())),
        times_more=sample.times_more,
    )


def _wide(wide: str, names: list[str], id_: str | None, target: str | None) -> WideColumns:
    """Return what columns become: what they are called where that is not said, their names tell."""
    columns = wide if set(wide) & set("*?") else _names("--wide", wide)
    stem = re.sub(r"[\W_]*[*?].*", "", wide) if isinstance(columns, str) else ""
    free = [name for name in (stem, "series") if name and name not in names]
    value = next(name for name in ("value", "values", "y") if name not in names or name == target)
    return WideColumns(id_ or (free or ["name"])[0], target or value, columns)


def _tell(file: Path, written: Written, asked: Asked, kind: str) -> None:
    """Print what was written, and what it rests on."""
    columns = asked.columns
    console.print(f"wrote [bold]{escape(str(file))}[/]: {written.does}")
    if asked.times_more > 1:
        console.print(
            f"looked at the first {1 / asked.times_more:.1%} of the file, which is large; "
            f"tuner check reads all of it"
        )
    if columns.why_target:
        console.print(
            f"target: {escape(columns.target)}, {columns.why_target}; choose with --target"
        )
    if columns.may_be_wide is not None:
        pattern, n = columns.may_be_wide
        console.print(
            f"{n} columns are called {escape(pattern)}: if they are series of one quantity, init "
            f"with --wide {escape(shlex.quote(pattern))}"
        )
    if columns.why_id and columns.id is not None:
        console.print(f"id: {escape(columns.id)}, {columns.why_id}; choose with --id")
    if written.read:
        console.print(f"read with {escape('; '.join(written.read))} (data.read)")
    if written.found:
        console.print(f"found: {escape(written.found)}")
    if written.known_ahead:
        console.print(
            f"known ahead: {escape(written.known_ahead)} (data.known_future); take out what is not"
        )
    if written.seconds > _LONG:
        less = "longer steps take less, --resample 1D, say" if written.hourly else "fewer take less"
        console.print(
            f"a trial takes about {written.seconds / 60:.0f} minutes, as there are so many rows; "
            f"{less}"
        )
    if written.filled:
        console.print(
            f"values or rows are missing: each is filled with the last known one "
            f"(data.missing: {FILLED}); its target is neither trained on nor scored"
        )
    made_up, rows = written.made_up
    if made_up > _MANY * rows:
        console.print(
            f"look at: {made_up} of {rows} rows are in no line of the file and filled in; "
            f"--no-time takes the rows as they come"
        )
    others = [c for c in columns.numbers if c not in columns.targets]
    if columns.why_target and others:
        console.print(f"other columns: {escape(listed(others))}; choose with --target")
    if kind == "forecast" and asked.features is None and written.not_read:
        names = escape(listed(written.not_read))
        console.print(f"not read, as they do not help a linear forecast: {names}; see --features")
    if asked.features is None and columns.left_out:
        left_out = listed(
            [f"{c} ({what})" for c, what in columns.left_out.items() if c not in columns.targets]
        )
        if left_out:
            console.print(f"left out: {escape(left_out)}")
        if columns.may_be_id is not None:
            name = escape(shlex.quote(columns.may_be_id))
            console.print(f"if the rows are of several series or sequences, say which: --id {name}")


def _check_asked_of_sequences(
    kind: str, why: str, horizon: int | None, resample: str | None
) -> None:
    for option, value in (("--horizon", horizon), ("--resample", resample)):
        if value is not None:
            got = f"{value}, and {why}: {kind}"
            raise InputError("is of forecasts", where=option, got=got, remedy="leave it out")


def _check_output(output: Path, data: Path, force: bool) -> None:
    if output.is_dir():
        rule = f"{output} is a folder"
        raise InputError(rule, where="-o", remedy="give the name of a file in it")
    if output.exists() and output.resolve() == data.resolve():
        raise InputError(f"{output} is the data file", where="-o", remedy="give another name")
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise InputError("must end in .yaml or .yml", where="-o", got=output, remedy="rename it")
    if output.exists() and not force:
        rule = "exists already"
        raise InputError(rule, where=output, remedy="give another name with -o, or add --force")
    if not output.parent.is_dir():
        raise InputError(f"no such folder {output.parent}", where="-o", remedy="create it first")


def _name_of(file: Path) -> str:
    """Return the name of an experiment in a file: two files beside each other are two studies."""
    return mended(file.stem, EXPERIMENT_BYTES) or "experiment"


def _names(option: str, given: str) -> list[str]:
    """Split A,B as a line of the data file is split: a name may stand in double quotes."""
    names = [name.strip() for name in next(csv.reader([given], skipinitialspace=True), [])]
    if not all(names) or not names:
        rule = "must name columns"
        raise InputError(rule, where=option, got=repr(given), remedy=f"write {option} A,B")
    return names
