"""Export, a new folder, train: the same validation score to the last digit, whatever was searched.

Real command lines and real workers, ten experiments that have little in common.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.waves import tuner

from tuner.experiment import dump_yaml
from tuner.progress.display import number

OPTIONS = ("--study", "s", "--no-tracking", "--no-test")


def months(folder):
    rng, n = np.random.default_rng(0), np.arange(108)
    sales = np.exp(3 + n / 60 + 0.3 * np.sin(n * np.pi / 6) + rng.normal(0, 0.05, 108))
    when = pd.date_range("2015-01-01", periods=108, freq="MS")
    pd.DataFrame({"month": when, "sales": sales}).to_csv(folder / "data.csv", index=False)


def stores(folder):
    """Three stores, hourly; hours and values are missing, and one begins late."""
    rng, frames = np.random.default_rng(1), []
    hours = pd.date_range("2024-03-01", periods=130, freq="h")
    for i, store in enumerate(("nord", "süd", "01")):
        units = 20 + 5 * np.sin(np.arange(130) * np.pi / 12 + i) + rng.normal(size=130)
        columns = {"units": units, "visits": 3 * units + rng.normal(size=130)}
        frame = pd.DataFrame({"store": store, "hour": hours, **columns, "price": rng.random(130)})
        frames.append(frame.drop(index=[31, 32, 77]).iloc[40 * (number == 2) :])
    table = pd.concat(frames)
    table.iloc[20, 2] = np.nan
    table.to_csv(folder / "data.csv", index=False)


def curves(folder):
    """Sequences of two numbers: a class, a value, and a label of every step; a file with types."""
    rng, frames = np.random.default_rng(2), []
    for run in range(72):
        kind, steps = run % 3, np.arange(5 + run % 5)
        x = np.sin(steps * (1 + kind) / 2) + rng.normal(0, 0.2, len(steps))
        columns = {"x": x, "z": rng.normal(size=len(steps)), "high": np.where(x > 0, "yes", "no")}
        frames.append(pd.DataFrame({"run": run, **columns, "kind": kind, "total": x.sum()}))
    pd.concat(frames).to_parquet(folder / "data.parquet")


def names(folder):
    rng, rows = np.random.default_rng(3), []
    for kind, letters in (("vowels", "aeiouäöy"), ("others", "bcdßfgñe")):
        rows += [(kind, "".join(rng.choice(list(letters), 3 + i % 5))) for i in range(40)]
    pd.DataFrame(rows, columns=["kind", "name"]).to_csv(folder / "data.csv", index=False)


def sentences(folder):
    """Tokens, each with a label; some are in one sentence alone."""
    rng, rows = np.random.default_rng(4), []
    for sentence in range(60):
        for _ in range(4 + sentence % 4):
            word = str(rng.choice(["no", "1e3", "null", "the", "cat", f"rare{sentence}"]))
            rows.append((sentence, word, "rare" if word.startswith("rare") else "plain"))
    pd.DataFrame(rows, columns=["id", "word", "tag"]).to_csv(folder / "data.csv", index=False)


def choice(*values):
    return {"type": "categorical", "choices": list(values)}


def whole(low, high):
    return {"type": "int", "low": low, "high": high}


RATE = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}
SERIES = {"path": "data.csv", "time": "month", "target": "sales"}
STORES = {"path": "data.csv", "time": "hour", "id": "store", "missing": "interpolate"}
CURVES = {"path": "data.parquet", "id": "run", "features": ["x", "z"]}
FOLDS = {"validation": {"folds": 3, "size": 0.12}}


@dataclass(frozen=True)
class Case:
    """An experiment, its data, and what its search must have met to be worth the name."""

    write: Callable[[Path], None]
    blocks: dict[str, Any]
    met: Callable[[dict[str, Any]], bool] = lambda shown: True
    file: str = "best.yaml"


CASES = {
    "log, searched window, pruned": Case(
        months,
        {
            "data": SERIES | {"transform": "log"},
            "search_space": {"window": whole(2, 12), "learning_rate": RATE},
            "strategy": {"name": "tpe", "batch": 2},
            "pruner": {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 1},
            "budget": {"trials": 10, "epochs": 8},
            "finalists": {"top": 2, "repeats": 2},
        },
        met=lambda shown: shown["trials"]["pruned"] > 0,
    ),
    "folds, difference, gru": Case(
        months,
        {
            "data": SERIES | {"transform": "difference", "split": FOLDS},
            "task": {"window": 5, "horizon": 2},
            "hyperparameters": {"cell": "gru"},
            "search_space": {"hidden_size": whole(3, 12), "dropout": choice(0.0, 0.1, 0.3)},
            "strategy": {"name": "pso", "population": 3},
            "seed": 1,
        },
        file="best.json",
    ),
    "several series, quantiles, recursive decoder": Case(
        stores,
        {
            "data": STORES | {"target": "units"},
            "task": {"window": 6, "horizon": 3, "quantiles": [0.1, 0.5, 0.9]},
            "hyperparameters": {"decoder": "recursive"},
            "search_space": {"hidden_size": whole(3, 9), "cell": choice("lstm", "peephole")},
            "strategy": {"name": "random"},
            "seed": 2,
        },
    ),
    "several targets, lags, stacked": Case(
        stores,
        {
            "data": STORES
            | {"target": ["units", "visits"], "lags": {"price": [1, 24]}, "calendar": ["hour"]},
            "task": {"window": 4},
            "objective": {"metric": "mase"},
            "search_space": {"hidden_size_1": whole(4, 9), "hidden_size_2": whole(2, 5)},
            "strategy": {"name": "woa", "population": 3},
            "seed": 3,
        },
    ),
    "attention, bidirectional, folds, no finalists": Case(
        stores,
        {
            "data": STORES | {"target": "visits", "scale": "minmax", "resample": "2h"}
            | {"split": FOLDS},
            "task": {"window": 5},
            "hyperparameters": {"bidirectional": True, "pooling": "attention"},
            "search_space": {"learning_rate": RATE, "num_layers": whole(1, 2)},
            "strategy": {"name": "qmc", "batch": 3},
            "finalists": {"top": 0},
            "seed": 4,
        },
    ),
    "classes of sequences": Case(
        curves,
        {
            "data": CURVES | {"target": "kind"},
            "task": {"kind": "classify"},
            "objective": {"metric": "cross_entropy"},
            "hyperparameters": {"class_weights": "balanced", "bidirectional": True},
            "search_space": {"hidden_size": whole(3, 9), "pooling": choice("last", "mean", "max")},
            "strategy": {"name": "qpso", "population": 3},
            "seed": 5,
        },
    ),
    "texts": Case(
        names,
        {
            "data": {"path": "data.csv", "text": "name", "target": "kind"},
            "task": {"kind": "classify"},
            "objective": {"metric": "cross_entropy"},
            "search_space": {"embedding_size": whole(3, 9), "learning_rate": RATE},
            "strategy": {"name": "cmaes", "population": 4},
            "seed": 6,
        },
    ),
    "labels of tokens": Case(
        sentences,
        {
            "data": {"path": "data.csv", "id": "id", "tokens": "word", "target": "tag"},
            "task": {"kind": "label"},
            "objective": {"metric": "f1"},
            "hyperparameters": {"optimizer": "adamw", "weight_decay": 0.01},
            "search_space": {"embedding_size": whole(3, 9), "bidirectional": choice(False, True)},
            "strategy": {"name": "random"},
            "asynchronous": True,
            "seed": 7,
        },
    ),
    "values of sequences, repeated configurations": Case(
        curves,
        {
            "data": CURVES | {"target": "total"},
            "task": {"kind": "regress"},
            "hyperparameters": {"cell": "rnn", "loss": "huber", "schedule": "plateau"},
            "search_space": {"nonlinearity": choice("tanh", "relu"), "batch_size": choice(8, 16)},
            "strategy": {"name": "pso", "population": 4},
            "seed": 8,
        },
        met=lambda shown: shown["trials"]["repeats"] > 0,
    ),
    "projection, cosine, a grid": Case(
        months,
        {
            "data": SERIES | {"split": {"validation": "2021-07-01", "test": 12}},
            "task": {"window": 3, "horizon": 4},
            "hyperparameters": {"optimizer": "sgd", "schedule": "cosine", "hidden_size": 8},
            "search_space": {"proj_size": choice(0, 2, 4), "learning_rate": RATE},
            "strategy": {"name": "grid", "points": 3},
            "budget": {"trials": 9, "stagnation": 2, "epochs": 4},
            "pruner": {"name": "none"},
            "seed": 9,
        },
    ),
}  # fmt: skip
assert len(CASES) == 10


def searched(folder, case):
    """Search in a folder of its own; return what `tuner show` says."""
    folder.mkdir()
    case.write(folder)
    blocks = {
        "name": "case",
        "budget": {"trials": 6, "epochs": 4},
        "finalists": {"top": 2, "repeats": 2},
        **case.blocks,
    }
    (folder / "case.yaml").write_text(dump_yaml(blocks), encoding="utf-8")
    tuner(folder, "run", "case.yaml", "--workers", "2", *OPTIONS)
    shown = json.loads(tuner(folder, "show", "s", "--json"))
    assert case.met(shown), shown["trials"]
    return shown


def recorded_score(shown):
    """The score of the winner's first retraining; without finalists, of the trial."""
    if shown["finalists"]:
        return float(shown["finalists"][0]["scores"][0])
    return float(shown["best"]["search_score"])


def exported_elsewhere(tmp_path, file):
    """Export into a new folder beside the data's, and take both to another place."""
    new = tmp_path / "here" / "ein neuer Ordner, 新"
    new.mkdir()
    tuner(tmp_path / "here" / "search", "export", "s", "-o", str(new / file))
    shutil.move(tmp_path / "here", tmp_path / "moved")
    return tmp_path / "moved" / new.name / file


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_export_in_a_new_folder_scores_the_same(tmp_path, name):
    (tmp_path / "here").mkdir()
    score = recorded_score(searched(tmp_path / "here" / "search", CASES[name]))
    best = exported_elsewhere(tmp_path, CASES[name].file)
    assert tuner(tmp_path, "train", str(best), "--strict") == f"reproduced: {number(score)}\n"
    everything = tuner(best.parent, "train", best.name, "--all-data", "-o", "model")
    assert "there is no validation score" in everything
    assert (best.parent / "model" / "weights.safetensors").exists()
