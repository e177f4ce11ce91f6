"""What is said of columns that are known ahead: which they are, and which tell too much."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tuner.data.features import Table
from tuner.data.reading import Series

__all__ = ["known_ahead"]

_MOST_NAMES = 12
_MOST_STEPS = 48  # of the horizon that are compared
_EXACT = 1e-9  # share of the variance that is left: one column follows from the other


def known_ahead(
    series: Series, table: Table, horizon: int, rows: np.ndarray
) -> Iterator[tuple[str, str]]:
    """Say what is read of rows to come, how many of these there are, and what gives a target away.

    Args:
        series: with even rows, without those to come.
        table: that was made of them.
        horizon: rows ahead.
        rows: of the training part.
    """
    names = [table.names[i] for i in table.known_columns]
    if not names:
        return
    more = f", ... ({len(names)})" if len(names) > _MOST_NAMES else ""
    text = ", ".join(names[:_MOST_NAMES]) + more
    if left := series.rows_to_come:
        text += f"; {left} row{'s' * (left > 1)} without target, which predict reads"
    yield "known ahead", text
    for at, target in enumerate(series.targets):
        truth = np.where(table.known[:, at], table.truth[:, at], np.nan)
        for column in table.known_columns:
            steps = _steps_that_tell(
                table.inputs[:, column], truth, rows, min(horizon, _MOST_STEPS)
            )
            if steps is not None:
                when = "of the same row" if not steps else f"of the row {steps} before"
                text = (
                    f"{table.names[column]!r} tells {target!r} {when} exactly, in all of the "
                    f"training part: is it known when the forecast is made? If not, leave it out "
                    f"of data.known_future"
                )
                yield "suspect", text


def _steps_that_tell(
    column: np.ndarray, truth: np.ndarray, rows: np.ndarray, steps: int
) -> int | None:
    """Return after how many rows the column says exactly what the target was; None for never."""
    for step in range(steps):
        at = rows[rows + step <= rows[-1]]
        x, y = column[at + step], truth[at]
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = x[both], y[both]
        if len(x) < 8 or np.ptp(x) == 0 or np.ptp(y) == 0:
            continue
        r = float(np.corrcoef(x, y)[0, 1])
        if 1 - r * r < _EXACT:
            return step
    return None
