"""A cell of one's own in an experiment: found, asked what it declares, and never imported here."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.coordination.finalists import canonical, model_name, untuned
from tuner.errors import ExperimentError, TunerError
from tuner.experiment import Experiment, cells
from tuner.training.user_models import inspect_class
from tuner.user_code import ALLOW

TESTS = Path(__file__).parents[1]
OWN_CODE = TESTS / "helpers" / "own_code"
LEAKY = "own_classes:Leaky"
BOTH = {"type": "categorical", "choices": ["lstm", LEAKY]}


@pytest.fixture(autouse=True)
def _places(monkeypatch):
    monkeypatch.delenv(ALLOW, raising=False)


@pytest.fixture
def looked_at_here(monkeypatch):
    """Look at classes in this process: torch is here already, and takes seconds to come."""

    def run(command, **_):
        answer = json.dumps(inspect_class(**json.loads(command[4])))
        return subprocess.CompletedProcess(command, 0, answer, "")

    monkeypatch.setattr(cells.subprocess, "run", run)


def loaded(folder, **blocks):
    from tuner.experiment import dump_yaml

    raw = {"name": "own", "data": {"path": "a.csv", "target": "y"}} | blocks
    path = folder / "own.yaml"
    path.write_text(dump_yaml(raw))
    return Experiment.load(path)


def test_its_keys_are_fixed_and_searched_as_tuner_s(tmp_path):
    space = {"leak": {"type": "float", "low": 0.1, "high": 0.9}, "cell": BOTH}
    fixed = {"cell": LEAKY, "leak": 0.25}
    experiment = loaded(tmp_path, hyperparameters=fixed, search_space=space)
    assert experiment.start() == {"cell": LEAKY, "leak": 0.25}
    assert untuned(experiment) == {"cell": "lstm", "leak": 0.5}
    chosen = experiment.configuration({"cell": LEAKY, "leak": 0.7})
    assert (chosen["leak"], chosen["gate"]) == (0.7, "tanh")  # the one that is not said by default
    other = experiment.configuration({"cell": "lstm", "leak": 0.7})
    assert not {"leak", "gate"} & set(other)
    same = [canonical(experiment, {"cell": "lstm", "leak": leak}) for leak in (0.2, 0.8)]
    assert same[0] == same[1]
    assert model_name(LEAKY) == "Leaky"


def test_declared_keys_are_recorded_and_read_without_imports(tmp_path, monkeypatch):
    experiment = loaded(tmp_path, hyperparameters={"cell": LEAKY, "leak": 0.25})
    record = experiment.to_dict()
    assert record["cells"][0]["keys"]["leak"]["default"] == 0.5
    monkeypatch.setattr(cells, "_declared", lambda *_: pytest.fail("it was asked again"))
    assert Experiment.model_validate(record) == experiment
    assert experiment.changed({"budget.trials": 3}).cells == experiment.cells
    plain = experiment.changed({"hyperparameters": {"cell": "gru"}})
    assert "cells" not in plain.to_dict()


def test_an_entry_point_is_a_name_for_a_class(tmp_path, monkeypatch):
    installed = tmp_path / "site" / "leaky-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{cells.GROUP}]\nleaky = {LEAKY}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    space = {"cell": {"type": "categorical", "choices": ["gru", "leaky"]}}
    experiment = loaded(tmp_path, hyperparameters={"cell": "leaky"}, search_space=space)
    assert experiment.hyperparameters.cell == LEAKY
    assert experiment.search_space["cell"].bounds() == ("gru", LEAKY)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"cell": "not_there:X"}, "hyperparameters.cell: no module 'not_there' is installed, got"),
        ({"cell": "own_classes:Leeky"}, "own_classes has no 'Leeky'.*; did you mean 'Leaky'?"),
        ({"cell": "own_classes:function"}, "must be a class of torch.nn.Module, got"),
        ({"cell": "own_classes:NoModule"}, "must be a class of torch.nn.Module, got"),
        ({"cell": "own_classes:Strange"}, r"made of \(inputs, units, ...\), a whole model of"),
        ({"cell": "own_classes:Wide"}, r"must return \(batch, steps, units\), here \(2, 5, 4\)"),
        ({"cell": "own_classes:Flat"}, r"must return \(batch, horizon, targets\), here"),
        ({"cell": "own_classes:Outside"}, "declares 'leak' wrongly: default: must lie in 0 to 0.9"),
        ({"cell": "own_classes:Misnamed"}, "declares 'leak' wrongly: "),
        ({"cell": "own_classes:Taken"}, "declares 'dropout', which is tuner's own; rename it"),
        ({"cell": "own_classes:Undeclared"}, "takes 'secret', and does not declare it; add it to"),
        ({"cell": "os.path:join"}, "must be a class of torch.nn.Module"),
        ({"cell": "own classes:Leaky"}, "must be a cell, or package.module:Class, got"),
        ({"cell": "lsmt"}, "unknown cell 'lsmt'; did you mean 'lstm'?"),
        ({"cell": LEAKY, "leek": 0.5}, "hyperparameters.leek: unknown key 'leek'; did you mean 'l"),
        ({"cell": LEAKY, "leak": 1.5}, "leak: must lie in what its cell declares, 0 to 0.99, got "),
        ({"cell": LEAKY, "gate": "step"}, "gate: must lie in .* one of tanh, relu, got 'step'"),
        ({"cell": LEAKY, "decoder": "recursive"}, "decoder: a decoder begins with a state"),
        ({"cell": LEAKY, "bias": False}, "bias: applies to tuner's own cells, got False"),
        ({"cell": LEAKY, "proj_size": 3}, "proj_size: own_classes:Leaky has no projection"),
        ({"cell": "own_classes:Counting", "dropout": 0.5}, "is a whole model and does not take it"),
        ({"cell": "gru", "leak": 0.5}, "hyperparameters.leak: unknown key 'leak'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(blocks, message, tmp_path, looked_at_here):
    with pytest.raises(ExperimentError, match=message) as refused:
        loaded(tmp_path, hyperparameters=blocks)
    assert str(refused.value).startswith(f"{tmp_path / 'own.yaml'}: hyperparameters.")


@pytest.mark.parametrize(
    ("name", "domain", "message"),
    [
        ("leak", {"type": "float", "low": 0.1, "high": 1.5}, "declares, 0 to 0.99, got 1.5"),
        ("leak", {"type": "categorical", "choices": [0.1, "x"]}, "declares, 0 to 0.99, got 'x'"),
        ("gate", {"type": "int", "low": 0, "high": 1}, "declares, one of tanh, relu, got 0"),
        ("leek", {"type": "float", "low": 0.1, "high": 0.5}, "unknown hyperparameter 'leek'; did"),
        ("kernel", {"type": "int", "low": 1, "high": 2}, "unknown hyperparameter 'kernel'"),
    ],
)
def test_a_space_outside_of_what_is_declared_is_refused(name, domain, message, tmp_path):
    with pytest.raises(ExperimentError, match=f"search_space.{name}: .*{message}"):
        loaded(tmp_path, hyperparameters={"cell": LEAKY}, search_space={name: domain})


def test_code_of_the_current_folder_needs_permission(tmp_path, monkeypatch):
    text = (OWN_CODE / "own_classes.py").read_text()
    (tmp_path / "of_this_folder.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as PYTHONPATH=. has it
    fixed = {"cell": "of_this_folder:Leaky"}
    with pytest.raises(ExperimentError, match="nothing is imported from the current folder, whe"):
        loaded(tmp_path, hyperparameters=fixed)
    monkeypatch.setenv(ALLOW, "1")
    cells._declared.cache_clear()
    assert loaded(tmp_path, hyperparameters=fixed).cells[0].name == "of_this_folder:Leaky"
    cells._declared.cache_clear()


def test_an_exported_file_imports_nothing_unless_that_is_allowed(tmp_path, monkeypatch):
    record = loaded(tmp_path, hyperparameters={"cell": LEAKY}).to_dict()
    monkeypatch.setattr(cells, "_declared", lambda *_: pytest.fail("it was imported"))
    with pytest.raises(TunerError, match="an exported file imports no code, got 'own_classes:Le"):
        loaded(tmp_path, **record)
    monkeypatch.undo()
    monkeypatch.setenv(ALLOW, "1")
    record["cells"][0]["keys"]["leak"]["range"]["high"] = 7.0  # somebody wrote there
    asked = loaded(tmp_path, **record)
    assert asked.cells[0].keys["leak"].range.bounds() == (0.0, 0.99)


@pytest.mark.parametrize(
    ("key", "lines"),
    [
        ("objective.metric", "objective: {metric: 'minimize json.tool:main'}"),
        ("objective.metrics", "objective: {metrics: ['minimize json.tool:main', weights]}"),
        ("objective.metrics", "objective: {metrics: ['maximize  json.tool:main', weights]}"),
        ("hyperparameters.loss", "hyperparameters: {loss: 'json.tool:main'}"),
        (
            "search_space.loss.choices",
            "search_space: {loss: {type: categorical, choices: [mse, 'json.tool:main']}}",
        ),
        (
            "search_space.loss.choices",
            "search_space: {loss: {type: categorical, choices: !!set {'json.tool:main'}}}",
        ),
        (
            "search_space.cell.choices",
            "search_space: {cell: {type: categorical, choices: !!set {'json.tool:main'}}}",
        ),
    ],
)
def test_an_exported_file_imports_nothing_wherever_code_is_named(key, lines, tmp_path, monkeypatch):
    for name in ("_declared", "_inspected"):
        monkeypatch.setattr(cells, name, lambda *_: pytest.fail("it was imported"))
    path = tmp_path / "best.yaml"
    path.write_text(f"name: own\ndata: {{path: w.csv, target: y}}\nrecorded:\n{lines}\n")
    text = f"{key}: an exported file imports no code, got 'json.tool:main'; add --allow-code"
    with pytest.raises(ExperimentError, match=text):
        Experiment.load(path)


def test_checking_an_experiment_brings_no_torch_along(tmp_path):
    loaded(tmp_path, hyperparameters={"cell": LEAKY, "leak": 0.1})
    command = (
        "import sys; from tuner.experiment import Experiment; "
        f"e = Experiment.load({str(tmp_path / 'own.yaml')!r}); "
        "sys.exit(e.cells[0].keys['leak'].default != 0.5 or "
        "'torch' in sys.modules or 'own_classes' in sys.modules)"
    )
    path = f"{TESTS.parent}:{OWN_CODE}"
    done = subprocess.run(
        [sys.executable, "-c", command], env={"PYTHONPATH": path}, cwd=tmp_path, check=False
    )
    assert done.returncode == 0
