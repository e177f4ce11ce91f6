"""What lies ahead never moves a forecast: no row after a window changes what is said of it."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.model_folders import make_model, months
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuner.errors import DataError
from tuner.prediction import PredictionWarning, load_model

WINDOW, HORIZON, N = 6, 2, 30
SHOPS = ("known", "new", "other")  # the model is trained on the first and the last

CASES = {
    "one scale": {"scale_by": "all"},
    "own scales": {},
    "between own ends": {"scale": "minmax", "target": ["sales", "price"]},
    "differences and lags": {
        "transform": "difference", "lags": {"sales": [2], "price": [1]}, "calendar": ["month"],
    },
    "a moving average": {"decompose": {"kind": "moving_average", "length": 4}, "scale_by": "all"},
    "modes": {"decompose": {"kind": "emd", "components": 3}},
    "gaps filled": {"missing": "interpolate", "transform": "log"},
}  # fmt: skip


def shops(seed, n=N):
    """As many months of each shop; each sells a hundred times what the one before does."""
    frames = [
        months(n, seed + i).assign(shop=shop, sales=lambda f, i=i: f["sales"] * 100**i)
        for i, shop in enumerate(SHOPS)
    ]
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = {}

    def model(case):
        if case not in made:
            data = {
                "id": "shop", "time": "month", "target": "sales", "features": ["sales", "price"],
                "scale_by": "series",
            }  # fmt: skip
            raw = {"data": data | CASES[case], "task": {"window": WINDOW, "horizon": HORIZON}}
            folder = tmp_path_factory.mktemp("model")
            make_model(raw, folder, shops(0, 72).query("shop != 'new'"))
            made[case] = load_model(folder / "model")
        return made[case]

    return model


def forecasts(model, frame, all_windows=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PredictionWarning)
        return model.predict(frame, all_windows=all_windows)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=examples(12))
@given(
    seed=st.integers(0, 2**16),
    shop=st.sampled_from(SHOPS),
    cut=st.integers(WINDOW, N - 1),
    factor=st.sampled_from([0.01, 0.5, 3.0, 1e4]),
)
def test_changing_rows_after_a_window_never_changes_its_forecast(
    case, seed, shop, cut, factor, models
):
    frame = shops(seed)
    if "missing" in CASES[case]:
        frame.loc[frame.index % 7 == 4, "sales"] = np.nan
    (at,) = np.nonzero(frame["shop"] == shop)
    later = frame.copy()
    rng = np.random.default_rng(seed)
    for name in ("sales", "price"):
        noise = rng.uniform(1, 1.5, N - cut)
        later.loc[at[cut:], name] = frame.loc[at[cut:], name].to_numpy() * factor * noise
    try:
        before, after = (forecasts(models(case), f) for f in (frame, later))
    except DataError as error:  # a line through what falls so steeply ends below 0
        assume("log needs values above 0" not in str(error))
        raise
    begins = _counted(before["month"]) - (before["step"] - 1)
    changed = (before["shop"] == shop) & (begins > _counted(frame["month"])[at[cut]])
    pd.testing.assert_frame_equal(before[~changed], after[~changed], rtol=1e-6)
    assert (before[changed]["sales"] != after[changed]["sales"]).any()


@pytest.mark.parametrize("case", CASES)
def test_a_forecast_does_not_need_the_rows_after_its_window(case, models):
    model, frame = models(case), shops(3)
    every = forecasts(model, frame)
    place = frame.groupby("shop").cumcount()
    for n in (12, 20, N):
        found = forecasts(model, frame[place < n], all_windows=False)
        assert len(found) == len(SHOPS) * HORIZON
        same = every.merge(found[["shop", "month", "step"]])
        pd.testing.assert_frame_equal(same, found, rtol=1e-5)


def _counted(months):
    return months.dt.year * 12 + months.dt.month
