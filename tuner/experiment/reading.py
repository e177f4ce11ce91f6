"""Reads YAML (1.2, so that `1e-3` is a number) and lays the command line's overrides over it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tuner.errors import ExperimentError, InputError, one_line

__all__ = ["Override", "apply_override", "dump_yaml", "parse_value", "read_mapping"]


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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ExperimentError(f"{path}: no such {what}; check the path") from None
    except IsADirectoryError:
        raise ExperimentError(f"{path}: is a folder; give the {what} in it") from None
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: must be UTF-8 text, {one_line(error)}") from None
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        value = _yaml().load(text)
    except YAMLError as error:
        raise ExperimentError(f"{path}: is not YAML: {_yaml_problem(error)}") from None
    if value is None:
        raise ExperimentError(f"{path}: is empty; a {what} is a mapping of keys to values")
    if not isinstance(value, dict):
        kind = {"list": "a list", "str": "a text"}.get(type(value).__name__, repr(value))
        raise ExperimentError(
            f"{path}: must be a mapping of keys to values, got {kind}; write `key: value` lines"
        )
    for key in value:
        if not isinstance(key, str):
            raise ExperimentError(f"{path}: keys must be texts, got {key!r}; put it in quotes")
    return value


def parse_value(text: str, origin: str) -> Any:
    """Read the VALUE of `--set KEY=VALUE` as YAML."""
    try:
        return _yaml().load(text)
    except YAMLError as error:
        raise InputError(f"{origin}: {text!r} is not YAML: {_yaml_problem(error)}") from None


def apply_override(raw: dict[str, Any], override: Override) -> None:
    """Set a dotted key in `raw`, making the mappings on the way to it.

    Raises:
        ExperimentError: a part of the key names something that is not a mapping.
    """
    *parents, last = override.key.split(".")
    if not last or not all(parents):
        raise ExperimentError(
            f"{override.origin}: {override.key!r} is no dotted key; write budget.epochs=50, say"
        )
    block = raw
    for i, parent in enumerate(parents):
        inner = block.setdefault(parent, {})
        if inner is None:
            inner = block[parent] = {}
        if not isinstance(inner, dict):
            raise ExperimentError(
                f"{override.origin}: {override.key}: {'.'.join(parents[: i + 1])} is a value, "
                f"not a block, got {inner!r}; leave out {last!r}"
            )
        block = inner
    block[last] = override.value


def dump_yaml(value: dict[str, Any]) -> str:
    """Write a mapping as YAML, in the order of its keys."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 100
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _yaml_problem(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = re.sub(r"\s*(To suppress this check|Duplicate keys).*", "", str(error.problem))
        return f"line {mark.line + 1}, column {mark.column + 1}: {one_line(problem)}"
    return one_line(error)
