"""No sequence that is not trained on changes what is learned, and none of the test part is seen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuner.data.sequences import check_sequences
from tuner.errors import DataError
from tuner.experiment import Experiment

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


thorough = settings(max_examples=150, deadline=None)


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
@given(made=cases())
def test_every_sequence_is_in_one_part_and_the_seed_says_which(tmp_path_factory, made):
    case, _ = made
    folder = tmp_path_factory.mktemp("case")
    parts = list(checked(case, folder).draw.named().values())
    assert sorted(np.concatenate(parts)) == list(range(len(case.sequences)))
    again = list(case.check(folder).draw.named().values())
    assert [p.tolist() for p in again] == [p.tolist() for p in parts]
    assert [len(p) for p in parts[1:]] == [case.data["split"][k] for k in ("validation", "test")]


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
