"""The comparison of pruners: the same on every machine, and pairs of equal seeds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pruning
import pytest
from learning_curve import LearningCurvePruner
from optuna.trial import TrialState, create_trial

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "pruning.py"


def told(*curves):
    study = optuna.create_study()
    for curve in curves:
        values = dict(enumerate(curve))
        study.add_trial(create_trial(value=min(curve), intermediate_values=values))
    return study


def decides(pruner, study, *curve):
    values = dict(enumerate(curve))
    running = create_trial(state=TrialState.RUNNING, intermediate_values=values)
    return pruner.prune(study, running)


def test_a_curve_ends_where_its_prediction_misses_the_bar():
    study = told([8.0, 6.0, 4.0], [6.0, 5.0, 3.0], [4.0, 3.0, 2.0])  # the second end is the median
    median = LearningCurvePruner(0.0, 0.5, n_startup_trials=3, n_warmup_steps=0)
    assert decides(median, study, 6.1)  # all halved the first value: 3.05
    assert not decides(median, study, 5.9)
    worst = LearningCurvePruner(0.0, 1.0, n_startup_trials=3, n_warmup_steps=0)
    assert decides(worst, study, 9.0, 6.8)  # none kept less than 3/5 of the second value: 4.08
    assert not decides(worst, study, 9.0, 6.6)
    assert not decides(worst, study, 6.6, 9.0)  # the best so far counts


def test_a_curve_is_spared_at_first():
    study = told([8.0, 4.0], [6.0, 3.0])
    early = LearningCurvePruner(0.0, 0.5, n_startup_trials=3, n_warmup_steps=0)
    assert not decides(early, study, 99.0)
    warm = LearningCurvePruner(0.0, 0.5, n_startup_trials=2, n_warmup_steps=1)
    assert not decides(warm, study, 99.0)
    assert decides(warm, study, 99.0, 98.0)


@pytest.mark.slow
def test_what_a_pruner_saves_is_a_share_of_the_same_seeds(tmp_path):
    kept = tmp_path / "kept.jsonl"
    pruners = ["--pruners", "median 5, 5"]
    options = ["--seeds", "1", "--strategies", "random", "--workers", "1", "--keep", str(kept)]
    command = [sys.executable, str(SCRIPT), *options, *pruners]
    said = [
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for _ in range(2)
    ]
    tables = [text[text.index("\nair_passengers") :] for text in said]
    assert tables[0] == tables[1]
    lines = kept.read_text().splitlines()
    assert len(lines) == 2 * 2  # each landscape with and without the pruner, once
    assert len({json.loads(line)[0] for line in lines}) == len(lines)
    rows = re.findall(r"^\| (none|median 5, 5) \| ([\d.]+) \| ([\d.]+) \|", tables[0], re.MULTILINE)
    assert {row[1:] for row in rows if row[0] == "none"} == {("1.00", "1.00")}
    saved = [float(share) for row in rows if row[0] != "none" for share in row[1:]]
    assert len(saved) == 8  # two landscapes, for the strategy and for all of them
    assert all(0.2 < share < 0.95 for share in saved)


def test_trials_of_a_search_without_pruner_are_all_whole():
    found = pruning.search(pruning.Task("sunspots", "random", "none", 1))
    assert len(found) >= pruning.TRIALS
    assert all(trial.value is not None for trial in found)
    time = pruning.equal_time(pruning.load("sunspots")[0])
    assert sum(trial.seconds for trial in found) >= time
    figures = pruning.figures(found, time)
    ended = np.cumsum([trial.seconds for trial in found])
    assert ended[int(figures["timely"]) - 1] <= time < ended[int(figures["timely"])]
    first = found[: pruning.TRIALS]
    assert figures["winner"] == min(first, key=lambda trial: trial.value).regret
    assert figures["finalists"] <= figures["winner"]
    assert figures["capped"] == 0
    assert pruning.figures(found, 2 * time)["capped"] == 1
