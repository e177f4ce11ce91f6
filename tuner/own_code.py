"""Code of one's own, by its name: `package.module:name`, of what is installed.

Whoever runs it imports it: a worker, or a process that looks at it beforehand. A metric is also
tried by the check of an experiment, in its process.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any

from tuner.errors import InputError, nearest, one_line

__all__ = ["ALLOW", "allow", "is_allowed", "is_reference", "load_object", "reference_of"]

ALLOW = "TUNER_ALLOW_CODE"
"""Is set by `--allow-code`, and inherited by workers."""

_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(value: Any) -> bool:
    """Return whether a value is written as `package.module:name`."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def reference_of(name: str, group: str) -> str | None:
    """Return what an installed package calls by a name in a group of entry points; None for none.

    Nothing is imported.
    """
    found = list(importlib.metadata.entry_points(group=group, name=name))
    return found[0].value if found else None


def allow() -> None:
    """Have this process and those that it starts import what is not installed, or not trusted."""
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
            raise InputError(_not_installed(lacks, reference)) from None
        text = f"cannot be imported, got {reference!r}: {type(error).__name__}: {one_line(error)}"
        raise InputError(f"{text}; correct {module_name}") from None
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        near = nearest(name, known).partition("; choose from")[0] or "; name one that it has"
        raise InputError(f"{module_name} has no {name!r}, got {reference!r}{near}")
    return getattr(module, name)


def _check_place(top: str, reference: str) -> None:
    """Refuse a module that is found nowhere, or in the current folder alone."""
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
        raise InputError(_not_installed(top, reference))
    found_here = (spec is None and lies_here) or here.resolve() in places
    if found_here and not is_allowed():
        raise InputError(
            f"nothing is imported from the current folder, where {top!r} lies, got {reference!r}; "
            f"install it (pip install), or add --allow-code"
        )


def _not_installed(module: str, reference: str) -> str:
    return f"no module {module!r} is installed, got {reference!r}; pip install what it is of"
