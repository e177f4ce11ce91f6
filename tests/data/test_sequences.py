"""Independent sequences, and pairs of texts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.refusals import assert_refused

from tuner.data import PairsRef, Shape
from tuner.data.baselines import Baselines, choose
from tuner.data.metrics import score
from tuner.data.prepared import Part, check_data, open_test_part, prepare
from tuner.data.sequences import check_sequences
from tuner.errors import DataError
from tuner.experiment import Experiment
from tuner.metrics import METRICS

SMALL = {"validation": 2, "test": 2}


@pytest.fixture
def check(tmp_path):
    """The data set of a CSV file with the given text, or of the file at a path.

    The columns are id and y unless others are given.
    """

    def check(source, kind, *, metric=None, model=None, **data):
        path = source if isinstance(source, Path) else tmp_path / "s.csv"
        if isinstance(source, str):
            path.write_text(source, encoding="utf-8")
        block = {"path": str(path), "split": SMALL, "target": "y"}
        block |= ({} if "text" in data else {"id": "id"}) | data
        raw = {"name": "test", "data": block, "task": {"kind": kind}, **(model or {})}
        raw |= {"objective": {"metric": metric}} if metric else {}
        return check_sequences(Experiment.model_validate(raw))

    return check


def arrays(prepared):
    return {p.stem: np.load(p) for p in sorted(Path(prepared.folds[0].folder).iterdir())}


def ref_of(prepared):
    (ref,) = prepared.folds
    return ref


def sequences(header, *rows, n=8):
    """A file of n sequences with the given rows, in which # is the sequence's number."""
    body = "".join(r.replace("#", str(i)) + "\n" for i in range(n) for r in rows)
    return f"{header}\n{body}"


NUMBERS = sequences("id,x,z,y", "s#,#,1,#0", "s#,#.5,2,#0")
LETTERS = "text,y\n" + "".join(f"{'ab' * (i + 1)},{'pq'[i % 2]}\n" for i in range(8))
UNEVEN = sequences("id,x,y", "s#,1,#.5", "s#,2,#.75", n=9)
STEPS = sequences("id,word,y", "s#,a,p", "s#,b,q")


