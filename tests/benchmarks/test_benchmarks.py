"""Benchmarks run, and print what they measure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overhead.py"


def test_a_search_of_empty_jobs_uses_its_whole_budget(tmp_path):
    command = [sys.executable, str(SCRIPT), "--one", "random", "--trials", "5", "--no-tracking"]
    ended = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(ended.stdout)
    assert result["trials"] == 5
    assert 0 < result["trials_s"] < result["search_s"]
    assert result["wall_s"]["journal: append and fsync"] > 0


@pytest.mark.slow
def test_an_idle_worker_trains_nothing(tmp_path):
    command = [sys.executable, str(SCRIPT), "--one", "random", "--trials", "5", "--no-tracking"]
    slow = os.environ | {"IDLE_EPOCH_S": "0.1"}  # 20 epochs a trial
    ended = subprocess.run(command, cwd=tmp_path, env=slow, check=True, stdout=subprocess.PIPE)
    assert json.loads(ended.stdout)["search_s"] > 5 * 20 * 0.1


TRACKING_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "tracking.py"


def track(*arguments, folder):
    command = [sys.executable, str(TRACKING_SCRIPT), *arguments]
    ended = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout


@pytest.mark.slow
def test_a_finished_trial_is_copied_in_turns_with_the_bare_calls(tmp_path):
    said = track("--store", "SQLite", "copy", "--trials", "2", folder=tmp_path)
    assert re.search(r"a finished trial \d.* the bare calls \d.*: \d+\.\d+ times", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_tracked_search_times_every_trial(tmp_path):
    result = json.loads(track("one", "--trials", "3", "--waits", "--tracks", folder=tmp_path))
    assert len(result["trials_s"]) == len(result["trials_cpu_s"]) == 2
    assert 0 < sum(result["trials_s"]) < result["search_s"]
    assert (tmp_path / "mlflow.db").exists()


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


WATCHED = """\
import pathlib, time
from tuner.executors import LocalExecutor
from tuner.data import SeriesRef, Shape
from tuner.jobs import TrainJob
workers = LocalExecutor(2, module="helpers.workers.hanging")
for key in "ab":
    nowhere = SeriesRef("/nowhere", Shape("forecast", features=1))
    workers.submit(TrainJob(key, {}, 0, 1, 1, "rmse", (nowhere,)))
while workers.busy < 2:
    workers.poll(0.1)
pathlib.Path("pids").write_text(" ".join(map(str, workers.pids)))
time.sleep(1)
workers.close()
"""


def test_a_watched_command_has_workers_and_no_other_process(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    from watching import watch

    monkeypatch.setenv("PYTHONPATH", f"{SCRIPTS.parent / 'tests'}:{SCRIPTS.parent}")
    watched = watch([sys.executable, "-c", WATCHED], tmp_path)
    pids = {int(pid) for pid in (tmp_path / "pids").read_text().split()}
    assert len(pids) == 2
    assert set(watched.workers_mb) == pids
    assert min(watched.coordinator_mb, *watched.workers_mb.values()) > 10


@pytest.mark.slow
def test_how_many_seeds_it_takes_is_a_table():
    arguments = ["--searches", "20", "--trials", "2", "--draws", "5"]
    lines = run("seeds.py", *arguments).splitlines()
    assert lines[-3].startswith("| seeds | `tpe` over `random` | ")
    assert lines[-1].startswith("| 5 | ")
    assert lines[-1].count(" % |") == 5


@pytest.mark.slow
def test_fronts_are_a_table_of_shares():
    lines = run("front.py", "--trials", "12", "--seeds", "1").splitlines()
    assert lines[0] == "| after 12 trials | air_passengers | sunspots |"
    assert lines[2].startswith("| `nsga2` | 0.")
    shares = [float(cell.split()[0]) for line in lines[2:] for cell in line.split("|")[2:4]]
    assert all(0.5 < share <= 1 for share in shares)


GPU_SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "batched_gpu.py"


@pytest.mark.slow
def test_ways_to_train_a_generation_are_timed_in_turns(tmp_path):
    small = ["--members", "3", "--units", "4", "--processes", "2", "--rounds", "2"]
    command = [sys.executable, str(GPU_SCRIPT), *small, "--device", "cpu"]
    ended = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    (row,) = [line for line in ended.stdout.splitlines() if line.startswith("│")]
    *numbers, graphs = [cell.strip() for cell in row.strip("│").split("│")]
    assert numbers[:2] == ["3", "4"]
    assert all(float(number) > 0 for number in numbers)
    assert graphs == "-"  # on a CPU there are none
