"""Turns pydantic's account of a broken rule into one line a person can act on."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tuner.errors import nearest
from tuner.experiment.model import Section

__all__ = ["Problem", "explain", "reword", "shown"]

_REWORDED = {  # pydantic's words and ours; longer ones first
    "Input should be": "must be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid list": "a list",
    "List should have at least": "must have at least",
    " after validation, not 0": "",
    "String should match pattern '^[A-Za-z0-9][A-Za-z0-9_.-]*$'": (
        "must begin with a letter or digit and hold only letters, digits, '_', '-' and '.'"
    ),
    "String should": "must",
}
_OWN_KEY = re.compile(r"([a-z_]+(?:\.\w+)*): (.*)", re.DOTALL)  # a rule between several keys


@dataclass(frozen=True)
class Problem:
    """One broken rule."""

    key: str  # dotted; empty for the whole file
    text: str  # the rule, the value, and a remedy where the rule has one of its own
    example: str | None = None  # else: a value that would do


def explain(error: ValidationError, root: type[Section], raw: Any) -> list[Problem]:
    """Return every broken rule, in the order of the file's keys."""
    problems: list[Problem] = []
    for details in error.errors(include_url=False):
        problem = _problem(details, root, ".".join(_visible(details, raw)))
        if not any(problem.key == p.key for p in problems):  # a union reports each member
            problems.append(problem)
    return problems


def reword(message: str) -> str:
    """Say in the words of the experiment file what pydantic says in its own."""
    for theirs, ours in _REWORDED.items():
        message = message.replace(theirs, ours)
    return message


def shown(value: Any) -> str:
    """Write a value for a message: as it stands in the file, and not longer than a line."""
    if value is None or isinstance(value, bool):
        return _as_yaml(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _problem(details: ErrorDetails, root: type[Section], key: str) -> Problem:
    loc, kind, value = details["loc"], details["type"], details["input"]
    section, field = _resolve(root, loc)
    if kind == "extra_forbidden":
        known = section.model_fields if section else ()
        return Problem(key, f"unknown key {loc[-1]!r}{_hint(str(loc[-1]), known)}")
    if kind == "missing":
        return Problem(key, "is required", _example(field) or "...")
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = details["ctx"]["discriminator"].strip("'")
        key = f"{key}.{tag}"
        if kind == "union_tag_not_found":
            return Problem(key, f"is required{nearest('', _tags(field))}")
        given = value[tag] if isinstance(value, dict) else details["ctx"]["tag"]
        what = tag if tag != "name" else loc[-1]
        hint = _hint(_spoken(str(given), field), _tags(field))
        return Problem(key, f"unknown {what} {shown(given)}{hint}")
    if kind == "literal_error" and field is not None:
        choices = _literals(field.annotation)
        return Problem(key, f"unknown {loc[-1]} {shown(value)}{_hint(str(value), choices)}")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        example = _example(field) or "{key: value}"
        if field is not None and field.discriminator and value in _tags(field):
            example = f"{{{field.discriminator}: {value}}}"
        if loc == ("search_space",):
            example = f"{{hidden_size: {example}}}"
        return Problem(key, f"must be a block of keys, got {shown(value)}", example)
    if kind == "value_error":
        text = str(details["ctx"]["error"])
        if own := _OWN_KEY.match(text):
            return Problem(f"{key}.{own[1]}" if key else own[1], own[2])
        with_value = "got" in text or isinstance(value, dict)
        return Problem(key, text if with_value else _with_value(text, value))
    if key.rpartition(".")[2].isdecimal():  # one of a list
        rule = (
            "must be a text" if kind == "string_type" else "must be a number, a text, true or false"
        )
        return Problem(key, f"{rule}, got {shown(value)}; put it in quotes, or remove it")
    return Problem(key, f"{reword(details['msg'])}, got {shown(value)}", _example(field))


def _with_value(text: str, value: Any) -> str:
    rule, _, remedy = text.partition(";")
    return f"{rule}, got {shown(value)}" + (f";{remedy}" if remedy else "")


def _example(field: FieldInfo | None) -> str | None:
    """Return a value of a key that obeys its rules, as YAML."""
    if field is None:
        return None
    if field.examples:
        return _as_yaml(field.examples[0])
    if sections := _sections(field.annotation):
        chosen = type(field.default) if isinstance(field.default, Section) else sections[0]
        fields = chosen.model_fields.items()
        needed = [(name, f) for name, f in fields if f.is_required()] or list(fields)[:1]
        values = {name: _example(f) for name, f in needed}
        if None in values.values():
            return None
        return "{" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"
    if field.default in (PydanticUndefined, None):
        return next(iter(_literals(field.annotation)), None)
    return _as_yaml(field.default)


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return str(value)


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
        if str(part).startswith("("):  # the tag of a union
            continue
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


def _hint(word: str, known: Iterable[str]) -> str:
    """Return the nearest of the file's own words, which are all in lower case."""
    return nearest(word.lower(), known)


def _spoken(word: str, field: FieldInfo | None) -> str:
    """Return the tag of the section whose title has the word: `woa` for `whale`; else the word."""
    for section in _sections(field.annotation) if field else ():
        title = re.match(r"[^.:(]+(?=[:(])", section.__doc__ or "")  # "Whale optimization"
        if title and word.lower() in title[0].lower().split():
            return _literal_values(section)[0]
    return word


def _tags(field: FieldInfo | None) -> list[str]:
    if field is None:
        return []
    return [v for s in _sections(field.annotation) for v in _literal_values(s)]
