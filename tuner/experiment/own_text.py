"""Functions and expressions of one's own, as texts of an experiment file."""

from __future__ import annotations

import ast
from typing import Any

from tuner.expressions import REDUCING, parse
from tuner.own_code import is_reference

__all__ = ["is_own", "parse_own"]

_SIGNS = ":(-*/+<>="


def is_own(value: Any) -> bool:
    """Return whether a text is meant as a function, or an expression, of one's own."""
    return isinstance(value, str) and any(sign in value for sign in _SIGNS)


def parse_own(text: str) -> str:
    """Return `package.module:function`, or an expression that comes to one number.

    Raises:
        ValueError: it is neither; rule, value and remedy.
    """
    if is_reference(text):
        return text
    tree = parse(text)
    if _has_many(tree):
        raise ValueError(f"must come to one number, got {text!r}; write mean({text}), say")
    if not any(isinstance(node, ast.Name) and node.id == "forecast" for node in ast.walk(tree)):
        raise ValueError(f"must measure the forecast, got {text!r}; write forecast in it")
    return text


def _has_many(node: ast.AST) -> bool:
    """Return whether a part of an expression has a value for every forecast."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id not in REDUCING and any(map(_has_many, node.args))
    if isinstance(node, ast.Name):
        return True
    return any(map(_has_many, ast.iter_child_nodes(node)))
