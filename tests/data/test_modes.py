"""Modes of windows: each by itself, written for the windows that are read, refused where dear."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.data import features as modes
from tuner.data.features import modes_of
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.errors import DataError
from tuner.experiment import Experiment

EMD = {"kind": "emd", "components": 3}


def on(folder, n=80, **keys):
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(n) / 3) + 0.3 * rng.normal(size=n)
    pd.DataFrame({"x": rng.normal(size=n), "y": y}).to_csv(folder / "y.csv", index=False)
    data = {"path": str(folder / "y.csv"), "target": "y", "decompose": EMD} | keys.pop("data", {})
    return Experiment.model_validate({"name": "m", "data": data, **{"task": {"window": 8}} | keys})


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 999), rows=st.integers(1, 40), n_modes=st.integers(1, 4))
def test_modes_are_finite_and_zero_where_a_window_has_fewer(seed, rows, n_modes):
    rng = np.random.default_rng(seed)
    steps = rng.integers(-2, 3, (2, rows, 2)).astype(np.float32)
    found = modes_of(np.concatenate((steps, np.ones_like(steps))), n_modes)
    assert found.shape == (4, rows, 2 * n_modes)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert not found[2:].any()  # what stands still swings nowhere


def test_a_fast_and_a_slow_swing_are_told_apart():
    t = np.arange(96)
    fast, slow = np.sin(2 * np.pi * t / 6), 3 * np.sin(2 * np.pi * t / 96)
    found = modes_of((fast + slow)[None, :, None], 1)[0, :, 0]
    assert np.corrcoef(found[12:-12], fast[12:-12])[0, 1] > 0.99


def test_modes_are_written_for_exactly_the_readable_windows(tmp_path):
    space = {"window": {"type": "int", "low": 6, "high": 12, "step": 3}}
    experiment = on(tmp_path, search_space=space)
    (ref,) = prepare(experiment, tmp_path / "search").folds
    assert sorted(p.stem for p in Path(ref.folder).glob("modes_*")) == [
        "modes_12", "modes_6", "modes_8", "modes_9",
    ]  # fmt: skip
    for window in (6, 8, 9, 12):
        own = ref.with_window(window)
        found, inputs = own.load(f"modes_{window}"), own.load("inputs")
        read = np.union1d(own.train_samples(), own.evaluate_samples())
        for sample in read[:: len(read) // 5]:
            rows = inputs[None, sample - window : sample, list(ref.shape.target_columns)]
            np.testing.assert_array_equal(found[sample - window], modes_of(rows, 2)[0])
        assert np.isfinite(found[read - window]).all()
        others = np.setdiff1d(np.arange(len(found)), read - window)
        assert np.isnan(found[others]).all()


def test_no_mode_of_a_row_follows_from_later_rows(tmp_path):
    experiment = on(tmp_path)
    (before,) = open_test_part(experiment, tmp_path / "before").folds
    frame = pd.read_csv(tmp_path / "y.csv")
    frame.loc[len(frame) - 3 :, "y"] += 5.0
    frame.to_csv(tmp_path / "y.csv", index=False)
    (after,) = open_test_part(experiment, tmp_path / "after").folds
    earlier, later = before.load("modes_8"), after.load("modes_8")
    samples = before.evaluate_samples()
    untouched = samples[samples <= len(frame) - 3] - 8
    moved = samples[samples > len(frame) - 3] - 8
    assert len(untouched) > 5
    np.testing.assert_array_equal(earlier[untouched], later[untouched])
    assert len(moved)
    assert all((earlier[i] != later[i]).any() for i in moved)


@pytest.mark.parametrize(
    ("most", "value", "keys", "message"),
    [
        ("MOST_WINDOWS", 50, {}, r"data\.decompose: emd splits each window, 50 at most, got 68"),
        ("MOST_BYTES", 4000, {}, r"data\.decompose: emd keeps 0\.0 GB of windows at most"),
        (
            "MOST_WINDOWS", 300,
            {"search_space": {"window": {"type": "int", "low": 4, "high": 9}}},
            r"got 408; write moving_average, fewer or shorter windows in search_space.window",
        ),
        (
            "MOST_WINDOWS", 100,
            {
                "data": {"decompose": "none"},
                "search_space": {
                    "decompose": {"type": "categorical", "choices": ["none", EMD]},
                    "scale": {"type": "categorical", "choices": ["standard", "none"]},
                },
            },
            r"search_space\.decompose: emd splits each window, 100 at most, got 136",
        ),
    ],
)  # fmt: skip
def test_data_too_large_to_split_is_refused_in_time(
    most, value, keys, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(modes, "modes_of", lambda *_: pytest.fail("it began"))
    check_data(on(tmp_path, **keys))
    monkeypatch.setattr(modes, most, value)
    with pytest.raises(DataError, match=message):
        check_data(on(tmp_path, **keys))


def test_without_the_library_it_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "PyEMD" else found(name, *a)
    )
    with pytest.raises(DataError, match=r"decompose: emd needs EMD-signal.*pip install 'lstm-tun"):
        check_data(on(tmp_path))
    check_data(on(tmp_path, data={"decompose": {"kind": "moving_average", "length": 4}}))
