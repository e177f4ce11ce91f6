"""Prediction works, and imports quickly, where nothing else of tuner's needs is installed."""

import ast
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.model_folders import make_model, months

from tuner.prediction import load_model

ROOT = Path(__file__).parents[2]
NOT_NEEDED = (
    "torch", "optuna", "mlflow", "pyswarms", "ruamel", "yaml", "matplotlib", "psutil", "onnx",
    "safetensors", "scipy", "sklearn", "pyarrow",
)  # fmt: skip
EXPERIMENT = {
    "data": {"time": "month", "target": "sales"},
    "task": {"window": 6, "horizon": 2, "quantiles": [0.1, 0.5, 0.9]},
    "hyperparameters": {"hidden_size": 4, "decoder": "recursive"},
}


@pytest.fixture
def model(tmp_path):
    make_model(EXPERIMENT, tmp_path, months(), "sales.csv")
    return tmp_path / "model"


def test_predicting_imports_nothing_of_training_or_search(model):
    # What is None in sys.modules cannot be imported. Typer needs pydantic, prediction does not.
    code = f"""
import sys
sys.modules.update(dict.fromkeys({(*NOT_NEEDED, "pydantic", "typer")!r}))
import tuner.prediction
del sys.modules["pydantic"], sys.modules["typer"]
from tuner.cli.app import run
sys.exit(run(["predict", "model", "sales.csv"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=model.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == "month,step,sales,sales_q0.1,sales_q0.9"
    times = [line.split(",")[0] for line in done.stdout.splitlines()[1:]]
    assert times == ["2021-01-01", "2021-02-01"]


def processor_s(code):
    """Return how much of the processor's time Python takes for some code, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_prediction_code_imports_few_libraries():
    libraries, code = "import numpy, pandas, onnxruntime", "import tuner.prediction, onnxruntime"
    pairs = [(processor_s(code), processor_s(libraries)) for _ in range(2)]
    ours, theirs = (min(seconds) for seconds in zip(*pairs, strict=True))
    assert ours < 1.4 * theirs


def test_the_requirements_of_prediction_are_those_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (ROOT / "requirements-predict.txt").read_text().splitlines()
    needed = [line for line in lines if not line.startswith("#")]
    assert set(needed) <= set(package)
    names = [re.match(r"[\w-]+", line)[0] for line in sorted(needed)]
    written = (ROOT / "tuner/results/export.py").read_text().replace("\n", " ")
    assert f"`pip install {' '.join(names)}`" in written
    imported = set()
    for path in (ROOT / "tuner/prediction").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported |= {str(name).partition(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"tuner", "mlflow"}
    assert others <= {line.partition(">")[0] for line in needed}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_device_predicts_what_this_machine_does(model, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*command):
        done = subprocess.run(
            [str(c) for c in command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv/bin/python"
    pins = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", *pins, "-r", ROOT / "requirements-predict.txt")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    installed = run(python, "-m", "pip", "list").lower()
    assert [name for name in NOT_NEEDED if f"\n{name} " in installed] == []

    expected = load_model(model).predict(tmp_path / "sales.csv", all_windows=True)
    run(tmp_path / "venv/bin/tuner", "predict", "model", "sales.csv", "--all", "-o", "out.csv")
    found = pd.read_csv(tmp_path / "out.csv", parse_dates=["month"])
    assert list(found) == list(expected)
    assert (found["month"] == expected["month"]).all()
    values = list(expected)[2:]
    np.testing.assert_allclose(found[values], expected[values], rtol=1e-5)
    done = subprocess.run(
        [tmp_path / "venv/bin/tuner", "studies"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"tuner: this needs \w+, which is not installed: only what predicts is; .*\n", done.stderr
    )
