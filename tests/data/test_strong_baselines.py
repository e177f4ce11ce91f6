"""The plain predictions that are fitted: right by other libraries, and blind to what lies ahead."""

from __future__ import annotations

import dataclasses
import itertools
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.examples import examples
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from tuner.data import SequencesRef, SeriesRef, Shape, baselines, linear_models
from tuner.data.baselines import (
    CLASSICAL,
    Baselines,
    Choices,
    baselines_record,
    choose,
    fit_kind,
    kinds_left_out,
    preparations_of,
)
from tuner.data.linear_models import (
    LinearForecast,
    LinearOfSequences,
    SequenceChoice,
    WindowChoice,
    choose_reading,
    choose_window,
    windows_of,
)
from tuner.data.prepared import check_data, open_test_part, prepare
from tuner.data.preprocessing import Transform
from tuner.data.reference import some_of
from tuner.experiment import Experiment

AIR = Path(__file__).parents[2] / "experiments" / "air_passengers.yaml"


@dataclass(frozen=True)
class HeldSeries(SeriesRef):
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def load(self, name):
        return self.arrays[name]


@dataclass(frozen=True)
class HeldSequences(SequencesRef):
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def load(self, name):
        return self.arrays[name]


def held(series, n_train, *, window=4, horizon=2, others=0, logs=False, **fields):
    """Series of (rows, targets), each with the same rows to train on, the rest to evaluate."""
    truth = np.concatenate(series)
    ends = np.cumsum([len(s) for s in series])
    starts = ends - [len(s) for s in series]
    values = np.log(truth) if logs else truth
    rows = np.concatenate([np.arange(a, a + n_train) for a in starts])
    offset, scale = values[rows].mean(axis=0), np.maximum(values[rows].std(axis=0), 0.1)
    targets = ((values - offset) / scale).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(len(truth), others)).astype(np.float32)
    arrays = {
        "truth": truth, "targets": targets, "inputs": np.column_stack([noise, targets]),
        "known": np.ones(len(truth), bool),
        "train": np.column_stack([starts, starts + n_train]),
        "evaluate": np.column_stack([starts + n_train, ends]),
        "reach": np.column_stack([starts, ends]),
        "naive": np.ones((len(series), truth.shape[1])),
    }  # fmt: skip
    n_targets = truth.shape[1]
    columns = tuple(range(others, others + n_targets))
    shape = Shape(
        "forecast", len(columns) + others, horizon=horizon, targets=n_targets, window=window,
        target_columns=columns,
    )  # fmt: skip
    return HeldSeries(
        "", shape, window=window, longest_window=window,
        transform=Transform.of("log" if logs else "none"), offset=tuple(offset),
        scale=tuple(scale), arrays=arrays, **fields,
    )  # fmt: skip


def changed(ref, row, seed):
    """The same where every row from `row` on holds other values, in whatever array."""
    rng = np.random.default_rng(seed)
    arrays = dict(ref.arrays)
    for name in ("truth", "targets", "inputs"):
        arrays[name] = arrays[name].copy()
        size = arrays[name][row:].shape
        arrays[name][row:] = rng.lognormal(1, 2, size).astype(arrays[name].dtype)
    n_targets = arrays["targets"].shape[1]  # the last of the inputs
    arrays["inputs"][row:, -n_targets:] = arrays["targets"][row:]
    return dataclasses.replace(ref, arrays=arrays)


def seasonal(n=90, season=6, seed=0, slope=0.1):
    rng = np.random.default_rng(seed)
    place = np.arange(n)
    values = 20 + slope * place + 4 * np.sin(2 * np.pi * place / season) + rng.normal(0, 0.5, n)
    return values[:, None]


def walk(n=300):
    return 50 + np.cumsum(np.random.default_rng(0).normal(size=n))[:, None]


