"""Prediction with an exported model: it needs numpy, pandas and onnxruntime, and no torch."""

from tuner.prediction.columns import PredictionWarning
from tuner.prediction.model import Model, load_model

__all__ = ["Model", "PredictionWarning", "load_model"]
