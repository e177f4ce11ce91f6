"""Hyperparameter search for LSTM models; `tuner.library` is the way to it from a program."""

__version__ = "0.1.0"
