"""A whole search by its command: what the test rows may change, and what is scored on them."""

import numpy as np
import pytest
from helpers.waves import EXPERIMENT, trials, tuner, write_series


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Makes a folder in which a search has ended; returns it and what was printed."""

    def make(**series):
        path = tmp_path_factory.mktemp("waves")
        write_series(path, **series)
        (path / "waves.yaml").write_text(EXPERIMENT)
        return path, tuner(path, "run", "waves.yaml", "--no-tracking")

    return make


@pytest.fixture(scope="module")
def one(searched):
    return searched()


def test_the_test_set_changes_nothing_before_it_is_opened(one, searched):
    other, _ = searched(changed={85: 1e6, 88: -3.0})
    trials_of_one, finalists_of_one, test_of_one = trials(one[0])
    trials_of_other, finalists_of_other, test_of_other = trials(other)
    assert trials_of_one == trials_of_other
    assert finalists_of_one == finalists_of_other
    assert test_of_one["scores"] != test_of_other["scores"]


def test_the_test_score_uses_rows_the_search_never_saw(one):
    path, out = one
    _, finalists, test = trials(path)
    assert test["configuration"] == finalists[0]["trial"]
    assert len(test["scores"]) == 2
    assert (test["rows"], test["from"], test["to"]) == (12, "row 79", "row 90")
    y = np.loadtxt(path / "waves.csv", skiprows=1)
    naive = np.sqrt(np.mean((y[78:] - y[77:-1]) ** 2))
    seasonal = np.sqrt(np.mean((y[78:] - y[66:78]) ** 2))
    mean = np.sqrt(np.mean((y[78:] - y[:63].mean()) ** 2))
    plain = {"last_value": naive, "seasonal_naive": seasonal, "training_mean": mean}
    fitted = {"linear", "exponential_smoothing", "seasonal_arima"}
    assert test["baselines"].keys() == plain.keys() | fitted
    assert {name: test["baselines"][name] for name in plain} == pytest.approx(plain)
    assert len(test["default"]["scores"]) == 2
    assert "last value" in out
    assert "seasonal naive" in out
    assert "linear regression" in out
