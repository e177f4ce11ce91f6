import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tuner.data import SequencesRef, SeriesRef, Shape
from tuner.data.metrics import score
from tuner.experiment.metrics import METRICS

TRUTH = np.array([[[1.0, 10.0], [2.0, 20.0]], [[4.0, 40.0], [8.0, 80.0]]])  # 2 windows, 2 steps
FORECAST = TRUTH + np.array([1.0, 2.0])
OF_VALUES = [name for name, metric in METRICS.items() if metric.of == "values"]
OF_CLASSES = [name for name, metric in METRICS.items() if metric.of == "classes"]


class Held(SeriesRef):
    """Two windows, each of a series of its own."""

    def evaluate_samples(self):
        return np.arange(2)

    def naive_errors(self, samples):
        return np.array(self.scale).reshape(-1, 2)[samples]


def values(naive=(2.0, 8.0), quantiles=()):
    """Data whose naive errors are these in both series, or (series, targets) of them."""
    shape = Shape("forecast", 2, horizon=2, targets=2, quantiles=quantiles)
    return Held("", shape, scale=naive if len(naive) == 4 else naive * 2)


def classes(n):
    return SequencesRef("", Shape("classify", 2, classes=n))


def test_scores_are_means_over_targets_in_their_own_units():
    assert score("rmse", TRUTH, FORECAST, values()) == pytest.approx(1.5)
    assert score("mae", TRUTH, FORECAST, values()) == pytest.approx(1.5)
    mape = np.mean([1 / np.array([1, 2, 4, 8]), 2 / np.array([10, 20, 40, 80])])
    assert score("mape", TRUTH, FORECAST, values()) == pytest.approx(mape)
    flat = TRUTH.reshape(-1, 2)
    rest = 1 - 4 * np.array([1.0, 4.0]) / ((flat - flat.mean(axis=0)) ** 2).sum(axis=0)
    assert score("r2", TRUTH, FORECAST, values()) == pytest.approx(rest.mean())
    smape = np.mean(np.abs(FORECAST - TRUTH) / ((TRUTH + FORECAST) / 2))
    assert score("smape", TRUTH, FORECAST, values()) == pytest.approx(smape)
    assert score("mase", TRUTH, FORECAST, values()) == pytest.approx((1 / 2 + 2 / 8) / 2)


def test_a_perfect_prediction_has_the_best_score():
    assert [score(m, TRUTH, TRUTH, values()) for m in OF_VALUES] == [0, 0, 0, 0, 0, 1]
    truth = np.array([0, 1, 2, 1])
    best = [score(m, truth, np.eye(3)[truth], classes(3)) for m in OF_CLASSES]
    assert best == pytest.approx([1, 1, 1, 0])


def test_smape_of_nothing_is_zero_and_its_worst_is_two():
    zero, one = np.zeros((1, 2, 2)), np.ones((1, 2, 2))
    assert score("smape", zero, zero, values()) == 0
    assert score("smape", zero, one, values()) == 2
    assert score("smape", -one, one, values()) == 2
    assert score("smape", one, one * 1e308, values()) == pytest.approx(2)


def test_mase_divides_the_errors_of_each_series_by_its_own():
    each = values((1.0, 8.0, 2.0, 4.0))
    expected = np.mean([[1 / 1, 2 / 8], [1 / 2, 2 / 4]])
    assert score("mase", TRUTH, FORECAST, each) == pytest.approx(expected)
    one = values((1.0, 8.0, math.nan, math.nan))  # the second has no training rows
    assert score("mase", TRUTH, FORECAST, one) == pytest.approx(np.mean([1, 2 / 8]))
    assert math.isnan(score("mase", TRUTH, FORECAST, values((math.nan,) * 4)))


def test_mase_of_a_series_that_repeats_itself_is_nan():
    assert math.isnan(score("mase", TRUTH, FORECAST, values((2.0, 0.0))))
    assert math.isnan(score("mase", TRUTH, TRUTH, values((2.0, 0.0))))


def test_of_quantiles_the_middle_one_is_the_value_that_is_scored():
    ref = values(quantiles=(0.1, 0.5, 0.9))
    spread = np.stack([FORECAST - 5, FORECAST, FORECAST + 3], axis=-1)  # (windows, 2, 2, 3)
    for metric in OF_VALUES:
        assert score(metric, TRUTH, spread, ref) == score(metric, TRUTH, FORECAST, values())


