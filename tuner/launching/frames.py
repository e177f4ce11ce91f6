"""The data of a search from a program: a table is kept as a Parquet file beside the studies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tuner.data.tables import RawTable
from tuner.errors import InputError, one_line
from tuner.experiment import Experiment, Override
from tuner.outputs import written_whole

__all__ = ["keep_frame", "with_data"]

_SHOWN = 12  # digits of the hash in a file's name


def with_data(
    experiment: Experiment | Mapping[str, Any] | str | Path,
    data: pd.DataFrame | str | Path | None,
    journal: str | None,
) -> Experiment:
    """Return the experiment, on other data where some is given.

    Args:
        experiment: one, the path of its file, or nested dicts; with `data` these need no path.
        data: a table, which is kept beside the journal, or a file.
        journal: where the study will be; None for its usual place.

    Raises:
        InputError: experiment or table cannot be used.
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
        text = f"experiment: must be a path, a dict or an Experiment, got a {kind}"
        raise InputError(f"{text}; give 'sales.yaml', say")
    overrides = [] if path is None else [Override("data.path", path, "data")]
    return Experiment.load(experiment, overrides)


def _name_of(experiment: Experiment | Mapping[str, Any] | str | Path) -> str:
    """Return what the file of an experiment's table is called."""
    if isinstance(experiment, Experiment):
        return experiment.name
    if isinstance(experiment, Mapping):
        name = experiment.get("name")
        return name if isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) else "table"
    return Path(experiment).stem


def keep_frame(frame: pd.DataFrame, folder: Path, name: str) -> Path:
    """Write a table once as `NAME-HASH.parquet` into a folder, and return the file's path.

    The hash is of names, types and values: the same table is the same file, and what is there
    already is left alone. Levels of the index that have a name are columns.

    Args:
        frame: (rows, columns).
        folder: is made where there is none.
        name: what the file's name begins with.

    Raises:
        InputError: it is no table, has no rows, or a column that Parquet does not hold.
        RunError: the file cannot be written.
    """
    if not isinstance(frame, pd.DataFrame):
        kind = type(frame).__name__
        text = f"data: must be a pandas DataFrame, got a {kind}"
        raise InputError(f"{text}; give pd.DataFrame(...), say")
    if frame.columns.nlevels > 1:
        text = "data: columns must have one name each, got names of several levels"
        raise InputError(f"{text}; flatten them, as in df.columns = df.columns.map('_'.join)")
    table = RawTable.held(frame).frame
    table = pd.DataFrame({column: _plain(table[column]) for column in table})
    path = folder / f"{name}-{_hash(table)[:_SHOWN]}.parquet"
    if path.exists():
        return path.absolute()
    for column in table:
        _check_column(table[[column]])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"data: no folder {folder} can be made for it: {error.strerror}"
        raise InputError(f"{text}; work in another folder") from None
    with written_whole(path) as new:
        table.to_parquet(new, index=False)
    return path.absolute()


def _plain(column: pd.Series) -> pd.Series:
    """Return a column in a type that comes back from a file as it was."""
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
        except TypeError:  # lists and the like, which are refused below
            values = pd.util.hash_pandas_object(table[name].astype(str), index=False)
        found.update(values.to_numpy().tobytes())
    return found.hexdigest()


def _check_column(column: pd.DataFrame) -> None:
    """Refuse a column of which a file holds no type."""
    import pyarrow

    try:
        pyarrow.Table.from_pandas(column, preserve_index=False)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        name, problem = column.columns[0], one_line(str(error.args[0]).partition(":")[0])
        text = f"data: column {name!r} must hold one kind of values, got several ({problem})"
        raise InputError(f"{text}; convert it, as in df[{name!r}].astype(str)") from None
