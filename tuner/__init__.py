"""Hyperparameter search for LSTM models.

From a program: `from tuner import Experiment, search`. The names are imported when they are first
used: `tuner --help` and the workers do without.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import Best, Report, Study, load_study, search
    from tuner.client import Client
    from tuner.errors import InputError, Interrupted, RunError, TunerError
    from tuner.experiment import Experiment
    from tuner.forecaster import LSTMForecaster

__version__ = "0.2.0"

__all__ = [
    "Best",
    "Client",
    "Experiment",
    "InputError",
    "Interrupted",
    "LSTMForecaster",
    "Report",
    "RunError",
    "Study",
    "TunerError",
    "load_study",
    "search",
]

_ELSEWHERE = {
    "Client": "tuner.client",
    "Experiment": "tuner.experiment",
    "LSTMForecaster": "tuner.forecaster",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "tuner.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
