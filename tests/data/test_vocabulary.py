"""Vocabularies, and decoded texts."""

import itertools

import numpy as np
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.vocabulary import Vocabulary, beam_search, cut, first_outside, number_classes


def column(*texts):
    return np.array(texts, dtype=object)


def test_tokens_are_numbered_from_two_in_sorted_order():
    known = Vocabulary.of("banana")
    assert known.tokens == ("a", "b", "n")
    assert (known.size, len(known)) == (3, 5)
    assert known.encode(column(*"nab", "c", "A", "")).tolist() == [4, 2, 3, 1, 1, 1]


@given(train=st.lists(st.text(max_size=3), min_size=1), other=st.lists(st.text(max_size=3)))
def test_every_known_token_has_a_number_of_its_own(train, other):
    known = Vocabulary.of(train)
    numbers = dict(zip(train, known.encode(column(*train)).tolist(), strict=True))
    assert sorted(numbers.values()) == list(range(2, len(known)))
    assert sorted(numbers, key=lambda token: numbers[token]) == sorted(numbers)
    encoded = known.encode(column(*other))
    assert encoded.dtype == np.int64
    assert encoded.tolist() == [numbers.get(t, 1) for t in other]


def test_an_older_model_accepts_all_numbers_below_its_size():
    known = Vocabulary.of_numbers(1000)
    assert len(known) == 1002
    assert known.encode(column("0", "7", "999", "007")).tolist() == [2, 9, 1001, 9]


def test_a_numeric_token_may_have_leading_zeros():
    known = Vocabulary.of(column("10", "7", "007"), numbered=True)
    assert known.tokens == ("10", "7")
    assert known.encode(column("7", "0007", "010", "8")).tolist() == [3, 3, 2, 1]
    assert Vocabulary.of(column("7", "007")).size == 2
    assert first_outside(column("0", "999", "007"), 1000) is None


@given(
    tokens=st.lists(st.sampled_from("abcdef")),
    min_count=st.integers(1, 5),
    most=st.none() | st.integers(1, 6),
)
def test_the_most_frequent_tokens_are_known(tokens, min_count, most):
    known = Vocabulary.of(tokens, min_count=min_count, most=most)
    often = {token for token in tokens if tokens.count(token) >= min_count}
    assert len(known.tokens) == min(len(often), most or len(often))
    assert set(known.tokens) <= often
    for left_out in often - set(known.tokens):
        for kept in known.tokens:
            of_both = tokens.count(kept), tokens.count(left_out)
            assert of_both[0] > of_both[1] or (of_both[0] == of_both[1] and kept < left_out)


@pytest.mark.parametrize("bad", ["1000", "-1", "1.5", "2.0", "x", "", "٣", "9" * 30])
def test_a_token_that_is_no_number_below_the_size_is_found(bad):
    assert first_outside(column("5", bad, "6", bad), 1000) == 1


def test_a_text_splits_into_characters_or_lower_case_words():
    assert cut("Ab ß", "character") == ["A", "b", " ", "ß"]
    assert cut("  The the\tSTRASSE straße\n", "word") == ["the", "the", "strasse", "strasse"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),  # numbers as numbers
        (["1", "1.0", "2.", "01"], ("1", "2")),
        (["10", "9", "x"], ("10", "9", "x")),  # texts as texts
        (["True", "False"], ("False", "True")),
        (["1.5", "a"], ("1.5", "a")),
        (["NA", "None", "null"], ("NA", "None", "null")),
        (["9" * 400, "8"], ("8", "9" * 400)),
    ],
)
def test_classes_are_in_order(labels, classes):
    found, numbers = number_classes(labels)
    assert found == classes
    assert numbers.dtype == np.int64
    assert set(numbers.tolist()) == set(range(len(classes)))
    again, same = number_classes([found[i] for i in numbers])
    assert (again, same.tolist()) == (found, numbers.tolist())


def test_a_fraction_is_no_class():
    with pytest.raises(ValueError, match=r"^2\.50$"):
        number_classes(["1", "3.0", "2.50", "7.1"])


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


@settings(max_examples=examples(40))
@given(seed=st.integers(0, 999), longest=st.integers(1, 3))
def test_a_wide_beam_says_the_most_probable_of_all(seed, longest):
    next_logits = random_logits(seed)
    found = beam_search(next_logits, 3, tokens=TOKENS, longest=longest, width=40)
    every = [s for n in range(longest + 1) for s in itertools.product((2, 3), repeat=n)]
    for i in range(3):
        best = max(every, key=lambda said: log_probability(next_logits, i, said, longest))
        assert found[i].tolist() == [*best, *[0] * (longest - len(best))]


@settings(max_examples=examples(40))
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
