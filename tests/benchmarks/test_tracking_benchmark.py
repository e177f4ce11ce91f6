"""The benchmark of the copy in MLflow, at its smallest."""

import json
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "tracking.py"


def run(*arguments, folder):
    command = [sys.executable, str(SCRIPT), *arguments]
    ended = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout


def test_a_finished_trial_is_copied_in_turns_with_the_bare_calls(tmp_path):
    said = run("--store", "SQLite", "copy", "--trials", "2", folder=tmp_path)
    assert re.search(r"a finished trial \d.* the bare calls \d.*: \d+\.\d+ times", said)
    assert list(tmp_path.iterdir()) == []


def test_a_tracked_search_times_every_trial(tmp_path):
    result = json.loads(run("one", "--trials", "3", "--waits", "--tracks", folder=tmp_path))
    assert len(result["trials_s"]) == len(result["trials_cpu_s"]) == 2
    assert 0 < sum(result["trials_s"]) < result["search_s"]
    assert (tmp_path / "mlflow.db").exists()
