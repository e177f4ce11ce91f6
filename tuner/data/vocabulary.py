"""Numbers for texts: of tokens, and of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.data.tables import refusal

if TYPE_CHECKING:
    from tuner.experiment.data import Data

__all__ = [
    "UNKNOWN",
    "Vocabulary",
    "cut",
    "first_outside",
    "known_tokens",
    "number_classes",
    "written_text",
]

UNKNOWN = 1
"""The number of every token that has none of its own; 0 pads."""

_FIRST = 2
_TOKEN_ID = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]*)?")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that have a number of their own; every other one is `UNKNOWN`."""

    tokens: tuple[str, ...]  # sorted; () where all numbers below the size have one
    size: int  # without padding and the unknown token
    numbered: bool = False  # whether tokens are whole numbers, so that 007 is 7

    @classmethod
    def of(
        cls,
        tokens: Iterable[str],
        *,
        min_count: int = 1,
        most: int | None = None,
        numbered: bool = False,
    ) -> Vocabulary:
        """Return the vocabulary of the training part's tokens.

        Args:
            tokens: all of them, each as often as it occurs.
            min_count: a token that occurs fewer times has no number of its own.
            most: tokens at most, the most frequent ones; of equally frequent ones the first in
                sorted order.
            numbered: whether they are whole numbers.
        """
        counts = Counter(map(_as_number, tokens) if numbered else tokens)
        known = [token for token, count in counts.items() if count >= min_count]
        kept = tuple(sorted(sorted(known, key=lambda token: (-counts[token], token))[:most]))
        return cls(kept, len(kept), numbered)

    @classmethod
    def of_numbers(cls, size: int) -> Vocabulary:
        """Return the vocabulary of the tokens 0 to `size` - 1, seen in training or not.

        Models of earlier versions have it.
        """
        return cls((), size, numbered=True)

    def __len__(self) -> int:
        return self.size + _FIRST

    def encode(self, tokens: np.ndarray) -> np.ndarray:
        """Return the tokens' numbers, (rows,) int64, of the tokens, (rows,) of str."""
        if self.numbered and not self.tokens:
            return tokens.astype(np.int64) + _FIRST
        if self.numbered:
            codes, unique = pd.factorize(tokens)
            tokens = np.array([_as_number(token) for token in unique], dtype=object)[codes]
        # The place of a token that is not found is -1, which becomes UNKNOWN.
        places = pd.Index(self.tokens, dtype=object).get_indexer(pd.Index(tokens, dtype=object))
        return places.astype(np.int64) + _FIRST


def first_outside(tokens: np.ndarray, size: int) -> int | None:
    """Return the place of the first token, (rows,) of str, that is no whole number below a size."""
    codes, unique = pd.factorize(tokens)
    inside = [bool(_TOKEN_ID.fullmatch(t)) and int(t) < size for t in unique]
    outside = np.flatnonzero(~np.array(inside, bool)[codes])
    return int(outside[0]) if len(outside) else None


def _as_number(token: str) -> str:
    return str(int(token))


def cut(text: str, level: str) -> list[str]:
    """Cut a text into its characters as they are, or into its words.

    A word is what stands between white space, small letters and capitals being the same.
    """
    return list(text) if level == "character" else text.casefold().split()


def written_text(numbers: np.ndarray, vocabulary: Vocabulary, level: str) -> str:
    """Return the text that known tokens are, (n,), as `cut` cuts it; padding is no token."""
    tokens = [vocabulary.tokens[n - _FIRST] for n in numbers.tolist() if n >= _FIRST]
    return ("" if level == "character" else " ").join(tokens)


def known_tokens(tokens: np.ndarray, data: Data, file: Path) -> Vocabulary:
    """Return the vocabulary of the training part's tokens, (rows,) of str.

    Raises:
        DataError: no token is frequent enough.
    """
    known = Vocabulary.of(
        tokens,
        min_count=data.min_count,
        most=data.max_vocabulary,
        numbered=data.vocabulary_size is not None,
    )
    if not known.size:
        text = f"every token of the training part occurs fewer than {data.min_count} times"
        raise refusal(file, "data.min_count", f"{text}, so all are unknown; make it smaller")
    return known


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
