"""Hyperparameter search for LSTM models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.errors import InputError, Interrupted, RunError, TunerError
    from tuner.experiment import Experiment
    from tuner.library import load_study, search
    from tuner.study import Study

__version__ = "0.1.0"

__all__ = [
    "Experiment",
    "InputError",
    "Interrupted",
    "RunError",
    "Study",
    "TunerError",
    "__version__",
    "load_study",
    "search",
]

_HOME = {
    "Experiment": "tuner.experiment",
    "InputError": "tuner.errors",
    "Interrupted": "tuner.errors",
    "RunError": "tuner.errors",
    "Study": "tuner.study",
    "TunerError": "tuner.errors",
    "load_study": "tuner.library",
    "search": "tuner.library",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is used: the command line and workers need none of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
