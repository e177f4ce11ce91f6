"""`tuner init` of a forecast: reads the series, looks at the training part, writes the file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError
from rich.markup import escape

from tuner.cli.forecast_plan import TEST_SHARE, plan_forecast, validation_share
from tuner.cli.forecast_text import ForecastColumns, forecast_text
from tuner.cli.written import Asked, Written
from tuner.cli.yaml_text import printable
from tuner.data.baselines import season_of
from tuner.data.filling import even_rows
from tuner.data.guessing import Columns, guess_columns
from tuner.data.profile import profile_of
from tuner.data.reading import Series, read_series
from tuner.data.relevance import gain_of_columns
from tuner.errors import DataError, InputError
from tuner.experiment.schema import Data

__all__ = ["FILLED", "forecast_file"]

FILLED = "ffill"

_HELPS = 0.02  # least gain of the other columns
_MOST_SERIES = 50  # that are looked at


def forecast_file(asked: Asked) -> Written:
    """Look at the series in a file, and write the experiment that follows.

    Raises:
        DataError, InputError: what `tuner check` would refuse.
    """
    columns, missing = asked.columns, "refuse"
    try:
        series = _read(asked, missing)
    except DataError as error:
        if f"data.missing: {FILLED}" not in str(error):
            raise
        missing = FILLED
        series = _read(asked, missing)
    horizon = asked.horizon or 1
    usual = season_of(series.frequency)
    rows = int(np.median(np.diff(series.bounds)))
    later = (float(validation_share(rows, horizon).value), TEST_SHARE)
    parts = _training_parts(series, later)
    (at,) = (i for i, name in enumerate(series.frame.columns) if name == columns.target)
    positive = bool((series.frame[columns.target].dropna() > 0).all())
    profile = profile_of([part[:, at] for part in parts], usual, positive=positive)
    plan = plan_forecast(
        profile,
        usual,
        rows=rows,
        horizon=horizon,
        hourly=bool(re.fullmatch(r"\d*(h|min|s)", series.frequency or "")),
    )
    features, why = _features(asked, series, parts, int(plan.window.value), horizon)
    text = forecast_text(
        ForecastColumns(
            title=_title(asked, series, profile.described, profile.rows),
            name=asked.name,
            path=asked.written_path,
            time=columns.time,
            id=columns.id,
            target=columns.target,
            features=features,
            why_features=why,
            resample=asked.resample,
            missing=None if missing == "refuse" else missing,
            horizon=horizon,
        ),
        plan,
    )
    ahead = "one row" if horizon == 1 else f"{horizon} rows"
    return Written(
        text=text,
        does=f"forecasts [bold]{escape(columns.target)}[/] {ahead} ahead from the "
        f"{plan.window.value} before",
        found=f"{profile.described} (in the training part)",
        filled=missing != "refuse",
        not_read=[c for c in series.features if c not in features],
    )


def _title(asked: Asked, series: Series, described: str, training: int) -> list[str]:
    frequency = f", frequency {series.frequency}" if series.frequency else ""
    several = f", {len(series.names)} series" if len(series.names) > 1 else ""
    numbers = printable(", ".join(asked.columns.numbers))
    of = "training rows of a series" if several else "training rows"
    return [
        f"{series.rows} rows of {printable(asked.path.name)}{frequency}{several}. "
        f"Columns of numbers: {numbers}.",
        f"The {training} {of} show {described}.",
    ]


def _features(
    asked: Asked, series: Series, parts: list[np.ndarray], window: int, horizon: int
) -> tuple[list[str], str]:
    """Return the columns that the model reads, and why."""
    target = asked.columns.target
    if asked.features is not None:
        return list(series.features), ""
    others = [c for c in series.features if c != target]
    if not others:
        return [target], ""
    names = [str(c) for c in series.frame.columns]
    used = [target, *others]
    at = [names.index(c) for c in used]
    gains = [
        gain_of_columns(part[:, at], [0], window, horizon)
        for part in sorted(parts, key=len)[-_MOST_SERIES:]
    ]
    gain = float(np.median(gains)) if gains else -1.0
    if gain < _HELPS:
        return [target], "the other columns did not help a linear forecast in the training part"
    why = f"they take {gain:.0%} off a linear forecast's error in the training part"
    return [c for c in series.features if c in used], why


def _training_parts(series: Series, later: tuple[float, float]) -> list[np.ndarray]:
    """Return the first rows of each series, (rows, columns), with gaps closed: the training part.

    With times it ends at the same one in all series, as the split does.

    Args:
        series: with even rows.
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


def _read(asked: Asked, missing: str) -> Series:
    columns = asked.columns
    try:
        data = Data(
            path=str(asked.path),
            time=columns.time,
            id=columns.id,
            target=columns.target,
            features=asked.features or columns.numbers or None,
            missing=missing,
            resample=asked.resample,
        )
        return even_rows(read_series(data), data)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"--{problem}") from None
    except DataError as error:
        if ": data.time: " not in str(error):
            raise _with_classes(error, asked.path, columns) from None
        problem = re.sub(r", or leave data\.time out.*", "", str(error))
        problem = re.sub(r"write data\.resample: (\S+), say", r"init with --resample \1", problem)
        problem = problem.replace("as data.id", "with --id")
        again = "with" if "init with --resample" in problem else "init with"
        raise DataError(f"{problem}, or {again} --no-time") from None


def _with_classes(error: DataError, path: Path, columns: Columns) -> DataError:
    """Add the remedy for a target of texts, which may well be classes of sequences."""
    problem = str(error).replace("write a number there (1234.5), or ", "")
    if ": data.target: " not in problem or "; " not in problem:
        return error
    kinds = guess_columns(path, id_=columns.id, no_time=True).left_out
    if kinds.get(columns.target) != "text":
        return error
    classes = "for classes name the column that tells sequences apart with --id, see"
    return DataError(f"{problem}, or {classes} docs/tasks-and-data.md")
