"""Numbers for texts: of tokens, and of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["Vocabulary", "cut", "number_classes"]

_FIRST = 2  # 0 pads, 1 is a token that the training part does not hold
_TOKEN_ID = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that have a number of their own: a list of them, or all numbers below a size."""

    tokens: tuple[str, ...]  # sorted; () where tokens are numbers
    size: int  # without padding and the unknown token

    @classmethod
    def of(cls, tokens: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of the training part's tokens."""
        known = tuple(sorted(set(tokens)))
        return cls(known, len(known))

    @classmethod
    def of_numbers(cls, size: int) -> Vocabulary:
        """Return the vocabulary of the tokens 0 to `size` - 1, which needs no training part."""
        return cls((), size)

    def __len__(self) -> int:
        return self.size + _FIRST

    def first_outside(self, tokens: np.ndarray) -> int | None:
        """Return the place of the first token, (rows,) of str, that is no number below the size."""
        codes, unique = pd.factorize(tokens)
        inside = [bool(_TOKEN_ID.fullmatch(t)) and int(t) < self.size for t in unique]
        outside = np.flatnonzero(~np.array(inside, bool)[codes])
        return int(outside[0]) if len(outside) else None

    def encode(self, tokens: np.ndarray) -> np.ndarray:
        """Return the tokens' numbers, (rows,) int64, of the tokens, (rows,) of str."""
        if not self.tokens:
            return tokens.astype(np.int64) + _FIRST
        # The place of a token that is not found is -1, which becomes 1: unknown.
        places = pd.Index(self.tokens, dtype=object).get_indexer(pd.Index(tokens, dtype=object))
        return places.astype(np.int64) + _FIRST


def cut(text: str, level: str) -> list[str]:
    """Cut a text into its characters as they are, or into its words.

    A word is what stands between white space, small letters and capitals being the same.
    """
    return list(text) if level == "character" else text.casefold().split()


def number_classes(labels: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes in order, and the number of each label's class: (labels,) int64.

    Where every label is a whole number they are in the order of numbers, and 1.0 is 1; else
    they are in the order of texts.

    Raises:
        ValueError: all are numbers, and the one in the error's argument is not whole.
    """
    codes, unique = pd.factorize(np.array(list(labels), dtype=object))
    names = [str(label) for label in unique]
    numeric = all(map(_NUMBER.fullmatch, names))
    if numeric:
        for label in names:
            if label.partition(".")[2].strip("0"):
                raise ValueError(label)
        names = [str(int(label.partition(".")[0])) for label in names]
    classes = sorted(set(names), key=int if numeric else str)
    place = {name: i for i, name in enumerate(classes)}
    return tuple(classes), np.array([place[name] for name in names], np.int64)[codes]
