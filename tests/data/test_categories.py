"""Columns of categories: what the training part holds is known, and nothing else is learned."""

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import SPLIT, assert_check_refuses, days, text
from hypothesis import given
from hypothesis import strategies as st

from tuner.data.baselines import Baselines, choose
from tuner.data.prepared import check_data
from tuner.data.vocabulary import known_levels, merged, numbered

ARRAYS = ("inputs", "targets", "truth", "known", "train", "evaluate", "reach")
WORDS = st.lists(st.sampled_from(["a", "b", "é", "007", "7", "nan", "A "]), min_size=1)


def weather(n_rows=60, late="rain", after=45):
    """Days of sun and rain, and of other weather from a row on."""
    kinds = np.array(["sun", "rain"])[np.arange(n_rows) % 2].astype(object)
    kinds[after:] = late
    return days(n_rows, w=kinds)


def two_shops(**columns):
    frames = [days(60).assign(shop=shop) for shop in ("north", "south")]
    return pd.concat(frames).assign(**columns)


def fold(experiment, folder, test=False):
    data = check_data(experiment)
    (ref,) = (data.write_test(folder) if test else data.write(folder)).folds
    return ref


def test_categories_are_numbered_in_order_and_never_scaled(experiment_on, tmp_path):
    for scale in ("standard", "minmax"):
        keys = {"time": "t", "categories": ["w"], "scale": scale}
        ref = fold(experiment_on(text(weather()), **keys), tmp_path / scale)
        assert ref.shape.categories == ((2, 3),)  # the last input: unknown, rain, sun
        expected = np.where(weather()["w"] == "rain", 1, 2)
        inputs = ref.load("inputs")
        np.testing.assert_array_equal(inputs[:, 2], expected[: len(inputs)])


@pytest.mark.parametrize("test", [False, True])
def test_a_category_seen_only_later_does_not_change_training(experiment_on, tmp_path, test):
    keys = {
        "time": "t", "categories": ["w"], "split": SPLIT,
    }  # fmt: skip
    made = []
    for name, late in (("plain", "rain"), ("new", "a hurricane")):
        after = 52 if test else 42
        experiment = experiment_on(
            text(weather(late=late, after=after)), name=f"{name}.csv", **keys
        )
        made.append((fold(experiment, tmp_path / name, test), check_data(experiment)))
    (plain, _), (new, data) = made
    assert plain.shape == new.shape
    for array in ARRAYS:
        before, after = plain.load(array), new.load(array)
        rows = slice(None) if array != "inputs" else slice(None, 52 if test else 42)
        np.testing.assert_array_equal(before[rows], after[rows])
    assert (new.load("inputs")[52 if test else 42 :, 2] == 0).all()
    assert dict(data.facts.notes)["categories"] == (
        "w (2); unknown, as the training part does not hold them: w 'a hurricane'"
    )


def test_a_refit_knows_the_categories_of_the_validation_part(experiment_on, tmp_path):
    from tuner.data.series import check_series

    experiment = experiment_on(text(weather(late="fog", after=44)), time="t", categories=["w"])
    found = [
        check_series(experiment, all_data=whole).write(tmp_path / str(whole)).pipeline["categories"]
        for whole in (False, True)
    ]
    assert [of["w"] for of in found] == [["rain", "sun"], ["fog", "rain", "sun"]]


def test_a_named_series_column_is_a_category(experiment_on, tmp_path):
    keys = {"time": "t", "id": "shop", "categories": ["shop"]}
    ref = fold(experiment_on(text(two_shops()), **keys), tmp_path / "arrays")
    inputs, shops = ref.load("inputs"), ref.load("reach")
    assert ref.shape.categories == ((2, 3),)
    for number, (first, end) in enumerate(shops, start=1):
        assert (inputs[first:end, 2] == number).all()


def test_the_series_of_a_wide_file_are_categories_too(experiment_on, tmp_path):
    rng = np.random.default_rng(0)
    frame = days(60).drop(columns="y").assign(
        north=rng.uniform(1, 9, 60), south=rng.uniform(1, 9, 60)
    )  # fmt: skip
    keys = {
        "time": "t", "wide": {"id": "shop", "value": "y", "columns": ["north", "south"]},
        "categories": ["shop"],
    }  # fmt: skip
    ref = fold(experiment_on(text(frame), **keys), tmp_path / "arrays")
    place = ref.shape.categories[0][0]
    for number, (first, end) in enumerate(ref.load("reach"), start=1):
        assert (ref.load("inputs")[first:end, place] == number).all()


def test_what_is_written_tells_categories_apart_and_true_is_true(experiment_on, tmp_path):
    written = np.array(["007", "7", "NA", "True", "TRUE", "true"])[np.arange(60) % 6]
    experiment = experiment_on(text(days(w=written)), time="t", categories=["w"])
    pipeline = check_data(experiment).write(tmp_path / "arrays").pipeline
    assert pipeline["categories"] == {"w": ["007", "7", "NA", "true"]}


