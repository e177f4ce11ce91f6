"""The folder of a model: what is in it, and that half of one is none."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

sys.path.append(str(Path(__file__).parents[1] / "prediction"))
from helpers.model_folders import make_model, months

from tuner.cli.app import run
from tuner.errors import ModelError, RunError
from tuner.experiment import Experiment
from tuner.prediction import load_model
from tuner.results import export as model_folder
from tuner.results.advice import why_not_exportable
from tuner.results.retraining import Attention, Training
from tuner.training import onnx_export as export_module

FILES = {"README.md", "experiment.yaml", "model.onnx", "pipeline.json", "weights.safetensors"}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Write a model into the folder `model`, over the one that is there."""
    monkeypatch.chdir(tmp_path)
    months().to_csv("sales.csv", index=False)

    def write(**changes):
        raw = {
            "data": {"path": str(tmp_path / "sales.csv"), "time": "month", "target": "sales"},
            "task": {"window": 6, "horizon": 2},
            "hyperparameters": {"hidden_size": 4, **changes.pop("hyperparameters", {})},
        }
        return make_model(raw | changes, tmp_path)

    return write


def here():
    return {path.name for path in Path("model").iterdir()}


def test_a_model_folder_holds_its_files_and_no_pickle(make):
    training = make()
    assert here() == FILES
    weights = load_file("model/weights.safetensors")
    assert training.outcome.weights is not None
    assert weights.keys() == training.outcome.weights.keys()
    for name, array in training.outcome.weights.items():
        np.testing.assert_array_equal(weights[name], array)
    pipeline = json.loads(Path("model/pipeline.json").read_text())
    assert pipeline["files"].keys() == FILES - {"README.md", "pipeline.json"}
    assert pipeline["validation"] == {"rmse": 0.5}
    assert pipeline["onnx_difference"] < 1e-5
    experiment = Experiment.load("model/experiment.yaml")
    assert experiment == training.experiment
    assert "path: ../sales.csv\n" in Path("model/experiment.yaml").read_text()


def test_the_readme_is_short_and_holds_a_command_that_predicts(make, capsys):
    make()
    text = Path("model/README.md").read_text()
    assert 8 <= len([line for line in text.splitlines() if line]) <= 12
    assert "forecasts the next 2 rows of `sales` from the 6 before" in text
    assert "columns `month`, `sales`, `price`, and rows at frequency MS; 6 of them at least" in text
    (command,) = re.findall(r"^    tuner (predict .+)$", text, re.M)
    Path("data.csv").write_bytes(Path("sales.csv").read_bytes())
    assert run(shlex.split(command)) == 0
    assert len(pd.read_csv("predicted.csv")) == 2


def test_a_model_without_a_score_says_none(make):
    training = make()
    outcome = type(training.outcome)(training.outcome.state, weights=training.outcome.weights)
    unscored = Training(training.experiment, training.data, outcome)
    with pytest.MonkeyPatch.context() as patch:
        from helpers.model_folders import HereExecutor

        patch.setattr(model_folder, "LocalExecutor", HereExecutor)
        model_folder.write_model(unscored, Path("other"))
    assert json.loads(Path("other/pipeline.json").read_text())["validation"] is None
    assert "scored" not in Path("other/README.md").read_text()
    assert len(load_model("other").predict("sales.csv")) == 2


def test_a_model_replaces_another_without_leftovers(make):
    training = make()
    Attention(["a"], np.array([[1.0]])).write(Path("model"))
    before = load_model("model").predict("sales.csv")
    make(hyperparameters={"cell": "gru"})
    assert here() == FILES
    after = load_model("model").predict("sales.csv")
    assert not np.allclose(before["sales"], after["sales"])
    assert training.experiment != Experiment.load("model/experiment.yaml")


@pytest.mark.parametrize("n_moved", range(len(FILES)))
def test_writing_that_is_cut_short_leaves_no_model(n_moved, make, monkeypatch):
    replace, moved = Path.replace, []

    def cut_short(path, target):
        if len(moved) == n_moved:
            raise KeyboardInterrupt
        moved.append(target)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_short)
        with pytest.raises(KeyboardInterrupt):
            make()
    assert here() == {path.name for path in moved}
    with pytest.raises(ModelError, match=re.escape("pipeline.json: is missing")):
        load_model("model")

    make()
    before = load_model("model").predict("sales.csv")
    moved.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_short)
        with pytest.raises(KeyboardInterrupt):
            make(hyperparameters={"hidden_size": 5})
    if any(path.name != "README.md" for path in moved):
        with pytest.raises(ModelError, match="is not as it was written"):
            load_model("model")
    else:
        pd.testing.assert_frame_equal(load_model("model").predict("sales.csv"), before)


