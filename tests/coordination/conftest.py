import pytest
from helpers.baselines import fitted_once
from helpers.search_bench import Bench
from helpers.simulated_study import Case

from tuner.journal.storage import write_journal
from tuner.results import test_score


@pytest.fixture(scope="package", autouse=True)
def _baselines_fitted_once():
    with fitted_once():
        yield


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "s.journal")


@pytest.fixture
def make_bench(tmp_path):
    return lambda name: Bench(tmp_path / f"{name}.journal")


@pytest.fixture
def notes(monkeypatch):
    """What a bench's journal tells people; on a server the bench holds its study alone."""
    said = []
    monkeypatch.setattr(
        "helpers.search_bench.write_journal",
        lambda location: write_journal(location, "s", said.append),
    )
    return said


@pytest.fixture
def make_case(tmp_path):
    return lambda name: Case(tmp_path / name)


@pytest.fixture
def case(make_case):
    return make_case("case")


@pytest.fixture
def openings(monkeypatch):
    """What was known before each evaluation on the test set: the study's record."""
    seen, really = [], test_score.open_test_part

    def opened(experiment, folder, **keys):
        seen.append(folder)
        return really(experiment, folder, **keys)

    monkeypatch.setattr(test_score, "open_test_part", opened)
    return seen
