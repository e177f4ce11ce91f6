"""Validation errors as one line: pydantic's account of a broken rule, reworded."""

from __future__ import annotations

import datetime as dt
import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tuner.errors import nearest
from tuner.experiment.fields import key_meant
from tuner.section import Section

__all__ = ["Problem", "Refused", "explain", "reword", "shown"]

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
    "a valid tuple": "a list",
    "List should": "must",
    "Tuple should": "must",
    "String should": "must",
}

_TOO_MUCH = re.compile(r" after validation, not \d+|, unable to parse .*")

_OF_KIND = ("_type", "_parsing", "literal_error")  # what is wrong is the kind of value

_OWN_KEY = re.compile(r"([a-z_]+(?:\.\w+)*): (.*)", re.DOTALL)  # a rule between several keys


class Refused(ValueError):
    """A value breaks a rule that pydantic does not know.

    Args:
        text: the rule and the value.
        instead: a value that would do.
    """

    def __init__(self, text: str, instead: str) -> None:
        super().__init__(text)
        self.instead = instead


@dataclass(frozen=True)
class Problem:
    """One broken rule."""

    key: str  # dotted; empty for the whole file
    text: str  # the rule, the value, and a remedy where the rule has one of its own
    example: str | None = None  # else: a value that would do


def explain(error: ValidationError, root: type[Section], raw: Any) -> list[Problem]:
    """Return every broken rule: unknown keys, which may be misspelt, and then the others."""
    broken: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        broken.setdefault(_visible(details, raw), []).append(details)
    by_kind = sorted(broken.items(), key=lambda item: _told(item[1])["type"] != "extra_forbidden")
    return [
        _problem(of_key, root, path)
        for path, of_key in by_kind  # a union reports each member: the one that fits best
        if not any(len(other) > len(path) and other[: len(path)] == path for other in broken)
    ]


def reword(message: str) -> str:
    """Say in the words of the experiment file what pydantic says in its own."""
    for theirs, ours in _REWORDED.items():
        message = message.replace(theirs, ours)
    return _TOO_MUCH.sub("", message)


def shown(value: Any) -> str:
    """Write a value for a message: as it stands in the file, and not longer than a line."""
    if value is None or isinstance(value, bool):
        return _as_yaml(value)
    if isinstance(value, list):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = str(value) if isinstance(value, dt.date) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _told(of_key: list[ErrorDetails]) -> ErrorDetails:
    """Choose what to tell of a key: what is wrong with its name, else with a value that fits."""
    named = [d for d in of_key if d["loc"][-1:] == ("[key]",)]
    fitting = [d for d in of_key if not d["type"].endswith(_OF_KIND)]
    return (named or fitting or of_key)[0]


def _problem(
    of_key: list[ErrorDetails], root: type[Section], path: tuple[str | int, ...]
) -> Problem:
    details = _told(of_key)
    loc, kind, value = details["loc"], details["type"], details["input"]
    key, name = ".".join(map(str, path)), next((p for p in path[::-1] if isinstance(p, str)), "")
    section, field, inner = _resolve(root, loc)
    if loc[-1:] == ("[key]",):
        remedy = "change it" if isinstance(value, str) else "put it in quotes"
        return Problem(key, f"{_rule([details])}, got {shown(value)}; {remedy}, or remove it")
    if kind == "extra_forbidden":
        known = section.model_fields if section else ()
        word = str(loc[-1])
        hint = _hint(word, known)
        if len(loc) == 1 and (inside := _in_a_block(root, word)):
            hint = f"; write {' or '.join(inside)}"
        elif word.lower() not in known and (meant := key_meant(word)):
            hint = f"; {meant}"
        return Problem(key, f"unknown key {loc[-1]!r}{hint}")
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        tag = details["ctx"]["discriminator"].strip("'")
        key = f"{key}.{tag}"
        if kind == "union_tag_not_found":
            return Problem(key, f"is required{nearest('', _tags(field))}")
        given = value[tag] if isinstance(value, dict) else details["ctx"]["tag"]
        what = tag if tag != "name" else name
        hint = _hint(_spoken(str(given), field), _tags(field))
        return Problem(key, f"unknown {what} {shown(given)}{hint}")
    if kind == "literal_error" and field is not None and len(of_key) == 1:
        choices = _literals(field.annotation)
        return Problem(key, f"unknown {name} {shown(value)}{_hint(str(value), choices)}")
    example = _example(field, inner)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        text = f"must be a block of keys, got {shown(value)}"
        if loc[0] == "search_space" and len(loc) == 2:
            return _no_domain(Problem(key, text, example), root, name, value)
        if field is not None and field.discriminator and value in _tags(field):
            example = f"{{{field.discriminator}: {value}}}"
        if loc == ("search_space",):
            example = f"{{hidden_size: {example}}}"
        return Problem(key, text, example or "{key: value}")
    if kind == "value_error":
        error = details["ctx"]["error"]
        text = str(error)
        if isinstance(error, Refused):
            plain = re.fullmatch(r"[A-Za-z]\w*", error.instead, re.ASCII)
            quoted = json.dumps(error.instead, ensure_ascii=False)
            return Problem(key, text, error.instead if plain else quoted)
        if own := _OWN_KEY.match(text):
            return Problem(f"{key}.{own[1]}" if key else own[1], own[2])
        of_block = isinstance(value, dict) and (field is None or bool(_sections(field.annotation)))
        return Problem(key, text if "got" in text or of_block else _with_value(text, value))
    text = "is required" if kind == "missing" else f"{_rule(of_key)}, got {shown(value)}"
    if not isinstance(path[-1], int):
        return Problem(key, text, example or ("..." if kind == "missing" else None))
    if any(d["type"] == "string_type" for d in of_key):
        ways = "remove it" if value is None else "put it in quotes, or remove it"
        return Problem(key, f"{text}; {ways}")
    return Problem(key, text + (f"; write {example}, say" if example else "; remove it"))


