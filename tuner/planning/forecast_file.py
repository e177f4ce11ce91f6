"""The experiment file of a forecast, from the training rows of its series."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from pydantic import ValidationError
from rich.markup import escape

from tuner.data.baselines import season_of
from tuner.data.profile import columns_that_help, profile_of
from tuner.data.quality import even_rows
from tuner.data.series_table import Series, read_series, series_of
from tuner.errors import DataError, InputError, Setting
from tuner.experiment.data import Data, Read, Wide
from tuner.experiment.messages import first_problem
from tuner.planning.columns import Columns
from tuner.planning.forecast import (
    TEST_SHARE,
    ForecastFile,
    forecast_text,
    plan_forecast,
    validation_share,
)
from tuner.planning.text import Asked, Written, listed, printable
from tuner.tables.table import RawTable

FILLED = "ffill"
_SHORTEST = 8  # horizons in the longest series, at least


def forecast_file(asked: Asked) -> Written:
    """Inspect the series in a file, and write an experiment for them.

    Raises:
        DataError, InputError: what `tuner check` would refuse.
    """
    columns = asked.columns
    series, coming, missing = _read_filled(asked)
    rows_to_come = min(coming.rows, int(np.diff(series.bounds).max()) // _SHORTEST)
    horizon = asked.horizon or max(1, rows_to_come)
    usual = season_of(series.frequency)
    rows = int(np.median(np.diff(series.bounds)))
    later = (float(validation_share(rows, horizon).value), TEST_SHARE)
    parts = _training_parts(series, later)
    names = [str(name) for name in series.frame.columns]
    at = [names.index(target) for target in columns.targets]
    positive = not bool((series.frame[columns.targets] <= 0).any(axis=None))
    profile = profile_of([part[:, i] for part in parts for i in at], usual, positive=positive)

    hourly = bool(re.fullmatch(r"\d*(h|min|s)", series.frequency or ""))
    common: dict[str, Any] = {
        "rows": rows,
        "horizon": horizon,
        "hourly": hourly,
        "times_more": asked.times_more,
    }
    planned = partial(plan_forecast, replace(profile, series=len(parts)), usual, **common)
    plan = planned(n_features=len(columns.targets))
    features, why = _features(asked, series, parts, int(plan.window.value), horizon)
    if set(coming.columns) - set(features):
        features = [c for c in series.features if c in {*features, *coming.columns}]
        why = "the target, and what is known ahead"
    plan = planned(n_features=len(features))
    file = ForecastFile(
        asked=asked,
        title=_title(asked, series, profile.described, profile.rows),
        read=series.dialect.to_dict(),
        features=features,
        why_features=why,
        missing=None if missing == "refuse" else missing,
        horizon=horizon,
        known_future=coming.columns,
        rows_to_come=coming.rows,
    )
    ahead = "one row" if horizon == 1 else f"{horizon} rows"
    where = f"in the {coming.rows} rows behind the last {columns.target}"
    return Written(
        text=forecast_text(file, plan),
        does=f"forecasts [bold]{escape(listed(columns.targets))}[/] {ahead} ahead from the "
        f"{plan.window.value} before",
        found=f"{profile.described} (in the training part)",
        read=tuple(dict.fromkeys((*columns.found, *series.found))),
        filled=missing != "refuse",
        made_up=(int(series.inserted.sum()), len(series.frame)),
        known_ahead=f"{', '.join(coming.columns)} {where}" if coming.columns else "",
        not_read=[c for c in series.features if c not in features],
        seconds=plan.seconds,
        hourly=hourly,
    )


def _read_filled(asked: Asked) -> tuple[Series, _RowsToCome, str]:
    """Return the result of `_read`, and the required policy for missing values."""
    try:
        return *_read(asked, "refuse"), "refuse"
    except DataError as error:
        if not any(f"data.missing: {FILLED}" in str(change) for change in error.changes):
            raise
    return *_read(asked, FILLED), FILLED


def _title(asked: Asked, series: Series, described: str, training: int) -> list[str]:
    frequency = f", frequency {series.frequency}" if series.frequency else ""
    several = f", {len(series.names)} series" if len(series.names) > 1 else ""
    numbers = printable(listed(asked.columns.numbers))
    about = "" if asked.times_more == 1 else "The first "
    of = "training rows of a series" if several else "training rows"
    return [
        f"{about}{series.rows} rows of {printable(asked.path.name)}{frequency}{several}. "
        f"Columns of numbers: {numbers}.",
        f"The {training} {of} show {described}.",
    ]


def _features(
    asked: Asked, series: Series, parts: list[np.ndarray], window: int, horizon: int
) -> tuple[list[str], str]:
    """Return the columns that the model reads, and why."""
    targets = asked.columns.targets
    if asked.features is not None:
        return list(series.features), ""
    others = [c for c in series.features if c not in targets]
    if not others:
        return targets, ""
    names = [str(c) for c in series.frame.columns]
    chosen, gain = columns_that_help(
        parts,
        [names.index(c) for c in targets],
        [names.index(c) for c in others],
        window,
        horizon,
    )
    if not chosen:
        return targets, "no other column helped a linear forecast in the training part"
    used = [*targets, *(names[i] for i in chosen)]
    whose = "it takes" if len(chosen) == 1 else "they take"
    what = f"{names[chosen[0]]}: " if len(chosen) == 1 and len(others) > 1 else ""
    why = f"{printable(what)}{whose} {gain:.0%} off a linear forecast's error in the training part"
    return [c for c in series.features if c in used], why


def _training_parts(series: Series, later: tuple[float, float]) -> list[np.ndarray]:
    """Return the first rows of each series, (rows, columns), with gaps closed: the training part.

    With times it ends at the same one in all series, as the split does.

    Args:
        later: shares of the rows that are not looked at: validation and test part.
    """
    ends = np.array([start + _first_rows(end - start, later) for start, end in series.bounds])
    if series.times is not None:
        times = series.times.unique().sort_values()
        cut = times[min(len(times) - 1, _first_rows(len(times), later))]
        ends = np.array(
            [start + int((series.times[start:end] < cut).sum()) for start, end in series.bounds]
        )
    parts = []
    for (start, _), end in zip(series.bounds, ends, strict=True):
        part = pd.DataFrame(series.frame.iloc[start:end]).ffill().bfill()
        if len(part) and part.notna().all().all():
            parts.append(part.to_numpy())
    return parts


def _first_rows(rows: int, later: tuple[float, float]) -> int:
    return rows - sum(int(rows * share + 0.5) for share in later)


@dataclass(frozen=True)
class _RowsToCome:
    """Rows behind the last target, and the columns that are filled in all of them."""

    columns: list[str]
    rows: int  # of the series that has the fewest, but for those without any; 0 where none has


def _read(asked: Asked, missing: str) -> tuple[Series, _RowsToCome]:
    """Return the series with even rows, without rows to come in which any column is known."""
    columns = asked.columns
    try:
        wide = columns.wide
        data = Data(
            path=str(asked.path),
            read=Read(**columns.dialect.to_dict()),
            wide=None if wide is None else Wide(id=wide.id, value=wide.value, columns=wide.columns),
            time=columns.time,
            id=columns.id,
            target=columns.targets[0] if len(columns.targets) == 1 else columns.targets,
            features=asked.features or columns.numbers or None,
            missing=missing,
            resample=asked.resample,
            known_future=[],
        )
        series = series_of(RawTable.read(asked.path, data.dialect, data.time), data, coming=True)
        coming = _rows_to_come(series)
        if coming.columns:
            series = series.until(series.ends - series.bounds[:, 0])
        elif (series.ends < series.bounds[:, 1]).any():  # a target that is late, then
            data = data.model_copy(update={"known_future": None})
            series = read_series(data)
        return even_rows(series, data), coming
    except ValidationError as error:
        broken = first_problem(error)
        where = f"--{broken.key}"
        raise InputError(broken.rule, where=where, got=broken.got, remedy=broken.remedy) from None
    except DataError as error:
        if error.key != "data.time":
            raise _with_classes(error, asked.path, columns) from None
        raise error.with_(changes=tuple(_as_options(error.changes))) from None


def _as_options(changes: Iterable[str | Setting]) -> Iterator[str | Setting]:
    """Yield the changes of an experiment as options of `tuner init`; times may be left out."""
    no_time = "init with --no-time"
    for change in changes:
        match change:
            case Setting("data.resample", step):
                yield f"init with --resample {step}"  # and init fills what is missing
                no_time = "with --no-time"
            case Setting("data.id"):
                yield "name the column that tells several series apart with --id"
            case Setting("data.time"):
                continue
            case _:
                yield change
    yield no_time


def _rows_to_come(series: Series) -> _RowsToCome:
    ends = series.ends
    counts = series.bounds[:, 1] - ends
    rows = np.concatenate([np.arange(*of) for of in zip(ends, series.bounds[:, 1], strict=True)])
    filled = series.frame.iloc[rows].notna().all() if len(rows) else pd.Series(dtype=bool)
    known = [str(name) for name in filled.index[filled] if name in series.features]
    return _RowsToCome(known, int(counts[counts > 0].min()) if known else 0)


def _with_classes(error: DataError, path: Path, columns: Columns) -> DataError:
    """Add the remedy for a target of texts, which may well be classes of sequences."""
    if error.key != "data.target" or not (error.remedy or error.changes):
        return error
    table = RawTable.read(path, columns.dialect, columns.time)
    texts = [t for t in columns.targets if not is_numeric_dtype(table.frame[t])]
    if not set(texts) - table.ambiguous.keys():
        return error
    classes = "for classes name the column that tells sequences apart with --id, see "
    classes += "docs/tasks-and-data.md"
    remedy = None if error.changes else error.remedy
    return error.with_(remedy=remedy, changes=(*error.changes, classes))
