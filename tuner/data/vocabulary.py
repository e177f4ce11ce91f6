"""Integers for categories, classes and tokens; beam search over tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tuner.errors import refusal
from tuner.tables.table import RawTable

if TYPE_CHECKING:
    from tuner.experiment.data import Data

Levels = Mapping[str, tuple[str, ...]]  # of each column the texts of its categories
_SHOWN = 6  # categories at most
_LONGEST = 30  # characters of one that are shown
_MANY = 0.5  # of the rows of the training part have a category of their own: probably none


def codes_of(table: RawTable, names: Sequence[str]) -> tuple[dict[str, np.ndarray], Levels]:
    """Return columns as codes, (rows,) float64, nan where a cell is empty, and their categories.

    A category is a string of the file. True, TRUE and true are the same one.
    """
    columns, levels = {}, {}
    strings = table.raw_strings(names)
    for name in names:
        codes, found = pd.factorize(strings[name])
        texts = [t.lower() if t.lower() in ("true", "false") else t for t in map(str, found)]
        empty = {"", *(table.dialect.missing_values or ())}
        again, unique = pd.factorize(np.array(texts, dtype=object))
        of_texts = np.where([t in empty for t in texts], np.nan, again)  # (texts,)
        columns[name], levels[name] = of_texts[codes], tuple(map(str, unique))
    return columns, levels


def merged(
    codes: np.ndarray, own: tuple[str, ...], of: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return codes of `own` levels as codes of the levels `of`, and these with the others added."""
    together = tuple(dict.fromkeys([*of, *own]))
    place = {text: at for at, text in enumerate(together)}
    return _looked_up(codes, np.array([place[t] for t in own], np.float64), np.nan), together