def test_an_empty_cell_is_refused_or_takes_the_one_before(experiment_on, tmp_path):
    frame = weather()
    frame.loc[[10, 11], "w"] = ""
    keys = {"time": "t", "categories": ["w"]}
    assert_check_refuses(
        experiment_on(text(frame), **keys),
        "data.categories: column 'w' must hold a category in every row, got none in line 12 ",
        "; fill it in, or write data.missing: ffill",
    )
    for missing in ("ffill", "interpolate"):
        experiment = experiment_on(text(frame), missing=missing, **keys)
        inputs = fold(experiment, tmp_path / missing).load("inputs")
        assert inputs[8:12, 2].tolist() == [2, 1, 1, 1]
    ref = fold(experiment_on(text(frame), missing="skip", **keys), tmp_path / "skip")
    assert np.flatnonzero(~ref.load("whole")).tolist() == [10, 11]


@pytest.mark.parametrize("aggregate", ["mean", "sum", "last", "min", "max"])
def test_a_step_of_several_rows_has_the_category_of_the_last(experiment_on, tmp_path, aggregate):
    frame = weather().assign(w=lambda f: [f"{i % 6 // 2}{i % 2}" for i in range(len(f))])
    keys = {"time": "t", "categories": ["w"], "resample": "2D"}
    experiment = experiment_on(text(frame), aggregate=aggregate, **keys)
    prepared = check_data(experiment).write(tmp_path / "arrays")
    assert all(len(known) == 2 for known in prepared.pipeline["categories"]["w"])
    ends = {known[1] for known in prepared.pipeline["categories"]["w"]}
    assert len(ends) == 1, "one of two rows is the last"


def test_the_linear_baseline_ignores_categories(experiment_on, tmp_path):
    rng, found = np.random.default_rng(0), []
    kinds = rng.integers(0, 2, 60)
    frame = days(60, w=np.array(["sun", "rain"])[kinds]).assign(
        y=lambda f: f["y"] + 20 * (kinds + np.roll(kinds, 1))
    )
    for i, known in enumerate(([], ["w"])):
        experiment = experiment_on(
            text(frame), name=f"{i}.csv", time="t", categories=["w"],
            features=["y", "w"], known_future=known or None,
        )  # fmt: skip
        ref = fold(experiment, tmp_path / str(i))
        found.append(Baselines(ref, None, choose("rmse", ref, None)).scores("rmse")["linear"])
    plain = fold(experiment_on(text(frame), time="t", features=["y"]), tmp_path / "plain")
    expected = Baselines(plain, None, choose("rmse", plain, None)).scores("rmse")["linear"]
    assert found == pytest.approx([expected] * 2, rel=0.05)  # penalties are shares: not quite equal


def test_texts_that_differ_in_most_rows_get_a_note(experiment_on):
    frame = days(w=[f"order {i}" for i in range(60)])
    experiment = experiment_on(text(frame), time="t", categories=["w"], split=SPLIT)
    notes = check_data(experiment).facts.notes
    assert any(key == "suspect" and "'w' has 42 categories in 42 rows" in n for key, n in notes)


def test_codes_get_no_notes_of_numbers(experiment_on):
    frame = weather(late="fog", after=55).assign(c=["-999"] * 3 + ["1"] * 57)
    notes = check_data(experiment_on(text(frame), time="t", categories=["w", "c"])).facts.notes
    assert [key for key, _ in notes] == ["categories"]


def test_a_text_feature_is_refused_with_its_remedy(experiment_on):
    for key in ("features", "known_future"):
        keys = {key: ["y", "w"] if key == "features" else ["w"], "time": "t"}
        experiment = experiment_on(text(weather()), **keys)
        assert_check_refuses(experiment, f"data.{key}: column 'w' must", "data.categories: [w]")
        check_data(experiment_on(text(weather()), categories=["w"], **keys))


def test_a_missing_column_is_refused_with_the_nearest_name(experiment_on):
    experiment = experiment_on(text(days(weather="sun")), time="t", categories=["wether"])
    assert_check_refuses(experiment, "data.categories: no column 'wether'", "'weather'")


@given(WORDS, WORDS)
def test_a_numbered_category_is_the_same_in_every_file(trained, later):
    def coded(texts):
        codes, found = pd.factorize(np.array(texts, dtype=object))
        return codes.astype(float), tuple(found)

    known = known_levels(*coded(trained))
    numbers = numbered(*coded(later), known)
    expected = [sorted(set(trained)).index(t) + 1 if t in trained else 0 for t in later]
    assert numbers.tolist() == expected
    codes, levels = coded(later)
    again, together = merged(codes, levels, coded(trained)[1])
    assert numbered(again, together, known).tolist() == expected
