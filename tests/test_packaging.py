"""The wheel, in an environment that has nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_installs_into_an_empty_environment_and_takes_a_user_to_a_result(tmp_path):
    def run(*command, cwd=tmp_path):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    bin_ = tmp_path / "venv" / "bin"
    run(bin_ / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)

    user = tmp_path / "user"
    user.mkdir()
    rows = "".join(
        f"{2010 + i // 12}-{1 + i % 12:02}-01,{100 + 10 * (i % 12) + i}\n" for i in range(96)
    )
    (user / "sales.csv").write_text("month,sales\n" + rows)
    tuner = bin_ / "tuner"
    assert "sales" in run(tuner, "init", "sales.csv", cwd=user)
    assert "96 rows" in run(tuner, "check", "sales.yaml", cwd=user)
    out = run(tuner, "run", "sales.yaml", "--trials", 4, "--set", "budget.epochs=3", cwd=user)
    assert "test: sales, " in out
    run(tuner, "export", "sales-tpe-0", "-o", "best.yaml", cwd=user)
    assert "reproduced:" in run(tuner, "train", "best.yaml", cwd=user)
    written = {path.name for path in user.iterdir()}
    assert written == {
        "sales.csv",
        "sales.yaml",
        "best.yaml",
        "studies",
        "mlflow.db",
        "mlartifacts",
    }
