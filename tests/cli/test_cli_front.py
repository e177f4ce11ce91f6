"""Two objectives on the command line: the front is shown, drawn, and any of it exported."""

import json
from pathlib import Path

import pytest

from tuner.cli.main import run
from tuner.experiment import Experiment


@pytest.fixture
def searched(folder, capsys):
    """The study of a search for small models; the current folder has it."""
    text = (folder / "air.yaml").read_text().replace("strategy: {name: random}\n", "")
    text = text.replace("pruner: {name: none}", "objective: {metrics: [rmse, weights]}")
    (folder / "air.yaml").write_text(text.replace("trials: 4", "trials: 10"))
    assert run(["run", "air.yaml", "--no-tracking", "--no-test"]) == 0
    printed = capsys.readouterr().out
    assert "Pareto front" in printed
    return "air-nsga2-0"


def test_the_pareto_front_is_shown_and_each_of_it_exported(searched, capsys):
    assert run(["show", searched, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    front = shown["front"]
    values = [(each["values"]["rmse"], each["values"]["weights"]) for each in front]
    assert values == sorted(values)
    assert [w for _, w in values] == sorted((w for _, w in values), reverse=True)
    every = {t["number"]: (t["value"], t["weights"]) for t in shown["all_trials"]}
    for each, pair in zip(front, values, strict=True):
        assert every[each["trial"]] == pair
    assert run(["report", searched]) == 0
    assert 'id="pareto_front"' in Path(f"{searched}.html").read_text()
    smallest = front[-1]["trial"]
    capsys.readouterr()
    assert run(["export", searched, "--trial", str(smallest), "-o", "small.yaml"]) == 0
    small = Experiment.load("small.yaml")
    assert small.hyperparameters.hidden_size == front[-1]["params"]["hidden_size"]
    assert small.objective.metrics is None
    capsys.readouterr()
    assert run(["train", "small.yaml"]) == 0
    assert "reproduced: " in capsys.readouterr().out
    assert run(["export", searched, "--trial", "99"]) == 2
    assert "--trial: must be a complete trial of air-nsga2-0, got 99" in capsys.readouterr().err
