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
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from tuner.errors import ExperimentError, InputError, TunerError, one_line


@dataclass(frozen=True)
class Override:
    """A value given on the command line for a dotted key of the experiment."""

    key: str
    value: Any
    origin: str  # the option that gave it, for error messages


@dataclass(frozen=True)
class Bounds:
    """How large a YAML document may be, with every alias written out."""

    n_bytes: int
    n_values: int
    """Keys, values, lists and mappings."""
    depth: int = 64
    """Lists and mappings within one another."""


FILES = Bounds(n_bytes=1 << 20, n_values=100_000)
"""Bounds of files on this machine."""

_LONGEST_NUMBER = 1000  # characters; Python refuses to print whole numbers above 4300 digits


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read the mapping in a YAML file; `what` names the file's role in error messages.

    Raises:
        ExperimentError: the file is missing, empty, no YAML, or holds something else.
    """
    wrong = partial(ExperimentError, where=path)
    try:
        with path.open("rb") as file:
            content = file.read(FILES.n_bytes + 1)
        _check_size(len(content), FILES, path)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise wrong(f"no such {what}", remedy="check the path") from None
    except IsADirectoryError:
        raise wrong("is a folder", remedy=f"give the {what} in it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        got = f"byte 0x{error.object[error.start]:02x} in line {line}"
        raise wrong("must be UTF-8 text", got=got, remedy="save the file as UTF-8") from None
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        if isinstance(error, ExperimentError):
            raise
        problem = getattr(error, "strerror", None) or one_line(error)
        raise wrong(f"cannot be read: {problem}", remedy="check the path") from None
    return parse_mapping(text, path)


def parse_mapping(text: str, where: Path | str, bounds: Bounds = FILES) -> dict[str, Any]:
    """Read a mapping in YAML.

    Args:
        text: the YAML.
        where: the file or place for error messages.
        bounds: how large it may be.

    Raises:
        ExperimentError: it is empty, no YAML, holds something else, or exceeds a bound.
    """
    wrong = partial(ExperimentError, where=where)
    _check_size(len(text.encode("utf-8", "surrogatepass")), bounds, where)
    try:
        value = _reader(bounds).load(text)
    except _BoundError as error:
        line = error.problem_mark.line + 1
        raise wrong(error.rule, got=f"line {line}", remedy=error.remedy) from None
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
        node: Node | None = _reader(FILES).compose(text)
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
    """Read the VALUE of `--set KEY=VALUE` as YAML.

    Raises:
        InputError: it is no YAML, or exceeds a bound.
    """
    try:
        return _reader(FILES).load(text)
    except _BoundError as error:
        raise InputError(error.rule, where=origin, remedy=error.remedy) from None
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


def _check_size(n_bytes: int, bounds: Bounds, where: Path | str) -> None:
    if n_bytes > bounds.n_bytes:
        rule = f"must have at most {bounds.n_bytes >> 10:,} KiB"
        raise ExperimentError(rule, where=where, remedy="remove what it does not need")


class _BoundError(MarkedYAMLError):
    """A document exceeds a bound at `problem_mark`."""

    def __init__(self, rule: str, mark: Any, remedy: str) -> None:
        super().__init__(problem=rule, problem_mark=mark)
        self.rule, self.remedy = rule, remedy


class _BoundedComposer(Composer):
    """Counts values before any is constructed; an alias counts as all that it stands for.

    Merge keys (`<<`) copy what they name, so they are bounded as well.
    """

    n_values = 0

    def __init__(self, bounds: Bounds, loader: Any = None) -> None:
        super().__init__(loader=loader)
        self._bounds = bounds
        self._sizes: dict[int, int] = {}  # by the id of a node, which the document keeps

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, before = self.parser.peek_event(), self.n_values
        self._count(1, event)
        if self.depth >= self._bounds.depth and isinstance(event, CollectionStartEvent):
            rule = f"must be at most {self._bounds.depth} lists and mappings deep"
            raise _BoundError(rule, event.start_mark, "nest it less")
        node = super().compose_node(parent, index)
        if not isinstance(event, AliasEvent):
            self._sizes[id(node)] = self.n_values - before
        elif id(node) in self._sizes:
            self._count(self._sizes[id(node)] - 1, event)
        else:
            rule = f"the alias {event.anchor!r} stands within what it names"
            raise _BoundError(rule, event.start_mark, "write it out")
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        if len(node.value) > _LONGEST_NUMBER and not str(node.tag).endswith(":str"):
            rule = f"numbers and times must have at most {_LONGEST_NUMBER:,} characters"
            raise _BoundError(rule, node.start_mark, "shorten it, or put it in quotes")
        return node

    def _count(self, n_values: int, event: Any) -> None:
        self.n_values += n_values
        if self.n_values > (most := self._bounds.n_values):
            aliases = ", with aliases written out" if isinstance(event, AliasEvent) else ""
            rule = f"must hold at most {most:,} values{aliases}"
            raise _BoundError(rule, event.start_mark, "write less")


def _reader(bounds: Bounds) -> YAML:
    """Return what reads a YAML document; it raises a `_BoundError` or one of `_NOT_YAML`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = partial(_BoundedComposer, bounds)  # type: ignore[assignment]
    return yaml


# Raised by ruamel.yaml: ValueError for 1960-13-01, AssertionError for `!!omap [a: 1, a: 2]`.
_NOT_YAML = (YAMLError, ValueError, RecursionError, AssertionError)


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
