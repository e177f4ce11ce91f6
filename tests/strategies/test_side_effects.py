import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import logging, os, random, sys
import numpy as np
import optuna

mine = logging.NullHandler()
logging.getLogger().addHandler(mine)
logging.getLogger().setLevel(logging.ERROR)
np.random.seed(1)
np.random.normal()  # leaves the second of a pair waiting
random.seed(1)
env = dict(os.environ)
optuna.logging.set_verbosity(optuna.logging.WARNING)

from tuner.strategies import STRATEGIES

space = {"x": optuna.distributions.FloatDistribution(0, 1, step=0.01)}
assert "torch" not in sys.modules
for name, strategy in STRATEGIES.items():
    if name == "gp":  # Optuna's own, on torch
        continue
    study = optuna.create_study(sampler=strategy().make_sampler(space, 0, 30))
    for _ in range(30):
        trial = study.ask(space)
        study.tell(trial, trial.params["x"])

assert "pyswarms" in sys.modules
assert "torch" not in sys.modules
assert logging.getLogger().handlers == [mine]
assert logging.getLogger().level == logging.ERROR
assert dict(os.environ) == env
drawn = np.random.normal(size=3).tolist(), random.random()
np.random.seed(1)
np.random.normal()
random.seed(1)
assert drawn == (np.random.normal(size=3).tolist(), random.random())
assert os.listdir(".") == []
"""


@pytest.mark.parametrize("log_cfg", [None, "no/such/file"])
def test_a_study_leaves_no_file_and_nothing_global_behind(tmp_path, log_cfg):
    env = {k: v for k, v in os.environ.items() if k != "LOG_CFG"}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    if log_cfg is not None:
        env["LOG_CFG"] = log_cfg
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
