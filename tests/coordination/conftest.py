import pytest
from helpers.simulated_study import Case

from tuner.data import prepared


@pytest.fixture(scope="module", autouse=True)
def _baselines_fitted_once(baselines_fitted_once):
    pass


@pytest.fixture
def make_case(tmp_path):
    return lambda name: Case(tmp_path / name)


@pytest.fixture
def case(make_case):
    return make_case("case")


@pytest.fixture
def openings(monkeypatch):
    """What was known before each evaluation on the test set: the study's record."""
    seen, really = [], prepared.open_test_part

    def opened(experiment, folder, **keys):
        seen.append(folder)
        return really(experiment, folder, **keys)

    monkeypatch.setattr(prepared, "open_test_part", opened)
    return seen
