"""Values that are probably no measurements get a note with their lines; ordinary data gets none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.cli.main import run
from tuner.data.prepared import check_data
from tuner.data.quality import SUSPECTS, outside_of
from tuner.experiment import Experiment

N = 200
RNG = np.random.default_rng(0)
WAVE = 100 + 10 * np.sin(np.arange(N) / 7 * 2 * np.pi) + RNG.normal(size=N)


def notes(folder, y, **columns):
    day = pd.date_range("2020", periods=len(y)).strftime("%Y-%m-%d")
    path = folder / "s.csv"
    pd.DataFrame({"day": day, "y": y, **columns}).to_csv(path, index=False)
    block = {"path": str(path), "time": "day", "target": "y", "missing": "ffill"}
    raw = {"name": "s", "data": block, "task": {"window": 3}}
    facts = check_data(Experiment.model_validate(raw)).facts
    return [note for note in facts.notes if note[0] in SUSPECTS]


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


@pytest.mark.parametrize(
    "values",
    [
        WAVE,
        put(50, 140.0),
        np.exp(RNG.normal(0, 2, N)),
        RNG.standard_cauchy(N),
        RNG.standard_t(3, N),
        np.exp(np.arange(N) / 20),
        RNG.poisson(0.3, N).astype(float),
        np.r_[RNG.normal(1, 0.1, 100), RNG.normal(50, 1, 100)],
        RNG.normal(size=N).cumsum(),
        np.where(RNG.random(N) < 0.9, 0.0, RNG.gamma(2, 50, N)),
        np.arange(N) % 7 * 1.0,
    ],
    ids=[
        "wave",
        "mild",
        "lognormal",
        "cauchy",
        "t",
        "growth",
        "counts",
        "level",
        "walk",
        "intermittent",
        "weekdays",
    ],
)
def test_ordinary_values_get_no_note(tmp_path, values):
    assert notes(tmp_path, values) == []


def test_each_series_stands_still_by_itself(tmp_path):
    path = tmp_path / "s.csv"
    day = pd.date_range("2020", periods=60).strftime("%Y-%m-%d")
    still = WAVE[:60].copy()
    still[20:55] = 1000.0
    pd.DataFrame(
        {"store": ["a"] * 60 + ["b"] * 60, "day": [*day, *day], "y": [*WAVE[:60], *still]}
    ).to_csv(path, index=False)
    block = {"path": str(path), "time": "day", "id": "store", "target": "y"}
    raw = {"name": "s", "data": block, "task": {"window": 3}}
    facts = check_data(Experiment.model_validate(raw)).facts
    (text,) = [text for what, text in facts.notes if what == "stands still"]
    assert text.startswith("'y' of series 'b' is 1000 in 35 of 60 rows without a break, line 82 (")


def test_sequences_have_sentinels_too(tmp_path):
    path = tmp_path / "s.csv"
    values = RNG.normal(size=160)
    values[[5, 50, 90]] = -999
    ids = np.repeat(np.arange(40), 4)
    pd.DataFrame({"id": ids, "x": values, "y": np.where(ids % 2, "a", "b")}).to_csv(path)
    block = {"path": str(path), "id": "id", "target": "y", "features": ["x"]}
    raw = {"name": "s", "data": block, "task": {"kind": "classify"}}
    facts = check_data(Experiment.model_validate(raw)).facts
    (text,) = [text for what, text in facts.notes if what == "sentinel"]
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


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
    rows=st.lists(st.integers(0, N - 1), min_size=2, max_size=60, unique=True),
)
def test_a_far_repeated_value_is_found_in_exactly_its_rows(scale, offset, rows):
    values = (WAVE - 100) * scale + offset
    far = values.max() + 10 * np.ptp(values)
    values[rows] = far
    ((_, text),) = outside_of({"y": values}, lambda row: f"<{row}>")
    assert f"in {len(rows)} rows (<{min(rows)}>" in text
