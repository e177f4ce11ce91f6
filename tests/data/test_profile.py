"""What looks wrong in columns, and what a series is like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.cli.app import run
from tuner.data.prepared import check_data
from tuner.data.profile import SUSPECTS, gain_of_columns, outside_of, profile_of
from tuner.errors import DataError
from tuner.experiment import Experiment

N_VALUES = 200
RNG = np.random.default_rng(0)
WAVE = 100 + 10 * np.sin(np.arange(N_VALUES) / 7 * 2 * np.pi) + RNG.normal(size=N_VALUES)


def notes_of(folder, frame, what, task=None, **data):
    """The notes of one kind, or of several."""
    frame.to_csv(path := folder / "s.csv", index=False)
    block = {"path": str(path), "target": "y", **data}
    raw = {"name": "s", "data": block, "task": task or {"window": 3}}
    facts = check_data(Experiment.model_validate(raw)).facts
    return [note for note in facts.notes if note[0] in what]


def notes(folder, y, **columns):
    day = pd.date_range("2020", periods=len(y)).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": day, "y": y, **columns})
    return notes_of(folder, frame, SUSPECTS, time="day", missing="ffill")


def put(rows, value):
    values = WAVE.copy()
    values[rows] = value
    return values


@pytest.mark.parametrize("value", [-999.0, 9999.0, 99999.0, -999.25, -32768.0, 1e20, 0.0])
def test_a_sentinel_is_reported_with_its_lines_and_its_remedy(tmp_path, value):
    ((what, text),) = notes(tmp_path, put(slice(None, None, 40), value))
    assert what == "sentinel"
    lines = "line 2 (2020-01-01), line 42 (2020-02-10), line 82 (2020-03-21) and 2 more"
    assert text.startswith(f"'y' is {value:.10g} in 5 rows ({lines}), far outside the rest")
    assert f'write data.read.missing_values: ["{value:.10g}"], and data.missing: ffill' in text


def test_two_sentinels_of_two_columns_are_mended_by_one_key(tmp_path):
    y = put([3, 50], -999.0)
    y[[7, 9]] = 9999.0
    found = notes(tmp_path, y, x=put([20, 30], -1.0))
    assert [what for what, _ in found] == ["sentinel"] * 3
    for _, text in found:
        assert 'data.read.missing_values: ["9999", "-999", "-1"]' in text
        assert "the rest (8" in text  # 87.9: no sentinel belongs to the rest


def test_one_far_value_is_an_outlier_and_one_code_a_sentinel(tmp_path):
    ((what, text),) = notes(tmp_path, put(50, 1e7))
    assert what == "outlier"
    assert text.startswith("'y' is 10000000 in line 52 (2020-02-20), far outside the rest")
    assert notes(tmp_path, put(50, -9999.0))[0][0] == "sentinel"


def test_a_constant_target_is_reported_with_its_lines(tmp_path):
    ((what, text),) = notes(tmp_path, put(slice(80, 190), 104.5))
    assert what == "stands still"
    assert "is 104.5 in 110 of 200 rows without a break, line 82 (2020-03-21) to line 191" in text
    assert notes(tmp_path, put(slice(80, 170), 104.5)) == []
    assert notes(tmp_path, WAVE, x=put(slice(80, 190), 104.5)) == []  # a feature may


@pytest.mark.parametrize(("factor", "word"), [(1000.0, "larger"), (0.001, "smaller")])
def test_a_change_of_unit_is_told_with_the_line_where_it_begins(tmp_path, factor, word):
    values = WAVE.copy()
    values[100:] *= factor
    ((what, text),) = notes(tmp_path, WAVE, x=values)
    assert what == "unit"
    assert text == (
        f"'x' is about 1000 times {word} from line 102 (2020-04-10) on; write all rows in one unit"
    )


ORDINARY = {
    "wave": WAVE,
    "mild": put(50, 140.0),
    "lognormal": np.exp(RNG.normal(0, 2, N_VALUES)),
    "cauchy": RNG.standard_cauchy(N_VALUES),
    "t": RNG.standard_t(3, N_VALUES),
    "growth": np.exp(np.arange(N_VALUES) / 20),
    "counts": RNG.poisson(0.3, N_VALUES).astype(float),
    "level": np.r_[RNG.normal(1, 0.1, 100), RNG.normal(50, 1, 100)],
    "walk": RNG.normal(size=N_VALUES).cumsum(),
    "intermittent": np.where(RNG.random(N_VALUES) < 0.9, 0.0, RNG.gamma(2, 50, N_VALUES)),
    "weekdays": np.arange(N_VALUES) % 7 * 1.0,
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_values_get_no_note(tmp_path, name):
    assert notes(tmp_path, ORDINARY[name]) == []


def test_each_series_stands_still_by_itself(tmp_path):
    day = pd.date_range("2020", periods=60).strftime("%Y-%m-%d")
    still = WAVE[:60].copy()
    still[20:55] = 1000.0
    columns = {"store": np.repeat(["a", "b"], 60), "day": [*day] * 2, "y": [*WAVE[:60], *still]}
    frame = pd.DataFrame(columns)
    ((_, text),) = notes_of(tmp_path, frame, ["stands still"], time="day", id="store")
    assert text.startswith("'y' of series 'b' is 1000 in 35 of 60 rows without a break, line 82 (")


def test_sequences_have_sentinels_too(tmp_path):
    values = RNG.normal(size=160)
    values[[5, 50, 90]] = -999
    ids = np.repeat(np.arange(40), 4)
    frame = pd.DataFrame({"id": ids, "x": values, "y": np.where(ids % 2, "a", "b")})
    task = {"kind": "classify"}
    ((_, text),) = notes_of(tmp_path, frame, ["sentinel"], task, id="id", features=["x"])
    assert text.startswith("'x' is -999 in 3 rows (line 7, line 52, line 92), far outside the rest")


def test_check_and_init_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    notes(tmp_path, put(slice(None, None, 40), -999.0))
    assert run(["init", "s.csv"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "look at: 'y' is -999 in 5 rows (line 2 (2020-01-01), line 42" in printed
    assert run(["check", "s.yaml"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sentinel 'y' is -999 in 5 rows" in printed
    assert "It can run, but see above." in printed


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
    rows=st.lists(st.integers(0, N_VALUES - 1), min_size=2, max_size=60, unique=True),
)
def test_a_far_repeated_value_is_found_in_exactly_its_rows(scale, offset, rows):
    values = (WAVE - 100) * scale + offset
    far = values.max() + 10 * np.ptp(values)
    values[rows] = far
    ((_, text),) = outside_of({"y": values}, lambda row: f"<{row}>")
    assert f"in {len(rows)} rows (<{min(rows)}>" in text


STEADY = [float(i % 5 + 1) for i in range(60)]


PARTS = {"validation": 10, "test": 10}


def check(folder, metric, values):
    (path := folder / "s.csv").write_text("y\n" + "".join(f"{v}\n" for v in values))
    block = {"path": str(path), "target": "y", "split": PARTS}
    raw = {"name": "s", "data": block, "objective": {"metric": metric}, "task": {"window": 3}}
    check_data(Experiment.model_validate(raw))


@pytest.mark.parametrize(
    ("metric", "where", "value", "text"),
    [
        ("mape", slice(45, 46), 0.0, "mape divides by the values, got 0 for 'y' in the validation"),
        ("mape", slice(59, 60), 0.0, "mape divides by the values, got 0 for 'y' in the test part"),
        ("r2", slice(40, 50), 7.0, "r2 compares with the variance, got a constant for 'y' in the"),
        ("r2", slice(50, 60), 7.0, "in the test part; write rmse or mae"),
        ("mase", slice(0, 40), 7.0, "mase divides by the error of the naive forecast"),
    ],
)
def test_a_metric_that_has_no_score_of_the_values_is_refused(tmp_path, metric, where, value, text):
    values = list(STEADY)
    check(tmp_path, metric, values)
    values[where] = [value] * len(values[where])
    with pytest.raises(DataError, match=": objective.metric: ") as refused:
        check(tmp_path, metric, values)
    assert text in str(refused.value)
    check(tmp_path, "rmse", values)


def test_zeros_that_are_only_trained_on_do_not_matter(tmp_path):
    check(tmp_path, "mape", [0.0, *STEADY[1:]])


def test_a_feature_that_moves_only_after_training_gets_a_note(tmp_path):
    def notes_on(k):
        frame = pd.DataFrame({"y": STEADY, "k": k})
        return [text for _, text in notes_of(tmp_path, frame, ["constant"], split=PARTS)]

    told = "'k' is 5 in all of the training part"
    remedy = "; leave it out of data.features"
    assert notes_on([5.0] * 60) == [f"{told}: it tells a model nothing{remedy}"]
    learned = ", and 7 later: what that means was never learned"
    assert notes_on([5.0] * 45 + [7.0] * 15) == [f"{told}{learned}{remedy}"]
    in_test = [5.0] * 50 + [7.0] * 10  # the test part is not looked at
    assert notes_on(in_test) == notes_on([5.0] * 60)
    assert notes_on([4.0, *[5.0] * 59]) == []


DATA = Path(__file__).parents[2] / "experiments/data"
GENERATOR = np.random.default_rng
PASSENGERS = pd.read_csv(DATA / "air_passengers.csv")["passengers"].to_numpy(float)
SUNSPOTS = pd.read_csv(DATA / "sunspots.csv")["sunspots"].to_numpy(float)


def wave(rows, season, noise=0.1, seed=0):
    return np.sin(2 * np.pi * np.arange(rows) / season) + GENERATOR(seed).normal(0, noise, rows)


def test_the_passengers_have_a_season_a_trend_and_growth():
    for usual in (12, None):  # from the times, and from the rows alone
        profile = profile_of([PASSENGERS[:93]], usual, positive=True)
        assert (profile.season, profile.trending, profile.growing) == (12, True, True)
        assert not profile.walking


def test_the_sunspots_get_a_cycle_and_a_level():
    profile = profile_of([SUNSPOTS[:201]], None, positive=False)
    assert (profile.season, profile.trending, profile.growing) == (11, False, False)


@pytest.mark.parametrize("season", [7, 12, 24])
def test_a_season_of_the_frequency_is_one_only_where_it_shows(season):
    assert profile_of([wave(300, season)], season, positive=False).season == season
    noise = GENERATOR(1).normal(size=300)
    assert profile_of([noise], season, positive=False).season is None
    assert profile_of([noise], None, positive=False).season is None


def test_a_random_walk_is_told_from_a_trend():
    walk = np.cumsum(GENERATOR(3).normal(size=500)) + 100
    assert profile_of([walk], 5, positive=True).walking
    line = np.arange(500.0) + GENERATOR(3).normal(size=500)
    profile = profile_of([line], 5, positive=True)
    assert profile.trending
    assert not profile.walking


def test_growth_needs_a_spread_that_grows_and_values_above_zero():
    growing = np.exp(np.arange(200) / 50) * (10 + wave(200, 12))
    assert profile_of([growing], 12, positive=True).growing
    assert not profile_of([growing], 12, positive=False).growing
    assert not profile_of([growing.max() + 10 + wave(200, 12)], 12, positive=True).growing


def test_most_of_several_series_decide():
    walks = [np.cumsum(GENERATOR(i).normal(size=200)) for i in range(3)]
    assert profile_of([*walks, wave(200, 12)], None, positive=False).season is None
    assert profile_of(
        [walks[0], *[wave(200, 12, seed=i) for i in range(3)]], None, positive=False
    ).season


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("value", [0.0, 5.0, 1e20])
def test_short_and_constant_series_have_nothing(rows, value):
    for usual in (None, 12):
        profile = profile_of([np.full(rows, value)], usual, positive=value > 0)
        assert (profile.season, profile.growing, profile.walking) == (None, False, False)


def test_a_column_that_leads_the_target_helps_and_noise_does_not():
    leader = GENERATOR(0).normal(size=400)
    target = np.r_[0.0, leader[:-1]] + GENERATOR(1).normal(0, 0.1, 400)
    assert gain_of_columns(np.column_stack([target, leader]), [0], 4, 1) > 0.5
    noise = GENERATOR(2).normal(size=400)
    assert gain_of_columns(np.column_stack([target, noise]), [0], 4, 1) < 0.02
    assert gain_of_columns(np.column_stack([target, noise])[:10], [0], 4, 1) < 0
