"""Plans a forecast: window, horizon, season and preprocessing, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tuner.data.profile import Profile
from tuner.metrics import metrics_of
from tuner.planning.text import (
    Asked,
    Choice,
    SearchPlan,
    batch_sizes_for,
    choices,
    commented,
    flow_list,
    flow_map,
    quoted,
)
from tuner.tables.rows import WideColumns

TEST_SHARE = 0.15  # of the rows of a series
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
_OWN_SCALE = "each series in its own scale, learned on its training rows"


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
    window, windows, segment = _windows(profile, usual, rows, horizon)
    cost = _Cost(profile, horizon, n_features, times_more)
    window, windows, segment = _affordable(cost, window, windows, segment)
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
    of_segment = None
    if segment is not None:
        steps = f"{math.ceil(max(windows) / segment)} steps in place of {max(windows)}"
        of_segment = Choice(str(segment), f"rows that are read as one: {steps}")
    repeats = Choice("3", "five can tell luck from a gain, and take longer")
    if seconds * epochs < _SECONDS / 2:
        repeats = Choice("5", "five can tell luck from a gain")
    search = profile.trending and not profile.walking
    return ForecastPlan(
        window=window,
        windows=windows,
        segment=of_segment,
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
        scale_by=Choice("series", _OWN_SCALE) if profile.series > 1 else None,
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


def _affordable(
    cost: _Cost, window: Choice, windows: tuple[int, ...], segment: int | None
) -> tuple[Choice, tuple[int, ...], int | None]:
    """Shorten the windows, if needed, so that a trial trains in about a minute."""
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


def _windows(
    profile: Profile, usual: int | None, rows: int, horizon: int
) -> tuple[Choice, tuple[int, ...], int | None]:
    """Return the window to begin with, those that are searched, and rows in a segment."""
    season, known = profile.season, profile.rows
    if season is None or season > _SEASON_FITS or season + 1 > known // _SEASONS_FOR_ONE:
        return _window_without_season(profile, usual, rows, horizon)
    wanted = season * max(4, math.ceil(horizon / season))
    if season >= 24 and wanted <= min(known // 8, _MOST_ROWS):
        longer = wanted + season * max(3, math.ceil(horizon / season))
        windows: tuple[int, ...] = (wanted,)
        if longer <= min(known // 8, _MOST_ROWS):
            windows = (wanted, longer)
        segment = season if season <= 48 else _divisor(season, 24)
        why = f"{wanted // season} seasons of {season} rows"
        return Choice(str(wanted), why), windows, segment
    counts = [
        k
        for k in (1, 2, 4, 8)
        if k * season + 1 <= known // _SEASONS_FOR_ONE and (k <= 2 or k * season + 1 <= _LONG)
    ][-3:]
    windows = tuple(k * season + 1 for k in counts)
    best = 2 if 2 in counts else counts[0]
    seasons = "a season" if best == 1 else f"{best} seasons"
    return (
        Choice(str(windows[counts.index(best)]), f"{seasons} of {season} rows, and one"),
        windows,
        None,
    )


def _window_without_season(
    profile: Profile, usual: int | None, rows: int, horizon: int
) -> tuple[Choice, tuple[int, ...], int | None]:
    if usual is not None and usual > _SEASON_FITS and profile.rows > 8 * 240:
        why = f"a season of {usual} rows is too long to be read: the calendar tells it"
        return Choice("240", why), (240,), 12
    window = max(1, min(12 if horizon <= 12 else 24, rows // 8))
    return Choice(str(window), "no season shows in the training part"), (window,), None


def _divisor(number: int, near: int) -> int:
    divisors = [d for d in range(2, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - near))


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

    asked: Asked
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
    lines = [
        *[f"# {line}" for line in file.title],
        f"name: {file.asked.name}",
        "data:",
        *_data(file, plan),
        "task:",
        "  kind: forecast",
        commented(f"  window: {plan.window.value}", f"rows that are read: {plan.window.why}"),
        commented(f"  horizon: {file.horizon}", ahead),
    ]
    if plan.season is not None:
        lines.append(commented(f"  season: {plan.season}", "rows after which the values repeat"))
    if plan.intervals:
        why = "hold these shares of the outcomes, by the validation rows"
        lines.append(commented(f"  intervals: {flow_list(plan.intervals)}", why))
    lines += [
        commented("hyperparameters:", "fixed; of what is searched, where it starts"),
        *_hyperparameters(plan),
        "search_space:",
        *_space(plan),
        *plan.search_lines(),
        "finalists:",
        "  top: 3",
        commented(f"  repeats: {plan.repeats.value}", plan.repeats.why),
        commented("  refit: true", "the winner is trained again with the validation rows"),
        "seed: 0",
        "",
    ]
    return "\n".join(lines)


def _data(file: ForecastFile, plan: ForecastPlan) -> list[str]:
    asked, columns = file.asked, file.asked.columns
    lines = [f"  path: {asked.written_path}"]
    if file.read:
        lines.append(commented(f"  read: {flow_map(file.read)}", "how the file is written"))
    if columns.time is not None:
        lines.append(f"  time: {quoted(columns.time)}")
    if asked.resample is not None:
        why = "a row is the mean of a step, see aggregate"
        lines.append(commented(f"  resample: {quoted(asked.resample)}", why))
    if columns.wide is not None:
        lines += _wide(columns.wide)
    elif columns.id is not None:
        lines.append(commented(f"  id: {quoted(columns.id)}", columns.why_id))
    if columns.wide is None:
        one = len(columns.targets) == 1
        target = quoted(columns.targets[0]) if one else flow_list(columns.targets)
        lines.append(commented(f"  target: {target}", columns.why_target))
    lines.append(commented(f"  features: {flow_list(file.features)}", file.why_features))
    lines.append(_known_future(file, plan))
    if file.missing is not None:
        lines.append(commented(f"  missing: {file.missing}", "or interpolate, or refuse"))
    if plan.calendar:
        why = "the season is longer than the window"
        lines.append(commented(f"  calendar: {flow_list(plan.calendar)}", why))
    why = plan.validation.why or "the last rows: fractions, counts, dates"
    split = f"  split: {{validation: {plan.validation.value}, test: {TEST_SHARE}}}"
    lines.append(commented(split, why))
    lines.append(commented(f"  transform: {plan.transform.value}", plan.transform.why))
    lines.append(commented("  scale: standard", "standard, minmax, none"))
    if plan.scale_by is not None:
        lines.append(commented(f"  scale_by: {plan.scale_by.value}", plan.scale_by.why))
    return lines


def _wide(wide: WideColumns) -> list[str]:
    named = isinstance(wide.columns, str)
    columns = quoted(wide.columns) if isinstance(wide.columns, str) else flow_list(wide.columns)
    text = f"  wide: {{id: {quoted(wide.id)}, value: {quoted(wide.value)}, columns: {columns}}}"
    return [commented(text, "each of these columns is a series" if named else "")]


def _known_future(file: ForecastFile, plan: ForecastPlan) -> str:
    """Return the line of `known_future`, as a comment if no column is known ahead."""
    if file.known_future:
        why = f"filled in the {file.rows_to_come} rows behind the last target: known ahead"
        return commented(f"  known_future: {flow_list(file.known_future)}", why)
    why = "known in the rows to come, such as a holiday or a price"
    if plan.calendar:
        return commented("  known_future: []", f"the calendar; or columns {why}")
    return commented("  # known_future: [holiday]", f"columns {why}: none was recognized")


def _hyperparameters(plan: ForecastPlan) -> list[str]:
    lines = [
        commented("  linear_path: true", "begins as a ridge regression; the layers learn the rest"),
        commented(f"  normalize: {plan.normalize.value}", plan.normalize.why),
    ]
    if plan.segment is not None:
        lines.append(commented(f"  segment: {plan.segment.value}", plan.segment.why))
    why = "epochs whose weights are averaged: the last steps' noise goes"
    return [*lines, "  learning_rate: 0.001", commented("  weight_averaging: 2.0", why)]


def _space(plan: ForecastPlan) -> list[str]:
    lines = []
    if plan.normalizations:
        lines.append(choices("normalize", plan.normalizations))
    if plan.linear_paths:
        lines.append(choices("linear_path", plan.linear_paths))
    if len(plan.windows) > 1:
        lines.append(choices("window", plan.windows))
    return [*lines, *plan.space_lines(), choices("batch_size", plan.batch_sizes)]
