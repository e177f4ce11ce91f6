"""User code: references such as `package.module:Name`, and expressions of `truth` and `forecast`.

A worker imports it, or a process that inspects it before a search; the check of an experiment also
tries a metric itself. Expressions are parsed as Python and evaluated node by node, and run no other
code.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import math
import operator
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuner.errors import ExperimentError, InputError, near_miss, nearest, one_line

ALLOW = "TUNER_ALLOW_CODE"
"""Is set by `--allow-code`, and inherited by workers."""

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(value: Any) -> bool:
    """Return whether a value is written as `package.module:name`."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def reference_of(name: str, group: str) -> str | None:
    """Return the reference behind an entry point of an installed package; None if there is none.

    Nothing is imported.
    """
    found = list(importlib.metadata.entry_points(group=group, name=name))
    return found[0].value if found else None


def allow() -> None:
    """Allow this process and its children code of the current folder, and of exported files."""
    os.environ[ALLOW] = "1"


def is_allowed() -> bool:
    """Return whether code of the current folder, and of exported files, may be imported."""
    return os.environ.get(ALLOW) == "1"


def load_object(reference: str) -> Any:
    """Import what `package.module:name` names.

    Raises:
        InputError: it is not installed, cannot be imported, or is not in its module; rule, value
            and remedy in one line.
    """
    module_name, _, name = reference.partition(":")
    _check_place(module_name.partition(".")[0], reference)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever it does
        lacks = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacks is not None and f"{module_name}.".startswith(f"{lacks}."):
            raise _not_installed(lacks, reference) from None
        got = f"{reference!r}: {type(error).__name__}: {one_line(error)}"
        raise InputError("cannot be imported", got=got, remedy=f"correct {module_name}") from None
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        meant = near_miss(name, known)
        remedy = "name one that it has" if meant is None else f"did you mean {meant!r}?"
        raise InputError(f"{module_name} has no {name!r}", got=repr(reference), remedy=remedy)
    return getattr(module, name)


def _check_place(top: str, reference: str) -> None:
    here = Path.cwd()
    lies_here = (here / f"{top}.py").exists() or (here / top).is_dir()
    if is_allowed() and str(here) not in sys.path:
        sys.path.append(str(here))  # last: no file of it is taken for a library
    spec = None if top in sys.builtin_module_names else importlib.util.find_spec(top)
    places = set()
    if spec is not None:
        files = [spec.origin] if spec.origin and os.sep in spec.origin else []
        files += [str(Path(place) / "_") for place in spec.submodule_search_locations or ()]
        inner = 2 if spec.submodule_search_locations is not None else 1
        places = {Path(file).resolve().parents[inner - 1] for file in files}
    elif top not in sys.builtin_module_names and not lies_here:
        raise _not_installed(top, reference)
    found_here = (spec is None and lies_here) or here.resolve() in places
    if found_here and not is_allowed():
        rule = f"nothing is imported from the current folder, where {top!r} lies"
        remedy = "install it (pip install), or add --allow-code"
        raise InputError(rule, got=repr(reference), remedy=remedy)


def _not_installed(module: str, reference: str) -> InputError:
    rule = f"no module {module!r} is installed"
    return InputError(rule, got=repr(reference), remedy="install its package with pip")


NAMES = ("truth", "forecast")

FUNCTIONS = {
    "abs": 1, "sqrt": 1, "exp": 1, "log": 1, "log1p": 1, "square": 1, "sign": 1,
    "minimum": 2, "maximum": 2, "where": 3,
    "mean": 1, "sum": 1, "median": 1, "std": 1, "min": 1, "max": 1, "quantile": 2,
}  # fmt: skip
"""By name, how many arguments they take."""

REDUCING = ("mean", "sum", "median", "std", "min", "max", "quantile")
"""Those with one number as their value."""

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
        ExperimentError: it is no expression, or too long or deep.
    """
    if len(text) > _LONGEST:
        raise _wrong(f"has {_LONGEST} characters at most", len(text), "make it shorter")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise _wrong("must be an expression", repr(text), f"write {_EXAMPLE}, say") from None
    _check(tree, text, _DEEPEST)
    return tree


def _wrong(rule: str, got: object, remedy: str) -> ExperimentError:
    return ExperimentError(rule, got=got, remedy=remedy)


def _check(node: ast.expr, text: str, depth: int) -> None:
    """Refuse what `evaluate` does not know in a part of the expression `text`."""
    if depth == 0:
        raise _wrong(f"is nested {_DEEPEST} deep at most", repr(text), "make it simpler")
    inner: list[ast.expr] = []
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            if abs(number) > 1e30 or not math.isfinite(number):
                raise _wrong("holds numbers up to 1e30", repr(text), "write a smaller one")
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise _wrong(f"knows no {name!r}", repr(text), f"write {name}(...)")
            if name not in NAMES:
                raise _wrong(f"knows no {name!r}", repr(text), nearest(name, NAMES))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            inner = [left, right]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            inner = [operand]
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            inner = [left, right]
        case ast.Call(func=ast.Name(id=name), args=inner, keywords=[]):
            if name not in FUNCTIONS:
                raise _wrong(f"has no function {name!r}", repr(text), nearest(name, FUNCTIONS))
            if len(inner) != FUNCTIONS[name]:
                rule, got = f"{name} takes {FUNCTIONS[name]}", f"{len(inner)} in {text!r}"
                raise _wrong(rule, got, "give it as many")
        case _:
            got = f"{ast.unparse(node)!r} in {text!r}"
            raise _wrong("is arithmetic of truth and forecast", got, f"write {_EXAMPLE}, say")
    for part in inner:
        _check(part, text, depth - 1)


def evaluate(
    tree: ast.expr,
    names: Mapping[str, Any],
    functions: Mapping[str, Callable[..., Any]],
    number: Callable[[float], Any] = float,
) -> Any:
    """Return the value of an expression.

    Args:
        tree: from `parse`.
        names: arrays by `NAMES`.
        functions: by `FUNCTIONS`, of such arrays.
        number: converts a number into the type of the arrays.
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


def is_user_code(value: Any) -> bool:
    """Return whether a text is meant as user code: a function or an expression."""
    return isinstance(value, str) and any(sign in value for sign in ":(-*/+<>=")


def parse_user_code(text: str) -> str:
    """Return `package.module:function`, or an expression with one number as its value.

    Raises:
        ExperimentError: it is neither.
    """
    if is_reference(text):
        return text
    tree = parse(text)
    if _has_many(tree):
        raise _wrong("must have one number as its value", repr(text), f"write mean({text}), say")
    if not any(isinstance(node, ast.Name) and node.id == "forecast" for node in ast.walk(tree)):
        raise _wrong("must measure the forecast", repr(text), "write forecast in it")
    return text


def _has_many(node: ast.AST) -> bool:
    """Return whether a part of an expression has a value for every forecast."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id not in REDUCING and any(map(_has_many, node.args))
    if isinstance(node, ast.Name):
        return True
    return any(map(_has_many, ast.iter_child_nodes(node)))
