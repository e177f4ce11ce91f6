"""A comparison as a page, a picture and tables."""

import csv
import dataclasses
import math
import warnings

import numpy as np
import pytest
from helpers.compared_studies import comparison, experiment, search
from helpers.pages import Page

from tuner.report.comparison import (
    FILES,
    Band,
    band_by_seconds,
    band_by_trials,
    compare,
    curves_picture,
    is_free,
    page,
    trajectory_of,
    write,
)
from tuner.report.plotting import Picture

LOW, HIGH = [1.0, 1.1, 1.2, 1.3, 1.4], [3.0, 3.1, 3.2, 3.3, 3.4]
NO_PICTURE = Picture("curves", "Curves", "none")


def drawn(*searches, n_trials=3):
    """A comparison of searches of tpe on the seeds 0, 1 and so on, as one row."""
    found = [trajectory_of(s, n_trials) for s in searches]
    return compare([experiment()], found, n_trials).rows[0]


def test_a_band_shows_the_quartiles_of_searches_after_each_trial():
    row = drawn(*(search([5.0 + seed, 4.0 + seed, 3.0], seed=seed) for seed in range(5)))
    band = band_by_trials(row)
    assert band.places.tolist() == [1, 2, 3]
    assert band.median.tolist() == [7.0, 6.0, 3.0]
    assert (band.low.tolist(), band.high.tolist()) == ([6.0, 5.0, 3.0], [8.0, 7.0, 3.0])


def test_a_band_begins_when_every_search_has_a_complete_trial():
    row = drawn(search([None, 4.0, 3.0]), search([9.0, 8.0, 7.0], seed=1))
    assert math.isnan(band_by_trials(row).median[0])
    assert band_by_trials(row).median[1:].tolist() == [6.0, 5.0]
    assert np.isnan(Band(np.arange(2), np.full((3, 2), math.inf)).median).all()
    mostly = Band(np.arange(1), np.array([[1.0], [2.0], [math.inf]]))
    assert (mostly.low[0], mostly.median[0]) == (1.5, 2.0)
    assert math.isnan(mostly.high[0])
    values = np.random.default_rng(0).normal(size=(7, 3))
    band = Band(np.arange(3), values)
    quartiles = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    assert np.array([band.low, band.median, band.high]) == pytest.approx(quartiles)


def test_in_time_a_search_that_has_ended_keeps_its_score():
    quick = search([5.0, 4.0, 1.0], spans=[(0, 1), (1, 2), (2, 3)])
    slow = search([9.0, 8.0, 7.0], spans=[(0, 2), (2, 10), (10, 20)], seed=1)
    band = band_by_seconds(drawn(quick, slow), sign=1)
    assert band.places.tolist() == [1, 2, 3, 10, 20]
    assert math.isnan(band.median[0])  # the slow one has nothing yet
    assert band.median[1:].tolist() == [6.5, 5.0, 4.5, 4.0]


def test_the_seconds_of_a_group_begin_with_it():
    """It trained three trials from 10 s to 19 s; the seconds of each are its share of these."""
    group = (0, 1, 2)
    made = search(
        [5.0, 4.0, 3.0, 2.0],
        spans=[(11.0, 13.0), (13.0, 16.0), (15.0, 19.0), (19.0, 20.0)],
        groups=dict.fromkeys(group, group),
        asked_s=9.0,
        recorded_s=21.0,
    )
    # Of 21 s, 1 s was waited, so 10 s of training took 20 s.
    assert trajectory_of(made, 4).seconds == pytest.approx((6.0, 12.0, 18.0, 20.0))


@pytest.mark.parametrize(
    "scores",
    [
        {"tpe": LOW, "pso": HIGH},
        {"tpe": LOW[:1], "pso": HIGH[:1]},
        {"tpe": [1.0] * 5, "pso": [1.0] * 5},
        {"tpe": [None] * 5, "pso": LOW},
        dict.fromkeys(("tpe", "pso", "woa", "qpso", "random", "gp", "qmc", "grid", "cmaes"), LOW),
    ],
    ids=["usual", "one seed", "all alike", "nothing complete", "nine strategies"],
)
def test_every_comparison_has_a_picture_and_a_page(scores):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = curves_picture(comparison(scores))
    assert picture.png is not None
    assert picture.png[:8] == b"\x89PNG\r\n\x1a\n"
    text = page(comparison(scores), picture, "tuner compare made.yaml")
    assert "data:image/png;base64," in text