def known_levels(codes: np.ndarray, levels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the categories of some rows, sorted.

    Args:
        codes: (rows,), nan for none.
        levels: the category of each code.
    """
    return tuple(sorted(levels[code] for code in np.unique(codes[~np.isnan(codes)]).astype(int)))


def numbered(codes: np.ndarray, levels: tuple[str, ...], known: Sequence[str]) -> np.ndarray:
    """Return the number of each row's category, (rows,) float32: 0 is unknown, or none.

    Args:
        codes: (rows,), nan for none.
        levels: the category of each code.
        known: categories in the order of their numbers, which begin at 1.
    """
    number = {text: place for place, text in enumerate(known, start=1)}
    numbers = np.array([number.get(text, 0) for text in levels], np.float64)
    return _looked_up(codes, numbers, 0.0).astype(np.float32)


def categories_in(codes: np.ndarray, levels: tuple[str, ...], known: Sequence[str]) -> list[str]:
    """Return the categories of some rows that are not known, sorted."""
    return sorted(set(known_levels(codes, levels)) - set(known))


def notes_of_categories(
    names: Sequence[str], codes: np.ndarray, levels: Levels, rows: np.ndarray, series: str | None
) -> Iterator[tuple[str, str]]:
    """Yield notes on the categories of the training part, and on those of later rows alone.

    Args:
        codes: (rows, columns).
        levels: the category of each code.
        series: the column that names the series of a row; None for none.
    """
    counts, later, suspect = [], [], []
    for name, column in zip(names, codes.T, strict=True):
        known = known_levels(column[rows], levels[name])
        counts.append(f"{name} ({len(known)})")
        if unknown := categories_in(column, levels[name], known):
            later.append(f"{name} {shown(unknown)}")
        if name != series and len(known) > max(_SHOWN, _MANY * len(rows)):
            text = f"{name!r} has {len(known)} categories in {len(rows)} rows of the training part"
            question = "is it one of numbers or of texts? If so, leave it out"
            suspect.append(("suspect", f"{text}: {question}"))
    if counts:
        text = ", ".join(counts)
        if later:
            text += f"; unknown, as the training part does not hold them: {'; '.join(later)}"
        yield "categories", text
    yield from suspect


def shown(categories: Sequence[str]) -> str:
    """Return the first categories as text."""
    short = [t if len(t) <= _LONGEST else f"{t[:_LONGEST]}..." for t in categories[:_SHOWN]]
    more = f" and {len(categories) - _SHOWN} more" if len(categories) > _SHOWN else ""
    return ", ".join(map(repr, short)) + more


def _looked_up(codes: np.ndarray, values: np.ndarray, otherwise: float) -> np.ndarray:
    """Return the value at each code, (rows,); `otherwise` for nan."""
    none = np.isnan(codes)
    if not len(values):
        return np.full(len(codes), otherwise)
    return np.where(none, otherwise, values[np.where(none, 0, codes).astype(np.int64)])


UNKNOWN = 1  # the number of every token that has none of its own; 0 pads
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
            most: tokens at most, the most frequent ones; of equally frequent ones the first in
                sorted order.
        """
        counts = Counter(map(_as_number, tokens) if numbered else tokens)
        known = [token for token, count in counts.items() if count >= min_count]
        kept = tuple(sorted(sorted(known, key=lambda token: (-counts[token], token))[:most]))
        return cls(kept, len(kept), numbered)

    @classmethod
    def of_numbers(cls, size: int) -> Vocabulary:
        """Return the vocabulary of the tokens 0 to `size` - 1, as in models of earlier versions."""
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
    """Return the characters of a text, or its words in small letters, split at white space."""
    return list(text) if level == "character" else text.casefold().split()


def written_text(numbers: np.ndarray, vocabulary: Vocabulary, level: str) -> str:
    """Return the text of known tokens, (n,), which `cut` would split into these."""
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
        rule = f"every token of the training part occurs fewer than {data.min_count} times, so all "
        raise refusal(file, "data.min_count", f"{rule}are unknown", remedy="make it smaller")
    return known


def number_classes(labels: Iterable[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the classes in order, and the number of each label's class: (labels,) int64.

    Whole numbers are in the order of numbers, and 1.0 is 1; others are in the order of texts.

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


def check_classes(
    path: Path, name: str, column: np.ndarray, place: Callable[[int], str], change: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return `number_classes` of a column of targets, (rows,) of str; refuse other columns.

    `place` gives the place of a row, `change` is the remedy for numbers that are no classes.
    """
    try:
        classes, numbers = number_classes(column[column != ""])
    except ValueError as error:
        rule = f"column {name!r} must hold classes: texts or whole numbers"
        got = f"{error} in {place(int(np.flatnonzero(column == str(error))[0]))}"
        raise refusal(path, "data.target", rule, got, "write a class there", change) from None
    if len(classes) < 2:
        rule = f"column {name!r} must hold two classes or more"
        got = f"only {classes[0]!r}" if classes else "none"
        raise refusal(path, "data.target", rule, got, change="choose another column")
    return classes, numbers


# From the numbers of sequences, (n,), and their output so far, (n, steps) tokens from the begin on,
# to the logits of the next token, (n, tokens).
NextLogits = Callable[[np.ndarray, np.ndarray], np.ndarray]


def beam_search(
    next_logits: NextLogits, n: int, *, tokens: int, longest: int, width: int
) -> np.ndarray:
    """Decode an output for each of `n` sequences.

    Beam search (Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks",
    section 3.2): the `width` most probable outputs so far are kept, until the most probable one has
    ended. With a width of 1 it is greedy decoding. Ties are in the order of tokens.

    Args:
        tokens: the number of output tokens: 0 pads and 1 is unknown, which are never decoded, and
            the last two are begin and end.

    Returns:
        (n, longest) int64, padded with 0.
    """
    begin, end = tokens - 2, tokens - 1
    never = np.array([0, UNKNOWN, begin])
    decoded = np.full((n, width, 1), begin)
    scores = np.full((n, width), -np.inf)
    scores[:, 0] = 0.0  # all begin alike: one of them is extended
    for step in range(longest + 1):
        ended = decoded[:, :, -1] == end
        going = np.flatnonzero(~ended[:, 0])  # those whose best has ended are done
        if not len(going):
            break
        of, beam = np.nonzero(~ended[going] & np.isfinite(scores[going]))
        of = going[of]
        logits = next_logits(of, decoded[of, beam])
        logits = logits.astype(np.float64)
        logits[:, never] = -np.inf
        logs = _log_softmax(logits)
        if step == longest:
            logs = np.where(np.arange(tokens) == end, 0.0, -np.inf)[None].repeat(len(of), axis=0)
        after = np.full((n, width, tokens), -np.inf)
        after[..., end] = np.where(ended, scores, -np.inf)  # what has ended stays as it is
        after[of, beam] = scores[of, beam][:, None] + logs
        flat = after[going].reshape(len(going), -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :width]
        source, token = best // tokens, best % tokens
        grown = np.full((n, width, step + 2), end)
        grown[:, :, : step + 1] = decoded
        grown[going] = np.concatenate([decoded[going[:, None], source], token[..., None]], axis=2)
        scores[going] = np.take_along_axis(flat, best, axis=1)
        decoded = grown
    found = np.zeros((n, longest), np.int64)
    best = decoded[:, 0, 1 : longest + 1]
    found[:, : best.shape[1]] = np.where(best == end, 0, best)
    return found


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