@pytest.mark.parametrize("last_off", [False, True])
@pytest.mark.parametrize(("others", "n_targets"), [(0, 1), (2, 1), (1, 2)])
def test_the_linear_forecast_is_that_of_scikit_learn(last_off, others, n_targets):
    series = [np.column_stack([seasonal(seed=s + k) for k in range(n_targets)]) for s in (0, 5)]
    ref = held(series, 60, others=others)
    penalty, horizon = 0.01, ref.shape.horizon
    starts, samples = ref.train_samples(), ref.evaluate_samples()

    def laid_out(of):
        x = windows_of(ref, of, 4).reshape(len(of), -1, 4)
        y = ref.load("targets")[of[:, None] + np.arange(horizon)].astype(np.float64)
        last = x[:, others:, -1].copy() if last_off else np.zeros((len(of), n_targets))
        x[:, others:] -= last[:, :, None]
        return x.reshape(len(of), -1), (y - last[:, None]).reshape(len(of), -1), last

    x, y, _ = laid_out(starts)
    alpha = penalty * ((windows_of(ref, starts, 4) - windows_of(ref, starts, 4).mean(axis=0)) ** 2)
    if last_off:
        alpha = penalty * ((x - x.mean(axis=0)) ** 2)
    ridge = Ridge(alpha=float(alpha.sum(axis=0).mean())).fit(x, y)
    x, _, last = laid_out(samples)
    expected = ridge.predict(x).reshape(len(samples), horizon, n_targets) + last[:, None]
    found = LinearForecast.fit(ref, WindowChoice(4, last_off, penalty)).predict(samples)
    np.testing.assert_allclose(found, ref.to_units(expected, samples), rtol=1e-6)


def test_numbers_far_from_zero_lose_no_digits():
    near, far = held([seasonal()], 60), held([seasonal()], 60)
    for name in ("inputs", "targets"):
        far.arrays[name] = far.arrays[name].astype(np.float64) + 1e7
        near.arrays[name] = near.arrays[name].astype(np.float64)
    far = dataclasses.replace(far, offset=(far.offset[0] - 1e7 * far.scale[0],))
    for last_off in (False, True):
        choice = WindowChoice(4, last_off, 1e-6)
        expected = LinearForecast.fit(near, choice).predict(near.evaluate_samples())
        found = LinearForecast.fit(far, choice).predict(far.evaluate_samples())
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def hourly(days=250):
    return seasonal(24 * days, season=24, slope=0.0)


