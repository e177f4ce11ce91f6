"""Prediction with an exported model: it needs numpy, pandas and onnxruntime, and no torch."""

from tuner.prediction.model import Model, load_model
from tuner.prediction.predictors import PredictionWarning

__all__ = ["Model", "PredictionWarning", "load_model"]
