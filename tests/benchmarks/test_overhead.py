"""The benchmark's own search runs: real worker, real journal, nothing trained."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "overhead.py"


def test_a_search_of_empty_jobs_uses_its_whole_budget(tmp_path):
    command = [sys.executable, str(SCRIPT), "--one", "random", "--trials", "5", "--no-tracking"]
    ended = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    result = json.loads(ended.stdout)
    assert result["trials"] == 5
    assert 0 < result["trials_s"] < result["search_s"]
    assert result["wall_s"]["journal: append and fsync"] > 0
