"""The first experiment on series: they are inspected, a search is planned, the file is written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from pydantic import ValidationError
from rich.markup import escape

from tuner.data.profile import Profile, columns_that_help, profile_of
from tuner.data.resampling import even_rows
from tuner.data.series_table import Series, read_series, series_of
from tuner.errors import DataError, InputError, Setting
from tuner.experiment.data import Data, Read, Wide
from tuner.experiment.messages import first_problem
from tuner.experiment.yaml_files import text_of
from tuner.metrics import metrics_of
from tuner.planning.columns import Columns
from tuner.planning.proposal import (
    Choice,
    Proposal,
    Request,
    SearchPlan,
    batch_sizes_for,
    choices,
    commented,
    key,
    listed,
    printable,
)
from tuner.tables.frequencies import season_of
from tuner.tables.table import RawTable

FILLED = "ffill"
_TEST_SHARE = 0.15  # of the rows of a series
_HORIZONS = 8  # in the longest series, at least
_SECONDS = 20.0  # that a trial may take on one core, about,
_MOST_SECONDS = 60.0  # and where its epochs are few
_LEAST_EPOCHS = 8
_SHORTEST = 12  # rows of a window that costs make shorter
_LARGEST_BATCHES = ((256, 512, 1024), (512, 1024, 2048))  # where an epoch takes long otherwise
_LONG = 100  # rows of a window that are read one by one, where it is more than two seasons
_MOST_ROWS = 720  # of a window
_SEASON_FITS = 192  # rows: a longer season is no window
_SEASONS_FOR_ONE = 3  # in the training part, for each one in a window
_FEW, _VERY_FEW = 200, 100  # windows that are trained on
_WINDOWS_FOR_A_UNIT = 6


def forecast_file(asked: Request) -> Proposal:
    """Inspect the series in a file, and write an experiment for them.

    Raises:
        DataError, InputError: what `tuner check` would refuse.
    """
    columns = asked.columns
    series, coming, missing = _read_filled(asked)
    rows_to_come = min(coming.rows, int(np.diff(series.bounds).max()) // _HORIZONS)
    horizon = asked.horizon or max(1, rows_to_come)
    usual = season_of(series.frequency)
    rows = int(np.median(np.diff(series.bounds)))
    parts = _training_parts(series, (float(validation_share(rows, horizon).value), _TEST_SHARE))
    names = [str(name) for name in series.frame.columns]
    at = [names.index(target) for target in columns.targets]
    positive = not bool((series.frame[columns.targets] <= 0).any(axis=None))
    profile = profile_of([part[:, i] for part in parts for i in at], usual, positive=positive)

    hourly = bool(re.fullmatch(r"\d*(h|min|s)", series.frequency or ""))
    planned = partial(
        plan_forecast,
        replace(profile, series=len(parts)),
        usual,
        rows=rows,
        horizon=horizon,
        hourly=hourly,
        times_more=asked.times_more,
    )
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
    return Proposal(
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


def _read_filled(asked: Request) -> tuple[Series, _RowsToCome, str]:
    """Return the result of `_read`, and the required policy for missing values."""
    try:
        return *_read(asked, "refuse"), "refuse"
    except DataError as error:
        if not any(f"data.missing: {FILLED}" in str(change) for change in error.changes):
            raise
    return *_read(asked, FILLED), FILLED


def _title(asked: Request, series: Series, described: str, training: int) -> list[str]:
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
    asked: Request, series: Series, parts: list[np.ndarray], window: int, horizon: int
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
        parts, [names.index(c) for c in targets], [names.index(c) for c in others], window, horizon
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


def _read(asked: Request, missing: str) -> tuple[Series, _RowsToCome]:
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


@dataclass(frozen=True)
class ForecastPlan(SearchPlan):
    """Everything about a first search for a forecast that depends on the data."""

    window: Choice
    windows: tuple[int, ...]  # that are searched; one is no search
    segment: Choice | None
    season: int | None  # if the frequency does not determine it
    calendar: tuple[str, ...]
    transform: Choice
    normalize: Choice
    normalizations: tuple[str, ...]  # that are searched
    linear_paths: tuple[bool, ...]  # likewise
    validation: Choice
    intervals: tuple[float, ...]  # shares of the outcomes that they hold; none where rows are few
    repeats: Choice
    scale_by: Choice | None
    seconds: float  # that a trial takes, about, with all its epochs


def plan_forecast(
    profile: Profile,
    usual: int | None,
    *,
    rows: int,
    horizon: int,
    hourly: bool,
    n_features: int = 1,
    times_more: float = 1.0,
) -> ForecastPlan:
    """Plan a first search; `usual` is the season, in rows, that the frequency suggests."""
    cost = _Cost(profile, horizon, n_features, times_more)
    window, windows, segment = _affordable(cost, _windows(profile, usual, rows, horizon))
    n_windows = cost.windows(max(windows))
    batch_sizes = batch_sizes_for(n_windows)
    for larger in _LARGEST_BATCHES:
        if cost.of_epoch(windows, segment, batch_sizes) * _LEAST_EPOCHS > _MOST_SECONDS:
            batch_sizes = larger
    seconds = cost.of_epoch(windows, segment, batch_sizes)
    most = 80 if n_windows > _FEW else 40
    epochs = int(min(most, max(_LEAST_EPOCHS, _SECONDS / seconds)))
    epochs = max(2, min(epochs, int(_MOST_SECONDS / seconds)))
    far = usual is not None and usual > _SEASON_FITS and hourly
    validation = validation_share(rows, horizon)
    steps = f"{math.ceil(max(windows) / (segment or 1))} steps in place of {max(windows)}"
    repeats = Choice("3", "five can tell luck from a gain, and take longer")
    if seconds * epochs < _SECONDS / 2:
        repeats = Choice("5", "five can tell luck from a gain")
    search = profile.trending and not profile.walking
    own_scale = "each series in its own scale, learned on its training rows"
    return ForecastPlan(
        window=window,
        windows=windows,
        segment=Choice(str(segment), f"rows that are read as one: {steps}") if segment else None,
        season=profile.season if usual is None else None,
        calendar=("hour",) if far else (),
        transform=_transform(profile),
        normalize=_normalize(profile),
        normalizations=("none", "last", "mean", "standard") if search else (),
        linear_paths=() if profile.trending else (True, False),
        learning_rates=_learning_rates(n_windows, profile.walking),
        hidden_sizes=_hidden_sizes(n_windows, 64 if profile.trending else 128),
        batch_sizes=batch_sizes,
        validation=validation,
        intervals=_intervals(int(rows * float(validation.value)) - horizon + 1),
        trials=30 if epochs > 15 else 20,
        epochs=epochs,
        patience=min(epochs, max(3, epochs // 5)),
        startup=8,
        warmup=max(min(2, epochs - 1), epochs // 8),
        repeats=repeats,
        scale_by=Choice("series", own_scale) if profile.series > 1 else None,
        metric=_metric(profile),
        seconds=seconds * epochs,
    )


@dataclass(frozen=True)
class _Cost:
    """Seconds of training on one core, by measurements."""

    profile: Profile
    horizon: int
    n_features: int
    times_more: float  # windows in the whole file

    def windows(self, longest: int) -> int:
        n_windows = (self.profile.rows - longest - self.horizon) * self.profile.series
        return max(1, int(n_windows * self.times_more))

    def of_epoch(
        self, windows: tuple[int, ...], segment: int | None, batch_sizes: tuple[int, ...]
    ) -> float:
        """Return the seconds of an epoch, with the longest of the windows."""
        n_windows = self.windows(max(windows))
        steps = math.ceil(max(windows) / (segment or 1))
        of_step = 3e-6 * (1 + (segment or 1) * self.n_features / 96)
        return n_windows / batch_sizes[len(batch_sizes) // 2] * 0.004 + n_windows * steps * of_step


_Windows = tuple[Choice, tuple[int, ...], int | None]
"""The window to begin with, those that are searched, and the rows in a segment."""


def _affordable(cost: _Cost, planned: _Windows) -> _Windows:
    """Shorten the windows, if needed, so that a trial trains in about a minute."""
    window, windows, segment = planned
    largest = _LARGEST_BATCHES[-1]

    def too_slow() -> bool:
        return cost.of_epoch(windows, segment, largest) * _LEAST_EPOCHS > _MOST_SECONDS

    if len(windows) > 1 and too_slow():
        windows = tuple(w for w in windows if w <= int(window.value))
    rows = max(windows)
    while too_slow() and rows > _SHORTEST:
        rows = max(_SHORTEST, rows // 2)
        if segment is not None:
            segment = min(segment, rows)
            rows -= rows % segment
        windows = (rows,)
        window = Choice(str(rows), "a longer one takes more than a minute a trial")
    return window, windows, segment


def _windows(profile: Profile, usual: int | None, rows: int, horizon: int) -> _Windows:
    season, known = profile.season, profile.rows
    if season is None or season > _SEASON_FITS or season + 1 > known // _SEASONS_FOR_ONE:
        return _without_season(profile, usual, rows, horizon)
    wanted = season * max(4, math.ceil(horizon / season))
    if season >= 24 and wanted <= min(known // 8, _MOST_ROWS):
        longer = wanted + season * max(3, math.ceil(horizon / season))
        windows: tuple[int, ...] = (wanted,)
        if longer <= min(known // 8, _MOST_ROWS):
            windows = (wanted, longer)
        divisors = [d for d in range(2, season + 1) if season % d == 0]
        segment = season if season <= 48 else min(divisors, key=lambda d: abs(d - 24))
        why = f"{wanted // season} seasons of {season} rows"
        return Choice(str(wanted), why), windows, segment
    fitting = {k: k * season + 1 for k in (1, 2, 4, 8) if k * season < known // _SEASONS_FOR_ONE}
    by_count = {k: rows for k, rows in fitting.items() if k <= 2 or rows <= _LONG}
    best = min(2, max(by_count))
    seasons = "a season" if best == 1 else f"{best} seasons"
    window = Choice(str(by_count[best]), f"{seasons} of {season} rows, and one")
    return window, tuple(by_count.values())[-3:], None


def _without_season(profile: Profile, usual: int | None, rows: int, horizon: int) -> _Windows:
    if usual is not None and usual > _SEASON_FITS and profile.rows > 8 * 240:
        why = f"a season of {usual} rows is too long to be read: the calendar tells it"
        return Choice("240", why), (240,), 12
    window = max(1, min(12 if horizon <= 12 else 24, rows // 8))
    return Choice(str(window), "no season shows in the training part"), (window,), None


def _metric(profile: Profile) -> Choice:
    if profile.uneven:
        why = "each series by its own steps, or the largest would decide; or rmse"
        return Choice("mase", why)
    known = metrics_of("values")
    return Choice(known[0], ", ".join(known))


def _transform(profile: Profile) -> Choice:
    if profile.growing:
        return Choice("log", "the spread grows with the level; or box_cox, difference, none")
    return Choice("none", "or log, box_cox, difference; a list does several")


def _normalize(profile: Profile) -> Choice:
    if profile.walking:
        return Choice("last", "each window less its last value, which is hard to beat here")
    if profile.trending:
        return Choice("last", "each window less its last value: the level wanders")
    return Choice("none", "the level comes back, so it tells something")


def _hidden_sizes(n_windows: int, most: int) -> tuple[int, int]:
    most = max(8, min(most if n_windows < 5000 else 128, n_windows // _WINDOWS_FOR_A_UNIT))
    return max(4, most // 8), most


def _learning_rates(n_windows: int, walking: bool) -> tuple[float, float]:
    if walking:
        return 0.0001, 0.003
    return 0.0003, 0.005 if n_windows > _VERY_FEW else 0.002


def _intervals(windows: int) -> tuple[float, ...]:
    return (0.8, 0.95) if windows >= 40 else (0.8,) if windows >= 10 else ()


def validation_share(rows: int, horizon: int) -> Choice:
    """Return the share of the validation set for a series of `rows` rows."""
    if rows * 0.2 < 15 + horizon and rows >= 20:
        return Choice("0.3", "large, for there are few rows to choose by")
    return Choice("0.2", "")


@dataclass(frozen=True)
class ForecastFile:
    """The planned keys of `data` and `task`, besides the given ones."""

    asked: Request
    title: list[str]  # of the file: comments at its head
    read: dict[str, Any]  # how the file is written
    features: list[str]
    why_features: str
    missing: str | None  # None refuses, as the default does
    horizon: int
    known_future: list[str]  # recognized: filled in rows behind the last target
    rows_to_come: int  # in which they are


def forecast_text(file: ForecastFile, plan: ForecastPlan) -> str:
    """Return the text of the experiment file."""
    as_many = file.known_future and file.horizon == file.rows_to_come
    ahead = "rows ahead, as many as the file has to come" if as_many else "rows ahead"
    hold = "hold these shares of the outcomes, by the validation rows"
    lines = [
        *[f"# {line}" for line in file.title],
        f"name: {text_of(file.asked.name)}",
        "data:",
        *_data(file, plan),
        "task:",
        *key("kind", "forecast"),
        *key("window", int(plan.window.value), f"rows that are read: {plan.window.why}"),
        *key("horizon", file.horizon, ahead),
        *key("season", plan.season, "rows after which the values repeat"),
        *key("intervals", plan.intervals or None, hold),
        commented("hyperparameters:", "fixed; of what is searched, where it starts"),
        *key("linear_path", True, "begins as a ridge regression; the layers learn the rest"),
        *key("normalize", plan.normalize),
        *key("segment", plan.segment),
        *key("learning_rate", 0.001),
        *key("weight_averaging", 2.0, "epochs whose weights are averaged, against noise"),
        "search_space:",
        *choices("normalize", plan.normalizations),
        *choices("linear_path", plan.linear_paths),
        *choices("window", plan.windows),
        *plan.space_lines(),
        *choices("batch_size", plan.batch_sizes),
        *plan.search_lines(),
        "finalists:",
        *key("top", 3),
        *key("repeats", plan.repeats),
        *key("refit", True, "the winner is trained again with the validation rows"),
        "seed: 0",
        "",
    ]
    return "\n".join(lines)


def _data(file: ForecastFile, plan: ForecastPlan) -> list[str]:
    asked, columns, wide = file.asked, file.asked.columns, file.asked.columns.wide
    target = columns.targets[0] if len(columns.targets) == 1 else columns.targets
    each = "each of these columns is a series" if wide and isinstance(wide.columns, str) else ""
    split = {"validation": float(plan.validation.value), "test": _TEST_SHARE}
    return [
        *key("path", asked.written_path),
        *key("read", file.read or None, "how the file is written"),
        *key("time", columns.time),
        *key("resample", asked.resample, "a row is the mean of a step, see aggregate"),
        *key("wide", asdict(wide) if wide else None, each),
        *key("id", None if wide else columns.id, columns.why_id),
        *key("target", None if wide else target, columns.why_target),
        *key("features", file.features, file.why_features),
        *_known_future(file, plan),
        *key("missing", file.missing, "or interpolate, or refuse"),
        *key("calendar", plan.calendar or None, "the season is longer than the window"),
        *key("split", split, plan.validation.why or "the last rows: fractions, counts, dates"),
        *key("transform", plan.transform),
        *key("scale", "standard", "standard, minmax, none"),
        *key("scale_by", plan.scale_by),
    ]


def _known_future(file: ForecastFile, plan: ForecastPlan) -> list[str]:
    """Return the line of `known_future`, as a comment if no column is known ahead."""
    if file.known_future:
        why = f"filled in the {file.rows_to_come} rows behind the last target: known ahead"
        return key("known_future", file.known_future, why)
    why = "known in the rows to come, such as a holiday or a price"
    if plan.calendar:
        return key("known_future", [], f"the calendar; or columns {why}")
    return key("# known_future", ["holiday"], f"columns {why}: none was recognized")
