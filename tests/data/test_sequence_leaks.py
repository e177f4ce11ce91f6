"""Nothing of later sequences reaches training, and how a random split is drawn."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.examples import examples
from helpers.refusals import assert_refused
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuner.data.sequence_table import Draw, check_labels, draw_sequences
from tuner.data.sequences import check_sequences
from tuner.errors import DataError
from tuner.experiment import Experiment, Split

Row = tuple[str, ...]  # the id, what is seen in a step, and the target


@dataclass(frozen=True)
class Case:
    """A file of sequences, and the experiment on it."""

    kind: str
    form: str  # numbers, tokens, ids (tokens that are numbers), or text
    sequences: tuple[tuple[Row, ...], ...]
    data: dict[str, Any]

    def check(self, folder):
        header = {"numbers": "id,a,b,y", "tokens": "id,w,y", "ids": "id,w,y", "text": "w,y"}
        rows = [",".join(row) for sequence in self.sequences for row in sequence]
        path = folder / "sequences.csv"
        path.write_text("\n".join([header[self.form], *rows]) + "\n", encoding="utf-8")
        block = {"path": str(path), "target": "y", **self.data}
        experiment = {"name": "test", "data": block, "task": {"kind": self.kind}}
        return check_sequences(Experiment.model_validate(experiment))

    def with_others(self, members, other):
        """Return the case with other steps in some sequences; classes stay as they are."""
        changed = list(self.sequences)
        for i in members:
            steps, old = other[i], self.sequences[i]
            if self.kind in ("label", "regress_steps"):
                steps = tuple(steps[j % len(steps)] for j in range(len(old)))
            values = self.kind in ("regress", "regress_steps")
            label = [row[-1] for row in (steps if values else old)]
            changed[i] = tuple(
                (
                    *old[0][: self.form != "text"],
                    *row[self.form != "text" : -1],
                    label[j % len(label)],
                )
                for j, row in enumerate(steps)
            )
        return dataclasses.replace(self, sequences=tuple(changed))


def steps_of(form, strange):
    """Return what is seen in the steps of a sequence; strange ones are far from all others."""
    if form == "text":
        letters = st.text("xyzé NA01" if strange else "abcdef", min_size=1, max_size=8)
        return letters.filter(str.strip).map(lambda text: [(text,)])
    if form == "numbers":
        low, high = (1e6, 1e9) if strange else (-9.0, 9.0)
        number = st.floats(low, high).map(repr)
        pair = st.tuples(number, number)
        later = st.tuples(number | st.just(""), number | st.just(""))  # some are missing
        return st.tuples(pair, st.lists(later, max_size=4)).map(lambda t: [t[0], *t[1]])
    tokens = {"tokens": ("2.5", "NA", "x"), "ids": ("7", "8", "9")} if strange else {
        "tokens": ("1", "2", "01"), "ids": ("0", "1", "2")}  # fmt: skip
    return st.lists(st.tuples(st.sampled_from(tokens[form])), min_size=1, max_size=5)


@st.composite
def cases(draw, form=None):
    """A case, and other rows for each of its sequences."""
    kind = draw(st.sampled_from(["regress", "classify", "label", "regress_steps"]))
    each_step = kind in ("label", "regress_steps")
    forms = ["numbers", "tokens", "ids"] + ["text"] * (not each_step)
    form = form or draw(st.sampled_from(forms))
    n_classes = draw(st.integers(2, 3))
    n = draw(st.integers(5 * n_classes, 6 * n_classes))

    def sequence(i, strange):
        steps = draw(steps_of(form, strange))
        values = st.floats(1e6, 1e9) if strange else st.floats(-9.0, 9.0)
        own = {"regress": repr(draw(values)), "classify": f"c{i % n_classes}"}.get(kind)
        of_step = values.map(repr) if kind == "regress_steps" else (
            st.integers(0, n_classes - 1).map(lambda number: f"c{number}"))  # fmt: skip
        ids = () if form == "text" else (f"s{i}",)
        return tuple((*ids, *step, own or draw(of_step)) for step in steps)

    part = st.integers(n_classes, n_classes + 1)
    data = {
        "split": {"validation": draw(part), "test": draw(part), "seed": draw(st.integers(0, 99))},
        "scale": draw(st.sampled_from(["standard", "minmax", "none"])),
        "missing": draw(st.sampled_from(["ffill", "interpolate"])),
    }
    data |= {"text": "w"} if form == "text" else {"id": "id"}
    data |= {"tokens": "w"} if form in ("tokens", "ids") else {}
    data |= {"vocabulary_size": 10} if form == "ids" else {}
    if form != "numbers":
        data["max_vocabulary"] = draw(st.none() | st.integers(1, 3))
    if not each_step:
        data["max_length"] = draw(st.none() | st.integers(1, 3))
    if form == "text":
        data["level"] = draw(st.sampled_from(["character", "word"]))
    case = Case(kind, form, tuple(sequence(i, False) for i in range(n)), data)
    return case, tuple(sequence(i, True) for i in range(n))


def checked(case, folder):
    try:
        return case.check(folder)
    except DataError:  # of a draw that left a class out, say
        assume(False)
        raise


def arrays(prepared):
    return {p.stem: np.load(p) for p in Path(prepared.folds[0].folder).iterdir()}


def contents(prepared):
    return {p.name: p.read_bytes() for p in Path(prepared.folds[0].folder).iterdir()}


def fitted(prepared):
    """Everything that was learned from the training part."""
    ref = dataclasses.replace(prepared.folds[0], folder="")
    return [prepared.pipeline, ref]


def learned_from(prepared):
    """Everything that a model is trained on."""
    found = arrays(prepared)
    bounds = found["bounds"][found["train"]]
    steps = found["tokens"] if "tokens" in found else found["inputs"]
    targets = [found[key] for key in ("truth", "targets") if key in found]
    each_step = prepared.folds[0].shape.each_step
    of_steps, of_sequences = ([steps, *targets], []) if each_step else ([steps], targets)
    return [
        found["train"].tolist(),
        [a[first:end].tolist() for a in of_steps for first, end in bounds],
        [a[found["train"]].tolist() for a in of_sequences],
    ]


thorough = settings(max_examples=examples(150))


@thorough
@given(made=cases(), both=st.booleans())
def test_validation_and_test_sequences_change_nothing_learned(tmp_path_factory, made, both):
    case, other = made
    folder = tmp_path_factory.mktemp("case")
    data = checked(case, folder)
    before = data.write(folder / "before")
    members = np.concatenate(
        [data.draw.validation, data.draw.test] if both else [data.draw.validation]
    )
    after = case.with_others(members, other).check(folder).write(folder / "after")
    assert fitted(after) == fitted(before)
    assert learned_from(after) == learned_from(before)


@thorough
@given(made=cases())
def test_test_sequences_change_nothing_that_is_written(tmp_path_factory, made):
    case, other = made
    folder = tmp_path_factory.mktemp("case")
    data = checked(case, folder)
    before = data.write(folder / "before")
    after = case.with_others(data.draw.test, other).check(folder).write(folder / "after")
    assert fitted(after) == fitted(before)
    assert contents(after) == contents(before)
    assert len(arrays(after)["bounds"]) == len(case.sequences) - len(data.draw.test)


@thorough
@given(made=cases())
def test_the_opened_test_set_is_prepared_as_in_the_search(tmp_path_factory, made):
    case, other = made
    folder = tmp_path_factory.mktemp("case")
    data = checked(case, folder)
    searched = data.write(folder / "search")
    opened = case.with_others(data.draw.test, other).check(folder).write_test(folder / "test")
    assert fitted(opened) == fitted(searched)
    assert learned_from(opened)[1:] == learned_from(searched)[1:]
    found = arrays(opened)
    assert found["evaluate"].tolist() == data.draw.test.tolist()
    assert not set(found["evaluate"]) & set(data.draw.seen)


@thorough
@given(made=cases("numbers"), at=st.integers(0, 99))
def test_a_missing_value_is_filled_within_its_sequence(tmp_path_factory, made, at):
    case, other = made
    case = dataclasses.replace(case, data=case.data | {"max_length": None})  # all steps are read
    folder = tmp_path_factory.mktemp("case")
    data = checked(case, folder)
    row = at % len(data.steps)
    here = int(np.searchsorted(data.bounds[:, 1], row, side="right"))
    others = np.delete(np.arange(len(case.sequences)), here)
    changed = case.with_others(others, other)
    step = row - data.bounds[here, 0]
    later = tuple(
        r if j <= step else (r[0], "5e5", "5e5", r[-1]) for j, r in enumerate(case.sequences[here])
    )
    all_sequences = list(changed.sequences)
    all_sequences[here] = later
    after = dataclasses.replace(changed, sequences=tuple(all_sequences)).check(folder)
    first, first_after = data.bounds[here, 0], after.bounds[here, 0]
    np.testing.assert_array_equal(
        data.steps[first : row + 1], after.steps[first_after : first_after + step + 1]
    )


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


def refused(*told, n, **arguments):
    assert_refused(lambda: draw(n, **arguments), *told, where="s.csv")


extents = st.one_of(st.integers(1, 30), st.floats(0.01, 0.7).map(lambda x: round(x, 2)))


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


@given(order=st.permutations(range(20)), stratified=st.booleans())
def test_the_order_of_sequences_with_ids_does_not_matter(order, stratified):
    names, labels = [f"s{i}" for i in range(20)], [i % 3 for i in range(20)]
    here = draw(20, labels if stratified else None, names)
    moved = [labels[i] for i in order]
    there = draw(20, moved if stratified else None, [names[i] for i in order])
    for part, other in zip(here.named().values(), there.named().values(), strict=True):
        assert {names[i] for i in part} == {names[order[i]] for i in other}


@given(seed=st.integers(0, 100), validation=st.integers(3, 20))
def test_the_test_part_is_the_same_whatever_is_validated_on(seed, validation):
    labels = [i % 3 for i in range(40)]
    first = draw(40, labels, seed=seed, test=6, validation=3)
    assert draw(40, labels, seed=seed, test=6, validation=validation).test.tolist() == (
        first.test.tolist()
    )


def test_parts_that_are_too_small_are_refused():
    told = ["data.split: ", "no sequence is left", "validation takes 6 and test 4 of 10"]
    refused(*told, "smaller", n=10, validation=6, test=4)
    refused("test 12 of 10", n=10, validation=6, test=12)
    for name, other in (("validation", "test"), ("test", "validation")):
        told = [f"data.split.{name}: ", "at least 1 sequence, got 0 of 20", "larger"]
        refused(*told, n=20, **{name: 0.01, other: 2})


def test_a_class_with_too_few_sequences_is_refused_by_name():
    labels = [0] * 20 + [1] * 2
    told = ["data.target: ", "got 2 of class 'b'", "give more of it, or remove it"]
    refused(*told, n=22, labels=labels, validation=4, test=4)
    labels = [0] * 100 + [1] * 3
    told = ["data.split.test: ", "of the 3 sequences of class 'b'", "got none at 0.05", "larger"]
    refused(*told, n=103, labels=labels, test=0.05)
    told = ["data.split.validation: ", "of class 'b'", "got none at 3", "larger"]
    refused(*told, n=103, labels=labels, test=0.4, validation=3)
    told = ["data.split.test: ", "of class 'b'", "one for each other part", "got 0 left at 0.9"]
    refused(*told, n=103, labels=labels, test=0.9, validation=3)


def test_a_part_with_fewer_sequences_than_classes_is_refused():
    labels = [0, 1, 2] * 10
    for name, other in (("validation", "test"), ("test", "validation")):
        told = [f"data.split.{name}: ", "each of the 3 classes, got 2", "make it larger"]
        refused(*told, n=30, labels=labels, **{name: 2, other: 6})
    told = ["data.split: ", "the training part", "3 classes, got 2 sequences", "smaller"]
    refused(*told, n=30, labels=labels, validation=14, test=14)


def test_a_step_class_absent_from_training_is_refused():
    bounds, labels = np.array([[0, 2], [2, 4], [4, 5]]), np.array([0, 1, 1, 2, 2])
    drawn = Draw(np.array([0]), np.array([1]), np.array([2]))
    with pytest.raises(DataError, match=r"^s.csv: data.target: .*got 'z' in validation or test"):
        check_labels(drawn, bounds, labels, ("x", "y", "z"), "s.csv")
    check_labels(drawn, bounds, np.array([0, 1, 1, 0, 0]), ("x", "y"), "s.csv")
