"""Hyperparameter search for LSTM models.

From a program: `from tuner import Experiment, search`. These names come from `tuner.api`,
which is imported when one of them is first used: `tuner --help` and the workers do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api import (
        Best,
        Experiment,
        InputError,
        Interrupted,
        Report,
        RunError,
        Study,
        TunerError,
        load_study,
        search,
    )
    from tuner.forecaster import LSTMForecaster

__version__ = "0.2.0"

__all__ = [
    "Best",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "LSTMForecaster":  # scikit-learn is slow to import
        from tuner.forecaster import LSTMForecaster

        return LSTMForecaster
    from tuner import api as library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
