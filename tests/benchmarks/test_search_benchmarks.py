"""The benchmarks of searches without training run to their end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=SCRIPTS, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def test_growth_counts_every_trial_and_epoch():
    found = json.loads(run("coordinator.py", "growth", "--one", "--trials", "40", "--epochs", "3"))
    assert found["reported"] == pytest.approx(3)
    assert found["ms"] > 0


def test_trials_of_equal_length_keep_all_simulated_workers_busy():
    arguments = ["--workers", "4", "--population", "8", "--trials", "16"]
    rows = run("coordinator.py", "workers", *arguments).splitlines()
    (repeatable,) = [row for row in rows if "repeatable" in row and "2.5" not in row]
    assert " 1.000 " in repeatable


def test_a_landscape_is_searched_to_the_end_of_its_budget():
    code = (
        "from regret import Task, search_landscape\n"
        "found = search_landscape(Task('woa', 'air_passengers', '', 12, 0))\n"
        "print(len(found['regret']))\n"
    )
    assert run("-c", code) == "12\n"


def test_how_many_seeds_it_takes_is_a_table():
    arguments = ["--searches", "20", "--trials", "2", "--draws", "5"]
    lines = run("seeds.py", *arguments).splitlines()
    assert lines[-3].startswith("| seeds | `tpe` over `random` | ")
    assert lines[-1].startswith("| 5 | ")
    assert lines[-1].count(" % |") == 5


def test_fronts_are_a_table_of_shares():
    lines = run("front.py", "--trials", "12", "--seeds", "1").splitlines()
    assert lines[0] == "| after 12 trials | air_passengers | sunspots |"
    assert lines[2].startswith("| `nsga2` | 0.")
    shares = [float(cell.split()[0]) for line in lines[2:] for cell in line.split("|")[2:4]]
    assert all(0.5 < share <= 1 for share in shares)
