"""What is said beside a prediction that could be made."""

from __future__ import annotations

__all__ = ["PredictionWarning"]


class PredictionWarning(UserWarning):
    """Part of the data could not be predicted, or is not as the model knows it."""
