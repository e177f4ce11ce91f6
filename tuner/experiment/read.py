"""The experiment file's block `data.read`: how the data file writes its table."""

from __future__ import annotations

import codecs
import datetime as dt
import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from tuner.dialect import Dialect
from tuner.experiment.model import Section

__all__ = ["Read"]

_Text = Annotated[str, Field(min_length=1)]
_Words = Annotated[list[_Text], BeforeValidator(lambda value: _as_texts(value))]
_Lines = Annotated[int, Field(strict=True, ge=0, le=100_000)]


def _as_texts(value: Any) -> Any:
    """Return one word, or words and numbers, as a list of texts: -999 is "-999"."""
    words = value if isinstance(value, list | tuple) else [value]
    numbers = [isinstance(w, int | float) and not isinstance(w, bool) for w in words]
    return [str(w) if number else w for w, number in zip(words, numbers, strict=True)]


def _known_encoding(name: str) -> str:
    try:
        known = codecs.lookup(name)._is_text_encoding  # hex is a codec, and of no text
    except (LookupError, ValueError):
        known = False
    if not known:
        raise ValueError(f"no such encoding, got {name!r}; write utf-8, cp1252 or gbk")
    return name


def _known_zone(name: str) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        text = f"no such time zone, got {name!r}; write a place such as Europe/Berlin, or UTC"
        raise ValueError(text) from None
    return name


def _known_separator(text: str) -> str:
    if text != "whitespace" and (len(text) != 1 or text in "\"'\r\n"):
        raise ValueError(f'must be one character or whitespace, got {text!r}; write ";"')
    return text


def _known_format(text: str) -> str:
    try:
        fits = text == "excel" or ("%" in text and bool(dt.datetime(2020, 1, 31).strftime(text)))
        if fits and text != "excel":
            dt.datetime.strptime(dt.datetime(2020, 1, 31).strftime(text), text)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f'must be a format of dates or excel, got {text!r}; write "%d.%m.%Y"')
    return text


class Read(Section):
    """How the data file is written; what is left out is found in the file, and told by check."""

    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = Field(
        None, examples=["cp1252"]
    )
    """Encoding of the text, by its name in Python; by default UTF-8, or what its letters tell."""
    separator: Annotated[str, AfterValidator(_known_separator)] | None = Field(None, examples=[";"])
    """Character between columns, or whitespace."""
    decimal: Literal[".", ","] | None = Field(None, examples=[","])
    """Decimal mark of numbers."""
    thousands: Literal[",", ".", " ", "'", "’", "_", "\u00a0", "\u202f"] | None = Field(
        None, examples=["."]
    )
    """Mark between groups of three digits."""
    comment: _Text | None = Field(None, examples=["#"])
    """What a line begins with that is not read."""
    skip_rows: _Lines | None = Field(None, examples=[2])
    """Lines above the names of the columns, blank ones counted."""
    unit_row: bool | None = Field(None, examples=[True])
    """Whether the line below the names holds units, and is not read."""
    skip_footer: _Lines | None = Field(None, examples=[1])
    """Lines below the rows, such as totals; blank ones are not counted."""
    missing_values: _Words | None = Field(None, examples=[["-", "-999"]])
    """Words and numbers that stand for no value; by default the usual ones, such as N/A and -."""
    units: _Words | None = Field(None, examples=[["%", "€"]])
    """Units before or behind numbers; they are taken off, and 12 % is 12."""
    date_format: Annotated[str, AfterValidator(_known_format)] | None = Field(
        None, examples=["%d.%m.%Y"]
    )
    """Format of the time column, as strptime has it; or excel for a spreadsheet's days."""
    timezone: Annotated[str, AfterValidator(_known_zone)] | None = Field(
        None, examples=["Europe/Berlin"]
    )
    """Time zone of times without an offset: tells two hours apart where clocks go back."""
    time_columns: Annotated[list[_Text], Field(min_length=2, max_length=6)] | None = Field(
        None, examples=[["date", "hour"]]
    )
    """Columns that are joined into the time column: a date and an hour, or year, month, day."""
    sort: bool | None = Field(None, examples=[True])
    """Whether rows are sorted by time; by default only where all of them fall."""
    drop_duplicates: bool | None = Field(None, examples=[True])
    """Whether exact copies of rows are dropped; by default where a time column tells rows apart."""

    @model_validator(mode="after")
    def _check(self) -> Read:
        if self.decimal is not None and self.decimal == self.thousands:
            text = f"thousands: must differ from decimal, got {self.thousands!r} for both"
            raise ValueError(f"{text}; remove one")
        return self

    @property
    def dialect(self) -> Dialect:
        """What the keys declare."""
        return Dialect.of(self.model_dump())