def _rule(of_key: list[ErrorDetails]) -> str:
    """Say what a value must be; where it is of no kind that a union has, name every kind."""
    told = _told(of_key)
    if not told["type"].endswith(_OF_KIND):
        return reword(told["msg"])
    kinds = list(dict.fromkeys(reword(d["msg"]).removeprefix("must be ") for d in of_key))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    kinds.sort(key="true or false".__eq__)
    return "must be " + (", " if "true or false" in kinds else " or ").join(kinds)


def _no_domain(problem: Problem, root: type[Section], name: str, value: Any) -> Problem:
    """Say of a value or a list in a search space how it is fixed, or searched."""
    if name in ("transform", "scale", "calendar", "lags", "decompose") and isinstance(
        value, str | list
    ):
        written = _as_yaml(value if isinstance(value, list) and value else ["none", value])
        return replace(problem, example=f"{{type: categorical, choices: {written}}}")
    fixed = _sections(root.model_fields["hyperparameters"].annotation)[0]
    field = fixed.model_fields.get(name)
    if field is None:
        return problem

    def obeys(value: Any) -> bool:
        try:
            fixed.model_validate({name: value})
        except ValidationError:
            return False
        return isinstance(value, str | int | float)

    if obeys(value):
        remedy = f"for one value write hyperparameters.{name}: {_as_yaml(value)}"
        return Problem(problem.key, f"{problem.text}; {remedy}")
    choices: list[Any] = _literals(field.annotation) or [False, True] * (field.annotation is bool)
    if isinstance(value, list) and value and all(map(obeys, value)):
        choices = value
    elif field.annotation is float:
        low, high = (field.default / 10, field.default * 10) if field.default else (0.0, 0.5)
        return replace(problem, example=f"{{type: float, low: {low}, high: {high}}}")
    if not choices:
        return problem
    return replace(problem, example=f"{{type: categorical, choices: {_as_yaml(choices)}}}")


def _with_value(text: str, value: Any) -> str:
    rule, _, remedy = text.partition(";")
    return f"{rule}, got {shown(value)}" + (f";{remedy}" if remedy else "")


def _example(field: FieldInfo | None, inner: tuple[str | int, ...] = ()) -> str | None:
    """Return what obeys the rules of a key, or of a place in its value, as YAML."""
    if field is None:
        return None
    if field.examples:
        example = field.examples[0]
        for part in inner:
            if isinstance(example, dict):
                example = next(iter(example.values()))
            elif isinstance(example, list) and isinstance(part, int):
                example = example[min(part, len(example) - 1)]
        return _as_yaml(example)
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
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_as_yaml(v)}" for k, v in value.items()) + "}"
    return str(value)


def _visible(details: ErrorDetails, raw: Any) -> tuple[str | int, ...]:
    """Leave out of the location what pydantic adds: the tags of unions, the names of types."""
    shown: list[str | int] = []
    loc = details["loc"]
    for i, part in enumerate(loc):
        in_list = isinstance(raw, list) and isinstance(part, int) and part < len(raw)
        if in_list or (isinstance(raw, dict) and part in raw):
            raw = raw[part]
            shown.append(part)
        elif i == len(loc) - 1 and details["type"] == "missing":
            shown.append(part)
    return tuple(shown)


def _resolve(
    root: type[Section], loc: tuple[int | str, ...]
) -> tuple[type[Section] | None, FieldInfo | None, tuple[int | str, ...]]:
    """Return the section that holds the last key of `loc`, that key's field, and what is left."""
    section: type[Section] | None = root
    holder, field = section, None
    options: list[type[Section]] = []
    inner: tuple[int | str, ...] = ()
    for part in loc:
        if str(part).startswith("("):  # the tag of a union
            continue
        if section is None:
            chosen = [o for o in options if str(part) in _literal_values(o)]
            section, options = (chosen[0], []) if chosen else (None, options)
            inner += (part,)
            continue
        holder, field, inner = section, section.model_fields.get(str(part)), ()
        options = _sections(field.annotation, field) if field else []
        section = options[0] if len(options) == 1 else None
    return section if section and field is None else holder, field, inner


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


def _in_a_block(root: type[Section], word: str) -> list[str]:
    """Return the dotted keys of the root's blocks whose last word is this one."""
    return [
        f"{name}.{word}"
        for name, field in root.model_fields.items()
        if name != "recorded"
        for section in _sections(field.annotation)
        if word.lower() in section.model_fields and word != "name"
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
    return [v for s in (_sections(field.annotation) if field else ()) for v in _literal_values(s)]
