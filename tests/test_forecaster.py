"""`LSTMForecaster`: what scikit-learn's users expect of an estimator, as far as it makes sense."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from tuner import InputError, LSTMForecaster
from tuner.errors import ExperimentError

SETTINGS = {"budget.epochs": 2, "finalists.repeats": 1, "finalists.top": 1}


def waves(n_rows=90):
    t = np.arange(n_rows)
    y = 10 + 3 * np.sin(t / 2) + np.random.default_rng(0).normal(0, 0.1, n_rows)
    return pd.Series(y, pd.date_range("2020-01-01", periods=n_rows, freq="D"), name="sales")


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here := tmp_path_factory.mktemp("forecaster"))
        forecaster = LSTMForecaster(horizon=2, trials=2, settings=SETTINGS, n_jobs=2)
        assert forecaster.fit(waves()) is forecaster
        assert not [*here.iterdir()]  # a fit leaves nothing in a person's folder
        yield forecaster


def test_parameters_are_read_set_and_cloned():
    forecaster = LSTMForecaster("sales", horizon=3, settings={"budget.epochs": 2})
    assert forecaster.get_params()["horizon"] == 3
    copy = clone(forecaster.set_params(trials=4, random_state=7))
    assert copy is not forecaster
    assert copy.get_params() == forecaster.get_params()
    with pytest.raises(ValueError, match="horizn"):
        forecaster.set_params(horizn=2)


def test_what_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        LSTMForecaster().predict()


def test_a_fit_forecasts_what_comes_next(fitted):
    found = fitted.predict()
    assert found.step.tolist() == [1, 2]
    assert found.time.tolist() == [*pd.date_range("2020-03-31", periods=2)]
    pd.testing.assert_frame_equal(fitted.predict(waves()), found)
    assert len(fitted.predict(waves(), all_windows=True)) > 2
    later = fitted.predict(waves()[:-10])
    assert later.time[0] == waves().index[-10]
    assert set(fitted.best_params_) <= set(fitted.study_.experiment.search_space)
    assert fitted.feature_names_in_.tolist() == ["time", "sales"]


def test_its_score_is_r2_of_every_step_that_can_be_forecast(fitted):
    from sklearn.metrics import r2_score

    found = fitted.predict(waves(), all_windows=True)
    known = found[found.time.isin(waves().index)]
    expected = r2_score(waves().loc[known.time], known.sales)
    assert fitted.score(waves()) == pytest.approx(expected)
    assert fitted.score(waves()) > 0.5
    with pytest.raises(InputError, match="needs .* rows"):
        fitted.score(waves()[:3])


def test_a_fitted_forecaster_is_pickled_with_its_model(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.predict(waves()), fitted.predict(waves()))
    unfitted = clone(fitted)
    assert not hasattr(unfitted, "model_")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda: LSTMForecaster().fit([1.0, 2.0]), "X: must be a table or a series"),
        (lambda: LSTMForecaster().fit(np.ones((50, 2))), r"target: must name .* x0, x1; .*x1"),
        (lambda: LSTMForecaster().fit(waves(), np.ones(3)), "y: .* got 3 for 90 rows"),
        (lambda: LSTMForecaster("sale").fit(waves()), "no column 'sale'.*'sales'"),
        (lambda: LSTMForecaster(strategy="tpee").fit(waves()), "strategy.*tpe"),
        (lambda: LSTMForecaster(settings={"budget.epoch": 2}).fit(waves()),
         "budget.epoch: .*did you mean 'epochs'"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_in_one_line(given, says):
    with pytest.raises((InputError, ExperimentError), match=says) as refused:
        given()
    assert "\n" not in str(refused.value)


def test_a_target_may_come_beside_the_features():
    forecaster = LSTMForecaster()
    table, target = forecaster._table(pd.DataFrame({"price": [1.0, 2.0]}), np.array([3.0, 4.0]))
    assert target == "y"
    assert table.to_dict("list") == {"price": [1.0, 2.0], "y": [3.0, 4.0]}
