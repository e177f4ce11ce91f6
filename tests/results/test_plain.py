"""What people call plain predictions, and which is the best."""

import math

import pytest

from tuner.results.verdict import best_plain, left_out_in_words, plain_name


@pytest.mark.parametrize(
    ("name", "metric", "called"),
    [
        ("last_value", "rmse", "last value"),
        ("linear", "rmse", "linear regression"),
        ("linear", "pinball", "linear regression"),
        ("linear", "auroc", "logistic regression"),
        ("class_frequencies", "accuracy", "majority class"),
        ("class_frequencies", "f1", "majority class"),
        ("class_frequencies", "cross_entropy", "class frequencies"),
        ("seasonal_arima", "mae", "seasonal ARIMA"),
        ("what_comes_later", "mae", "what comes later"),
    ],
)
def test_plain_predictions_have_names_that_people_know(name, metric, called):
    assert plain_name(name, metric) == called


def test_the_best_is_that_with_the_best_finite_score():
    scores = {"a": 3.0, "b": math.nan, "c": 1.0, "d": None, "e": 1.0}
    assert best_plain("rmse", scores) == ("c", 1.0)
    assert best_plain("r2", scores) == ("a", 3.0)
    assert best_plain("rmse", {"a": math.inf, "b": None}) is None


def test_what_is_left_out_for_one_reason_is_one_line():
    left_out = {"linear": "too wide", "exponential_smoothing": "no", "seasonal_arima": "no"}
    assert left_out_in_words(left_out, "rmse") == [
        "without linear regression: too wide",
        "without exponential smoothing and seasonal ARIMA: no",
    ]
