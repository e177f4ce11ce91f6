"""A folder in which a search has ended."""

import os
import subprocess
import sys

import pytest
from helpers.real_searches import RUN, make_folder


@pytest.fixture(autouse=True)
def _surroundings(baselines_fitted_once, no_mlflow_settings):
    pass


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A folder in which `tuner run air.yaml --workers 1` has ended; `run.log` has its output."""
    folder = make_folder(tmp_path_factory.mktemp("a folder with spaces"))
    result = subprocess.run(
        [sys.executable, "-m", "tuner", *RUN],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    (folder / "run.log").write_text(result.stdout, encoding="utf-8")
    return folder
