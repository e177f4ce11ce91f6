"""Predictions from files, with rows to come."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from helpers.model_folders import make_model, months, rewrite
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.cli.app import run
from tuner.errors import DataError, InputError
from tuner.prediction import PredictionWarning, load_model
from tuner.prediction import session as running

SALES = {"data": {"time": "month", "target": "sales"}, "task": {"window": 6}}


def made(frame, raw, folder):
    make_model(raw, folder, frame, "train.parquet")
    return load_model(folder / "model")


def sales_model(folder, **changes):
    return made(months(), SALES | {"task": {"window": 6, "horizon": 3}} | changes, folder)


def test_by_default_the_horizon_after_the_last_row_is_forecast(tmp_path):
    found = sales_model(tmp_path).predict(months(20))
    assert list(found) == ["month", "step", "sales"]
    assert found["step"].tolist() == [1, 2, 3]
    assert [str(t.date()) for t in found["month"]] == ["2016-09-01", "2016-10-01", "2016-11-01"]
    assert found["sales"].between(50, 150).all()  # in the data's units
    every = sales_model(tmp_path).predict(months(20), all_windows=True)
    pd.testing.assert_frame_equal(every.tail(3).reset_index(drop=True), found)
    assert len(every) == 3 * (20 - 6 + 1)
    assert str(every["month"][0].date()) == "2015-07-01"


@pytest.mark.parametrize(
    ("frequency", "last", "written"),
    [
        ("h", "2021-12-31 23:00", "2022-01-01 00:00:00"),
        ("h", "2021-12-31 22:00", "2021-12-31 23:00:00"),
        ("D", "2021-12-31", "2022-01-01"),
    ],
)
def test_an_hourly_forecast_of_midnight_has_its_time_too(
    frequency, last, written, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    frame = months().assign(month=pd.date_range(end=last, periods=72, freq=frequency))
    make_model(SALES, tmp_path, frame)
    for output in ((), ("-o", "out.csv")):
        capsys.readouterr()
        assert run(["predict", "model", "data.csv", *output]) == 0
        out = Path("out.csv").read_text() if output else capsys.readouterr().out
        assert out.splitlines()[1].split(",")[0] == written


def test_as_many_rows_as_the_window_are_enough(tmp_path):
    model = sales_model(tmp_path)
    pd.testing.assert_frame_equal(
        model.predict(months(20).tail(6)), model.predict(months(20)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("frequency", "last", "then"),
    [
        ("ME", "2021-11-30", ["2021-12-31", "2022-01-31"]),
        ("B", "2021-12-31", ["2022-01-03", "2022-01-04"]),
        ("W-WED", "2021-12-29", ["2022-01-05", "2022-01-12"]),
        ("QS", "2021-10-01", ["2022-01-01", "2022-04-01"]),
        ("15min", "2021-12-31 23:45", ["2022-01-01 00:00", "2022-01-01 00:15"]),
    ],
)
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_times_go_on_at_the_recorded_frequency(frequency, last, then, zone, tmp_path):
    times = pd.date_range(end=last, periods=72, freq=frequency)
    frame = months().assign(month=times.tz_localize(zone))
    model = made(frame, SALES | {"task": {"window": 4, "horizon": 2}}, tmp_path)
    expected = [pd.Timestamp(t, tz=zone) for t in then]
    assert model.predict(frame)["month"].tolist() == expected
    # Few rows may keep several frequencies: those of one working week are daily rows as well.
    assert model.predict(frame.tail(4))["month"].tolist() == expected


def test_the_order_of_dates_that_was_found_in_training_holds(tmp_path):
    frame = months().assign(month=months()["month"].dt.strftime("%d/%m/%Y"))  # 1 of each month
    model = made(frame, SALES, tmp_path)
    assert model.pipeline.day_first is True
    few = frame[:9]  # alone as even as nine days
    assert model.predict(few)["month"].tolist() == [pd.Timestamp("2015-10-01")]
    iso = few.assign(month=months()["month"][:9].dt.strftime("%Y-%m-%d"))
    assert model.predict(iso)["month"].tolist() == [pd.Timestamp("2015-10-01")]
    other = frame.assign(month=pd.date_range("2015-01-20", periods=72).strftime("%m/%d/%Y"))
    with pytest.raises(DataError, match="dates in one order, here day/month/year, got '01/20/2015"):
        model.predict(other)


def test_the_frequency_settles_date_order_or_a_warning_is_given(tmp_path):
    (tmp_path / "days").mkdir()
    model = sales_model(tmp_path)
    few = months(9).assign(month=months(9)["month"].dt.strftime("%d/%m/%Y"))
    assert model.predict(few)["month"][0] == pd.Timestamp("2015-10-01")
    raw = SALES | {"data": SALES["data"] | {"resample": "1D"}}
    daily = months().assign(month=pd.date_range("2020-01-20", periods=72))
    model = made(daily, raw, tmp_path / "days")
    with pytest.warns(PredictionWarning, match="read as month/day/year, 01/02/2015 as 2015-01-02"):
        assert model.predict(few)["month"][0] == pd.Timestamp("2015-01-10")


def test_of_several_series_each_is_forecast_from_its_own_end(tmp_path):
    frames = [months(40).assign(store="b"), months(50, seed=1).assign(store="01")]
    frame = pd.concat(frames, ignore_index=True)
    raw = {
        "data": {"time": "month", "target": ["sales", "price"], "id": "store"},
        "task": {"window": 6, "horizon": 2, "quantiles": [0.1, 0.5, 0.9]},
    }
    model = made(frame, raw, tmp_path)
    shuffled = frame.sort_values(["month", "store"])  # the series' rows may stand interleaved
    text = "^the series end at different times, b at 2018-04-01 and 01 at 2019-02-01; each forecast"
    with pytest.warns(PredictionWarning, match=text):
        found = model.predict(shuffled)
    columns = ["sales", "sales_q0.1", "sales_q0.9", "price", "price_q0.1", "price_q0.9"]
    assert list(found) == ["store", "month", "step", *columns] == model.columns
    place = {(r.store, str(r.month.date()), r.step) for r in found.itertuples()}
    assert place == {
        ("b", "2018-05-01", 1), ("b", "2018-06-01", 2),
        ("01", "2019-03-01", 1), ("01", "2019-04-01", 2),
    }  # fmt: skip
    assert (found["sales_q0.1"] < found["sales"]).all()
    assert (found["sales"] < found["sales_q0.9"]).all()
    alone = model.predict(frame[frame["store"] == "01"])
    of_both = found[found["store"] == "01"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_both, rtol=1e-5)
    # A series that was not in the training is one like the others.
    new = model.predict(frame.assign(store="new").iloc[:40])
    assert new["store"].tolist() == ["new", "new"]


def test_without_times_rows_are_counted_on(tmp_path):
    raw = {"data": {"target": "sales"}, "task": {"window": 6, "horizon": 2}}
    found = made(months().drop(columns="month"), raw, tmp_path).predict(months(30))
    assert list(found) == ["row", "step", "sales"]
    assert found["row"].tolist() == [31, 32]


def test_no_window_reads_rows_that_have_no_difference_or_lag(tmp_path):
    data = {"target": "sales", "lags": {"price": [3]}, "transform": "difference"}
    raw = {"data": data, "task": {"window": 6, "horizon": 2}}
    found = made(months().drop(columns="month"), raw, tmp_path).predict(months(30), True)
    assert found["row"][found["step"] == 1].tolist() == list(range(3 + 6 + 1, 32))


def test_an_untrained_series_is_scaled_by_its_first_rows(tmp_path):
    known = pd.concat([months(60, i).assign(shop=f"s{i}", sales=lambda f, i=i: f["sales"] * 9**i)
                       for i in range(2)])  # fmt: skip
    data = {
        "id": "shop", "time": "month", "target": "sales", "features": ["sales"],
        "transform": "difference", "scale_by": "series",
    }  # fmt: skip
    model = made(known, {"data": data, "task": {"window": 6, "horizon": 3}}, tmp_path)
    own = model.predict(known)
    again = known[known["shop"] == "s1"]
    text = "the model was not trained on new: scaled by the rows of its first window"
    with pytest.warns(PredictionWarning, match=text):
        found = model.predict(pd.concat([known, again.assign(shop="new")]))
    pd.testing.assert_frame_equal(found[found["shop"] != "new"], own)
    new = found.loc[found["shop"] == "new", "sales"].to_numpy()
    trained = own.loc[own["shop"] == "s1", "sales"].to_numpy()
    assert not np.array_equal(new, trained)  # its last rows are not those that were trained on
    np.testing.assert_allclose(new, trained, rtol=0.1)
    with pytest.warns(PredictionWarning, match=text):
        scaled = model.predict(again.assign(shop="new", sales=lambda f: f["sales"] * 1000))
    np.testing.assert_allclose(scaled["sales"], new * 1000, rtol=1e-4)


def test_a_table_is_read_like_a_file_with_its_named_index(tmp_path):
    model = sales_model(tmp_path)
    months(30).to_csv(tmp_path / "data.csv", index=False)
    expected = model.predict(tmp_path / "data.csv")
    path = str(tmp_path / "data.csv")
    frame = months(30)
    for data in (path, frame, frame.set_index("month"), frame.astype({"month": str})):
        found = model.predict(data)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5, check_index_type=False)
    before = frame.copy()
    model.predict(frame, True)
    pd.testing.assert_frame_equal(frame, before)


def test_a_table_that_cannot_be_used_is_refused_by_rows(tmp_path):
    model = sales_model(tmp_path)
    with pytest.raises(Exception, match=r"^data frame: .* got 'x' in row 3; write a number"):
        model.predict(months(30).astype({"sales": object}).assign(sales=[1, 2, "x", *range(27)]))
    with pytest.raises(Exception, match="^data frame: has column names but no rows"):
        model.predict(months(30)[:0])


def test_a_series_that_is_left_out_is_a_warning(tmp_path):
    frame = pd.concat([months().assign(store=s) for s in "ab"])
    model = made(frame, SALES | {"data": SALES["data"] | {"id": "store"}}, tmp_path)
    short = pd.concat([months(9).assign(store="a"), months(2).assign(store="b")])
    with pytest.warns(PredictionWarning, match="no forecast for b: the model needs 6 rows"):
        assert model.predict(short)["store"].tolist() == ["a"]
    with pytest.warns(PredictionWarning, match="no forecast for b"):
        assert len(model.predict(short, all_windows=True)) == 9 - 6 + 1


def test_labels_stand_in_the_order_of_the_file(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"run": f"r{i}", "day": f"2024-01-0{t + 1}", "x": rng.normal(), "sign": "du"[t % 2]}
        for t in range(5) for i in range(20)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    raw = {
        "data": {"id": "run", "time": "day", "features": ["x"], "target": "sign"},
        "task": {"kind": "label"},
    }
    model = made(frame, raw, tmp_path)
    unlabelled = frame.drop(columns="sign")
    found = model.predict(unlabelled)
    assert list(found) == ["run", "day", "row", "sign", "p_d", "p_u"] == model.columns
    assert found["run"].tolist() == frame["run"].tolist()
    assert found["day"].tolist() == frame["day"].tolist()
    assert found["row"].tolist() == list(range(1, 101))
    np.testing.assert_allclose(found["p_d"] + found["p_u"], 1)
    assert (found["sign"] == np.where(found["p_u"] > 0.5, "u", "d")).all()
    alone = model.predict(unlabelled[unlabelled["run"] == "r3"])
    of_all = found[found["run"] == "r3"]
    np.testing.assert_allclose(alone["p_u"], of_all["p_u"], rtol=1e-5)


def test_texts_are_counted_and_values_are_in_their_units(tmp_path):
    columns = {"name": ["ab", "b", "abba", "bab"] * 10, "size": [1e6, 2e6, 3e6, 4e6] * 10}
    texts = pd.DataFrame(columns)
    raw = {"data": {"text": "name", "target": "size"}, "task": {"kind": "regress"}}
    found = made(texts, raw, tmp_path).predict(texts[["name"]][:4])
    assert list(found) == ["row", "size"]
    assert found["row"].tolist() == [1, 2, 3, 4]
    assert found["size"].between(0, 6e6).all()


def test_columns_of_the_same_name_are_told_apart(tmp_path):
    frame = months().rename(columns={"sales": "step"})
    raw = {"data": {"time": "month", "target": "step"}, "task": {"window": 6}}
    assert list(made(frame, raw, tmp_path).predict(frame)) == ["month", "step", "step_"]


@pytest.mark.parametrize("batch", [1, 7, 10_000])
def test_a_prediction_does_not_depend_on_its_batch(batch, tmp_path, monkeypatch):
    model = sales_model(tmp_path)
    expected = model.predict(months(), all_windows=True)
    monkeypatch.setattr(running, "BATCH", batch)
    pd.testing.assert_frame_equal(model.predict(months(), all_windows=True), expected, rtol=1e-5)


def test_long_sequences_are_read_few_at_a_time(tmp_path, monkeypatch):
    sizes = []
    model = sales_model(tmp_path, hyperparameters={"hidden_size": 8, "bidirectional": True})
    monkeypatch.setattr(running, "_BATCH_NUMBERS", 6 * 16 * 5)
    monkeypatch.setattr(
        running.Runner, "_run",
        lambda self, inputs: sizes.append(len(inputs)) or np.zeros((len(inputs), 3, 1)),
    )  # fmt: skip
    model.predict(months(), all_windows=True)
    assert sizes == [5] * 13 + [2]


def test_the_command_writes_csv_to_a_file_or_to_standard_output(tmp_path, monkeypatch, capsys):
    model = sales_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    months(30).to_csv("data.csv", index=False)
    assert run(["predict", "model", "data.csv"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    expected = model.predict("data.csv")
    printed = pd.read_csv(io.StringIO(out), parse_dates=["month"])
    pd.testing.assert_frame_equal(printed, expected, rtol=1e-9, check_dtype=False)
    assert out.splitlines()[1].startswith("2017-07-01,1,")
    assert run(["predict", "model", "data.csv", "-o", "out.csv"]) == 0
    assert Path("out.csv").read_text() == out
    out, err = capsys.readouterr()
    assert (out, err) == ("", "wrote out.csv: 3 rows, month, step, sales\n")


def test_a_model_says_what_it_is(tmp_path):
    model = sales_model(tmp_path)
    assert repr(model) == f"Model({str(tmp_path / 'model')!r}: forecast sales)"
    assert "onnxruntime" in sys.modules


@pytest.mark.parametrize("level", [0.0, 1e9, 1e18])
def test_what_is_written_is_what_the_model_says_to_the_last_bit(
    level, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    frame = months().assign(sales=lambda f: level + f["sales"] * max(1.0, level * 1e-11))
    make_model(SALES, tmp_path, frame)
    model = load_model("model")
    assert run(["predict", "model", "data.csv", "--all", "-o", "out.csv"]) == 0
    expected = model.predict("data.csv", all_windows=True)["sales"]
    assert expected.nunique() > 10
    np.testing.assert_array_equal(pd.read_csv("out.csv")["sales"], expected)


def test_final_rows_without_a_target_are_noted_and_forecast_from(tmp_path):
    model = made(months(), SALES | {"data": SALES["data"] | {"missing": "ffill"}}, tmp_path)
    frame = months(30)
    frame.loc[frame.index[-3:], "sales"] = np.nan
    with pytest.warns(PredictionWarning, match="the last 3 rows have no target"):
        found = model.predict(frame)
    assert found["month"][0] == frame["month"].max() + pd.offsets.MonthBegin()


def test_a_file_in_another_dialect_than_training_is_read(tmp_path):
    frame = months(40)
    model = made(frame, SALES, tmp_path)
    german = tmp_path / "german.csv"
    frame.to_csv(german, sep=";", decimal=",", index=False)
    pd.testing.assert_frame_equal(model.predict(german), model.predict(frame))


WINDOW, HORIZON, N = 5, 3, 60
SHOPS = ("a", "b")
DAYS = {"target": "units", "id": "shop", "time": "day"}
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
            data = {
                "target": "units", "features": ["units", "visits", "price", "promo"],
                "known_future": ["price", "promo"], "split": {"validation": 0.2, "test": 0.2},
            }  # fmt: skip
            raw = {"data": data | CASES[case], "task": {"window": WINDOW, "horizon": HORIZON}}
            make_model(raw, folder := tmp_path_factory.mktemp("model"), shops())
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
@settings(max_examples=examples(10))
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
    columns = {"id": "shop", "value": "units", "columns": "shop_*"}
    data = {"time": "day", "known_future": ["price"], "wide": columns}
    make_model({"data": data, "task": {"window": 4, "horizon": 3}}, tmp_path, wide)
    model = load_model(tmp_path / "model")
    stores = ["shop_a", "shop_b"]
    behind = wide.assign(**{name: wide[name].where(wide.index < N - 3) for name in stores})
    found = model.predict(behind)
    assert found["shop"].tolist() == ["shop_a"] * 3 + ["shop_b"] * 3
    given = model.predict(wide.iloc[:-3], future=wide[["day", "price"]])
    pd.testing.assert_frame_equal(found, given)


def test_a_model_without_known_columns_refuses_rows_to_come(models, tmp_path):
    frame = shops()
    for more, text in (
        ({}, "the model has no columns that are known ahead; leave it out"),
        ({"known_future": [], "calendar": ["weekday"]}, "than the calendar, which needs no file"),
    ):
        make_model({"data": DAYS | more, "task": {"window": 4}}, tmp_path, frame)
        model = load_model(tmp_path / "model")
        assert len(model.predict(frame)) == len(SHOPS)
        with pytest.raises(InputError, match=text):
            model.predict(frame, future=frame)


def test_a_calendar_alone_forecasts_from_after_the_last_target(tmp_path):
    frame = shops()
    data = DAYS | {"calendar": ["weekday"], "known_future": []}
    make_model({"data": data, "task": {"window": 4, "horizon": 2}}, tmp_path, frame)
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
    make_model({"data": DAYS, "task": {"window": 4}}, tmp_path, shops())
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