def test_a_failed_export_keeps_the_earlier_model(make, monkeypatch):
    make()
    before = Path("model/pipeline.json").read_bytes()
    monkeypatch.setattr(export_module, "LARGEST_ONNX", 100)
    with pytest.raises(RunError, match=r"model\.onnx: its weights are .*; make hidden_size"):
        make(hyperparameters={"hidden_size": 5})
    assert here() == FILES
    assert Path("model/pipeline.json").read_bytes() == before


@pytest.mark.parametrize(
    ("task", "given", "searched", "window"),
    [
        (6, None, None, 6),
        (6, 9, None, 9),
        (9, None, [3, 5], 5),  # all are scored on windows of 5, and so long are the trained ones
        (4, None, [3, 12], 4),
    ],
)
def test_the_window_is_the_one_that_was_trained_on(task, given, searched, window, make):
    changes = {"task": {"window": task, "horizon": 2}}
    if given is not None:
        changes["hyperparameters"] = {"window": given}
    if searched is not None:
        low, high = searched
        changes["search_space"] = {"window": {"type": "int", "low": low, "high": high}}
    make(**changes)
    assert json.loads(Path("model/pipeline.json").read_text())["window"] == window
    frame = load_model("model").predict("sales.csv", all_windows=True)
    assert len(frame) == 2 * (72 - window + 1)


def test_check_says_that_a_model_is_too_large_for_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{(i + t) % 9},{'xy'[i % 2]}\n" for i in range(60) for t in range(3))
    Path("runs.csv").write_text("run,code,kind\n" + rows)
    text = (
        "name: runs\ndata: {path: runs.csv, id: run, tokens: code, target: kind}\n"
        "task: {kind: classify}\nhyperparameters: {num_layers: 4}\n"
        "search_space: {hidden_size: {type: int, low: 8, high: %d}}\n"
    )
    Path("runs.yaml").write_text(text % 8192)
    assert run(["check", "runs.yaml"]) == 0
    out = capsys.readouterr().out
    assert "export" in out
    assert "its weights are 7.5 GB, and an ONNX file holds 2 GB; make hidden_size smaller" in out
    Path("runs.yaml").write_text(text % 1024)
    assert run(["check", "runs.yaml"]) == 0
    assert "export" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {"hidden_size": 12, "num_layers": 2, "bidirectional": True},
        {"hidden_size": [8, 16, 4]},
        {"hidden_size": 24, "cell": "peephole"},
        {"hidden_size": 24, "segment": 6, "conv_channels": 40, "linear_path": True},
    ],
)
def test_how_large_a_model_is_is_known_before_it_is_trained(hyperparameters, make, monkeypatch):
    training = make(hyperparameters=hyperparameters)
    size = Path("model/model.onnx").stat().st_size
    for limit, fits in ((size * 5 // 4, True), (size * 3 // 4, False)):
        monkeypatch.setattr("tuner.results.advice.LARGEST_ONNX", limit)
        problem = why_not_exportable(training.experiment, training.data.facts)
        assert (problem is None) == fits, problem


@pytest.mark.slow
def test_a_trained_model_predicts_as_in_training(make, capsys):
    Path("sales.yaml").write_text(
        "name: sales\ndata: {path: sales.csv, time: month, target: sales}\n"
        "hyperparameters: {hidden_size: 4, pooling: attention}\nbudget: {epochs: 2}\n"
    )
    months().to_csv("sales.csv", index=False)
    assert run(["train", "sales.yaml", "-o", "model"]) == 0
    score = json.loads(Path("model/pipeline.json").read_text())["validation"]["rmse"]
    assert here() == FILES | {"attention.csv", "attention.png"}
    assert run(["predict", "model", "sales.csv", "--all", "-o", "out.csv"]) == 0
    truth = months().set_index("month")["sales"]
    found = pd.read_csv("out.csv", parse_dates=["month"], index_col="month")["sales"]
    n_test, n_validation = round(72 * 0.15), round(72 * 0.2)
    validated = truth.iloc[-n_test - n_validation : -n_test]
    rmse = float(np.sqrt(((found[validated.index] - validated) ** 2).mean()))
    assert rmse == pytest.approx(score, rel=1e-5)
    assert run(["train", "model/experiment.yaml", "-o", "again"]) == 0
    first, second = (Path(f) / "weights.safetensors" for f in ("model", "again"))
    assert first.read_bytes() == second.read_bytes()
