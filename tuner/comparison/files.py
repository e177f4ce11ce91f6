"""A comparison as files in a folder: a page, a picture, and tables for other programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from tuner.comparison.comparison import Comparison
from tuner.comparison.page import MARK, page
from tuner.comparison.picture import curves_picture
from tuner.outputs import written_whole

__all__ = ["FILES", "is_free", "write"]

FILES = ("comparison.html", "curves.png", "scores.csv", "curves.csv")


def is_free(folder: Path) -> bool:
    """Return whether a comparison may be written there: nothing is lost but an older one."""
    taken = [folder / name for name in FILES if (folder / name).exists()]
    if not taken:
        return True
    try:
        with (folder / FILES[0]).open(encoding="utf-8") as file:
            return MARK in file.read(500)
    except (OSError, ValueError):
        return False


def write(comparison: Comparison, folder: Path, command: str) -> None:
    """Write the files; the folder is made where there is none.

    - `comparison.html`: all of it on one page, with `command`, which makes it again.
    - `curves.png`: the best scores so far.
    - `scores.csv`: a row for each search.
    - `curves.csv`: a row for each search and each trial that it trained.
    """
    folder.mkdir(exist_ok=True)
    picture = curves_picture(comparison)
    assert picture.png is not None
    files = {
        "comparison.html": page(comparison, picture, command).encode(),
        "curves.png": picture.png,
        "scores.csv": _scores(comparison).encode(),
        "curves.csv": _curves(comparison).encode(),
    }
    for name, content in files.items():
        with written_whole(folder / name) as new:
            new.write_bytes(content)


def _scores(comparison: Comparison) -> str:
    rows = (
        (search.strategy, search.seed, search.study, _finite(search.score), search.seconds[-1])
        for row in comparison.rows
        for search in row.searches
    )
    return _csv(("strategy", "seed", "study", comparison.metric, "seconds"), rows)


def _curves(comparison: Comparison) -> str:
    rows = (
        (search.strategy, search.seed, i + 1, _finite(search.best[i]),
         search.seconds[i], _finite(search.best_then[i]))
        for row in comparison.rows
        for search in row.searches
        for i in range(comparison.n_trials)
    )  # fmt: skip
    heading = ("strategy", "seed", "trials", "best_by_trials", "seconds", "best_by_seconds")
    return _csv(heading, rows)


def _csv(heading: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(heading)
    table.writerows(rows)
    return file.getvalue()


def _finite(score: float) -> float | None:
    return score if math.isfinite(score) else None