def test_the_page_is_self_contained_and_states_the_method():
    found = comparison({"tpe": LOW, "pso": HIGH})
    text = page(found, NO_PICTURE, "tuner compare made.yaml --strategies tpe,pso --seeds 5")
    read = Page(text)
    assert not {"script", "link", "iframe"} & set(read.tags)
    assert "http" not in text
    assert len(set(read.ids)) == len(read.ids)
    for part in (
        f"{found.verdict}.",
        "2 strategies, 5 searches each on the seeds 0 to 4, 2 trials a search.",
        "tpe 1.2 1 to 1.4",
        "93 % interval",
        "made-pso-4 3.4",
        "tpe over pso 1.00 0.0079 0.0079 real",
        "No model was evaluated on the test set",
        "pso (population 2, ",
        "optimistic",
        "tuner compare made.yaml --strategies tpe,pso --seeds 5",
    ):
        assert part in read.text, part


def test_a_page_without_a_real_difference_does_not_claim_one():
    assert 'class="verdict good"' in page(comparison({"tpe": LOW, "pso": HIGH}), NO_PICTURE, "")
    assert 'class="verdict good"' not in page(comparison({"tpe": LOW, "pso": LOW}), NO_PICTURE, "")


def test_what_people_wrote_is_shown_and_never_run():
    found = comparison({"tpe": LOW, "pso": HIGH})
    hostile = "<script>alert('&\"')</script>"
    text = page(found, NO_PICTURE, f"tuner compare '{hostile}.yaml'")
    assert "<script>" not in text
    assert hostile in Page(text).text


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_have_a_row_per_search_and_trial(tmp_path):
    found = comparison({"tpe": [1.5, None], "pso": [2.5, 3.5]})
    write(found, tmp_path / "new", "")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(FILES)
    scores = rows(tmp_path / "new/scores.csv")
    by_study = {row["study"]: (row["strategy"], row["seed"], row["rmse"]) for row in scores}
    assert by_study == {
        "made-tpe-0": ("tpe", "0", "1.5"),
        "made-tpe-1": ("tpe", "1", ""),
        "made-pso-0": ("pso", "0", "2.5"),
        "made-pso-1": ("pso", "1", "3.5"),
    }
    curves = [row for row in rows(tmp_path / "new/curves.csv") if row["strategy"] == "pso"]
    assert [(r["seed"], r["trials"], r["best_by_trials"], r["seconds"]) for r in curves] == [
        *(("0", "1", "", "1.0"), ("0", "2", "2.5", "2.0")),
        *(("1", "1", "", "1.0"), ("1", "2", "3.5", "2.0")),
    ]


def test_only_what_a_comparison_wrote_is_written_over(tmp_path):
    assert is_free(tmp_path / "new")
    assert is_free(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    assert is_free(tmp_path)
    (tmp_path / "scores.csv").write_text("mine")
    assert not is_free(tmp_path)
    (tmp_path / "comparison.html").write_text("<html>mine</html>")
    assert not is_free(tmp_path)
    write(comparison({"tpe": LOW, "pso": HIGH}), tmp_path, "")
    assert is_free(tmp_path)
    (tmp_path / "comparison.html").write_bytes(b"\xff\xfe")
    assert not is_free(tmp_path)


def test_files_are_written_again_with_the_same_bytes(tmp_path):
    found = comparison({"tpe": LOW, "pso": HIGH})
    write(found, tmp_path, "tuner compare made.yaml")
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    write(dataclasses.replace(found), tmp_path, "tuner compare made.yaml")
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == before


def test_what_has_to_be_beaten_stands_beside_the_strategies():
    found = comparison({"tpe": LOW, "random": HIGH})
    assert found.to_beat is None
    scores = {"last_value": 4.0, "linear": 0.98, "seasonal_arima": math.nan}
    searches = tuple(dataclasses.replace(s, baselines=scores) for s in found.rows[0].searches)
    rows = (dataclasses.replace(found.rows[0], searches=searches), *found.rows[1:])
    found = dataclasses.replace(found, rows=rows)
    said = "to beat on the validation set (rmse): linear regression 0.98, last value 4"
    assert found.to_beat == said
    assert found.to_json()["baselines"] == {"linear": 0.98, "last_value": 4.0}
    assert said[1:] in page(found, NO_PICTURE, "tuner compare")
