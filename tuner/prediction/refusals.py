"""Refusals of data, for who has a trained model and no experiment file to change."""

from __future__ import annotations

import re

from tuner.errors import DataError

__all__ = ["for_a_model"]

_KEY = re.compile(r": data\.(\w+): ")
_OF_TRAINING = re.compile(
    r"\b(data|task|transform)[.:]|choose another column|write a (longer|shorter)|leave it out"
)


def for_a_model(error: DataError) -> DataError:
    """Return the error without the key of an experiment, and without remedies that change one."""
    # What is resampled to is the model's: the text says nothing without it.
    text = _KEY.sub(lambda key: f": {key[1]}: " if key[1] == "resample" else ": ", str(error), 1)
    problem, semicolon, remedy = text.rpartition("; ")
    if not _OF_TRAINING.search(remedy):
        return DataError(text)
    ways = [way for way in re.split(r", or |, ", remedy) if not _OF_TRAINING.search(way)]
    return DataError(f"{problem}{semicolon}{', or '.join(ways) or 'correct the data'}")