def test_values_of_sequences_are_written_as_documented(tmp_path, check):
    data = check(NUMBERS, "regress")
    assert data.facts.features == ("x", "z")
    assert (data.facts.targets, data.facts.rows, data.facts.classes) == (("y",), 16, ())
    assert data.facts.parts == (
        Part("training", 4, "sequence"), Part("validation", 2, "sequence"),
        Part("test", 2, "sequence"),
    )  # fmt: skip
    prepared = data.write(tmp_path / "arrays")
    ref, found = ref_of(prepared), arrays(prepared)
    assert ref.shape == Shape("regress", features=2, targets=1, window=2)
    seen = data.draw.seen
    assert found["bounds"].tolist() == [[0, 2], [2, 4], [4, 6], [6, 8], [8, 10], [10, 12]]
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        "inputs": ((12, 2), np.float32), "bounds": ((6, 2), np.int64),
        "targets": ((6, 1), np.float32), "truth": ((6, 1), np.float64),
        "train": ((4,), np.int64), "evaluate": ((2,), np.int64),
    }  # fmt: skip
    assert found["truth"][:, 0].tolist() == [10.0 * i for i in seen]
    assert seen[found["train"]].tolist() == data.draw.training.tolist()
    assert seen[found["evaluate"]].tolist() == data.draw.validation.tolist()
    rows = [r for i in found["train"] for r in range(*found["bounds"][i])]
    np.testing.assert_allclose(found["inputs"][rows].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(found["inputs"][rows].std(axis=0), 1, rtol=1e-6)
    scaler = prepared.pipeline["inputs"]
    raw = found["inputs"] * scaler["scale"] + scaler["offset"]
    expected = [[i + half, 1 + 2 * half] for i in seen for half in (0, 0.5)]
    np.testing.assert_allclose(raw, expected, atol=1e-5)
    known = found["truth"][found["train"]]
    assert (ref.offset, ref.scale) == ((known.mean(),), (known.std(),))
    assert ref.mean_errors == (pytest.approx(np.abs(known - known.mean()).mean()),)
    np.testing.assert_allclose(
        ref.to_units(found["targets"][found["evaluate"]][:, None], ref.evaluate_samples()),
        ref.truth_of(ref.evaluate_samples()),
        atol=1e-5,
    )


@pytest.mark.parametrize("scale", ["standard", "minmax", "none"])
def test_the_opened_test_part_is_prepared_as_the_search_was(tmp_path, check, scale):
    data = check(NUMBERS, "regress", features=["z", "x"], scale=scale)
    searched, opened = data.write(tmp_path / "search"), data.write_test(tmp_path / "test")
    assert opened.pipeline == searched.pipeline
    assert json.loads(json.dumps(opened.pipeline)) == opened.pipeline
    before, after = arrays(searched), arrays(opened)
    assert after["evaluate"].tolist() == data.draw.test.tolist()
    assert len(after["bounds"]) == 8
    rows = [r for i in data.draw.seen for r in range(*after["bounds"][i])]
    np.testing.assert_array_equal(after["inputs"][rows], before["inputs"])
    np.testing.assert_array_equal(after["targets"][data.draw.seen], before["targets"])
    assert ref_of(opened).offset == ref_of(searched).offset


def test_the_rows_of_a_sequence_are_gathered_wherever_they_stand(check):
    lines = NUMBERS.splitlines()
    apart = "\n".join([lines[0], *lines[1::2], *lines[2::2]])
    here = check(NUMBERS, "regress")
    there = check(apart, "regress")
    np.testing.assert_array_equal(here.steps, there.steps)
    np.testing.assert_array_equal(here.bounds, there.bounds)
    np.testing.assert_array_equal(here.truth, there.truth)


def test_the_order_of_sequences_does_not_decide_who_is_tested(check):
    lines = NUMBERS.splitlines()
    moved = "\n".join([lines[0], *lines[9:], *lines[1:9]])
    here = check(NUMBERS, "regress")
    there = check(moved, "regress")
    for part, other in zip(here.draw.named().values(), there.draw.named().values(), strict=True):
        assert sorted(here.truth[part, 0]) == sorted(there.truth[other, 0])


def test_texts_become_characters_of_the_training_part(tmp_path, check):
    data = check(LETTERS, "classify", text="text")
    assert (data.facts.features, data.facts.classes) == (("text",), ("p", "q"))
    assert ("vocabulary", "2 characters") in data.facts.notes
    prepared = data.write(tmp_path / "arrays")
    found = arrays(prepared)
    assert ref_of(prepared).shape == Shape("classify", features=0, vocabulary=4, classes=2)
    assert set(found) == {"tokens", "bounds", "truth", "train", "evaluate"}
    assert found["tokens"].dtype == found["truth"].dtype == np.int64
    assert found["truth"].tolist() == [i % 2 for i in data.draw.seen]
    for (first, end), i in zip(found["bounds"], data.draw.seen, strict=True):
        assert found["tokens"][first:end].tolist() == [2, 3] * (i + 1)
    assert prepared.pipeline["vocabulary"] == ["a", "b"]
    assert prepared.pipeline["classes"] == ["p", "q"]
    assert prepared.pipeline["inputs"] is None


def test_what_only_validation_and_test_hold_is_unknown(tmp_path, check):
    seen = check(LETTERS, "classify", text="text").draw
    lines = LETTERS.splitlines()
    for i in [*seen.validation, *seen.test]:
        lines[i + 1] = "xyz" + lines[i + 1]
    data = check("\n".join(lines), "classify", text="text")
    assert data.vocabulary.tokens == ("a", "b")
    found = arrays(data.write(tmp_path / "arrays"))
    for i in found["evaluate"]:
        assert found["tokens"][slice(*found["bounds"][i])][:5].tolist() == [1, 1, 1, 2, 3]


def test_texts_become_words(check):
    text = LETTERS.replace("ab", "Ab aB c\u00e9 ")
    data = check(text, "classify", text="text", level="word")
    assert data.vocabulary.tokens == ("ab", "cé")
    assert ("vocabulary", "2 words") in data.facts.notes
    assert ("steps in a sequence", "3 to 24") in data.facts.notes


def test_values_can_be_predicted_from_texts(tmp_path, check):
    text = "text,y\n" + "".join(f"{'ab' * (i + 1)},{i}\n" for i in range(8))
    data = check(text, "regress", text="text")
    prepared = data.write(tmp_path / "arrays")
    assert set(arrays(prepared)) == {"tokens", "bounds", "truth", "targets", "train", "evaluate"}
    assert ref_of(prepared).truth_of(np.array([0])).tolist() == [[[float(data.draw.seen[0])]]]


def test_every_step_has_a_label(tmp_path, check):
    data = check(STEPS, "label", tokens="word")
    assert data.facts.classes == ("p", "q")
    prepared = data.write(tmp_path / "arrays")
    ref, found = ref_of(prepared), arrays(prepared)
    assert ref.shape == Shape("label", features=0, vocabulary=4, classes=2, window=2)
    assert found["tokens"].tolist() == [2, 3] * 6
    assert found["truth"].tolist() == [0, 1] * 6
    assert ref.truth_of(ref.evaluate_samples()).tolist() == [0, 1] * 2


def test_every_step_has_numbers(tmp_path, check):
    text = sequences("id,word,y,z", "s#,a,1#,#", "s#,b,2#,-#", n=9)
    data = check(text, "regress_steps", tokens="word", target=["y", "z"], scale="minmax")
    prepared = data.write(tmp_path / "arrays")
    ref, found = ref_of(prepared), arrays(prepared)
    assert ref.shape == Shape("regress_steps", features=0, vocabulary=4, targets=2, window=2)
    seen = data.draw.seen
    assert found["truth"].tolist() == [[v, z] for i in seen for v, z in ((10 + i, i), (20 + i, -i))]
    rows = ref.truth_of(ref.train_samples())[:, 0]
    assert rows.tolist() == found["truth"][found["train"].repeat(2) * 2 + [0, 1] * 5].tolist()
    low, high = rows.min(axis=0), rows.max(axis=0)
    assert found["targets"] == pytest.approx((found["truth"] - low) / (high - low))
    errors = np.abs(rows - rows.mean(axis=0)).mean(axis=0)
    assert ref.naive_errors(ref.evaluate_samples()) == pytest.approx(np.tile(errors, (4, 1)))


def test_only_training_tokens_below_a_size_are_known(tmp_path, check):
    data = check(
        sequences("id,item,y", "s#,0#,#", "s#,9,#"), "regress",
        tokens="item", vocabulary_size=10,
    )  # fmt: skip
    trained = data.draw.training.tolist()
    known = sorted({*trained, 9})
    assert data.shape.vocabulary == len(known) + 2
    numbers = [known.index(i) + 2 if i in trained else 1 for i in range(len(data.names))]
    assert data.steps.tolist() == [n for i in numbers for n in (i, known.index(9) + 2)]
    assert ("vocabulary", f"{len(known)} tokens") in data.facts.notes
    pipeline = data.write(tmp_path / "a").pipeline
    assert (pipeline["vocabulary"], pipeline["vocabulary_size"]) == (list(map(str, known)), 10)


def test_classes_are_texts_numbers_or_truth(check):
    def classes(*labels):
        rows = "".join(f"t,{label}\n" * 5 for label in labels)
        split = {"validation": len(labels), "test": len(labels)}
        return check(f"text,y\n{rows}", "classify", text="text", split=split).facts.classes

    assert classes("b", "a") == ("a", "b")
    assert classes("10", "9", "-1") == ("-1", "9", "10")
    assert classes("True", "False") == ("False", "True")
    assert classes("NA", "None", "nan") == ("NA", "None", "nan")  # Namibia is a country


def test_outer_spaces_of_classes_texts_and_tokens_are_stripped(check):
    rows = "".join(f"{i}, s{i % 8} ,{'ab'[i % 2]}  ,low\n{i},s{i % 8}, ,low \n" for i in range(8))
    rows = rows.replace("low", "{}").format(*["high" if i % 4 < 2 else "low" for i in range(16)])
    data = check("x,id,token,y\n" + rows.rstrip("\n"), "classify", tokens="token", target="y")
    assert data.facts.classes == ("high", "low")
    assert data.facts.vocabulary == 2 + 3  # a, b and a space
    assert len(data.names) == 8
    texts = "".join(f"{'ab' * (i + 1)}{' ' * (i % 3)},{'pq'[i % 2]} \n" for i in range(8))
    data = check("text,y\n" + texts, "classify", text="text")
    assert (data.facts.classes, data.facts.vocabulary) == (("p", "q"), 2 + 2)


def test_a_number_that_is_the_same_in_every_sequence_is_told(check):
    rows = "".join(f"s{i},{i},7.5\n" for i in range(8))
    facts = check("id,x,y\n" + rows, "regress", metric="mae").facts
    told = "'y' is 7.5 in all of the training part: nothing can be learned"
    assert ("constant", told) in facts.notes


FIXED = {"hyperparameters": {"linear_path": True}}
SEARCHED = {"search_space": {"linear_path": {"type": "categorical", "choices": [False, True]}}}


@pytest.mark.parametrize(("model", "key"), [(FIXED, "hyperparameters"), (SEARCHED, "search_space")])
def test_a_linear_path_needs_equal_lengths_and_few_numbers(check, model, key):
    assert check(NUMBERS, "regress", model=model).shape.window == 2
    longer = NUMBERS + "s3,1,2,30\n"
    text = f"s.csv: {key}.linear_path: needs sequences that all have the same number of steps, "
    with pytest.raises(DataError, match=f"{text}got 2 to 3 steps; write false, or remove it$"):
        check(longer, "regress", model=model)
    long = "id,x,y\n" + "".join(f"s{i % 8},{i},{i % 8}\n" for i in range(8 * 2501))
    text = f"{key}.linear_path: takes sequences of at most 2,500 numbers, steps times features, "
    with pytest.raises(DataError, match=f"{text}got 2,501; write false, or remove it$"):
        check(long, "regress", model=model)
    assert check(longer, "regress").shape.window in (0, 2)


def test_times_may_be_uneven_but_rise_within_a_sequence(check):
    rows = ("s#,2020-01-01,#,#", "s#,2020-03-05,#,#")
    data = check(sequences("id,day,x,y", *rows), "regress", time="day")
    assert data.facts.features == ("x",)


@pytest.mark.parametrize(("policy", "third"), [("ffill", 3.0), ("interpolate", 5.0)])
def test_missing_values_are_filled_from_the_same_sequence(check, policy, third):
    text = sequences("id,x,y", "s#,1,#", "s#,3,#", "s#,,#", "s#,9,#")
    data = check(text, "regress", missing=policy)
    assert data.steps[:, 0].tolist() == [1.0, 3.0, third, 9.0] * 8
    assert ("filled in", "8 values") in data.facts.notes


def test_what_is_far_beyond_the_training_part_stays_finite(tmp_path, check):
    ids = check(NUMBERS, "regress").draw.validation
    text = sequences("id,x,y", "s#,#e-50,#e-50").replace(f"s{ids[0]},{ids[0]}e-50", f"s{ids[0]},1")
    prepared = check(text, "regress").write(tmp_path / "arrays")
    assert arrays(prepared)["inputs"].max() == np.float32(1e30)


def test_a_parquet_file_is_read_as_well(tmp_path, check):
    path = tmp_path / "s.parquet"
    pd.DataFrame(
        {"id": np.arange(12).repeat(2), "x": 1.0, "y": [True, True, False, False] * 6}
    ).to_parquet(path)
    data = check(path, "classify")
    assert data.facts.classes == ("False", "True")
    assert data.truth.tolist() == [1, 0] * 6


# The text of a file, the task, keys of data, and what the refusal holds.
REFUSALS = [
    (NUMBERS, "regress", {"target": "yy"}, "data.target: no column 'yy'", "did you mean 'y'?"),
    (NUMBERS, "regress", {"id": "iid"}, "data.id: no column 'iid'", "'id'"),
    (NUMBERS, "regress", {"features": ["x", "w"]}, "data.features: no column 'w'"),
    (LETTERS, "classify", {"text": "t"}, "data.text: no column 't'"),
    (STEPS, "label", {"tokens": "words"}, "data.tokens: no column 'words'", "'word'"),
    (NUMBERS, "regress", {"time": "t"}, "data.time: no column 't'"),
    (NUMBERS, "regress", {"features": ["x", "y"]},
     "data.features: must not name the target column, got 'y' with regress"),
    (LETTERS, "classify", {"text": "y"}, "data.text: must not name the target column, got 'y'"),
    (STEPS, "label", {"tokens": "id"}, "data.tokens: must not name the id column, got 'id'"),
    (STEPS, "label", {}, "data.features: no numeric column beside target, id and time",
     "data.tokens"),
    (NUMBERS.replace("s3,3.5", ",3.5"), "regress", {},
     "data.id: column 'id' must hold a value in every row, got none in line 9"),
    (NUMBERS.replace("s2,2.5", "s2,two"), "regress", {"features": ["x"]},
     "data.features: column 'x' must hold numbers, got 'two' in line 7 (sequence 's2')"),
    (NUMBERS.replace("s2,2.5", "s2,inf"), "regress", {},
     "data.features: column 'x' must hold finite numbers (below 1e30), got inf in line 7"),
    (NUMBERS.replace(",20\n", ",1e31\n"), "regress", {}, "data.target: column 'y'", "finite",
     "got 1e+31 in line 6"),
    (NUMBERS.replace(",20\n", f",{'1' * 400}\n"), "regress", {}, "data.target: column 'y'",
     "finite", "got inf in line 6"),
    (NUMBERS.replace("s2,2.5", "s2,"), "regress", {}, "data.features: column 'x'",
     "got none in line 7 (sequence 's2')", "write data.missing: ffill"),
    (NUMBERS.replace("s2,2,", "s2,,"), "regress", {"missing": "ffill"}, "data.features: column 'x'",
     "got none in line 6 (sequence 's2')", "none before it"),
    (NUMBERS.replace("2.5,2,20", "2.5,2,"), "regress", {"missing": "ffill"},
     "data.target: column 'y' must hold a value in every row, got none in line 7"),
    (LETTERS.replace("abab,q", "abab,"), "classify", {"text": "text"},
     "data.target: column 'y' must hold a value in every row, got none in line 3"),
    (STEPS.replace("s2,a,p", "s2,a,"), "label", {"tokens": "word"}, "data.target: column 'y'",
     "got none in line 6 (sequence 's2')"),
    (STEPS.replace("s2,a,p", "s2,,p"), "label", {"tokens": "word"}, "data.tokens: column 'word'",
     "got none in line 6 (sequence 's2')"),
    (LETTERS.replace("\nabab,", '\n" ",'), "classify", {"text": "text"}, "data.text: column 'text'",
     "got none in line 3"),
    (NUMBERS.replace("2.5,2,20", "2.5,2,21"), "regress", {},
     "data.target: column 'y' must be the same in all rows of a sequence",
     "got 21.0 after 20.0 in line 7 (sequence 's2')"),
    (STEPS, "classify", {"tokens": "word"}, "data.target: column 'y' must be the same",
     "got 'q' after 'p' in line 3 (sequence 's0')", "task.kind: label"),
    (NUMBERS.replace("0\n", "0.5\n"), "classify", {}, "data.target: column 'y' must hold classes",
     "got 00.5 in line 2", "task.kind: regress"),
    (LETTERS.replace(",q", ",p"), "classify", {"text": "text"},
     "data.target: column 'y' must hold two classes or more, got only 'p'"),
    (LETTERS.replace("\nabab,q", "\nabab,r"), "classify",
     {"text": "text", "split": {"validation": 3, "test": 3}}, "data.target: every class needs",
     "got 1 of class 'r'"),
    (sequences("id,x,y", "s#,#,#"), "label", {},
     "data.target: every class must occur in the training part, got '"),
    (sequences("id,item,y", "s#,#,#"), "regress", {"tokens": "item", "vocabulary_size": 7},
     "data.vocabulary_size: token ids must lie in 0 to 6, got '7' in line 9 (sequence 's7')"),
    (STEPS, "label", {"tokens": "word", "vocabulary_size": 7},
     "data.vocabulary_size: token ids must lie in 0 to 6, got 'a' in line 2"),
    (sequences("id,t,x,y", "s#,2021,1,#", "s#,2020,2,#"), "regress", {"time": "t"},
     "data.time: times must rise within a sequence, got 2020", "line 3 (sequence 's0')"),
    (sequences("id,t,x,y", "s#,2021,1,#", "s#,2021,2,#"), "regress", {"time": "t"},
     "data.time: times must rise"),
    (sequences("id,t,x,y", "s#,2021-01-01,1,#", "s#,soon,2,#"), "regress", {"time": "t"},
     "data.time: column 't' must hold a time in every row, got 'soon' in line 3"),
    (NUMBERS, "regress", {"split": {"validation": 4, "test": 4}},
     "data.split: no sequence is left to train on"),
    (NUMBERS, "regress", {"metric": "r2", "split": {"validation": 1, "test": 2}},
     "data.split.validation: r2 needs at least 2 values, got 1", "another metric"),
    (NUMBERS, "regress", {"target": "z", "metric": "mase", "features": ["x"]},
     "data.target: column 'z' must be the same"),
    (sequences("id,x,y", "s#,#,5"), "regress", {"metric": "mase"},
     "objective.metric: mase divides by", "write rmse or mae"),
    (UNEVEN, "regress", {}, "or write task.kind: regress_steps where every row has its own"),
    (UNEVEN, "label", {}, "write a class there, or write task.kind: regress_steps"),
    (UNEVEN, "classify", {}, "write a class there, or write task.kind: regress"),
    (sequences("id,x,y", "s#,1,p") + "t,1,p\nt,1,q\n", "label",
     {"metric": "auroc", "split": SMALL | {"seed": 1}},
     "data.split.validation: auroc needs at least 2 classes, got 1"),
]  # fmt: skip


@pytest.mark.parametrize("row", REFUSALS, ids=[row[3] for row in REFUSALS])
def test_what_no_model_can_be_trained_on_is_refused(row, tmp_path, check):
    text, kind, keys, *parts = row
    assert_refused(lambda: check(text, kind, **keys), *parts, where=tmp_path / "s.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]


@pytest.mark.parametrize(
    ("days", "steps"),
    [
        (["01/02", "02/02", "03/02", "01/03", "02/03"], [0, 1, 2, 3, 4]),
        (["02/01", "02/02", "02/03", "03/01", "03/02"], [0, 1, 2, 3, 4]),  # the month first
        (["02/03", "01/03", "03/02", "02/02", "01/02"], [4, 3, 2, 1, 0]),
        (["01/02", "03/02", "02/02", "01/03", "02/03"], [0, 2, 1, 3, 4]),
    ],
)
def test_steps_are_sorted_in_reading_order(check, days, steps):
    rows = [f"#,{day}/2021,{x},{x}" for x, day in enumerate(days)]
    data = {"time": "t", "features": ["x"], "read": {"sort": True}}
    dataset = check(sequences("id,t,x,y", *rows), "regress_steps", **data)
    assert dataset.steps[:, 0].tolist() == steps * 8


def experiment_of(frame, folder, **changes):
    frame.to_csv(folder / "pairs.csv", index=False)
    data = {"path": str(folder / "pairs.csv"), "text": "a", "target": "b"}
    data |= {"split": {"validation": 3, "test": 3}} | changes.pop("data", {})
    return Experiment.model_validate(
        {"name": "t", "data": data, "task": {"kind": "translate"}, **changes}
    )


def pairs(n=20):
    return pd.DataFrame({"a": [f"x{i}" for i in range(n)], "b": [f"{i}"[::-1] for i in range(n)]})


def test_pairs_are_written_as_documented(tmp_path):
    data = check_data(experiment_of(pairs(), tmp_path))
    prepared = data.write(tmp_path / "arrays")
    (ref,) = prepared.folds
    target = prepared.pipeline["target_vocabulary"]
    assert (ref.shape.classes, ref.shape.horizon) == (len(target) + 4, 2)
    assert len(ref.load("truth")) == 17  # there is no test pair

    def text(row):
        return "".join("?" if n == 1 else target[n - 2] for n in row.tolist() if n)

    for sample in [*ref.train_samples(), *ref.evaluate_samples()]:
        i = int(prepared.name_of(int(sample)))
        assert text(ref.load("truth")[sample]) in (str(i)[::-1], "?" * len(str(i)))
        assert text(ref.load("copied")[sample])[0] == "?"  # no target holds an x
    assert not set(ref.train_samples()) & set(ref.evaluate_samples())
    (test,) = open_test_part(experiment_of(pairs(), tmp_path), tmp_path / "test").folds
    assert len(test.evaluate_samples()) == 3
    assert len(test.load("truth")) == 20


def test_later_parts_change_nothing_that_is_learned(tmp_path):
    def learned(frame, name):
        prepared = prepare(experiment_of(frame, tmp_path), tmp_path / name)
        (ref,) = prepared.folds
        train = ref.train_samples()
        said = [[n for n in row if n] for row in ref.load("truth")[train].tolist()]
        return prepared.pipeline, ref.shape, said, train.tolist()

    frame = pairs()
    data = check_data(experiment_of(frame, tmp_path))
    others = np.concatenate([data.draw.validation, data.draw.test])
    changed = frame.copy()
    changed.loc[others, "b"] = "a strange and long one"
    changed.loc[others, "a"] = "another"
    assert learned(frame, "before") == learned(changed, "after")


def test_step_baselines_are_the_most_frequent_and_a_copy(tmp_path):
    words = ["yes", "no", "perhaps"] * 10
    frame = pd.DataFrame({"a": words, "b": [w if w != "perhaps" else "no" for w in words]})
    data = {"level": "word", "split": {"validation": 9, "test": 3}}
    (ref,) = prepare(experiment_of(frame, tmp_path, data=data), tmp_path / "arrays").folds
    plain = Baselines(ref, None, choose("exact_match", ref, None))
    scores, truth = plain.scores("exact_match"), ref.truth_of(ref.evaluate_samples())
    assert scores.keys() == {"most_frequent", "copy"}
    trained = ref.truth_of(ref.train_samples())[:, 0]
    most = np.bincount(trained).argmax()
    assert scores["most_frequent"] == pytest.approx((truth[:, 0] == most).mean())
    read = ref.load("copied")[ref.evaluate_samples()][:, 0]
    assert scores["copy"] == pytest.approx((read == truth[:, 0]).mean())
    assert plain.left_out == {"linear": "a linear model cannot predict texts"}


def test_a_pair_without_a_target_is_refused(tmp_path):
    experiment = experiment_of(pairs().replace("3", None), tmp_path)
    assert_refused(lambda: check_data(experiment), "data.target: column 'b' must", "in line 5")


def test_only_an_entirely_right_text_is_a_match():
    ref = PairsRef("", None)  # type: ignore[arg-type]
    truth = np.array([[2, 3, 0], [2, 3, 4], [1, 0, 0], [2, 0, 0]])
    said = np.array([[2, 3], [2, 3], [1, 0], [3, 0]])
    said[2] = [2, 0]  # what is unknown is never said
    assert score("exact_match", truth, said, ref) == 0.25
    assert METRICS["exact_match"].maximize
