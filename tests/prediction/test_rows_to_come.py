"""`predict` reads what is known of the rows to come, and says what of it is missing."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, rewrite
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.cli.main import run
from tuner.errors import InputError
from tuner.prediction import PredictionWarning, load_model

WINDOW, HORIZON, N = 5, 3, 60
SHOPS = ("a", "b")

CASES = {
    "of days": {"time": "day", "id": "shop", "calendar": ["weekday"], "lags": {"price": [1, 4]}},
    "of days with gaps": {
        "time": "day", "id": "shop", "missing": "interpolate", "transform": "log",
        "scale_by": "series",
    },
    "of rows": {"id": "shop", "transform": "difference"},
    "resampled": {"time": "day", "id": "shop", "resample": "2D"},
}  # fmt: skip


def shops(seed=0, n=N):
    rng = np.random.default_rng(seed)
    days = pd.date_range("2024-01-01", periods=n, freq="D")
    return pd.concat(
        pd.DataFrame(
            {
                "shop": shop, "day": days, "units": rng.uniform(5, 9, n),
                "visits": rng.uniform(20, 30, n), "price": rng.uniform(1, 2, n).round(2),
                "promo": rng.integers(0, 2, n),
            }
        )
        for shop in SHOPS
    ).reset_index(drop=True)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    made = {}

    def model(case):
        if case not in made:
            folder = tmp_path_factory.mktemp("model")
            shops(0).to_csv(folder / "shops.csv", index=False)
            data = {
                "path": str(folder / "shops.csv"), "target": "units",
                "features": ["units", "visits", "price", "promo"],
                "known_future": ["price", "promo"], "split": {"validation": 0.2, "test": 0.2},
            }  # fmt: skip
            raw = {"data": data | CASES[case], "task": {"window": WINDOW, "horizon": HORIZON}}
            make_model(raw | {"hyperparameters": {"hidden_size": 4}}, folder)
            made[case] = load_model(folder / "model")
        return made[case]

    return model


def parted(frame, horizon=HORIZON):
    """History, and the rows to come as a file of their own has them."""
    coming = frame.groupby("shop").cumcount(ascending=False) < horizon
    return frame[~coming], frame[coming][["shop", "day", "price", "promo"]]


def rows_of(case):
    return HORIZON * (2 if "resample" in CASES[case] else 1)


@pytest.mark.parametrize("case", CASES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**16), factor=st.sampled_from([0.01, 3.0, 1e6]))
def test_a_forecast_depends_only_on_known_future_columns(case, seed, factor, models):
    model, frame = models(case), shops(seed)
    coming = frame.groupby("shop").cumcount(ascending=False) < rows_of(case)
    frame.loc[coming, "units"] = np.nan
    before = model.predict(frame)
    others, empty, known = frame.copy(), frame.copy(), frame.copy()
    others.loc[coming, "visits"] *= factor
    empty.loc[coming, "visits"] = np.nan
    for changed in (others, empty):
        pd.testing.assert_frame_equal(before, model.predict(changed))
    known.loc[coming, "price"] += 0.5
    assert (before["units"] != model.predict(known)["units"]).any()


@pytest.mark.parametrize("case", CASES)
def test_rows_to_come_are_read_from_the_end_or_another_file(case, models, tmp_path):
    model, frame = models(case), shops(3)
    history, future = parted(frame, rows_of(case))
    behind = pd.concat([history, future]).sort_values(["shop", "day"])
    expected = model.predict(behind)
    assert len(expected) == HORIZON * len(SHOPS)
    history.to_csv(tmp_path / "history.csv", index=False)
    future.to_csv(tmp_path / "future.csv", index=False)
    given = model.predict(tmp_path / "history.csv", future=tmp_path / "future.csv")
    pd.testing.assert_frame_equal(given, expected)
    # Rows of a file of their own that are before, and more than are needed, do no harm.
    more = shops(3, N + 4)[["shop", "day", "price", "promo"]]
    more = more.merge(frame[["shop", "day"]], how="left", indicator=True)
    longer = more.drop(columns="_merge")
    longer = longer.merge(
        frame[["shop", "day", "price", "promo"]], on=["shop", "day"], suffixes=("_", ""), how="left"
    ).drop(columns=["price_", "promo_"])
    if "time" in CASES[case]:
        pd.testing.assert_frame_equal(model.predict(history, future=longer), expected)
    # With --all the last forecast is that one, and those before are of rows that are there.
    every = model.predict(behind, all_windows=True)
    last = every.groupby("shop").tail(HORIZON).reset_index(drop=True)
    pd.testing.assert_frame_equal(last, expected)


def test_the_command_says_what_of_the_rows_to_come_is_missing(
    models, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = str(models("of days").folder)
    history, future = parted(shops(4))
    history.to_csv("history.csv", index=False)

    def refused(frame, *parts):
        options = []
        if frame is not None:
            frame.to_csv("future.csv", index=False)
            options = ["--future", "future.csv"]
        assert run(["predict", folder, "history.csv", *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert [part for part in parts if part not in err] == [], err

    refused(
        None,
        "history.csv: the forecast needs what is known of the next 3 rows after 2024-02-26 of "
        "series 'a', and 3 lack price, promo, the first 2024-02-27 (and 1 other series)",
        "behind the last one, or give a file of them as --future",
    )
    lacking = future.copy()
    lacking.loc[lacking.index[-2], "promo"] = np.nan
    refused(
        lacking, "future.csv: ", "of series 'b', and 1 lacks promo, the first 2024-02-28; add such"
    )
    refused(future[future["day"] < "2024-02-29"], "and 1 lacks price, promo, the first 2024-02-29")
    refused(future[future["shop"] == "b"], "of series 'a', and 3 lack price, promo")
    refused(future.drop(columns="promo"), "future.csv: no column 'promo' in the file")
    refused(future.assign(promo="x"), "column 'promo' must hold numbers, got 'x' in line 2")
    refused(future.assign(day="2024-13-45"), "future.csv: column 'day' must hold a time")
    future.to_csv("future.csv", index=False)
    assert run(["predict", folder, "history.csv", "--future", "future.csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 1 + HORIZON * len(SHOPS)


def test_rows_to_come_without_an_id_hold_for_all_series(models):
    model = models("of days")
    history, future = parted(shops(2))
    common = future[future["shop"] == "a"].drop(columns="shop")
    each = pd.concat([common.assign(shop=shop) for shop in SHOPS])
    expected = model.predict(history, future=each)
    pd.testing.assert_frame_equal(model.predict(history, future=common), expected)


def test_rows_to_come_of_a_wide_file_are_those_without_values(tmp_path):
    frame = shops(5)
    wide = frame.pivot_table(index="day", columns="shop", values="units").add_prefix("shop_")
    wide = wide.join(frame[frame["shop"] == "a"].set_index("day")["price"]).reset_index()
    wide.to_csv(tmp_path / "wide.csv", index=False)
    data = {
        "path": str(tmp_path / "wide.csv"), "time": "day", "known_future": ["price"],
        "wide": {"id": "shop", "value": "units", "columns": "shop_*"},
    }  # fmt: skip
    make_model({"data": data, "task": {"window": 4, "horizon": 3}}, tmp_path)
    model = load_model(tmp_path / "model")
    stores = ["shop_a", "shop_b"]
    behind = wide.assign(**{name: wide[name].where(wide.index < N - 3) for name in stores})
    found = model.predict(behind)
    assert found["shop"].tolist() == ["shop_a"] * 3 + ["shop_b"] * 3
    given = model.predict(wide.iloc[:-3], future=wide[["day", "price"]])
    pd.testing.assert_frame_equal(found, given)


def test_a_model_without_known_columns_refuses_rows_to_come(models, tmp_path):
    frame = shops(0)
    frame.to_csv(tmp_path / "shops.csv", index=False)
    data = {"path": str(tmp_path / "shops.csv"), "target": "units", "id": "shop", "time": "day"}
    for more, text in (
        ({}, "the model has no columns that are known ahead; leave it out"),
        ({"known_future": [], "calendar": ["weekday"]}, "than the calendar, which needs no file"),
    ):
        make_model({"data": data | more, "task": {"window": 4}}, tmp_path)
        model = load_model(tmp_path / "model")
        assert len(model.predict(frame)) == len(SHOPS)
        with pytest.raises(InputError, match=text):
            model.predict(frame, future=frame)


def test_a_calendar_alone_forecasts_from_after_the_last_target(tmp_path):
    frame = shops(0)
    frame.to_csv(tmp_path / "shops.csv", index=False)
    data = {
        "path": str(tmp_path / "shops.csv"), "target": "units", "id": "shop", "time": "day",
        "calendar": ["weekday"], "known_future": [],
    }  # fmt: skip
    make_model({"data": data, "task": {"window": 4, "horizon": 2}}, tmp_path)
    model = load_model(tmp_path / "model")
    history, _ = parted(frame)
    expected = model.predict(history)
    assert expected["day"].dt.strftime("%m-%d").tolist() == ["02-27", "02-28"] * 2
    late = frame.assign(units=frame["units"].where(frame["day"] < "2024-02-27"))
    pd.testing.assert_frame_equal(model.predict(late), expected)


def test_windows_without_future_rows_are_left_out_with_a_note(models):
    with pytest.warns(PredictionWarning, match="no forecast after the last 3 rows of series 'a'"):
        every = models("of days").predict(shops(1), all_windows=True)
    assert every["day"].max() == pd.Timestamp("2024-02-29")  # the last row of the file


def test_an_older_folder_has_no_known_columns(tmp_path):
    shops(0).to_csv(tmp_path / "shops.csv", index=False)
    data = {"path": str(tmp_path / "shops.csv"), "target": "units", "id": "shop", "time": "day"}
    make_model({"data": data, "task": {"window": 4}}, tmp_path)
    record = json.loads((tmp_path / "model" / "pipeline.json").read_text())
    assert record["format"] == 4  # which versions before read too
    assert "known_future" not in record
    expected = load_model(tmp_path / "model").predict(shops(1))
    rewrite(tmp_path / "model", known_future=None, format=5)
    pd.testing.assert_frame_equal(load_model(tmp_path / "model").predict(shops(1)), expected)


def test_older_versions_refuse_a_folder_with_known_columns(models):
    record = json.loads((models("of days").folder / "pipeline.json").read_text())
    assert record["known_future"] == ["price", "promo"]
    assert record["format"] == 5
