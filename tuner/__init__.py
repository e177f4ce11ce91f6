"""Hyperparameter search for LSTM models."""

__version__ = "0.1.0"
