"""Decoding: the most probable sequence of tokens, searched token by token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tuner.data.vocabulary import UNKNOWN

__all__ = ["NextLogits", "beam_search"]

NextLogits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the numbers of sequences, (n,), and what was said of each so far, (n, steps) tokens of which
the first is the begin, to the logits of what comes next, (n, tokens)."""


def beam_search(
    next_logits: NextLogits, n: int, *, tokens: int, longest: int, width: int
) -> np.ndarray:
    """Say something of each of `n` sequences.

    Beam search (Sutskever et al. 2014, "Sequence to Sequence Learning with Neural Networks",
    section 3.2): of all that could be said so far the `width` most probable are kept, until the
    most probable one has ended. With a width of 1 it is greedy decoding. Equally probable ones
    are taken in the order of their tokens.

    Args:
        next_logits: of a model.
        n: sequences.
        tokens: that a model can say: 0 pads and 1 is unknown, which are never said, and the last
            two are begin and end.
        longest: tokens that are said at most; then it ends.
        width: of the beam.

    Returns:
        (n, longest) int64, padded with 0.
    """
    begin, end = tokens - 2, tokens - 1
    never = np.array([0, UNKNOWN, begin])
    said = np.full((n, width, 1), begin)
    scores = np.full((n, width), -np.inf)
    scores[:, 0] = 0.0  # all begin alike: one of them goes on
    for step in range(longest + 1):
        ended = said[:, :, -1] == end
        going = np.flatnonzero(~ended[:, 0])  # those whose best has ended are done
        if not len(going):
            break
        of, beam = np.nonzero(~ended[going] & np.isfinite(scores[going]))
        of = going[of]
        logits = next_logits(of, said[of, beam])
        logs = _log_softmax(_without(logits, never))
        if step == longest:
            logs = np.where(np.arange(tokens) == end, 0.0, -np.inf)[None].repeat(len(of), axis=0)
        after = np.full((n, width, tokens), -np.inf)
        after[..., end] = np.where(ended, scores, -np.inf)  # what has ended stays as it is
        after[of, beam] = scores[of, beam][:, None] + logs
        flat = after[going].reshape(len(going), -1)
        best = np.argsort(-flat, axis=1, kind="stable")[:, :width]
        source, token = best // tokens, best % tokens
        grown = np.full((n, width, step + 2), end)
        grown[:, :, : step + 1] = said
        grown[going] = np.concatenate([said[going[:, None], source], token[..., None]], axis=2)
        scores[going] = np.take_along_axis(flat, best, axis=1)
        said = grown
    found = np.zeros((n, longest), np.int64)
    best = said[:, 0, 1 : longest + 1]
    found[:, : best.shape[1]] = np.where(best == end, 0, best)
    return found


def _without(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    kept = logits.astype(np.float64)
    kept[:, tokens] = -np.inf
    return kept


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the logarithms of probabilities, (n, tokens), float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
