import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.data import SequencesRef, SeriesRef, Shape
from tuner.data.baselines import Baselines, last_value, seasonal_naive
from tuner.tables.frequencies import season_of

ROWS = np.column_stack([np.arange(50.0), -np.arange(50.0)])  # every value tells its row


def test_the_last_value_stays():
    forecast = last_value(ROWS, np.array([5, 9]), 3)
    assert forecast.shape == (2, 3, 2)
    assert forecast[:, :, 0].tolist() == [[4.0] * 3, [8.0] * 3]


@given(season=st.integers(1, 12), horizon=st.integers(1, 30), start=st.integers(12, 50))
def test_the_seasonal_naive_forecast_repeats_the_season(season, horizon, start):
    rows = seasonal_naive(ROWS, np.array([start]), horizon, season)[0, :, 0].astype(int)
    for step, row in enumerate(rows):
        assert start - season <= row < start  # the last season, and nothing that is not known
        assert (start + step - row) % season == 0


def test_a_season_longer_than_the_past_is_refused():
    with pytest.raises(ValueError, match="season of 12"):
        seasonal_naive(ROWS, np.array([11, 12]), 1, 12)


@pytest.mark.parametrize(
    ("frequency", "season"),
    [
        ("MS", 12), ("ME", 12), ("BME", 12), ("h", 24), ("2h", 12), ("D", 7), ("B", 5),
        ("W-SUN", 52), ("QS-OCT", 4), ("QE-DEC", 4), ("15min", 96), ("30min", 48), ("min", 1440),
        ("2MS", 6), ("YS-JAN", None), ("YE-DEC", None), ("2D", None), ("12MS", None),
        ("ms", None), (None, None), ("", None),
    ],
)  # fmt: skip
def test_the_season_follows_from_the_frequency(frequency, season):
    assert season_of(frequency) == season


@pytest.mark.parametrize("alias", ["MS", "ME", "QS", "QE", "W", "D", "B", "h", "15min"])
def test_every_frequency_that_pandas_names_has_a_season(alias):
    assert season_of(pd.tseries.frequencies.to_offset(alias).freqstr) is not None


def save(folder, **arrays):
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(values))
    return str(folder)


def series(folder, quantiles=(), rows=12):
    """Two series of as many rows: one counts, one repeats 0, 1, 2, 3; the last half is scored."""
    truth = np.concatenate([np.arange(rows), np.arange(rows) % 4 + 100.0])[:, None]
    save(
        folder,
        truth=truth,
        known=np.ones(len(truth), bool),
        train=[[0, rows // 2], [rows, rows + rows // 2]],
        evaluate=[[rows // 2, rows], [rows + rows // 2, 2 * rows]],
        reach=[[0, rows], [rows, 2 * rows]],
    )
    return SeriesRef(str(folder), Shape("forecast", 1, quantiles=quantiles))


def test_forecasts_are_scored_on_every_series(tmp_path):
    ref = series(tmp_path)
    scores = Baselines(ref, 4).scores("mae")
    # The last value is one off where the series counts; of 2, 3, 0, 1, 2, 3 after 1 it is
    # three off once. A season before, it is four off and right.
    assert scores == {
        "last_value": pytest.approx((6 * 1 + 5 * 1 + 3) / 12),
        "seasonal_naive": pytest.approx((6 * 4 + 0) / 12),
        "training_mean": pytest.approx((36 + 20 / 3) / 12),  # of 2.5, and of 7/6
    }
    assert list(Baselines(ref, None).scores("mae")) == ["last_value", "training_mean"]


def test_a_season_does_not_reach_back_into_another_series(tmp_path):
    ref = series(tmp_path)
    # The first window of each has no season before it and gets the last value, which is one off.
    # The other five are seven off where the series counts, and 3, 1, 1, 1, 3 where it repeats.
    found = Baselines(ref, 7).scores("mae")["seasonal_naive"]
    assert found == pytest.approx((1 + 5 * 7 + 1 + 9) / 12)
    assert list(Baselines(ref, 12).scores("mae")) == ["last_value", "training_mean"]


def test_the_training_mean_is_of_raw_values_per_series(tmp_path):
    save(
        tmp_path,
        truth=[[1.0], [3.0], [90.0], [5.0], [7.0], [100.0], [300.0], [8.0], [9.0]],
        known=[True, True, False, True, True, True, True, True, True],  # 90 was filled in
        train=[[0, 3], [5, 7], [7, 7]],
        evaluate=[[3, 5], [7, 7], [7, 9]],
        reach=[[0, 5], [5, 7], [7, 9]],
    )
    ref = SeriesRef(str(tmp_path), Shape("forecast", 1))
    found = Baselines(ref, None).predict(np.array([4, 8]))["training_mean"]
    # The last series has no training rows: it gets the mean of all others', 1, 3, 100 and 300.
    assert found.tolist() == [[[2.0]], [[101.0]]]
    assert Baselines(ref, None).scores("mae")["training_mean"] == pytest.approx((3 + 5 + 92) / 3)


def test_one_value_stands_for_every_quantile(tmp_path):
    ref = series(tmp_path, quantiles=(0.1, 0.5, 0.9))
    assert Baselines(ref, 4).scores("mae") == Baselines(series(tmp_path), 4).scores("mae")
    pinball = Baselines(ref, 4).scores("pinball")
    # Of the counting series all lie below the truth: a mean of 0.1, 0.5 and 0.9 of the error.
    assert pinball["seasonal_naive"] == pytest.approx(0.5 * 4 / 2)


def test_the_baseline_of_sequences_is_the_training_mean(tmp_path):
    truth = [[1.0, 10.0], [3.0, 30.0], [7.0, 20.0], [100.0, -100.0]]
    folder = save(tmp_path, truth=truth, train=[0, 1], evaluate=[2])
    ref = SequencesRef(folder, Shape("regress", 1, targets=2), (0, 0), (1, 1), (1.0, 10.0))
    assert Baselines(ref, None).scores("mae") == {"training_mean": pytest.approx(5 / 2)}
    assert Baselines(ref, None).scores("mase") == {"training_mean": pytest.approx(5 / 2)}


def test_of_classes_the_shares_of_the_training_part_are_scored(tmp_path):
    folder = save(tmp_path, truth=[0, 0, 0, 1, 2, 0, 2, 2], train=range(4), evaluate=range(4, 8))
    ref = SequencesRef(folder, Shape("classify", 1, classes=3), ())
    assert Baselines(ref, None).scores("accuracy") == {"class_frequencies": 1 / 4}
    assert Baselines(ref, None).scores("auroc") == {"class_frequencies": 0.5}
    loss = Baselines(ref, None).scores("cross_entropy")["class_frequencies"]
    assert loss > 20  # class 2 is not in the training part


def test_of_labels_the_shares_are_those_of_the_steps(tmp_path):
    folder = save(
        tmp_path, truth=[1, 1, 1, 0, 0, 1, 0], bounds=[[0, 3], [3, 4], [4, 7]],
        train=[0, 1], evaluate=[2],
    )  # fmt: skip
    ref = SequencesRef(folder, Shape("label", 1, classes=2), ())
    assert Baselines(ref, None).scores("accuracy") == {"class_frequencies": pytest.approx(1 / 3)}
    loss = Baselines(ref, None).scores("cross_entropy")["class_frequencies"]
    assert loss == pytest.approx(-(2 * np.log(1 / 4) + np.log(3 / 4)) / 3)
