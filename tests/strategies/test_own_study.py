"""A sampler in a study of one's own, without side effects and at little cost."""

import os
import re
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

import tuner.strategies
from tuner.strategies import ParticleSwarmSampler, QuantumSwarmSampler, WhaleSampler

DOCS = Path(__file__).parents[2] / "docs/strategies.md"
SPACE = {"rate": FloatDistribution(0, 1)}

every_swarm = pytest.mark.parametrize(
    "swarm", [WhaleSampler, ParticleSwarmSampler, QuantumSwarmSampler]
)


def optimize(sampler, objective):
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=8)
    return study


def test_the_documented_example_finds_the_minimum():
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.M | re.S)
    names = {}
    exec(example, names)
    assert len(names["study"].trials) == 200
    assert names["study"].best_value < 0.01


@every_swarm
def test_a_name_outside_the_space_is_warned_about_once(swarm):
    sampler = swarm(population_size=2, seed=0, search_space=SPACE)
    with pytest.warns(UserWarning, match="sampled at random") as caught:
        optimize(sampler, lambda t: t.suggest_float("rat", 0, 1) + t.suggest_float("b", 0, 1))
    (warning,) = caught
    expected = "'rat' is sampled at random, for search_space lacks it; did you mean 'rate'?"
    assert str(warning.message) == expected
    assert warning.filename == __file__


@every_swarm
def test_a_space_that_is_not_given_is_nothing_to_warn_of(swarm):
    with warnings.catch_warnings(record=True) as caught:
        optimize(swarm(population_size=2, seed=0), lambda t: t.suggest_float("rate", 0, 1))
        given = swarm(population_size=2, seed=0, search_space=SPACE)
        optimize(given, lambda t: t.suggest_float("rate", 0, 1))
    assert caught == []


@pytest.mark.parametrize("given", [True, False])
def test_a_conditional_parameter_moves_only_inside_its_branch(given):
    space = {name: FloatDistribution(0, 1) for name in ("x", "y")} if given else None

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        return x + (trial.suggest_float("y", 0, 1) if trial.number % 3 else 0)

    study = optimize(WhaleSampler(population_size=4, seed=0, search_space=space), objective)
    widths = {len(t.system_attrs["swarm"]["position"]) for t in study.trials[4:]}
    assert widths == ({2} if given else {1})


def test_a_sampler_prints_as_the_call_that_makes_it():
    sampler = WhaleSampler(population_size=10, n_generations=20, seed=0)
    options = "n_generations=20, candidates=1, b=1.0, a_start=2.0, a_end=0.0"
    text = f"WhaleSampler(population_size=10, {options}, seed="
    assert str(sampler) == repr(sampler) == text + "0)"
    assert repr(WhaleSampler(seed=7, search_space=SPACE)) == text + "7, search_space=['rate'])"


@every_swarm
def test_a_seed_that_was_drawn_can_be_read_and_given_again(swarm):
    drawn = swarm()
    assert repr(drawn).endswith(f", seed={drawn.seed})")
    assert repr(eval(repr(drawn))) == repr(drawn)


def test_samplers_are_listed_and_a_typo_gets_the_nearest():
    assert {"ParticleSwarmSampler", "QuantumSwarmSampler", "WhaleSampler"} <= set(
        dir(tuner.strategies)
    )
    assert all(hasattr(tuner.strategies, name) for name in dir(tuner.strategies))
    with pytest.raises(AttributeError, match=r"'WaleSampler'; did you mean 'WhaleSampler'\?$"):
        _ = tuner.strategies.WaleSampler


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: QuantumSwarmSampler(alpha_start=0.4),
         "alpha_start must not be below alpha_end, 0.5 (its default), got 0.4; "
         "give alpha_end too, 0.4 at most"),
        (lambda: WhaleSampler(a_start=1.0, a_end=1.5),
         "a_end must not be above a_start, 1.0, got 1.5; "
         "give a smaller number, or a larger a_start"),
        (lambda: ParticleSwarmSampler(velocity_clamp=(0.5, -0.5)),
         "velocity_clamp must be the least and then the largest, got [0.5, -0.5]; swap them?"),
        (lambda: ParticleSwarmSampler(population_size=2, topology="ring"),
         "population_size must not be below neighbors, 3 (its default), got 2; "
         "give neighbors too, 2 at most"),
    ],
)  # fmt: skip
def test_a_default_that_another_argument_rules_out_is_called_one(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


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


SCRIPT = Path(__file__).parents[2] / "benchmarks/ask.py"


def test_the_benchmark_of_an_ask_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["ask.py", "--asks", "1"])
    main = runpy.run_path(str(SCRIPT))["main"]
    main.__globals__.update(FEW=2, MANY=3)
    main()
    assert "journal, woa" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
