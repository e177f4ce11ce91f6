"""Expressions of `truth` and `forecast`: arithmetic and a few functions, and nothing else.

They are parsed as Python and walked node by node; no code is run.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tuner.errors import nearest

__all__ = ["FUNCTIONS", "NAMES", "REDUCING", "evaluate", "parse"]

NAMES = ("truth", "forecast")

FUNCTIONS = {
    "abs": 1, "sqrt": 1, "exp": 1, "log": 1, "log1p": 1, "square": 1, "sign": 1,
    "minimum": 2, "maximum": 2, "where": 3,
    "mean": 1, "sum": 1, "median": 1, "std": 1, "min": 1, "max": 1, "quantile": 2,
}  # fmt: skip
"""By name, how many arguments they take."""

REDUCING = ("mean", "sum", "median", "std", "min", "max", "quantile")
"""Those that come to one number."""

_LONGEST, _DEEPEST = 1000, 40

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EXAMPLE = "mean(abs(truth - forecast))"


def parse(text: str) -> ast.expr:
    """Return the tree of an expression, of nodes that `evaluate` knows.

    Raises:
        ValueError: it is none; rule, value and remedy in one line.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"has {_LONGEST} characters at most, got {len(text)}; make it shorter")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"must be an expression, got {text!r}; write {_EXAMPLE}, say") from None
    _check(tree, text, _DEEPEST)
    return tree


def _check(node: ast.expr, text: str, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"is nested {_DEEPEST} deep at most, got {text!r}; make it simpler")

    def within(*inner: ast.expr) -> None:
        for each in inner:
            _check(each, text, depth - 1)

    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if abs(number) > 1e30 or not math.isfinite(number):
                raise ValueError(f"holds numbers up to 1e30, got {text!r}; write a smaller one")
        case ast.Name(id=name):
            if name not in NAMES:
                known = nearest(name, NAMES if name not in FUNCTIONS else ())
                hint = known or f"; write {name}(...)"
                raise ValueError(f"knows no {name!r}, got {text!r}{hint}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            within(left, right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            within(operand)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            within(left, right)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                known = nearest(name, FUNCTIONS)
                raise ValueError(f"has no function {name!r}, got {text!r}{known}")
            if len(arguments) != FUNCTIONS[name]:
                text = f"{name} takes {FUNCTIONS[name]}, got {len(arguments)} in {text!r}"
                raise ValueError(f"{text}; give it as many")
            within(*arguments)
        case _:
            part = ast.unparse(node)
            raise ValueError(
                f"is arithmetic of truth and forecast, got {part!r} in {text!r}; write {_EXAMPLE}, "
                f"say"
            )


def evaluate(
    tree: ast.expr,
    names: Mapping[str, Any],
    functions: Mapping[str, Callable[..., Any]],
    number: Callable[[float], Any] = float,
) -> Any:
    """Return what an expression comes to.

    Args:
        tree: from `parse`.
        names: arrays by `NAMES`.
        functions: by `FUNCTIONS`, of such arrays.
        number: makes what arrays are calculated with of a number.
    """

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=constant):
                return number(float(constant))  # type: ignore[arg-type]
            case ast.Name(id=name):
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand):
                return -value(operand) if isinstance(op, ast.USub) else value(operand)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return _BINARY[type(op)](value(left), value(right))
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return functions[name](*map(value, arguments))
        raise AssertionError("parse lets nothing else through")

    return value(tree)
