"""A fresh export trains again to the same score and predictions, whatever was searched."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.model_cases import EVERY, TEXTS, case

from tuner.cli.app import run
from tuner.experiment import dump_yaml
from tuner.progress.display import number

KINDS = EVERY | {
    "texts of texts": case(TEXTS, {"kind": "translate"}, text="name", target="language")
}
WIDTH = {"hidden_size": {"type": "int", "low": 3, "high": 9}}
CELLS = {"cell": {"type": "categorical", "choices": ["gru", "peephole"]}}
WINDOW = {"window": {"type": "int", "low": 2, "high": 12}}
SCALE = {"scale": {"type": "categorical", "choices": ["standard", "none"]}}
FOLDS = {"validation": {"folds": 2, "size": 0.15}}
SEARCHES = {
    # a kind of task, its search space, the strategy, and other keys of the data
    "log, recursive": (WINDOW, {"name": "tpe", "batch": 2}, {}),
    "difference, minmax, two targets": (WIDTH, {"name": "pso", "population": 3}, {"split": FOLDS}),
    "quantiles of series with lags, a calendar, gaps and attention": (CELLS, {"name": "grid"}, {}),
    "categories, some known ahead, and which series it is, in segments": (
        WIDTH, {"name": "woa", "population": 3}, {}),
    "classes of series with gaps, lags and a calendar": (SCALE, {"name": "random"}, {}),
    "classes": (WIDTH | CELLS, {"name": "qpso", "population": 3}, {}),
    "values on a linear path": (WIDTH, {"name": "cmaes", "population": 4}, {}),
    "labels of tokens": (CELLS, {"name": "qmc", "batch": 3}, {}),
    "values of every step": (WIDTH, {"name": "gp"}, {}),
    "texts of texts": (WIDTH, {"name": "random"}, {}),
}  # fmt: skip
SMALL = {
    "budget": {"trials": 4, "epochs": 3},
    "finalists": {"top": 2, "repeats": 2, "baseline": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_a_fresh_export_reproduces_in_another_folder(name, tmp_path, monkeypatch, capsys):
    frame, raw = KINDS[name]
    space, strategy, more = SEARCHES[name]
    here, moved = tmp_path / "here", tmp_path / "ein neuer Ordner, 新"
    here.mkdir()
    monkeypatch.chdir(here)
    frame.to_csv("data.csv", index=False)
    data = {"data": raw["data"] | {"path": "data.csv"} | more}
    fixed = {"hyperparameters": {k: v for k, v in raw["hyperparameters"].items() if k not in space}}
    blocks = raw | data | fixed | SMALL | {"search_space": space, "strategy": strategy}
    Path("case.yaml").write_text(dump_yaml({"name": "case", **blocks}), encoding="utf-8")
    assert run(["run", "case.yaml", "--study", "s", "--workers", "1", "--no-tracking"]) == 0
    capsys.readouterr()
    assert run(["show", "s", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)["finalists"][0]["scores"][0]
    assert run(["export", "s", "-o", "best.yaml", "--model", "exported"]) == 0

    monkeypatch.chdir(tmp_path)
    shutil.move(here, moved)
    monkeypatch.chdir(moved)
    capsys.readouterr()
    assert run(["train", "best.yaml", "--strict", "-o", "trained"]) == 0
    assert f"reproduced: {number(score)}\n" in capsys.readouterr().out
    options = ["--all"] if raw["task"].get("window") else []
    for model in ("exported", "trained"):
        assert run(["predict", model, "data.csv", *options, "-o", f"{model}.csv"]) == 0
    assert Path("exported.csv").read_bytes() == Path("trained.csv").read_bytes()
