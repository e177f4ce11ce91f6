"""Decoding token by token: what is said is the most probable of all that could be."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.vocabulary import beam_search

TOKENS = 6  # 0 pads, 1 is unknown, 2 and 3 are said, 4 begins, 5 ends


def random_logits(seed):
    """Logits that depend on the sequence and on all that was said of it."""

    def next_logits(of, prefix):
        assert (prefix[:, 0] == 4).all()
        assert np.isin(prefix[:, 1:], [2, 3]).all()  # of what has ended nothing is asked
        rows = [
            np.random.default_rng([seed, int(i), *row]).normal(scale=2, size=TOKENS)
            for i, row in zip(of, prefix.tolist(), strict=True)
        ]
        return np.array(rows)

    return next_logits


def log_probability(next_logits, i, said, longest):
    total = 0.0
    for step in range(len(said) + 1):
        if step == longest:
            break  # the end is certain
        logits = next_logits(np.array([i]), np.array([[4, *said[:step]]]))[0][[2, 3, 5]]
        token = [2, 3, 5].index(said[step] if step < len(said) else 5)
        total += logits[token] - np.log(np.exp(logits).sum())
    return total


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), longest=st.integers(1, 3))
def test_a_wide_beam_says_the_most_probable_of_all(seed, longest):
    next_logits = random_logits(seed)
    found = beam_search(next_logits, 3, tokens=TOKENS, longest=longest, width=40)
    every = [s for n in range(longest + 1) for s in itertools.product((2, 3), repeat=n)]
    for i in range(3):
        best = max(every, key=lambda said: log_probability(next_logits, i, said, longest))
        assert found[i].tolist() == [*best, *[0] * (longest - len(best))]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), longest=st.integers(1, 6))
def test_a_beam_of_one_takes_the_most_probable_token_each_time(seed, longest):
    next_logits = random_logits(seed)
    found = beam_search(next_logits, 4, tokens=TOKENS, longest=longest, width=1)
    for i in range(4):
        said = []
        while len(said) < longest:
            logits = next_logits(np.array([i]), np.array([[4, *said]]))[0]
            token = max((2, 3, 5), key=lambda t: logits[t])
            if token == 5:
                break
            said.append(token)
        assert found[i].tolist() == [*said, *[0] * (longest - len(said))]


@given(seed=st.integers(0, 99), width=st.integers(1, 5))
def test_what_is_said_of_a_text_depends_on_no_other(seed, width):
    together = beam_search(random_logits(seed), 5, tokens=TOKENS, longest=4, width=width)

    def alone(i):
        of_one = random_logits(seed)
        return beam_search(
            lambda of, prefix: of_one(of + i, prefix), 1, tokens=TOKENS, longest=4, width=width
        )[0]

    assert together.tolist() == [alone(i).tolist() for i in range(5)]


@pytest.mark.parametrize("width", [1, 4])
def test_neither_padding_nor_unknown_nor_begin_is_said(width):
    def tempting(of, prefix):
        return np.tile([9.0, 9.0, 1.0, 0.0, 9.0, -9.0], (len(of), 1))

    assert beam_search(tempting, 2, tokens=TOKENS, longest=3, width=width).tolist() == [[2] * 3] * 2
