"""How a file writes its table: the keys of `data.read`, declared or found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

__all__ = ["LINE_KEYS", "Dialect"]

LINE_KEYS = ("skip_rows", "unit_row", "skip_footer")
"""Keys that tell of the lines of one file, which another file of the same kind need not have."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written; None is what is not declared, and found in the file."""

    encoding: str | None = None  # a codec of Python
    separator: str | None = None  # between columns: one character, or whitespace
    decimal: str | None = None  # point or comma of a number
    thousands: str | None = None  # between its groups of three digits
    comment: str | None = None  # with which a line begins that is not read
    skip_rows: int | None = None  # lines above the names of the columns
    unit_row: bool | None = None  # whether the line below the names holds units
    skip_footer: int | None = None  # lines below the rows, blank ones not counted
    missing_values: tuple[str, ...] | None = None  # words that stand for no value
    units: tuple[str, ...] | None = None  # written before or behind numbers
    date_format: str | None = None  # of the time column: as strptime has it, or excel
    timezone: str | None = None  # in which times without an offset were written
    time_columns: tuple[str, ...] | None = None  # that are joined into the time column
    sort: bool | None = None  # whether rows are brought into the order of time
    drop_duplicates: bool | None = None  # whether exact copies of rows are dropped

    @classmethod
    def of(cls, keys: dict[str, Any]) -> Dialect:
        """Return the dialect that keys of `data.read` declare."""
        held: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in keys.items()}
        return cls(**held)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that a plain CSV file does not need, as YAML and JSON hold them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None and (key, value) != ("separator", ",")
        }

    def filled(self, found: Dialect) -> Dialect:
        """Return this dialect with what was found in place of what is not declared."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(found, **{key: value for key, value in own.items() if value is not None})

    def without_lines(self) -> Dialect:
        """Return what of it holds for every file of its kind."""
        return replace(self, **dict.fromkeys(LINE_KEYS))
