"""The example of a new strategy works as CONTRIBUTING shows it."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
from conformance import test_strategies as conformance
from pydantic import ValidationError

from tuner.cli.app import Strategies
from tuner.cli.studies import strategies
from tuner.errors import InputError
from tuner.experiment import Experiment
from tuner.experiment.messages import explain
from tuner.strategies import GROUP, STRATEGIES, every_strategy

ROOT = Path(__file__).parents[2]
LAWS = [
    pytest.param(law, id=name, marks=getattr(law, "pytestmark", ()))
    for name, law in vars(conformance).items()
    if name.startswith("test_") and set(inspect.signature(law).parameters) == {"subject"}
]


@pytest.fixture
def hill(tmp_path, monkeypatch):
    """The class of the example, offered by an installed package."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)[1]
    assert len(code.splitlines()) <= 30
    (tmp_path / "hill_climbing.py").write_text(code)
    install(tmp_path, "hill", "hill_climbing:HillClimbing")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("hill_climbing").HillClimbing
    monkeypatch.delitem(importlib.sys.modules, "hill_climbing")


def install(folder, name, value):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {value}\n")


def experiment(**strategy):
    return Experiment.model_validate(
        {
            "name": "hills",
            "data": {"path": "data.csv", "target": "y"},
            "search_space": {"dropout": {"type": "float", "low": 0.0, "high": 0.5}},
            "strategy": strategy,
            "budget": {"trials": 20},
        }
    )


@pytest.mark.parametrize("law", LAWS)
def test_the_example_conforms(hill, law):
    for candidates in (1, 3):
        options = hill(population=5, candidates=candidates)
        law(conformance.Subject(options, conformance.SPACE, n_trials=12))


def test_an_installed_strategy_is_found_by_name(hill):
    found = experiment(name="hill", step=0.2)
    assert found.strategy == hill(step=0.2).paced(20)
    assert found.strategy.population == 5
    assert Experiment.model_validate(found.to_dict()) == found
    expected = {"name": "hill", "population": 5, "candidates": 1, "step": 0.2}
    assert found.to_dict()["strategy"] == expected
    assert "hill" not in STRATEGIES


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "hill", "step": 2.0}, "step"),
        ({"name": "other"}, "must be a tuner.strategies.Strategy"),
    ],
)
def test_wrong_options_of_an_installed_strategy_are_refused(hill, strategy, message, tmp_path):
    install(tmp_path, "other", "hill_climbing:np")
    with pytest.raises((ValueError, InputError), match=message):
        experiment(**strategy)


def test_a_broken_strategy_is_named_and_the_others_are_listed(hill, capsys, tmp_path):
    install(tmp_path, "broken", "no_such_module:Strategy")
    found, errors = every_strategy()
    assert [*found] == [*STRATEGIES, "hill"]
    assert [error.got.partition(":")[0] for error in errors] == ["'broken' of no_such_module"]
    strategies(Strategies(json=True))
    out, err = capsys.readouterr()
    assert [*json.loads(out)] == [*found]
    assert err == f"tuner: {errors[0]}\n"


def test_an_installed_strategy_is_listed_and_suggested(hill, capsys):
    strategies(Strategies(json=True))
    listed = json.loads(capsys.readouterr().out)
    assert listed["hill"]["options"]["step"]["default"] == 0.1
    with pytest.raises(ValidationError) as caught:
        experiment(name="hil")
    (problem,) = explain(caught.value.errors(), Experiment, {"strategy": {"name": "hil"}})
    assert (problem.key, problem.remedy) == ("strategy.name", "did you mean 'hill'?")
