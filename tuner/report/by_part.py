"""Where the winner errs: its test score by step of the horizon, and by series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tuner.coordination.records import StudyRecord
from tuner.report.drawing import POINT, Picture, label, new_figure, number, png, tidy, whole_ticks
from tuner.report.markup import Html, paragraph, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["by_part", "step_figure", "step_picture"]

_MOST = 30  # rows of a table
_FEWEST_STEPS = 3  # of a picture
_HEADINGS = {
    "step": "step of the horizon",
    "series": "series",
    "target": "target",
    "class": "class",
}


def by_part(summary: dict[str, Any]) -> Html:
    """Return a table for each way in which the test rows fall into parts; the worst come first."""
    test, shown = summary["test"] or {}, []
    for kind, rows in (test.get("by") or {}).items():
        if len(rows) < 2 or (kind == "step" and len(rows) >= _FEWEST_STEPS):
            continue  # a picture
        names = [name for name in rows[0] if name not in ("name", "rows")]
        worst = sorted(rows, key=lambda row: _badness(row, names, summary["direction"]))
        of = worst if kind != "step" else rows
        cells = [
            (row["name"], f"{row['rows']:,}", *(number(row[name]) for name in names))
            for row in of[:_MOST]
        ]
        titles = [summary["metric"] if name == "score" else name for name in names]
        shown.append(table((_HEADINGS[kind], "values", *titles), cells, numbers=1 + len(names)))
        if len(of) > _MOST:
            more = f"And {len(of) - _MOST} more, which are better: tuner show --json has them."
            shown.append(paragraph(more, kind="dim"))
    if not shown:
        return Html("")
    return Html("<h3>Where it errs on the test part</h3>\n" + "".join(shown))


def step_picture(record: StudyRecord) -> Picture | None:
    """Draw the test score of each step; None where the horizon is short, or no record tells."""
    if len(_steps(record)) < _FEWEST_STEPS:
        return None
    about = "The test score of each step of the horizon, the mean of the winner's models."
    title = "Score by step of the horizon"
    return Picture("steps", title, about, png(step_figure(record)))


def step_figure(record: StudyRecord) -> Figure:
    """Return the picture as a figure."""
    rows = _steps(record)
    scores = [np.nan if row["score"] is None else row["score"] for row in rows]
    figure = new_figure(2.8)
    axes = figure.add_subplot()
    marker = "." if len(rows) <= 60 else None
    axes.plot([row["name"] for row in rows], scores, color=POINT, marker=marker)
    axes.set(xlabel="step of the horizon", ylabel=label(record.experiment.objective.metric))
    if record.experiment.objective.direction == "minimize":
        axes.set_ylim(bottom=0)
    whole_ticks(axes.xaxis)
    tidy(axes)
    return figure


def _steps(record: StudyRecord) -> list[dict[str, Any]]:
    by = (record.test or {}).get("by") or {}  # older records have none
    return list(by.get("step", ()))


def _badness(row: dict[str, Any], names: list[str], direction: str) -> float:
    """Return what sorts the worst to the top."""
    value = row[names[-1]]
    if value is None:
        return -np.inf
    rises = direction == "maximize" or names[-1] == "f1"
    return float(value if rises else -value)
