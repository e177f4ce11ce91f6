"""The test score of each step, series, target and class, as lines of a terminal."""

from __future__ import annotations

from typing import Any

__all__ = ["lines_by_part"]

_STEPS, _WORST = 8, 5  # that are shown


def lines_by_part(by: dict[str, list[dict[str, Any]]], direction: str) -> list[str]:
    """Return a line for each way in which the test rows fall into parts.

    Args:
        by: as the test record has it.
        direction: minimize or maximize.
    """
    lines = []
    if len(steps := by.get("step", [])) > 1:
        shown = _spread(steps)
        told = ", ".join(f"{row['name']}: {_number(row['score'])}" for row in shown)
        lines.append(f"by step of the horizon  {told}")
    for kind in ("series", "target"):
        if len(rows := by.get(kind, [])) > 1:
            sign = 1 if direction == "maximize" else -1
            known = [row for row in rows if row["score"] is not None]
            worst = sorted(known, key=lambda row: sign * row["score"])
            lines.append(f"by {kind}, the worst first  {_listed(worst, 'score')}")
    if rows := by.get("class", []):
        worst = sorted(rows, key=lambda row: row["f1"])
        lines.append(f"f1 by class, the worst first  {_listed(worst, 'f1')}")
    return lines


def _listed(rows: list[dict[str, Any]], key: str) -> str:
    told = ", ".join(f"{row['name']}: {_number(row[key])}" for row in rows[:_WORST])
    more = len(rows) - _WORST
    return told + (f", and {more} more (--json)" if more > 0 else "")


def _spread(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first, the last, and some between."""
    last = len(rows) - 1
    places = {round(i * last / (_STEPS - 1)) for i in range(_STEPS)}
    return [rows[i] for i in sorted(places)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
