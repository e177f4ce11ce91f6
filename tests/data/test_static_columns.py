"""Columns that are the same in a series are checked, and repeated from its first row."""

import numpy as np
import pandas as pd
import pytest
from helpers.series_files import assert_check_refuses, days, text

from tuner.data.prepared import check_data
from tuner.data.reference import SeriesRef
from tuner.errors import ExperimentError

KEYS = {
    "time": "t",
    "id": "shop",
    "static": ["size", "type"],
    "categories": ["type"],
}


def shops(**columns):
    frames = [
        days(60).assign(shop=shop, size=size, type=kind)
        for shop, size, kind in (("n", 10, "big"), ("s", 4, "small"), ("w", 7, "big"))
    ]
    return pd.concat(frames).reset_index(drop=True).assign(**columns)


def said_once(frame):
    """The same with empty cells behind the first row of each series."""
    later = frame.groupby("shop").cumcount() > 0
    return frame.assign(**{name: frame[name].mask(later) for name in ("size", "type")})


def fold(experiment, folder):
    (ref,) = check_data(experiment).write_test(folder).folds
    assert isinstance(ref, SeriesRef)
    return ref


@pytest.mark.parametrize(
    "keys", [{}, {"resample": "2D", "aggregate": "sum"}, {"known_future": ["x"]}]
)
def test_what_the_first_row_says_is_repeated_for_every_step(experiment_on, tmp_path, keys):
    asked = KEYS | keys
    full = fold(experiment_on(text(shops()), **asked), tmp_path / "full")
    once = fold(experiment_on(text(said_once(shops())), **asked), tmp_path / "once")
    assert full.shape == once.shape
    np.testing.assert_array_equal(full.load("inputs"), once.load("inputs"))
    place = check_data(experiment_on(text(shops()), **asked)).facts.features.index("size")
    sizes = [set(full.load("inputs")[a:b, place].tolist()) for a, b in full.load("reach")]
    assert [len(of) for of in sizes] == [1, 1, 1]
    assert len(set.union(*sizes)) == 3


def test_sums_of_longer_steps_leave_it_as_it_is(experiment_on, tmp_path):
    plain = experiment_on(text(shops()), scale="none", **KEYS)
    summed = experiment_on(text(shops()), scale="none", resample="2D", aggregate="sum", **KEYS)
    found = []
    for name, experiment in (("plain", plain), ("summed", summed)):
        place = check_data(experiment).facts.features.index("size")
        found.append(set(fold(experiment, tmp_path / name).load("inputs")[:, place].tolist()))
    assert found == [{10.0, 4.0, 7.0}] * 2


def test_another_value_later_is_refused_with_its_line(experiment_on):
    frame = shops()
    frame.loc[75, "size"] = 5
    assert_check_refuses(
        experiment_on(text(frame), **KEYS),
        "data.static: column 'size' must be the same in all rows of a series, got 5 in line 77 "
        "(2020-01-16) of series 's' and 4 in its first row; correct it",
    )
    frame = shops()
    frame.loc[179, "type"] = "small"
    assert_check_refuses(
        experiment_on(text(frame), **KEYS), "got 'small' in line 181", "and 'big' in its first row"
    )


def test_nothing_is_taken_from_a_later_row(experiment_on):
    frame = shops()
    frame.loc[60, "size"] = np.nan
    assert_check_refuses(
        experiment_on(text(frame), **KEYS),
        "data.static: column 'size' must hold a value in the first row of each series, got none in "
        "line 62 (2020-01-01) of series 's'; fill it in",
    )


def test_a_text_must_be_a_category(experiment_on):
    keys = KEYS | {"categories": []}
    assert_check_refuses(
        experiment_on(text(shops()), **keys),
        "data.static: column 'type' must hold numbers", "write data.categories: [type]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"id": None}, r"static: is of several series, got .* without data.id; set data.id"),
        ({"static": ["size", "size"]}, "names must differ, got 'size' twice; remove one"),
        ({"static": ["y"]}, "must not name what is predicted, got the target 'y'; remove it"),
        ({"static": ["t"]}, "must not name the time column, got 't'; remove it"),
        ({"static": ["shop"]}, "must not name the id column, got 'shop'; write it in data.cat"),
        ({"features": ["y", "type"]}, "must be among data.features, got 'size'; add it there"),
        ({"lags": {"size": [1]}}, "got 'size' in data.lags too; remove it there"),
        ({"known_future": ["size"]}, "got 'size' in data.known_future too; remove it there"),
    ],
)
def test_what_cannot_be_static_is_refused(experiment_on, keys, message):
    with pytest.raises((ExperimentError, ValueError), match=message):
        experiment_on(text(shops()), **KEYS | keys)
