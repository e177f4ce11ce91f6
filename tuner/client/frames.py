"""Data frames as rows of JSON, and rows as data frames."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tuner.errors import InputError
from tuner.tables.table import RawTable
from tuner.tables.timestamps import time_dtype, times_of_type


def rows_of(
    data: pd.DataFrame | Mapping[str, Any],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the rows of a table as JSON, with its named index as columns.

    The second result has the type of each column of times, of which the rows lose zone and unit.

    Args:
        data: a data frame, (rows, columns), or columns by name.

    Raises:
        InputError: it is neither.
    """
    if isinstance(data, Mapping):
        data = pd.DataFrame(data)
    if not isinstance(data, pd.DataFrame):
        rule, remedy = "must be a pandas DataFrame", "give pd.read_csv('sales.csv'), say"
        raise InputError(rule, where="data", got=f"a {type(data).__name__}", remedy=remedy)
    table = RawTable.from_frame(data).frame
    names = [str(name) for name in table.columns]
    columns = [[_plain(value) for value in table[name]] for name in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    dtypes = {str(name): str(table[name].dtype) for name in table.columns}
    return rows, {name: dtype for name, dtype in dtypes.items() if time_dtype(dtype) is not None}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; None for a missing one."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def frame_of(rows: list[dict[str, Any]], dtypes: Mapping[str, Any]) -> pd.DataFrame:
    """Return rows of JSON as a table whose columns have these types; texts stay as they are."""
    table = pd.DataFrame(rows, columns=list(dtypes))
    for name, dtype in dtypes.items():
        if dtype.startswith("datetime64"):
            table[name] = times_of_type(table[name], dtype, name)
        elif dtype.startswith(("int", "float", "bool")):
            table[name] = table[name].astype(dtype)
    return table
