"""Columns of categories: their levels, and the numbers that a model knows them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tuner.data.tables import RawTable

__all__ = [
    "Levels",
    "categories_in",
    "codes_of",
    "known_levels",
    "merged",
    "notes_of_categories",
    "numbered",
    "shown",
]

Levels = Mapping[str, tuple[str, ...]]
"""Of each column the texts of its categories."""

_SHOWN = 6  # categories at most
_LONGEST = 30  # characters of one that are shown
_MANY = 0.5  # of the rows of the training part have a category of their own: probably none


def codes_of(table: RawTable, names: Sequence[str]) -> tuple[dict[str, np.ndarray], Levels]:
    """Return columns as codes, (rows,) float64, nan where a cell is empty; and what each code is.

    A category is what the file writes. True, TRUE and true are the same one.
    """
    columns, levels = {}, {}
    written = table.written(names)
    for name in names:
        codes, found = pd.factorize(written[name])
        texts = [t.lower() if t.lower() in ("true", "false") else t for t in map(str, found)]
        empty = {"", *(table.dialect.missing_values or ())}
        again, unique = pd.factorize(np.array(texts, dtype=object))
        of_texts = np.where([t in empty for t in texts], np.nan, again)  # (texts,)
        columns[name], levels[name] = of_texts[codes], tuple(map(str, unique))
    return columns, levels


def merged(
    codes: np.ndarray, own: tuple[str, ...], of: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes of `own` levels as those of other levels, to which what they lack is added."""
    together = tuple(dict.fromkeys([*of, *own]))
    place = {text: at for at, text in enumerate(together)}
    return _looked_up(codes, np.array([place[t] for t in own], np.float64), np.nan), together


def known_levels(codes: np.ndarray, levels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the categories that some rows hold, sorted: those of the training part are known.

    Args:
        codes: (rows,), of these rows alone; nan for none.
        levels: what each code is.
    """
    return tuple(sorted(levels[code] for code in np.unique(codes[~np.isnan(codes)]).astype(int)))


def numbered(codes: np.ndarray, levels: tuple[str, ...], known: Sequence[str]) -> np.ndarray:
    """Return the number of each row's category, (rows,) float32: 0 is unknown, or none.

    Args:
        codes: (rows,), nan for none.
        levels: what each code is.
        known: categories in the order of their numbers, which begin at 1.
    """
    number = {text: place for place, text in enumerate(known, start=1)}
    numbers = np.array([number.get(text, 0) for text in levels], np.float64)
    return _looked_up(codes, numbers, 0.0).astype(np.float32)


def categories_in(codes: np.ndarray, levels: tuple[str, ...], known: Sequence[str]) -> list[str]:
    """Return the categories of some rows that are not known, sorted."""
    return sorted(set(known_levels(codes, levels)) - set(known))


def notes_of_categories(
    names: Sequence[str],
    codes: np.ndarray,
    levels: Levels,
    rows: np.ndarray,
    series: str | None,
) -> Iterator[tuple[str, str]]:
    """Say how many categories the training part holds, and which occur in later rows alone.

    Args:
        names: of the columns.
        codes: (rows, columns).
        levels: what each code is.
        rows: of the training part.
        series: the column that says which series a row is of; None for none.
    """
    counts, later, suspect = [], [], []
    for name, column in zip(names, codes.T, strict=True):
        known = known_levels(column[rows], levels[name])
        counts.append(f"{name} ({len(known)})")
        if unknown := categories_in(column, levels[name], known):
            later.append(f"{name} {shown(unknown)}")
        if name != series and len(known) > max(_SHOWN, _MANY * len(rows)):
            text = f"{name!r} has {len(known)} categories in {len(rows)} rows of the training part"
            suspect.append(
                ("suspect", f"{text}: is it one of numbers or of texts? If so, leave it out")
            )
    if counts:
        text = ", ".join(counts)
        if later:
            text += f"; unknown, as the training part does not hold them: {'; '.join(later)}"
        yield "categories", text
    yield from suspect


def shown(categories: Sequence[str]) -> str:
    """Return the first categories in words."""
    short = [t if len(t) <= _LONGEST else f"{t[:_LONGEST]}..." for t in categories[:_SHOWN]]
    more = f" and {len(categories) - _SHOWN} more" if len(categories) > _SHOWN else ""
    return ", ".join(map(repr, short)) + more


def _looked_up(codes: np.ndarray, values: np.ndarray, otherwise: float) -> np.ndarray:
    """Return the value at each code, (rows,); `otherwise` for nan."""
    none = np.isnan(codes)
    if not len(values):
        return np.full(len(codes), otherwise)
    return np.where(none, otherwise, values[np.where(none, 0, codes).astype(np.int64)])
