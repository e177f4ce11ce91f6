"""JSON bodies read strictly, before anything else sees them."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MOST_DEPTH = 64
"""Levels of nesting of a body."""

MOST_KEYS = 2_500
"""Keys of an object: more than a data file may have columns."""

_MOST_DIGITS = 20
_ESCAPED = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
# A text that has no end lasts to the end of the body: each sign is read once.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def check_json(body: bytes) -> None:
    """Refuse a body that is not JSON as RFC 8259 has it, or that another reader reads otherwise.

    Refused are also NaN and infinity, numbers beyond a double and integers beyond 20 digits, a key
    that occurs twice, more than `MOST_KEYS` keys in an object or `MOST_DEPTH` levels, half a
    surrogate pair, and U+0000.

    Raises:
        ValueError: the broken rule, in one line.
    """
    if body.count(b"[") + body.count(b"{") > MOST_DEPTH:
        _check_depth(body)
    try:
        value = json.loads(
            body,
            parse_constant=_no_constant,
            parse_float=_double,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
    except UnicodeDecodeError:
        raise ValueError("the body must be UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"in line {error.lineno}, column {error.colno}"
        raise ValueError(f"the body is not JSON: {error.msg} {where}") from None
    if _ESCAPED.search(body):
        _check_text(value)


def _check_depth(body: bytes) -> None:
    depth = 0
    for found in _BRACKETS.finditer(body):
        sign = found[0][:1]
        if sign == b'"':
            continue
        depth += 1 if sign in b"[{" else -1
        if depth > MOST_DEPTH:
            raise ValueError(f"the body has more than {MOST_DEPTH} levels")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is no JSON; as the value of a trial send the text "{text}"')


def _double(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("numbers must be finite")
    return value


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"integers must have at most {_MOST_DIGITS} characters")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MOST_KEYS:
        raise ValueError(f"an object has more than {MOST_KEYS} keys")
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice in an object")
    return found


def _check_text(value: object) -> None:
    """Refuse texts that a database or a file of UTF-8 cannot hold."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as block:
                waiting += [*block.keys(), *block.values()]
            case list() as items:
                waiting += items
            case str() as text if "\0" in text:
                raise ValueError("a text holds the character U+0000")
            case str() as text if re.search("[\ud800-\udfff]", text):
                raise ValueError("a text holds half a surrogate pair")