def test_of_very_many_windows_those_of_every_hour_are_fitted_on(monkeypatch):
    ref = held([hourly()], 24 * 200, window=8)
    choices, samples = WindowChoice(8, True, 1e-4), ref.evaluate_samples()

    def error():
        wrong = LinearForecast.fit(ref, choices).predict(samples) - ref.truth_of(samples)
        return float(np.sqrt((wrong**2).mean()))

    of_all, n = error(), len(ref.train_samples())
    monkeypatch.setattr(linear_models, "_MOST_WORK", -(-n // 24) * 8**2)  # every 24th, if evenly
    assert of_all < error() < 1.1 * of_all


def test_of_very_many_windows_those_of_every_hour_choose(monkeypatch):
    ref = held([hourly()], 24 * 200, window=8)
    seen = []

    def spy(metric, truth, predicted, ref, samples):
        seen.append(samples)
        return 1.0

    n = len(ref.evaluate_samples())
    monkeypatch.setattr(linear_models, "score", spy)
    monkeypatch.setattr(linear_models, "_MOST_SCORED", n // 24 * ref.shape.horizon)
    choose_window("rmse", ref)
    assert len(seen[0]) == n // 24
    assert len(set(seen[0] % 24)) > 12


@settings(max_examples=examples(30))
@given(n=st.integers(0, 300), most=st.integers(0, 400), seed=st.integers(0, 99))
def test_a_sample_is_ordered_distinct_and_reproducible(n, most, seed):
    some = some_of(n, most)
    assert len(some) == min(n, max(1, most))
    assert (np.diff(some) > 0).all()
    assert set(some) <= set(range(n))
    np.testing.assert_array_equal(some_of(n, most), some)
    classes = np.random.default_rng(seed).integers(0, 9, n) ** 3
    of_classes = some_of(n, most, classes)
    assert set(classes[of_classes]) == set(classes)
    assert set(some) <= set(of_classes)


def test_of_very_many_steps_no_class_is_lost(monkeypatch):
    ref = sequences("label", n=80, lengths=(8, 8))
    place = np.arange(len(ref.arrays["inputs"])) % 8
    ref.arrays["truth"] = (place == 3).astype(np.int64)  # every 8th step, which 4 of 8 leave out
    ref.arrays["inputs"][:, 0] = ref.arrays["truth"]
    monkeypatch.setattr(linear_models, "_MOST_WORK", 2 * 2 * 40)  # 40 of 320 steps
    scores = Baselines(ref, None, choose("f1", ref, None)).scores("f1")
    assert scores["linear"] == 1.0


def test_a_class_of_which_there_is_one_step_is_fitted_on(monkeypatch):
    ref = sequences("label", n=80, lengths=(8, 8))
    ref.arrays["truth"] = np.zeros(640, np.int64)
    ref.arrays["truth"][[5, 13]] = 1
    monkeypatch.setattr(linear_models, "_MOST_WORK", 2 * 2 * 3)
    assert Baselines(ref, None, choose("f1", ref, None)).predict(np.arange(2))["linear"].shape == (
        16,
        2,
    )


def test_the_last_value_is_removed_unless_the_window_is_better():
    assert choose_window("rmse", held([walk()], 200, window=8)).last_off
    level = 50 + np.random.default_rng(0).normal(size=(300, 1))  # the last value says nothing
    assert not choose_window("rmse", held([level], 200, window=1)).last_off


def test_the_window_is_given_or_the_longest_searched():
    ref = held([seasonal(300)], 200, window=2)
    ref = dataclasses.replace(ref, longest_window=12)  # a season is seen in that alone
    assert choose_window("rmse", ref).window == 12


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2", "mase", "smape"])
def test_every_metric_can_choose(metric):
    assert choose_window(metric, held([walk()], 200, window=8)).last_off


def test_a_series_that_never_moves_is_forecast_to_stay():
    ref = held([np.full((60, 1), 3.0) + np.arange(60)[:, None] // 40], 30)
    found = Baselines(ref, 4, choose("rmse", ref, None)).predict(np.array([30, 31]))
    assert found["linear"].ravel().tolist() == [3.0] * 4
    assert not set(CLASSICAL) & set(found)  # there is nothing to fit


def fit_classical(ref, season):
    return {name: fit_kind(name, ref, season) for name in CLASSICAL}


KINDS = ("linear", "exponential_smoothing", "seasonal_arima")


@settings(max_examples=examples(8), phases=[Phase.generate])
@given(seed=st.integers(0, 2**32 - 1), t=st.integers(60, 75), logs=st.booleans())
def test_a_forecast_never_follows_from_its_own_row_or_later_ones(seed, t, logs):
    ref = held([seasonal(75)], 60, logs=logs)
    choices = Choices(WindowChoice(4, True, 1e-4))
    samples = np.arange(60, min(t, 73) + 1)
    expected, found = (
        Baselines(r, 6, choices).predict(samples) for r in (ref, changed(ref, t, seed))
    )
    assert set(found) >= {"last_value", "seasonal_naive", *KINDS}
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], name)


def test_a_forecast_follows_from_every_row_before_its_own():
    ref = held([seasonal(75)], 60)
    choices = Choices(WindowChoice(4, True, 1e-4))
    expected, found = (
        Baselines(r, 6, choices).predict(np.array([70])) for r in (ref, changed(ref, 69, 0))
    )
    for name in ("last_value", *KINDS):
        assert not np.array_equal(found[name], expected[name]), name


@settings(max_examples=examples(5), phases=[Phase.generate])
@given(seed=st.integers(0, 2**32 - 1))
def test_rows_after_the_training_part_change_no_fit(seed):
    ref = held([seasonal()], 60)
    fitted = [Baselines(r, 6, Choices(WindowChoice(4, False, 1e-4)))
              for r in (ref, changed(ref, 60, seed))]  # fmt: skip
    samples = np.arange(20, 61)  # forecasts that read training rows alone show what was fitted
    expected, found = (of.predict(samples) for of in fitted)
    for name in KINDS:
        np.testing.assert_array_equal(found[name], expected[name], name)


def air(tmp_path, **changes):
    frame = pd.read_csv(AIR.parent / "data" / "air_passengers.csv")
    path = tmp_path / "air.csv"
    if not path.exists():
        frame.to_csv(path, index=False)
    return Experiment.load(AIR).changed({"data.path": str(path), **changes})


def test_test_rows_change_no_validation_score(tmp_path):
    experiment = air(tmp_path)
    records = []
    for factor in (1.0, 3.0):
        frame = pd.read_csv(AIR.parent / "data" / "air_passengers.csv")
        frame.loc[122:, "passengers"] *= factor
        frame.to_csv(tmp_path / "air.csv", index=False)
        data = prepare(experiment, tmp_path / f"search {factor}")
        records.append(baselines_record("rmse", data.folds, data.facts.season))
    assert records[0] == records[1]
    assert set(records[0]["baselines"]) >= {"last_value", *KINDS}


def test_known_baselines_score_as_published_on_air_passengers(tmp_path):
    experiment = air(tmp_path, **{"task.window": 13})
    search = prepare(experiment, tmp_path / "search")
    choices = choose("rmse", search.folds[-1], 12)
    assert choices.linear == WindowChoice(13, False, 1e-8)
    (ref,) = open_test_part(experiment, tmp_path / "test").folds
    scores = Baselines(ref, 12, choices).scores("rmse")
    assert scores["linear"] == pytest.approx(15.64, abs=0.05)
    assert scores["seasonal_arima"] == pytest.approx(15.41, abs=0.05)
    (ref,) = check_data(experiment, all_data=True).write_test(tmp_path / "refit").folds
    scores = Baselines(ref, 12, choices).scores("rmse")  # the same choices, on more rows
    assert scores["seasonal_arima"] == pytest.approx(15.70, abs=0.05)
    assert scores["exponential_smoothing"] == pytest.approx(15.8, abs=0.3)


def test_the_arima_is_that_of_statsmodels():
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    ref = held([seasonal()], 60)
    found = fit_classical(ref, 6)
    order = {"order": (0, 1, 1), "seasonal_order": (0, 1, 1, 6)}
    values = ref.load("truth")[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        params = SARIMAX(values[:60], **order, simple_differencing=True).fit(disp=False).params
    for t in (60, 71, 88):
        expected = SARIMAX(values[:t], **order).filter(params).forecast(2)
        forecast = found["seasonal_arima"].predict(ref, np.array([t]), np.zeros((1, 2, 1)))
        np.testing.assert_allclose(forecast[0, :, 0], expected, rtol=1e-4)


def test_the_smoothing_is_that_of_statsmodels():
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    ref = held([seasonal(slope=0.4)], 60, horizon=8)
    forecast = baselines._smoothing(ref.load("truth")[:, 0], 60, 6)
    known = ref.load("truth")[:60, 0]
    criteria = {}
    for kind, (trend, damped) in itertools.product(
        (None, "add"), ((None, False), ("add", False), ("add", True))
    ):
        model = ETSModel(
            known, error="add", trend=trend, damped_trend=damped, seasonal=kind,
            seasonal_periods=6 if kind else None, initialization_method="heuristic",
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = model.fit(disp=False)
        criteria[fitted.aicc] = fitted
    best = criteria[min(criteria)]
    np.testing.assert_allclose(forecast(np.array([60]), 8)[0], best.forecast(8), rtol=1e-3)


def test_series_without_a_model_get_the_last_value():
    ref = held([seasonal(), np.full((90, 1), 7.0)], 60)
    forecasts = Baselines(ref, 6, Choices(None, {"linear": "not here"})).predict(
        ref.evaluate_samples()
    )
    for name in CLASSICAL:
        flat = ref.series_of(ref.evaluate_samples()) == 1
        assert (forecasts[name][flat] == 7.0).all()
        assert not np.array_equal(forecasts[name][~flat], forecasts["last_value"][~flat])


def spoil_rows(monkeypatch):
    monkeypatch.setattr(baselines, "_MOST_EXPECTED", 0.0)


def spoil_install(monkeypatch):
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("series", "season", "spoil", "why"),
    [
        (1, 6, spoil_rows, "so many rows would take about"),
        (1, 6, spoil_install, "pip install 'lstm-tuner[classical]'"),
        (31, 6, lambda m: None, "31 models (series times targets) are more than 30"),
    ],
)
def test_slow_or_missing_baselines_are_left_out_with_a_note(
    monkeypatch, series, season, spoil, why
):
    spoil(monkeypatch)
    ref = held([seasonal()] * series, 60)
    left_out = kinds_left_out(ref, season)
    assert set(left_out) == set(CLASSICAL)
    assert all(why in text for text in left_out.values())


def test_no_or_a_long_season_gives_no_seasonal_arima():
    for n, season, why in (
        (90, None, "the rows have no season; task.season gives one"),
        (400, 100, "a season of 100 rows is longer than 60"),
    ):
        ref = held([seasonal(n)], n - 30)
        left_out = kinds_left_out(ref, season)
        assert left_out == {"seasonal_arima": why}
        assert len(fit_kind("exponential_smoothing", ref, season))


def test_two_seasons_are_needed_for_a_seasonal_arima():
    too_few = "no series has training rows enough for it"
    assert kinds_left_out(held([seasonal(40)], 28), 12) == dict.fromkeys(CLASSICAL, too_few)
    assert not kinds_left_out(held([seasonal(40)], 29), 12)


@pytest.mark.parametrize("limit", ["_MOST_EXPECTED", "_MOST_MODELS"])
def test_what_is_left_out_is_decided_once_by_the_search_s_data(monkeypatch, limit):
    search, refit = held([seasonal()], 60), held([seasonal()], 75)
    choices = choose("rmse", search, 6)
    assert not choices.left_out
    monkeypatch.setattr(baselines, limit, 0)
    found = Baselines(refit, 6, choices)
    assert not found.left_out
    assert set(found.predict(np.array([75]))) >= set(CLASSICAL)
    choices = choose("rmse", search, 6)
    assert set(choices.left_out) == set(CLASSICAL)
    monkeypatch.undo()
    found = Baselines(refit, 6, choices)
    assert found.left_out == choices.left_out
    assert not set(found.predict(np.array([75]))) & set(CLASSICAL)


def test_no_clock_says_what_is_left_out(monkeypatch):
    ref, seconds = held([seasonal()], 60), itertools.count(0, 1000)
    for name in ("monotonic", "perf_counter", "time", "process_time"):  # a machine that is busy
        monkeypatch.setattr(time, name, lambda: float(next(seconds)))
    record = baselines_record("rmse", [ref], 6)
    assert not record["left_out"]
    assert set(record["baselines"]) >= set(CLASSICAL)


def test_the_search_for_parameters_is_bounded(monkeypatch):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    asked = Counter[str]()

    def counted(of, name):
        plain = getattr(of, name)

        def call(self, *args, **keys):
            asked[of.__name__] += 1
            return plain(self, *args, **keys)

        monkeypatch.setattr(of, name, call)

    counted(ETSModel, "loglike")
    counted(SARIMAX, "loglike")
    monkeypatch.setattr(baselines, "_MOST_STEPS", {"maxiter": 50, "maxfun": 8})
    ref = held([seasonal()], 60)
    assert set(fit_classical(ref, 6)) == set(CLASSICAL)
    assert 0 < asked["ETSModel"] <= 6 * 20
    assert 0 < asked["SARIMAX"] <= 20


def test_a_huge_window_has_no_linear_forecast():
    ref = held([seasonal(60)], 50, window=1300, others=1)
    choices = choose("rmse", ref, None)
    assert choices.linear is None
    assert choices.left_out["linear"] == (
        "its window of 1,300 rows has 2,600 numbers, and more than 2,500 take too long"
    )
    assert Baselines(ref, None, choices).left_out == choices.left_out


def sequences(task="regress", n=60, lengths=(5, 9), seed=0):
    """Sequences of two features; what is to be said of them is in the first one."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(lengths[0], lengths[1] + 1, n)
    ends = np.cumsum(sizes)
    bounds = np.column_stack([ends - sizes, ends])
    inputs = rng.normal(size=(int(ends[-1]), 2)).astype(np.float32)
    first = np.array([inputs[a:b, 0].mean() for a, b in bounds])
    shape, truth = Shape("regress", 2), 3.0 + 2.0 * first[:, None]
    if task == "classify":
        shape, truth = Shape("classify", 2, classes=3), np.digitize(first, [-0.15, 0.15])
    elif task == "label":
        shape, truth = Shape("label", 2, classes=2), (inputs[:, 1] > 0.2).astype(np.int64)
    arrays = {
        "inputs": inputs, "bounds": bounds, "truth": truth,
        "train": np.arange(0, n, 2), "evaluate": np.arange(1, n, 2),
    }  # fmt: skip
    return HeldSequences("", shape, (0.0,), (1.0,), (1.0,), arrays=arrays)


@pytest.mark.parametrize(("task", "metric"), [("regress", "rmse"), ("classify", "accuracy"),
                                              ("label", "f1")])  # fmt: skip
def test_a_linear_model_of_sequences_finds_what_summaries_tell(task, metric):
    ref = sequences(task)
    found = Baselines(ref, None, choose(metric, ref, None)).scores(metric)
    if task == "regress":
        assert found["linear"] < 0.1 * found["training_mean"]
    else:
        assert found["linear"] > 0.7 > found["class_frequencies"]


def test_equal_length_sequences_use_all_values_where_better():
    ref = sequences(lengths=(6, 6))
    ref.arrays["truth"] = ref.arrays["inputs"][2::6, 1:2].astype(np.float64)  # the third step
    assert choose_reading("rmse", ref).reads == "values"
    ref.arrays["truth"] = np.abs(ref.arrays["inputs"].reshape(-1, 6, 2)).max(axis=1)[:, :1]
    assert choose_reading("rmse", ref).reads == "summaries"
    assert choose_reading("rmse", sequences()).reads == "summaries"  # of several lengths


@pytest.mark.parametrize(("task", "metric"), [("regress", "rmse"), ("classify", "accuracy")])
@pytest.mark.parametrize("lengths", [(6, 7), (7, 7)])
def test_longer_test_sequences_reveal_only_the_training_part(task, metric, lengths):
    ref, other = sequences(task, lengths=(6, 6)), sequences(task, n=20, lengths=lengths, seed=1)
    if task == "regress":
        ref.arrays["truth"] = ref.arrays["inputs"][2::6, 1:2].astype(np.float64)
    else:
        ref.arrays["truth"] = (ref.arrays["inputs"][2::6, 1] > 0).astype(np.int64)
    choices = choose(metric, ref, None)
    assert choices.linear.reads == "values"
    arrays = {
        "bounds": np.concatenate([ref.arrays["bounds"], 360 + other.arrays["bounds"]]),
        "evaluate": np.arange(60, 80), "train": ref.arrays["train"],
    }  # fmt: skip
    arrays |= {n: np.concatenate([ref.arrays[n], other.arrays[n]]) for n in ("inputs", "truth")}
    found = Baselines(dataclasses.replace(ref, arrays=arrays), None, choices)
    of_all = found.predict(np.arange(60, 80))
    plain = of_all["training_mean" if task == "regress" else "class_frequencies"]
    longer = np.diff(other.arrays["bounds"])[:, 0] == 7
    np.testing.assert_array_equal(of_all["linear"][longer], plain[longer])
    assert (of_all["linear"][~longer] != plain[~longer])[:, 0].all()
    known = Baselines(ref, None, choices).predict(np.arange(60))["linear"]
    np.testing.assert_array_equal(found.predict(np.arange(60))["linear"], known)


def test_of_tokens_their_counts_are_read():
    rng = np.random.default_rng(0)
    ref = sequences("classify", n=80, lengths=(8, 12))
    tokens = rng.integers(2, 12, len(ref.arrays["inputs"]))
    ref.arrays["tokens"] = tokens
    ref.arrays["truth"] = np.array(
        [int((tokens[a:b] == 5).sum() > (tokens[a:b] == 7).sum()) for a, b in ref.arrays["bounds"]]
    )
    del ref.arrays["inputs"]
    ref = dataclasses.replace(ref, shape=Shape("classify", 0, vocabulary=12, classes=2))
    assert choose_reading("accuracy", ref).reads == "counts"
    scores = Baselines(ref, None, choose("accuracy", ref, None)).scores("accuracy")
    assert scores["linear"] > scores["class_frequencies"] + 0.1
    samples = ref.evaluate_samples()
    counts = np.array([np.bincount(tokens[a:b], minlength=12) for a, b in ref.load("bounds")])
    train = ref.train_samples()
    expected = LogisticRegression(C=1.0, max_iter=200).fit(
        counts[train], ref.arrays["truth"][train]
    )
    found = LinearOfSequences(ref, SequenceChoice("counts", 1.0)).predict(samples, np.empty(0))
    np.testing.assert_allclose(found, expected.predict_proba(counts[samples]), atol=1e-3)


@settings(max_examples=examples(10))
@given(
    task=st.sampled_from(["regress", "classify", "label"]),
    lengths=st.sampled_from([(6, 6), (5, 9)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_untrained_sequences_change_no_fit(task, lengths, seed):
    ref, rng = sequences(task, lengths=lengths), np.random.default_rng(seed)
    other = dict(ref.arrays)
    other["inputs"], other["truth"] = other["inputs"].copy(), other["truth"].copy()
    for sequence in ref.evaluate_samples():
        first, end = other["bounds"][sequence]
        other["inputs"][first:end] = rng.normal(5, 3, (end - first, 2))
        rows = slice(first, end) if task == "label" else sequence
        other["truth"][rows] = 0
    reads = "steps" if task == "label" else "summaries"
    choices = Choices(SequenceChoice(reads, 1.0))
    train = ref.train_samples()
    expected, found = (
        Baselines(r, None, choices).predict(train)["linear"]
        for r in (ref, dataclasses.replace(ref, arrays=other))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_training_part_of_one_class_has_no_linear_model():
    ref = sequences("classify")
    ref.arrays["truth"] = np.where(np.arange(60) % 2, ref.arrays["truth"], 1)
    choices = choose("accuracy", ref, None)
    assert choices.left_out["linear"] == "the training part has one class alone"


def test_a_class_that_is_not_trained_on_is_never_predicted():
    ref = sequences("classify")
    ref.arrays["truth"] = np.where(ref.arrays["truth"] == 1, 2, ref.arrays["truth"])
    found = Baselines(ref, None, choose("accuracy", ref, None)).predict(ref.evaluate_samples())[
        "linear"
    ]
    assert found.shape == (30, 3)
    assert not found[:, 1].any()
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_the_linear_forecast_serves_every_quantile():
    ref = held([seasonal()], 60)
    shape = dataclasses.replace(ref.shape, quantiles=(0.1, 0.5, 0.9))
    quantiles = dataclasses.replace(ref, shape=shape)
    choices = choose("pinball", quantiles, 6)
    scores = Baselines(quantiles, 6, choices).scores("rmse")
    assert scores == Baselines(ref, 6, choices).scores("rmse")


def grown(n=240):
    rng = np.random.default_rng(3)
    place = np.arange(n)
    logs = 1 + place / 40 + 0.5 * np.sin(2 * np.pi * place / 6) + rng.normal(0, 0.05, n)
    return np.exp(logs)[:, None]


def test_validation_rows_choose_the_preparation_of_baselines():
    plain, logs = (held([grown()], 180, window=8, logs=logs) for logs in (False, True))
    name = {"transform": "log"}
    choices = choose("rmse", plain, 6, [(name, logs)])
    assert choices.preparations == dict.fromkeys(KINDS, name)
    found = Baselines(plain, 6, choices, lambda preparation: logs)
    own = Baselines(logs, 6, choose("rmse", logs, 6))
    samples = plain.evaluate_samples()
    for kind in KINDS:
        np.testing.assert_array_equal(found.predict(samples)[kind], own.predict(samples)[kind])
    record = baselines_record("rmse", [plain], 6, [(name, [logs])])
    worse = baselines_record("rmse", [plain], 6)
    for kind in KINDS:
        assert record["baselines"][kind] < worse["baselines"][kind]
    assert choose("rmse", logs, 6, [({"transform": "none"}, plain)]).preparations == {}


def test_too_many_preparations_vary_in_one_thing_each():
    space = {
        "transform": ["none", "log", "box_cox"],
        "scale": ["standard", "minmax"],
        "lags": [{}, {"y": [6]}, {"y": [12]}],
    }

    def of(*names):
        searched = {n: {"type": "categorical", "choices": space[n]} for n in names}
        return preparations_of(
            Experiment.model_validate(
                {"name": "p", "data": {"path": "y.csv", "target": "y"},
                 "task": {"window": 4}, "search_space": searched
                 | {"dropout": {"type": "float", "low": 0.0, "high": 0.5}},
                 "strategy": {"name": "random"}, "budget": {"trials": 4}}
            )
        )  # fmt: skip

    assert of() == [{}]
    own = {"transform": "none", "scale": "standard"}
    assert of("transform", "scale")[0] == own
    assert len(of("transform", "scale")) == 6
    found = of(*space)
    own |= {"lags": "{}"}
    assert found[0] == own
    assert len(found) == 1 + 2 + 1 + 2
    assert all(sum(f[n] != own[n] for n in own) == 1 for f in found[1:])
