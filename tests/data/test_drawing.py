import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data.sequence_table import Draw, check_labels, draw_sequences
from tuner.errors import DataError
from tuner.experiment import Split


def draw(n, labels=None, names=None, **split):
    return draw_sequences(
        np.arange(n) if names is None else np.array(names, dtype=object),
        Split(**split),
        file="s.csv",
        labels=None if labels is None else np.array(labels),
        classes=() if labels is None else tuple("abcdefgh"[: max(labels) + 1]),
    )


def parts(drawn):
    return {name: part.tolist() for name, part in drawn.named().items()}


def assert_refused(*told, n, **arguments):
    with pytest.raises(DataError) as caught:
        draw(n, **arguments)
    message = str(caught.value)
    assert message.startswith("s.csv: data.")
    assert "\n" not in message
    assert [t for t in told if t not in message] == [], message


extents = st.one_of(st.integers(1, 30), st.floats(0.01, 0.7).map(lambda x: round(x, 2)))


@settings(deadline=None)  # scikit-learn is imported once
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    stratified=st.booleans(),
    validation=extents,
    test=extents,
    seed=st.integers(0, 2**70),
)
def test_every_sequence_is_in_one_part_or_the_draw_is_refused(
    labels, stratified, validation, test, seed
):
    n, asked = len(labels), {"validation": validation, "test": test, "seed": seed}
    strata = labels if stratified and set(labels) == set(range(max(labels) + 1)) else None
    try:
        drawn = draw(n, strata, **asked)
    except DataError:
        return
    found = parts(drawn)
    assert sorted(i for part in found.values() for i in part) == list(range(n))
    assert all(part == sorted(part) and part for part in found.values())
    for name in ("validation", "test"):
        extent = asked[name]
        size = extent if isinstance(extent, int) else extent * n
        assert abs(len(found[name]) - size) <= 0.5 + 1e-9
    assert parts(draw(n, strata, **asked)) == found  # the same seed, the same parts
    if strata is None:
        return
    counts = np.bincount(strata)
    for part in drawn.named().values():
        of_class = np.bincount(np.array(strata)[part], minlength=len(counts))
        assert (of_class >= 1).all()
        assert (np.abs(of_class - counts * len(part) / n) < 2).all()  # its share, of two draws


def test_another_seed_draws_other_sequences():
    found = {tuple(draw(50, seed=seed).test) for seed in range(20)}
    assert len(found) == 20


def test_the_parts_of_a_seed_are_stable_across_versions():
    assert parts(draw(10, validation=2, test=2)) == {
        "training": [0, 1, 2, 7, 8, 9], "validation": [3, 5], "test": [4, 6],
    }  # fmt: skip
    assert parts(draw(12, [0, 1, 2] * 4, validation=3, test=3)) == {
        "training": [2, 3, 5, 6, 7, 10], "validation": [0, 4, 11], "test": [1, 8, 9],
    }  # fmt: skip


def test_halves_are_rounded_up_as_they_are_written():
    assert [len(draw(n, validation=1, test=0.15).test) for n in (10, 30, 144)] == [2, 5, 22]
    assert len(draw(100, validation=1, test=0.145).test) == 15


@settings(deadline=None)
@given(order=st.permutations(range(20)), stratified=st.booleans())
def test_the_order_of_sequences_with_ids_does_not_matter(order, stratified):
    names, labels = [f"s{i}" for i in range(20)], [i % 3 for i in range(20)]
    here = draw(20, labels if stratified else None, names)
    moved = [labels[i] for i in order]
    there = draw(20, moved if stratified else None, [names[i] for i in order])
    for part, other in zip(here.named().values(), there.named().values(), strict=True):
        assert {names[i] for i in part} == {names[order[i]] for i in other}


@settings(deadline=None)
@given(seed=st.integers(0, 100), validation=st.integers(3, 20))
def test_the_test_part_is_the_same_whatever_is_validated_on(seed, validation):
    labels = [i % 3 for i in range(40)]
    first = draw(40, labels, seed=seed, test=6, validation=3)
    assert draw(40, labels, seed=seed, test=6, validation=validation).test.tolist() == (
        first.test.tolist()
    )


def test_parts_that_are_too_small_are_refused():
    told = ["data.split: ", "no sequence is left", "validation takes 6 and test 4 of 10"]
    assert_refused(*told, "smaller", n=10, validation=6, test=4)
    assert_refused("test 12 of 10", n=10, validation=6, test=12)
    for name, other in (("validation", "test"), ("test", "validation")):
        told = [f"data.split.{name}: ", "at least 1 sequence, got 0 of 20", "larger"]
        assert_refused(*told, n=20, **{name: 0.01, other: 2})


def test_a_class_with_too_few_sequences_is_refused_by_name():
    labels = [0] * 20 + [1] * 2
    told = ["data.target: ", "got 2 of class 'b'", "give more of it, or remove it"]
    assert_refused(*told, n=22, labels=labels, validation=4, test=4)
    labels = [0] * 100 + [1] * 3
    told = ["data.split.test: ", "of the 3 sequences of class 'b'", "got none at 0.05", "larger"]
    assert_refused(*told, n=103, labels=labels, test=0.05)
    told = ["data.split.validation: ", "of class 'b'", "got none at 3", "larger"]
    assert_refused(*told, n=103, labels=labels, test=0.4, validation=3)
    told = ["data.split.test: ", "of class 'b'", "one for each other part", "got 0 left at 0.9"]
    assert_refused(*told, n=103, labels=labels, test=0.9, validation=3)


def test_a_part_with_fewer_sequences_than_classes_is_refused():
    labels = [0, 1, 2] * 10
    for name, other in (("validation", "test"), ("test", "validation")):
        told = [f"data.split.{name}: ", "each of the 3 classes, got 2", "make it larger"]
        assert_refused(*told, n=30, labels=labels, **{name: 2, other: 6})
    told = ["data.split: ", "the training part", "3 classes, got 2 sequences", "smaller"]
    assert_refused(*told, n=30, labels=labels, validation=14, test=14)


def test_a_step_class_absent_from_training_is_refused():
    bounds, labels = np.array([[0, 2], [2, 4], [4, 5]]), np.array([0, 1, 1, 2, 2])
    drawn = Draw(np.array([0]), np.array([1]), np.array([2]))
    with pytest.raises(DataError, match=r"^s.csv: data.target: .*got 'z' in validation or test"):
        check_labels(drawn, bounds, labels, ("x", "y", "z"), "s.csv")
    check_labels(drawn, bounds, np.array([0, 1, 1, 0, 0]), ("x", "y"), "s.csv")
