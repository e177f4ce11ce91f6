"""Resolves what a user names: studies, journals, earlier results for `--from`, data frames."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tuner.coordination.opening import Earlier
from tuner.errors import InputError, JournalError, NotReadyError, nearest, one_line
from tuner.experiment import Domain, Experiment, Override
from tuner.experiment.messages import shown
from tuner.experiment.schema import STUDY_BYTES, mended, normalized, why_refused, why_reserved
from tuner.journal.records import StudyRecord, StudyState, read_study, read_with_state
from tuner.journal.storage import journal_at, journal_location, read_journal
from tuner.outputs import written_whole
from tuner.tables.table import RawTable

_HASH_DIGITS = 12  # in the name of a file

_FACTS = ("trial", "status", "epochs", "seconds", "weights", "latency_ms", "seed", "repeat_of",
          "reason")  # fmt: skip
"""Columns of `Study.trials` that are no part of a configuration."""


def check_study_name(study: str | None, *, in_python: bool = False) -> str | None:
    """Return the normalized name of a study; messages name the option, or a Python argument.

    Raises:
        InputError: it cannot be the name of a file, or is reserved.
    """
    if study is None:
        return None
    study, where = normalized(study), "study" if in_python else "--study"
    if why := why_refused(study, STUDY_BYTES):
        near = mended(study, STUDY_BYTES) or "first"
        write = f"study={near!r}" if in_python else f"--study {shlex.quote(near)}"
        raise InputError(why, where=where, got=shown(study), remedy=f"write {write}, say")
    if rule := why_reserved(study):
        raise InputError(rule, where=where, got=repr(study), remedy="leave it out")
    return study


def check_journal(journal: str | None, *, in_python: bool = False) -> None:
    """Check that a journal can name a file or a database.

    Raises:
        InputError: it names neither, or its folder is missing or may not be written to.
    """
    if journal is None:
        return
    where = "journal" if in_python else "--journal"
    if journal in ("", "sqlite://", "sqlite:///") or journal.endswith(":memory:"):
        rule = "must name a file or a database that lasts"
        write = "journal='studies/a.journal'" if in_python else "--journal studies/a.journal"
        raise InputError(rule, where=where, got=repr(journal), remedy=f"write {write}, say")
    scheme, in_database, database = journal.partition(":///")
    if "://" in journal and not (in_database and scheme.partition("+")[0] == "sqlite"):
        return
    path = Path(database.partition("?")[0] if in_database else journal)
    folder = next((p for p in path.absolute().parents if p.exists()), Path("/"))
    if not folder.is_dir() or (not path.exists() and not os.access(folder, os.W_OK)):
        rule = f"cannot be written in {folder}"
        raise InputError(rule, where=where, got=repr(journal), remedy="give another folder")
    if not path.parent.exists() and path.parent != Path("studies"):  # created on demand
        rule = f"no folder {path.parent}"
        raise InputError(rule, where=where, got=repr(journal), remedy="create it first")


def read(study: str, journal: str | None) -> StudyRecord:
    """Return the record of a study.

    Raises:
        InputError: the study does not exist; the remedy is the nearest name.
    """
    location = locate(study, journal)
    return read_study(read_journal(location), study, location)


def read_as_it_stands(study: str, journal: str | None) -> tuple[StudyRecord, StudyState]:
    """Return the record of a study and the state of its search; raises as `read` does."""
    location = locate(study, journal)
    return read_with_state(read_journal(location), study, location)


def refuse_for_now(study: str, state: StudyState, what: str) -> None:
    """Refuse a study that lacks something as its search has not come that far.

    Raises:
        NotReadyError: the search may be running.
    """
    if state in (StudyState.RUNNING, StudyState.UNKNOWN):
        raise NotReadyError(f"study {study!r} has no {what} yet", remedy="wait for it")


def locate(study: str, journal: str | None) -> str:
    """Return the location of a study's journal.

    Raises:
        InputError: the file does not exist in this folder; the remedy is the nearest name.
    """
    location = journal_location(study, journal)
    if journal is None and not Path(location).exists():
        if Path(study).is_file():
            found = journal_at(Path(study))
            asked = f" --journal {shlex.quote(found)}" if found else ""
            rule = "is a file, not a study's name"
            raise JournalError(rule, where=study, remedy=f"write `tuner studies{asked}`")
        known = [normalized(path.stem) for path in Path("studies").glob("*.journal")]
        remedy = nearest(study, known) if known else "start one: tuner run EXPERIMENT.yaml"
        raise JournalError(f"no study {study!r} in this folder", where=location, remedy=remedy)
    return location


def read_earlier(
    names: Sequence[str], experiment: Experiment, study: str, journal: str | None
) -> list[Earlier]:
    """Read the earlier results from which a new study starts.

    Args:
        names: studies in this folder or in the journal; paths of journals; or paths of CSV files.
            A CSV file has a column for each searched hyperparameter, and may have one called
            `score` or named after the metric, and those of `Study.trials`.
        experiment: the experiment of the new study.
        study: name of the new study.
        journal: value of `--journal`.

    Raises:
        InputError: a study or file does not exist, a column is unknown or missing, or a value
            lies outside the search space.
    """
    found = []
    for name in names:
        if name.lower().endswith(".csv"):
            found.append(Earlier(name, configurations=_read_table(Path(name), experiment)))
            continue
        if name == study:
            rule = "must be another study than the new one"
            remedy = "leave it out to resume, or give another --study name"
            raise InputError(rule, where="--from", got=repr(name), remedy=remedy)
        found.append(Earlier(name, _read_study(name, journal)))
    return found


def _read_study(name: str, journal: str | None) -> StudyRecord:
    path = Path(name)
    if path.suffix == ".journal":
        return read(path.stem, name)
    own = Path("studies") / f"{name}.journal"
    try:
        return read(name, journal if journal is not None and not own.exists() else None)
    except JournalError as error:
        raise InputError(error, where="--from") from None


def _read_table(path: Path, experiment: Experiment) -> tuple[dict[str, Any], ...]:
    """Read the configurations of a CSV file, the best score first if there are scores."""

    def refused(rule: str, remedy: str) -> InputError:
        return InputError(f"{path}: {rule}", where="--from", remedy=remedy)

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey="", strict=True))
    except FileNotFoundError:
        raise refused("no such file", "check the path") from None
    except (OSError, ValueError, csv.Error) as error:
        problem = getattr(error, "strerror", None) or one_line(error)
        raise refused(f"cannot be read: {problem}", "write a CSV file") from None
    space, metric = experiment.search_space, experiment.objective.metric
    columns = [name for name in rows[0] if name] if rows else []
    if not columns:
        raise refused("has no configuration", "write a line for each")
    known = [*space, "score", metric]
    if unknown := [column for column in columns if column not in (*known, *_FACTS)]:
        raise refused(f"unknown column {unknown[0]!r}", nearest(unknown[0], known))
    if lacking := [name for name in space if name not in columns]:
        raise refused(f"{lacking[0]}: has no column", "add one, as it is searched")
    scored = next((name for name in ("score", metric) if name in columns), None)
    configurations: list[tuple[float, dict[str, Any]]] = []
    sign = -1.0 if experiment.objective.direction == "maximize" else 1.0
    for line, row in enumerate(rows, 2):
        where, score = f"--from: {path}: line {line}", 0.0
        params = {name: _value(row[name], domain, f"{where}: {name}")
                  for name, domain in space.items()}  # fmt: skip
        if scored is not None:
            if not (row[scored] or "").strip():
                continue  # a trial that failed, or was pruned
            try:
                score = sign * float(row[scored])
            except ValueError:
                rule = f"{scored}: must be a number"
                remedy = "correct it, or leave it empty"
                raise InputError(rule, where=where, got=repr(row[scored]), remedy=remedy) from None
        configurations.append((score, params))
    configurations.sort(key=lambda pair: pair[0])  # stable: equal scores keep their order
    return tuple(params for _, params in configurations)


def _value(text: str | None, domain: Domain, where: str) -> Any:
    text = (text or "").strip()
    value: Any = _number(text)
    if domain.type == "categorical":
        for choice in domain.choices:
            if text in (str(choice), str(choice).lower()):
                return choice
        for choice in domain.choices:
            if not isinstance(choice, bool | str) and choice == value:
                return choice
    else:
        if value is not None and domain.type == "int" and value == int(value):
            value = int(value)
        if value is not None and value in domain:
            return value
    ends = domain.bounds()
    allowed = f"one of {', '.join(map(str, ends))}"
    if domain.type != "categorical":
        step = f" in steps of {domain.step}" if domain.step not in (None, 1) else ""
        allowed = f"from {min(ends)} to {max(ends)}{step}"
    rule = f"must lie in the search space, {allowed}"
    remedy = "remove the line, or widen the space"
    raise InputError(rule, where=where, got=repr(text), remedy=remedy)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def with_data(
    experiment: Experiment | Mapping[str, Any] | str | Path,
    data: pd.DataFrame | str | Path | None,
    journal: str | None,
) -> Experiment:
    """Return the experiment, with `data` in place of its own.

    Args:
        experiment: an experiment, the path of its file, or nested dicts. With `data`, dicts need
            no `data.path`.
        data: a file, or a data frame, which is written beside the journal.
        journal: location of the study's journal; None for the default.

    Raises:
        InputError: the experiment or the data frame is refused.
    """
    path: str | None = None
    if isinstance(data, str | Path):
        path = str(Path(data).absolute())
    elif data is not None:
        in_file = journal is not None and "://" not in journal
        beside = Path(journal).parent if journal is not None and in_file else Path("studies")
        path = str(keep_frame(data, beside / "data", _name_of(experiment)))
    if isinstance(experiment, Experiment):
        return experiment if path is None else experiment.changed({"data.path": path})
    if isinstance(experiment, Mapping):
        block = experiment.get("data", {})
        if path is not None and isinstance(block, Mapping):
            experiment = {**experiment, "data": {**block, "path": path}}
        return Experiment.from_dict(experiment)
    if not isinstance(experiment, str | Path):
        kind = type(experiment).__name__
        rule = "must be a path, a dict or an Experiment"
        raise InputError(rule, where="experiment", got=f"a {kind}", remedy="give 'sales.yaml', say")
    overrides = [] if path is None else [Override("data.path", path, "data")]
    return Experiment.load(experiment, overrides)


def with_changes(
    experiment: Experiment, strategy: str | None, trials: int | None, seed: int | None
) -> Experiment:
    """Return the experiment with other values; None leaves one, as its own strategy's name does.

    Raises:
        InputError: a value breaks a rule.
    """
    same = strategy in (None, experiment.strategy.name)  # which keeps its options
    values = {"strategy": None if same else {"name": strategy}, "budget.trials": trials}
    values["seed"] = seed
    given = {key: value for key, value in values.items() if value is not None}
    return experiment.changed(given) if given else experiment


def _name_of(experiment: Experiment | Mapping[str, Any] | str | Path) -> str:
    if isinstance(experiment, Experiment):
        return experiment.name
    if isinstance(experiment, Mapping):
        name = experiment.get("name")
        return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) else "table"
    return Path(experiment).stem


def keep_frame(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write a data frame to `NAME-HASH.parquet` in a folder, and return the path.

    The hash is of names, types and values, so an equal frame is written once. Named levels of the
    index become columns.

    Args:
        frame: (rows, columns).
        folder: created if it does not exist.
        name: first part of the file's name.

    Raises:
        InputError: it is no data frame, has no rows, or has a column that Parquet cannot hold.
        RunError: the file cannot be written.
    """
    if not isinstance(frame, pd.DataFrame):
        kind = type(frame).__name__
        rule = "must be a pandas DataFrame"
        raise InputError(rule, where="data", got=f"a {kind}", remedy="give pd.DataFrame(...), say")
    if frame.columns.nlevels > 1:
        rule = "columns must have one name each"
        remedy = "flatten them, as in df.columns = df.columns.map('_'.join)"
        raise InputError(rule, where="data", got="names of several levels", remedy=remedy)
    table = RawTable.from_frame(frame).frame
    table = pd.DataFrame({column: _plain(table[column]) for column in table})
    path = folder / f"{name}-{_hash(table)[:_HASH_DIGITS]}.parquet"
    if path.exists():
        return path.absolute()
    for column in table:
        _check_column(table[[column]])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"no folder {folder} can be made for it: {error.strerror}"
        raise InputError(rule, where="data", remedy="work in another folder") from None
    with written_whole(path) as new:
        table.to_parquet(new, index=False)
    return path.absolute()


def _plain(column: pd.Series) -> pd.Series:
    """Return a column with a type that Parquet preserves."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.astype(column.cat.categories.dtype)
    if isinstance(column.dtype, pd.PeriodDtype):
        return pd.Series(pd.PeriodIndex(column).to_timestamp(), name=column.name)
    return column


def _hash(table: pd.DataFrame) -> str:
    """Return the SHA-256 of a table's names, types and values."""
    found = hashlib.sha256()
    for name in table:
        found.update(repr((name, str(table[name].dtype))).encode())
        try:
            values = pd.util.hash_pandas_object(table[name], index=False)
        except TypeError:  # lists, which `_check_column` refuses
            values = pd.util.hash_pandas_object(table[name].astype(str), index=False)
        found.update(values.to_numpy().tobytes())
    return found.hexdigest()


def _check_column(column: pd.DataFrame) -> None:
    import pyarrow

    try:
        pyarrow.Table.from_pandas(column, preserve_index=False)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        name, problem = column.columns[0], one_line(str(error.args[0]).partition(":")[0])
        rule = f"column {name!r} must hold one kind of values"
        remedy = f"convert it, as in df[{name!r}].astype(str)"
        raise InputError(rule, where="data", got=f"several ({problem})", remedy=remedy) from None
