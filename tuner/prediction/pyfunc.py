"""A model folder as MLflow's `python_function`, which serves it and scores tables with it.

MLflow names this module in the model that it keeps, and calls `_load_pyfunc`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tuner.prediction.model import Model, load_model

__all__ = ["PyFunc"]


class PyFunc:
    """What MLflow calls to predict."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict as `Model.predict` does; the one parameter is `all_windows`."""
        return self._model.predict(model_input, bool((params or {}).get("all_windows", False)))


def _load_pyfunc(path: str) -> PyFunc:
    return PyFunc(load_model(Path(path)))
