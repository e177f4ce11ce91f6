"""The experiment file that `tuner init` proposes for a data file, and what it prints about it."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from tuner.data.profile import SUSPECTS
from tuner.errors import DataError, InputError, Setting, nearest
from tuner.experiment.data import Read
from tuner.experiment.messages import first_problem
from tuner.experiment.schema import EXPERIMENT_BYTES, mended
from tuner.pipeline_steps import Dialect
from tuner.planning.columns import guess_columns
from tuner.planning.forecast import FILLED, forecast_file
from tuner.planning.proposal import Proposal, Request, Sample, check_text, listed, sampled
from tuner.planning.sequences import kind_of, sequence_file
from tuner.tables.table import RawTable, WideColumns

_MANY = 0.1  # share of filled-in rows, above which a line warns
_LONG = 90.0  # seconds of a trial, from which on a line warns


@dataclass(frozen=True)
class InitOptions:
    """The options of `tuner init`; what is left out is guessed from the file."""

    target: str | None = None
    """Column to predict, or several as a line of CSV."""
    features: str | None = None
    """Columns that the model sees, as a line of CSV."""
    time: str | None = None
    """Column of times."""
    id: str | None = None
    """Column that names the series of a row."""
    no_time: bool = False
    """Whether the order of the rows stands for their times."""
    resample: str | None = None
    """Frequency to which rows are resampled."""
    wide: str | None = None
    """Columns that are series of one quantity: a pattern, or a line of CSV."""
    horizon: int | None = None
    """Rows ahead that are forecast, 1 to 10,000."""
    task: str | None = None
    """forecast, classify, label or regress."""
    read: Mapping[str, object] = field(default_factory=dict)
    """Keys of `data.read`."""

    def check(self) -> None:
        """Check what needs no file.

        Raises:
            InputError: an option is out of range, or contradicts another one.
        """
        for option in ("time", "resample"):
            if self.no_time and (value := getattr(self, option)) is not None:
                rule = f"contradicts --{option} {value}"
                raise InputError(rule, where="--no-time", remedy="give one of them")
        if self.horizon is not None and not 1 <= self.horizon <= 10_000:
            rule = "must be from 1 to 10000"
            raise InputError(rule, where="--horizon", got=self.horizon, remedy="write --horizon 12")


@dataclass(frozen=True)
class ProposedFile:
    """A proposed experiment file."""

    text: str
    does: str
    """What it does, with markup."""
    notes: tuple[str, ...]
    """Lines on columns, on the file, and on what else could be chosen; without markup."""


def propose(data: Path, options: InitOptions, *, file: Path, written_path: str) -> ProposedFile:
    """Propose an experiment for a data file; nothing is written.

    Args:
        data: the data file.
        options: of `tuner init`, checked.
        file: the experiment file, whose name is that of the experiment.
        written_path: the path of the data in it.

    Raises:
        InputError: the file cannot be read, or an option does not fit it.
    """
    dialect = _dialect(options.read)
    with sampled(data) as sample, _as_options():
        table = RawTable.read(sample.path, dialect, options.time)
        asked = _ask(options, table, sample, file, written_path)
        kind, why = kind_of(asked, options.task)
        for option in ("horizon", "resample"):
            value = getattr(options, option)
            if kind != "forecast" and value is not None:
                got, rule = f"{value}, and {why}: {kind}", "applies to forecasts only"
                raise InputError(rule, where=f"--{option}", got=got, remedy="leave it out")
        written = forecast_file(asked) if kind == "forecast" else sequence_file(asked, kind)
        facts = check_text(written.text, sample.path, file).facts
    notes = [*_on_columns(asked), *_on_file(written), *_on_choices(written, asked, kind)]
    notes += [f"look at: {text}" for what, text in facts.notes if what in SUSPECTS]
    return ProposedFile(written.text, written.does, tuple(notes))


def _dialect(keys: Mapping[str, object]) -> Dialect:
    """Return the dialect that keys of `data.read` declare.

    Raises:
        InputError: there is no such key, or it cannot have that value.
    """
    try:
        return Dialect.of(Read.model_validate(dict(keys)).model_dump())
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
    """Replace keys of `data.read` in remedies by the equivalent option of `tuner init`."""
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
    options: InitOptions, table: RawTable, sample: Sample, file: Path, written_path: str
) -> Request:
    features = None if options.features is None else _names("--features", options.features)
    target, names = options.target, table.names
    targets = [] if target is None else [target]
    if target is not None and target not in names and "," in target:
        targets = _names("--target", target)
    wide = None if options.wide is None else _wide(options.wide, names, options.id, target)
    columns = guess_columns(
        table,
        time=options.time,
        id_=options.id,
        no_time=options.no_time,
        target=targets,
        features=features,
        wide=wide,
    )
    return Request(
        path=sample.path,
        columns=columns,
        features=features,
        resample=options.resample,
        time_given=options.time is not None,
        horizon=options.horizon,
        name=mended(file.stem, EXPERIMENT_BYTES) or "experiment",
        written_path=written_path,
        times_more=sample.times_more,
    )


def _wide(wide: str, names: list[str], id_: str | None, target: str | None) -> WideColumns:
    """Return the wide columns; names that are not given are derived from those of the columns."""
    columns = wide if set(wide) & set("*?") else _names("--wide", wide)
    stem = re.sub(r"[\W_]*[*?].*", "", wide) if isinstance(columns, str) else ""
    free = [name for name in (stem, "series") if name and name not in names]
    value = next(name for name in ("value", "values", "y") if name not in names or name == target)
    return WideColumns(id_ or (free or ["name"])[0], target or value, columns)


def _on_columns(asked: Request) -> Iterator[str]:
    columns = asked.columns
    if asked.times_more > 1:
        share = f"the first {1 / asked.times_more:.1%} of the file, which is large"
        yield f"looked at {share}; tuner check reads all of it"
    if columns.why_target:
        yield f"target: {columns.target}, {columns.why_target}; choose with --target"
    if columns.may_be_wide is not None:
        pattern, n = columns.may_be_wide
        yield (
            f"{n} columns are called {pattern}: if they are series of one quantity, init with "
            f"--wide {shlex.quote(pattern)}"
        )
    if columns.why_id and columns.id is not None:
        yield f"id: {columns.id}, {columns.why_id}; choose with --id"


def _on_file(written: Proposal) -> Iterator[str]:
    if written.read:
        yield f"read with {'; '.join(written.read)} (data.read)"
    if written.found:
        yield f"found: {written.found}"
    if written.known_ahead:
        yield f"known ahead: {written.known_ahead} (data.known_future); take out what is not"
    if written.seconds > _LONG:
        less = "longer steps take less, --resample 1D, say" if written.hourly else "fewer take less"
        minutes = f"{written.seconds / 60:.0f} minutes"
        yield f"a trial takes about {minutes}, as there are so many rows; {less}"
    if written.filled:
        yield (
            f"values or rows are missing: each is filled with the last known one "
            f"(data.missing: {FILLED}); its target is neither trained on nor scored"
        )
    made_up, rows = written.made_up
    if made_up > _MANY * rows:
        yield (
            f"look at: {made_up} of {rows} rows are missing from the file and filled in; "
            f"--no-time takes the rows as they come"
        )


def _on_choices(written: Proposal, asked: Request, kind: str) -> Iterator[str]:
    """Yield lines about the columns that are not used, and the options that use them."""
    columns = asked.columns
    others = [c for c in columns.numbers if c not in columns.targets]
    if columns.why_target and others:
        yield f"other columns: {listed(others)}; choose with --target"
    if asked.features is not None:
        return
    if kind == "forecast" and written.not_read:
        names = listed(written.not_read)
        yield f"not read, as they do not help a linear forecast: {names}; see --features"
    kinds = columns.left_out.items()
    if left_out := listed([f"{c} ({kind})" for c, kind in kinds if c not in columns.targets]):
        yield f"left out: {left_out}"
    if columns.left_out and columns.may_be_id is not None:
        name = shlex.quote(columns.may_be_id)
        yield f"if the rows are of several series or sequences, say which: --id {name}"


def _names(option: str, given: str) -> list[str]:
    """Split A,B like a line of CSV: a name may stand in double quotes."""
    names = [name.strip() for name in next(csv.reader([given], skipinitialspace=True), [])]
    if not all(names) or not names:
        rule = "must name columns"
        raise InputError(rule, where=option, got=repr(given), remedy=f"write {option} A,B")
    return names
