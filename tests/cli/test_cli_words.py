"""Small words of the command line: how many trials of how many, which key was meant."""

from pathlib import Path

import pytest

from tuner.cli.run import _next_commands
from tuner.cli.studies import _trained
from tuner.errors import ExperimentError
from tuner.experiment import Experiment, Override
from tuner.results.verdict import gap_in_words


@pytest.mark.parametrize(
    ("trained", "budget", "says"),
    [
        (8, 8, "8"),
        (5, 8, "5 of 8"),
        (12, 8, "12 (8 asked for)"),
        (7, None, "7"),
    ],
)
def test_a_list_of_studies_says_how_many_of_how_many(trained, budget, says):
    assert _trained(trained, budget) == says


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("transform", "write data.transform"),
        ("window", "write task.window or hyperparameters.window"),
        ("epochs", "write budget.epochs"),
        ("metric", "write objective.metric"),
        ("buget", "did you mean 'budget'"),
    ],
)
def test_a_key_without_its_block_is_told_the_block(key, meant, tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\ndata: {path: x.csv, target: y}\n")
    with pytest.raises(ExperimentError, match=meant) as refused:
        Experiment.load(tmp_path / "x.yaml", [Override(key, 3, "--set")])
    assert "\n" not in str(refused.value)


def test_anothers_file_is_not_offered_for_overwriting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def typed():
        return [command for command, _ in _next_commands("air-tpe-0", None, False, None, False)]

    assert typed() == ["tuner export air-tpe-0 -o best.yaml", "tuner train best.yaml"]
    Path("best.yaml").write_text("name: mine\n")
    named = "air-tpe-0-best.yaml"
    assert typed() == [f"tuner export air-tpe-0 -o {named}", f"tuner train {named}"]


@pytest.mark.parametrize("gap", [0.0, -0.0, 1e-9, -1e-9, -0.004, -0.006])
def test_no_gap_is_minus_nothing(gap):
    said = gap_in_words("rmse", gap, 1.0)
    assert "-0 " not in said
