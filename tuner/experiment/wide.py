"""The experiment file's block `data.wide`: a file with a column for each series."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tuner.experiment.model import Section

__all__ = ["Wide", "with_wide_names"]

_Name = Annotated[str, Field(min_length=1)]


class Wide(Section):
    """What the columns of series become: rows of one column, beside one that names the series."""

    id: Annotated[_Name, Field(examples=["store"])]
    """What the column that names the series is called; it is `data.id`."""
    value: Annotated[_Name, Field(examples=["sales"])]
    """What the column of their values is called; it is `data.target`."""
    columns: Annotated[
        _Name | Annotated[list[_Name], Field(min_length=1)], Field(examples=["store_*"])
    ]
    """Columns of the file, each a series: a pattern with `*` or `?`, or a list of names."""


def with_wide_names(raw: Any) -> Any:
    """Return `data` with the id and the target that `data.wide` names, where they are not given.

    Raises:
        ValueError: they are given, and are others.
    """
    wide = raw.get("wide") if isinstance(raw, dict) else None
    if not isinstance(wide, dict | Wide):
        return raw
    names = wide if isinstance(wide, dict) else wide.model_dump()
    given = dict(raw)
    for key, of_wide in (("id", "id"), ("target", "value")):
        name = names.get(of_wide)
        if not isinstance(name, str) or not name:
            continue  # what is wrong with it is said of the block itself
        own = given.setdefault(key, name)
        if own is None or own == [name]:
            given[key] = name
        elif own != name:
            text = f"{key}: is what data.wide.{of_wide} says, {name!r}, got {own!r}"
            raise ValueError(f"{text}; remove {key}, or write the same name twice")
    return given
