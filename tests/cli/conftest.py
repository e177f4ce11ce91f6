"""A folder in which a search has ended."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.files import files_of
from helpers.real_searches import RUN, make_folder

from tuner.cli.app import run


@pytest.fixture(autouse=True)
def _surroundings(baselines_fitted_once, no_mlflow_settings):
    pass


@pytest.fixture
def refused(capsys):
    """Runs a command that must be refused and change no file; returns its one line."""

    def call(*arguments, status=2):
        capsys.readouterr()
        before = files_of(Path.cwd())
        found = run(list(arguments))
        printed = capsys.readouterr()
        assert (found, printed.out) == (status, ""), printed
        assert printed.err.startswith("tuner: ")
        assert printed.err.endswith("\n")
        assert printed.err.count("\n") == 1
        assert files_of(Path.cwd()) == before
        return printed.err.removeprefix("tuner: ").strip()

    return call


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


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A copy of the folder in which the search ended, without its MLflow store."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    monkeypatch.chdir(folder)
    return folder
