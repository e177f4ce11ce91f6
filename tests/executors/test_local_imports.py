"""Where a worker process imports from: never from what lies in the user's folder."""

import json
import os
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tuner

SEARCH = """\
import subprocess, sys
{first}
from tuner.processes import start_command
subprocess.run(start_command("shown", "7"), check=True)
"""
SHOWN = """\
import importlib.util, json, sys, tuner
origins = {name: importlib.util.find_spec(name).origin for name in ("statistics", "torch")}
print(json.dumps({"tuner": tuner.__file__, "argv": sys.argv[1:], "path": sys.path} | origins))
"""


@pytest.fixture
def libraries(tmp_path):
    """A folder of libraries."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    (folder / "shown.py").write_text(SHOWN)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A folder of the user's, with a search and files that are called as libraries are."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("statistics", "torch"):
        (folder / f"{name}.py").touch()
    return folder


def shown(how, cwd, **variables):
    """What a worker sees that such a coordinator starts."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [sys.executable, *map(str, how)]
    done = subprocess.run(
        command, cwd=cwd, env=env | variables, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


HOW = {
    "a script": lambda folder: [folder / "search.py"],
    "a module": lambda folder: ["-m", "search"],
    "a line": lambda folder: ["-c", (folder / "search.py").read_text()],
    "a safe path": lambda folder: ["-P", folder / "search.py"],
}


@pytest.mark.parametrize("how", HOW)
def test_the_folder_that_python_puts_first_is_none_of_a_workers(how, folder, libraries):
    first = f"sys.path += [{str(libraries)!r}, '']"  # "" is the current folder, as in notebooks
    (folder / "search.py").write_text(SEARCH.format(first=first))
    seen = shown(HOW[how](folder), folder)
    assert seen["statistics"] == statistics.__file__
    assert seen["torch"] == find_spec("torch").origin
    assert seen["tuner"] == tuner.__file__
    assert seen["argv"] == ["7"]
    assert not {"", str(folder)} & set(seen["path"])


def test_what_a_script_puts_first_is_first_in_a_worker(folder, libraries):
    (libraries / "statistics.py").touch()
    (folder / "search.py").write_text(
        SEARCH.format(first=f"sys.path.insert(0, {str(libraries)!r})")
    )
    seen = shown([folder / "search.py"], folder.parent)
    assert seen["statistics"] == str(libraries / "statistics.py")
    assert seen["torch"] == find_spec("torch").origin


def test_a_folder_that_pythonpath_names_is_a_workers_too(folder, libraries):
    (folder / "search.py").write_text(SEARCH.format(first=""))
    path = os.pathsep.join(map(str, (folder, libraries)))
    for how in (["-m", "search"], [folder / "search.py"], ["-P", folder / "search.py"]):
        seen = shown(how, folder, PYTHONPATH=path)
        assert seen["statistics"] == str(folder / "statistics.py")
        assert seen["path"].count(str(folder)) == 1


def test_pythonpath_that_a_script_sets_for_its_workers_counts(folder, libraries):
    first = f"import os; os.environ['PYTHONPATH'] = {str(libraries)!r}"
    (folder / "search.py").write_text(SEARCH.format(first=first))
    assert shown([folder / "search.py"], folder)["statistics"] == statistics.__file__


def test_a_worker_takes_tuner_from_where_the_coordinator_did(folder, libraries):
    (folder / "tuner").symlink_to(Path(tuner.__file__).parent)
    (folder / "beside_tuner.py").write_text(SHOWN)
    search = SEARCH.replace("shown", "beside_tuner").format(first="")
    (folder / "search.py").write_text(search)
    (libraries / "tuner").mkdir()
    (libraries / "tuner" / "__init__.py").write_text("raise ImportError('another tuner')")
    seen = shown(["-m", "search"], folder, PYTHONPATH=str(libraries))
    assert seen["tuner"] == str(folder / "tuner" / "__init__.py")
    assert seen["statistics"] == statistics.__file__
    assert seen["path"][-1] == str(folder)
