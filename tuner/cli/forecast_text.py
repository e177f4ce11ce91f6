"""The experiment file of a forecast, as `tuner init` writes it: each choice with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.cli.forecast_plan import TEST_SHARE, ForecastPlan
from tuner.cli.yaml_text import commented, flow_list, flow_map, quoted
from tuner.data.wide import WideColumns

__all__ = ["ForecastColumns", "forecast_text"]


@dataclass(frozen=True)
class ForecastColumns:
    """The columns, and what of the data key is already decided."""

    title: list[str]  # of the file: comments at its head
    name: str
    path: str
    read: dict[str, Any]  # how the file is written
    time: str | None
    wide: WideColumns | None
    id: str | None
    why_id: str
    targets: list[str]
    why_target: str
    features: list[str]
    why_features: str
    resample: str | None
    missing: str | None  # None refuses, as the default does
    horizon: int
    known_future: list[str]  # recognized: filled in rows behind the last target
    rows_to_come: int  # in which they are


def forecast_text(columns: ForecastColumns, plan: ForecastPlan) -> str:
    """Return the file."""
    return "\n".join(
        [
            *[f"# {line}" for line in columns.title],
            f"name: {columns.name}",
            "data:",
            *_data(columns, plan),
            "task:",
            "  kind: forecast",
            commented(f"  window: {plan.window.value}", f"rows that are read: {plan.window.why}"),
            commented(f"  horizon: {columns.horizon}", _ahead(columns)),
            *_season(plan),
            *_intervals(plan),
            commented("hyperparameters:", "fixed; of what is searched, where it starts"),
            *_hyperparameters(plan),
            "search_space:",
            *_space(plan),
            commented("strategy: {name: tpe}", "tuner strategies lists them"),
            f"budget: {{trials: {plan.trials}, epochs: {plan.epochs}, patience: {plan.patience}}}",
            commented(
                f"pruner: {{name: median, n_startup_trials: {plan.startup}, "
                f"n_warmup_steps: {plan.warmup}}}",
                "ends poor trials",
            ),
            commented(f"objective: {{metric: {plan.metric.value}}}", plan.metric.why),
            "finalists:",
            "  top: 3",
            commented(f"  repeats: {plan.repeats.value}", plan.repeats.why),
            commented("  refit: true", "the winner is trained again with the validation rows"),
            "seed: 0",
            "",
        ]
    )


def _data(columns: ForecastColumns, plan: ForecastPlan) -> list[str]:
    lines = [f"  path: {columns.path}"]
    if columns.read:
        lines.append(commented(f"  read: {flow_map(columns.read)}", "how the file is written"))
    if columns.time is not None:
        lines.append(f"  time: {quoted(columns.time)}")
    if columns.resample is not None:
        why = "a row is the mean of a step, see aggregate"
        lines.append(commented(f"  resample: {quoted(columns.resample)}", why))
    if columns.wide is not None:
        lines += _wide(columns.wide)
    elif columns.id is not None:
        lines.append(commented(f"  id: {quoted(columns.id)}", columns.why_id))
    if columns.wide is None:
        one = len(columns.targets) == 1
        target = quoted(columns.targets[0]) if one else flow_list(columns.targets)
        lines.append(commented(f"  target: {target}", columns.why_target))
    lines.append(commented(f"  features: {flow_list(columns.features)}", columns.why_features))
    lines.append(_known_future(columns, plan))
    if columns.missing is not None:
        lines.append(commented(f"  missing: {columns.missing}", "or interpolate, or refuse"))
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


def _known_future(columns: ForecastColumns, plan: ForecastPlan) -> str:
    """Return the line that says which columns are known ahead, or how that is said."""
    if columns.known_future:
        why = f"filled in the {columns.rows_to_come} rows behind the last target: known ahead"
        return commented(f"  known_future: {flow_list(columns.known_future)}", why)
    why = "known in the rows to come, such as a holiday or a price"
    if plan.calendar:
        return commented("  known_future: []", f"the calendar; or columns {why}")
    return commented("  # known_future: [holiday]", f"columns {why}: none was recognized")


def _ahead(columns: ForecastColumns) -> str:
    as_many = columns.known_future and columns.horizon == columns.rows_to_come
    return "rows ahead, as many as the file has to come" if as_many else "rows ahead"


def _season(plan: ForecastPlan) -> list[str]:
    if plan.season is None:
        return []
    return [commented(f"  season: {plan.season}", "rows after which the values repeat")]


def _intervals(plan: ForecastPlan) -> list[str]:
    if not plan.intervals:
        return []
    why = "hold these shares of the outcomes, by the validation rows"
    return [commented(f"  intervals: {flow_list(plan.intervals)}", why)]


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
    (least, most), (slow, fast) = plan.hidden_sizes, plan.learning_rates
    lines = []
    if plan.normalizations:
        choices = flow_list(plan.normalizations)
        lines.append(f"  normalize: {{type: categorical, choices: {choices}}}")
    if plan.linear_paths:
        choices = flow_list(plan.linear_paths)
        lines.append(f"  linear_path: {{type: categorical, choices: {choices}}}")
    if len(plan.windows) > 1:
        choices = flow_list(plan.windows)
        lines.append(f"  window: {{type: categorical, choices: {choices}}}")
    return [
        *lines,
        f"  hidden_size: {{type: int, low: {least}, high: {most}, log: true}}",
        "  dropout: {type: float, low: 0.0, high: 0.5}",
        f"  learning_rate: {{type: float, low: {slow:g}, high: {fast:g}, log: true}}",
        f"  batch_size: {{type: categorical, choices: {flow_list(plan.batch_sizes)}}}",
    ]
