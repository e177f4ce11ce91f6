"""YAML 1.2 files and the overrides of the command line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from tuner.errors import ExperimentError, InputError, TunerError, one_line


@dataclass(frozen=True)
class Override:
    """A value given on the command line for a dotted key of the experiment."""

    key: str
    value: Any
    origin: str  # the option that gave it, for error messages


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; `what` names the file's role in error messages.

    Raises:
        ExperimentError: the file is missing, empty, no YAML, or holds something else.
    """
    wrong = partial(ExperimentError, where=path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise wrong(f"no such {what}", remedy="check the path") from None
    except IsADirectoryError:
        raise wrong("is a folder", remedy=f"give the {what} in it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{error.object[error.start]:02x} in line {line}"
        raise wrong("must be UTF-8 text", got=got, remedy="save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        problem = getattr(error, "strerror", None) or one_line(error)
        raise wrong(f"cannot be read: {problem}", remedy="check the path") from None
    try:
        value = _yaml().load(text)
    except ValueError as error:  # what looks like a time, and is none
        rule = f"holds what cannot be read: {one_line(error)}"
        raise wrong(rule, remedy="correct it, or put it in quotes") from None
    except _NOT_YAML as error:
        raise wrong(f"is not YAML: {_yaml_problem(error)}") from None
    if value is None:
        raise wrong("is empty", remedy="write `key: value` lines")
    if not isinstance(value, dict):
        rule, remedy = "must be a mapping of keys to values", "write `key: value` lines"
        kind = {"list": "a list", "str": "a text"}.get(type(value).__name__, repr(value))
        raise wrong(rule, got=kind, remedy=remedy)
    for key in value:
        if not isinstance(key, str):
            raise wrong("keys must be texts", got=repr(key), remedy="put it in quotes")
    return value


def line_of(text: str, key: str) -> int | None:
    """Return the line of a dotted key in YAML, from 1; None for a text that is no mapping.

    Of a key that is missing it is the line of the innermost block on the way to it.
    """
    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except _NOT_YAML:
        return None
    if not isinstance(node, MappingNode):
        return None
    line, parts = 1, key.split(".")
    while parts:
        found = _entry(node, parts)
        if found is None:
            break
        line, node, parts = found
    return line


def _entry(node: Node | None, parts: list[str]) -> tuple[int, Node, list[str]] | None:
    """Return line and value of the entry that the first parts name, and the other parts."""
    if isinstance(node, SequenceNode) and parts[0].isdigit() and int(parts[0]) < len(node.value):
        item = node.value[int(parts[0])]
        return item.start_mark.line + 1, item, parts[1:]
    if not isinstance(node, MappingNode):
        return None
    for n in range(len(parts), 0, -1):  # a key may have dots
        for key, value in node.value:
            if key.value == ".".join(parts[:n]):
                return key.start_mark.line + 1, value, parts[n:]
    return None


def parse_value(text: str, origin: str) -> Any:
    """Read the VALUE of `--set KEY=VALUE` as YAML."""
    try:
        return _yaml().load(text)
    except _NOT_YAML as error:
        problem = _yaml_problem(error, line=False)
        raise InputError("must be YAML", where=origin, got=f"{text!r}: {problem}") from None


def text_of(value: Any) -> str:
    """Return YAML in one line, which `value_of` reads as the value again: [log, difference]."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{text_of(k)}: {text_of(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    for written in (value, json.dumps(value, ensure_ascii=False)):
        try:
            read = value_of(f"{{{written}: [{written}]}}") if written.isprintable() else None
        except (TunerError, TypeError):
            continue
        if read == {value: [value]}:
            return written
    quoted = json.dumps(value, ensure_ascii=False)  # as in YAML, but it may hold signs of control
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\U{ord(found[0]):08x}", quoted)


def value_of(text: str) -> Any:
    """Return the value of a text of one line.

    Raises:
        InputError: it is no YAML.
    """
    return parse_value(text, "search_space")


def apply_override(raw: dict[str, Any], override: Override) -> None:
    """Set a dotted key in `raw`, making the mappings on the way to it.

    Raises:
        ExperimentError: a part of the key names something that is not a mapping.
    """
    wrong = partial(ExperimentError, where=override.origin)
    *parents, last = override.key.split(".")
    if not last or not all(parents):
        raise wrong(f"{override.key!r} is no dotted key", remedy="write budget.epochs=50, say")
    block = raw
    for i, parent in enumerate(parents):
        inner = block.setdefault(parent, {})
        if inner is None:
            inner = block[parent] = {}
        if not isinstance(inner, dict):
            rule = f"{'.'.join(parents[: i + 1])} is a value, not a block"
            got, remedy = repr(inner), f"leave out {last!r}"
            raise wrong(rule, key=override.key, got=got, remedy=remedy)
        block = inner
    block[last] = override.value


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested mappings, with their values."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from flat(inner, f"{prefix}.{key}" if prefix else key)


def dump_yaml(value: dict[str, Any]) -> str:
    """Write a mapping as YAML, in the order of its keys."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 10_000  # a path or a command is one line
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Puts texts with line ends and control characters in double quotes, which keep them."""


def _represent_text(representer: SafeRepresenter, text: str) -> Any:
    style = '"' if re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]", text) else None
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Representer.add_representer(str, _represent_text)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


# Raised by ruamel.yaml; the last two for dates such as 1960-13-01, and for very deep nesting.
_NOT_YAML = (YAMLError, ValueError, RecursionError)


def _yaml_problem(error: BaseException, line: bool = True) -> str:
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return f"{one_line(error)}; correct it"
    if isinstance(error, DuplicateKeyError):
        problem, remedy = one_line(str(error.problem)), "remove one"
        problem = re.sub(r"^found | with value .*", "", problem)
    else:
        problem, remedy = one_line(str(error.problem)), f"correct {'that line' if line else 'it'}"
        if isinstance(error, ComposerError) and error.context and problem.startswith("but "):
            problem = f"{one_line(error.context)}, {problem}"
    where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}: "
    return f"{where if line else ''}{problem}; {remedy}"