def test_pinball_is_the_mean_over_the_quantiles():
    quantiles = (0.1, 0.5, 0.9)
    spread = np.stack([FORECAST - 5, FORECAST, FORECAST + 3], axis=-1)
    losses = []
    for i, q in enumerate(quantiles):
        over = spread[..., i] - TRUTH
        losses.append(np.mean(np.where(over > 0, (1 - q) * over, -q * over)))
    found = score("pinball", TRUTH, spread, values(quantiles=quantiles))
    assert found == pytest.approx(np.mean(losses))


@settings(deadline=None)
@given(
    metric=st.sampled_from(OF_VALUES),
    bad=st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e308]),
    at=st.integers(0, 7),
    quantiles=st.sampled_from([(), (0.5,)]),
)
def test_an_overflowing_forecast_never_raises(metric, bad, at, quantiles):
    forecast = TRUTH.copy()
    forecast.flat[at] = bad
    forecast = forecast[..., None] if quantiles else forecast
    for name in (metric, "pinball") if quantiles else (metric,):
        value = score(name, TRUTH, forecast, values(quantiles=quantiles))
        assert not math.isinf(value)
        if not math.isfinite(bad):
            assert math.isnan(value)


def test_r2_of_one_value_and_a_score_of_nothing_are_nan():
    assert math.isnan(score("r2", TRUTH[:1, :1], TRUTH[:1, :1], values()))
    assert [math.isnan(score(m, TRUTH[:0], TRUTH[:0], values())) for m in OF_VALUES] == [True] * 6
    nothing = np.empty(0, np.int64), np.empty((0, 3))
    assert [math.isnan(score(m, *nothing, classes(3))) for m in OF_CLASSES] == [True] * 4


@settings(deadline=None)
@given(n=st.integers(2, 5), seed=st.integers(0, 10**6), single=st.booleans())
def test_scores_of_classes_are_scikit_learns(n, seed, single):
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(n), random.integers(n, size=30)])  # every class occurs
    predicted = random.dirichlet(np.ones(n), size=len(truth))
    best = predicted.argmax(axis=1)
    area = (
        metrics.roc_auc_score(truth, predicted[:, 1])
        if n == 2
        else metrics.roc_auc_score(truth, predicted, multi_class="ovr", average="macro")
    )
    expected = {
        "accuracy": metrics.accuracy_score(truth, best),
        "f1": metrics.f1_score(truth, best, average="macro"),
        "auroc": area,
        "cross_entropy": metrics.log_loss(truth, predicted),
    }
    predicted = predicted.astype(np.float32) if single else predicted
    for metric, value in expected.items():
        assert score(metric, truth, predicted, classes(n)) == pytest.approx(value, rel=1e-5)


@settings(deadline=None)
@given(
    n=st.integers(2, 4), metric=st.sampled_from(OF_CLASSES), seed=st.integers(0, 10**6),
    size=st.integers(1, 6), bad=st.sampled_from([None, math.nan, math.inf, -1.0, 0.0]),
)  # fmt: skip
def test_classes_that_do_not_occur_never_raise(n, metric, seed, size, bad):
    random = np.random.default_rng(seed)
    truth, predicted = random.integers(n, size=size), random.dirichlet(np.ones(n), size=size)
    if bad is not None:
        predicted[0] = bad
    value = score(metric, truth, predicted, classes(n))
    assert not math.isinf(value)
    if bad is not None and not math.isfinite(bad):
        assert math.isnan(value)


def test_f1_averages_over_true_and_predicted_classes():
    predicted = np.eye(4)[[0, 0, 1, 2]]  # of 0: f1 2/3; of 1: 2/3; of 2: 0; 3 does not occur
    assert score("f1", np.array([0, 1, 1, 0]), predicted, classes(4)) == pytest.approx(
        (1 / 2 + 2 / 3 + 0) / 3
    )


def test_auroc_is_the_mean_over_the_classes_that_occur():
    predicted = np.array([[0.6, 0.2, 0.2], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])
    assert score("auroc", np.array([0, 1, 0]), predicted, classes(3)) == 1
    assert math.isnan(score("auroc", np.array([1, 1, 1]), predicted, classes(3)))
    assert math.isnan(score("auroc", np.array([1, 1, 1]), predicted[:, :2], classes(2)))


def test_an_impossible_class_has_a_large_finite_loss():
    value = score("cross_entropy", np.array([0, 1]), np.array([[1.0, 0.0]] * 2), classes(2))
    assert 15 < value < 20
