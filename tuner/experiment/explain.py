"""Turns pydantic's account of a broken rule into one line a person can act on."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tuner.errors import nearest
from tuner.experiment.model import Section

__all__ = ["explain"]

_REWORDED = {
    "Input should be": "must be",
    "List should have at least": "must have at least",
    " after validation, not 0": "",
    "String should": "must",
}


def explain(error: ValidationError, root: type[Section], raw: Any) -> list[tuple[str, str]]:
    """Return (dotted key, what is wrong and what to write instead) for every broken rule."""
    problems: list[tuple[str, str]] = []
    for details in error.errors(include_url=False):
        key = ".".join(_visible(details, raw))
        if not any(key == seen for seen, _ in problems):  # a union reports each of its members
            problems.append((key, _sentence(details, root)))
    return problems


def _sentence(details: ErrorDetails, root: type[Section]) -> str:
    loc, kind, value = details["loc"], details["type"], details["input"]
    section, field = _resolve(root, loc)
    if kind == "extra_forbidden":
        known = section.model_fields if section else ()
        return f"unknown key {loc[-1]!r}{nearest(str(loc[-1]), known)}"
    if kind == "missing":
        return f"is required; write `{loc[-1]}: ...`"
    if kind == "union_tag_not_found":
        tag = details["ctx"]["discriminator"].strip("'")
        return f"{tag} is required, got {value!r}; write `{tag}: {_tags(field)[0]}`, say"
    if kind == "union_tag_invalid":
        tag = details["ctx"]["discriminator"].strip("'")
        given = details["ctx"]["tag"]
        return f"unknown {tag} {given!r}{nearest(given, _tags(field))}"
    if kind == "literal_error" and field is not None:
        return f"unknown value {value!r}{nearest(str(value), _literals(field.annotation))}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a block of keys, got {value!r}; write `{loc[-1]}: {{key: value}}`"
    if kind == "value_error":
        text = str(details["ctx"]["error"])
        return text if "got" in text or isinstance(value, dict) else _with_value(text, value)
    text = details["msg"]
    for ours, theirs in _REWORDED.items():
        text = text.replace(ours, theirs)
    remedy = ""
    if field is not None and field.default not in (PydanticUndefined, None):
        remedy = f"; write `{loc[-1]}: {_as_yaml(field.default)}`, say"
    return f"{text}, got {value!r}{remedy}"


def _with_value(text: str, value: Any) -> str:
    rule, _, remedy = text.partition(";")
    return f"{rule}, got {value!r}" + (f";{remedy}" if remedy else "")


def _as_yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{{name: {value.name}}}" if hasattr(value, "name") else str(value)


def _visible(details: ErrorDetails, raw: Any) -> list[str]:
    """Leave out of the location what pydantic adds: the tags of unions, the names of types."""
    shown: list[str] = []
    loc = details["loc"]
    for i, part in enumerate(loc):
        in_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if in_list or (isinstance(raw, dict) and part in raw):
            raw = raw[part]
            shown.append(str(part))
        elif i == len(loc) - 1 and details["type"] == "missing":
            shown.append(str(part))
    return shown


def _resolve(
    root: type[Section], loc: tuple[int | str, ...]
) -> tuple[type[Section] | None, FieldInfo | None]:
    """Return the section that holds the last key of `loc`, and that key's field."""
    section: type[Section] | None = root
    holder, field = section, None
    options: list[type[Section]] = []
    for part in loc:
        if section is None:
            chosen = [o for o in options if str(part) in _literal_values(o)]
            section, options = (chosen[0], []) if chosen else (None, options)
            continue
        holder, field = section, section.model_fields.get(str(part))
        options = _sections(field.annotation, field) if field else []
        section = options[0] if len(options) == 1 else None
    return holder if section is None else (section if field is None else holder), field


def _sections(annotation: Any, field: FieldInfo | None = None) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _sections(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType, dict):
        return [s for a in typing.get_args(annotation) for s in _sections(a)]
    return []


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is typing.Literal:
        return [str(v) for v in typing.get_args(annotation)]
    return [v for a in typing.get_args(annotation) for v in _literals(a)]


def _literal_values(section: type[Section]) -> list[str]:
    return [
        v
        for f in ("name", "type")
        if f in section.model_fields
        for v in _literals(section.model_fields[f].annotation)
    ]


def _tags(field: FieldInfo | None) -> list[str]:
    if field is None:
        return []
    return [v for s in _sections(field.annotation) for v in _literal_values(s)]
