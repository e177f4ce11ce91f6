"""How data is prepared as dimensions of the search: choices of any YAML, kept as texts."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from tuner.errors import TunerError, one_line
from tuner.experiment.data import Data
from tuner.experiment.decomposition import canonical_decomposition
from tuner.experiment.explain import reword
from tuner.experiment.model import Section
from tuner.experiment.reading import parse_value
from tuner.transform_steps import parse_transform

__all__ = ["PREPARED", "canonical_choice", "prepared_with", "text_of", "value_of", "without_order"]

PREPARED = ("transform", "scale", "calendar", "lags", "decompose")
"""The keys of `data` that may be searched."""

_ESCAPED = re.compile(r"[^\x20-\x7e]")


def text_of(value: Any) -> str:
    """Return YAML in one line, which `value_of` reads as the value again: [log, difference]."""
    if isinstance(value, Section):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{text_of(k)}: {text_of(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    for written in (value, json.dumps(value, ensure_ascii=False)):
        try:
            said = value_of(f"{{{written}: [{written}]}}") if written.isprintable() else None
        except (TunerError, TypeError):
            continue
        if said == {value: [value]}:
            return written
    return _ESCAPED.sub(_escape, json.dumps(value, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    """Write a character as YAML does that does not print: JSON would write two for some."""
    return f"\\U{ord(found[0]):08x}"


def value_of(text: str) -> Any:
    """Return what a text of one line says.

    Raises:
        InputError: it is no YAML.
    """
    return parse_value(text, "search_space")


def canonical_choice(name: str, choice: Any) -> str:
    """Return the text of a choice of a preparation, the same for choices that mean the same.

    Raises:
        ValueError: it is no YAML, or no transform.
    """
    try:
        value = value_of(choice) if isinstance(choice, str) else choice
    except TunerError as error:
        raise ValueError(one_line(error)) from None
    if name == "transform":
        value = parse_transform(value)
    return text_of(canonical_decomposition(value) if name == "decompose" else value)


def without_order(name: str, text: str) -> str:
    """Return the text of a choice, the same for those that differ in an order without meaning.

    Columns of the calendar and of lags may stand in any order, steps of a transform not.
    """
    value = value_of(text)
    if name == "calendar" and isinstance(value, list):
        return text_of(sorted(value, key=str))
    if name == "lags" and isinstance(value, dict):
        lags = {k: sorted(v, key=str) if isinstance(v, list) else v for k, v in value.items()}
        return text_of(dict(sorted(lags.items(), key=str)))
    return text


def prepared_with(data: Data, texts: dict[str, str]) -> Data:
    """Return `data` with other preparations, checked.

    Raises:
        ValueError: one is not what the key takes; rule, value and remedy.
    """
    values = {name: value_of(text) for name, text in texts.items()}
    if all(getattr(data, name) == value for name, value in values.items()):
        return data
    try:
        return Data.model_validate(data.model_dump(exclude_unset=True) | values)
    except ValidationError as error:
        told = error.errors(include_url=False)[0]
    if told["type"] == "value_error":
        raise ValueError(str(told["ctx"]["error"]))
    raise ValueError(f"{reword(told['msg'])}, got {told['input']!r}; change it")
