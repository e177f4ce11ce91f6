"""Commands that look: check, show, and the links that they print."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.cli.app import run
from tuner.experiment import Experiment


@pytest.fixture
def check(folder, capsys):
    """Runs `tuner check`, which must pass, and returns what it printed."""

    def call(*arguments):
        assert run(["check", *arguments]) == 0
        return capsys.readouterr().out

    return call


def strategy_line(printed):
    (line,) = [line for line in printed.splitlines() if line.startswith("  strategy ")]
    return line.removeprefix("  strategy").strip()


def test_check_repeats_its_options_in_the_next_command(folder, check):
    options = ["--strategy", "pso", "--set", "name=a", "--set", "data.features=[passengers, 'x y']"]
    (folder / "my air.yaml").write_text((folder / "air.yaml").read_text())
    header, *rows = (folder / "air.csv").read_text().split()
    rows = [f"{header},x y", *(f"{row},{i}" for i, row in enumerate(rows))]
    (folder / "air.csv").write_text("\n".join(rows) + "\n")
    printed = check("my air.yaml", *options)
    command = printed.splitlines()[-1].partition("Next: ")[2]
    assert shlex.split(command) == ["tuner", "run", "my air.yaml", *options]


def test_check_counts_rows_of_the_file_and_made_rows(check):
    lines = [" ".join(line.split()) for line in check("air.yaml").splitlines()]
    assert "data air.csv: 144 rows, frequency MS" in lines
    printed = check("air.yaml", "--set", "data.resample=QS", "--set", "task.window=2")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "data air.csv: 144 rows" in lines
    assert "resampled 48 rows of QS, mean, frequency QS-JAN" in lines


def test_check_of_a_fixed_configuration_leads_to_train(check):
    printed = check("air.yaml", "--strategy", "pso", "--set", "search_space={}")
    assert printed.endswith("Next: tuner train air.yaml --set 'search_space={}'\n")


def test_check_shows_the_options_that_the_strategy_heeds(check):
    star = strategy_line(check("air.yaml", "--strategy", "pso"))
    shown = "inertia 0.7298, c1 1.49618, c2 1.49618, velocity_clamp 0.5)"
    assert star == f"pso (population 2, candidates 1, topology star, {shown}"
    ring = ["--set", "strategy.topology=ring", "--set", "strategy.c1_end=1"]
    shown = "inertia 0.7298, c1 1.49618, c1_end 1.0, c2 1.49618, velocity_clamp 0.5)"
    line = strategy_line(check("air.yaml", "--strategy", "pso", *ring))
    assert line == f"pso (population 3, candidates 1, topology ring, neighbors 3, {shown}"


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_help_of_strategy_says_where_they_are_listed(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run([command, "--help"])
    (line,) = [row for row in capsys.readouterr().out.splitlines() if "--strategy " in row]
    assert "tuner strategies lists them" in line


def test_check_says_what_stands_in_the_way_and_with_which_key(check):
    printed = check("air.yaml", "--strategy", "woa", "--set", "budget.trials=8",
                    "--set", "pruner.name=median",
                    "--set", "strategy.population=8")  # fmt: skip
    before, _, after = printed.partition("What stands in the way\n")
    assert "passengers has a trend that nothing takes out" in after
    assert "budget.trials: woa cannot move: all 8 trials are its first generation" in after
    assert ": the median pruner cannot stop any trial" in after
    printed = check("air.yaml", "--set", "data.transform=difference", "--set", "pruner.name=none",
                    "--strategy", "random")  # fmt: skip
    assert "stands in the way" not in printed


@pytest.fixture
def searched(folder, capsys):
    """The study of a search for small models; the current folder has it."""
    text = (folder / "air.yaml").read_text().replace("strategy: {name: random}\n", "")
    text = text.replace("pruner: {name: none}", "objective: {metrics: [rmse, weights]}")
    (folder / "air.yaml").write_text(text.replace("trials: 4", "trials: 10"))
    assert run(["run", "air.yaml", "--no-tracking", "--no-test"]) == 0
    printed = capsys.readouterr().out
    assert "Pareto front" in printed
    return "air-nsga2-0"


def test_the_pareto_front_is_shown_and_each_of_it_exported(searched, capsys):
    assert run(["show", searched, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    front = shown["front"]
    values = [(each["values"]["rmse"], each["values"]["weights"]) for each in front]
    assert values == sorted(values)
    assert [w for _, w in values] == sorted((w for _, w in values), reverse=True)
    every = {t["number"]: (t["value"], t["weights"]) for t in shown["all_trials"]}
    for each, pair in zip(front, values, strict=True):
        assert every[each["trial"]] == pair
    assert run(["report", searched]) == 0
    assert 'id="pareto_front"' in Path(f"{searched}.html").read_text()
    smallest = front[-1]["trial"]
    capsys.readouterr()
    assert run(["export", searched, "--trial", str(smallest), "-o", "small.yaml"]) == 0
    small = Experiment.load("small.yaml")
    assert small.hyperparameters.hidden_size == front[-1]["params"]["hidden_size"]
    assert small.objective.metrics is None
    capsys.readouterr()
    assert run(["train", "small.yaml"]) == 0
    assert "reproduced: " in capsys.readouterr().out
    assert run(["export", searched, "--trial", "99"]) == 2
    assert "--trial: must be a complete trial of air-nsga2-0, got 99" in capsys.readouterr().err


STUDY = "air-random-0"

# `tuner`, which says at its end whether it has imported MLflow.
TUNER_AND_IMPORTS = """
import sys
from tuner.cli import main
try:
    main()
finally:
    print("imported" if "mlflow" in sys.modules else "not imported", file=sys.stderr)
"""


def show(folder, *options):
    """Run `tuner show`, which must not take the time that it takes to import MLflow."""
    done = subprocess.run(
        [sys.executable, "-c", TUNER_AND_IMPORTS, "show", *(options or [STUDY])],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "not imported\n")
    return done.stdout


@pytest.fixture(scope="module")
def shown(finished):
    """What `tuner show` prints of the finished study."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        return show(finished)


def test_without_a_ui_show_says_how_to_start_one(finished, shown):
    assert shown.endswith(f"\n\nIn MLflow: tuner ui {STUDY}\n")
    assert json.loads(show(finished, STUDY, "--json"))["links"] is None
    given = show(finished, STUDY, "--journal", f"studies/{STUDY}.journal")
    assert given.endswith(f"In MLflow: tuner ui {STUDY} --journal studies/{STUDY}.journal\n")


def test_a_study_that_mlflow_lacks_has_no_links(finished, tmp_path):
    shutil.copytree(finished / "studies", tmp_path / "studies")
    assert "MLflow" not in show(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["studies"]


def test_a_server_that_is_away_takes_nothing_but_the_links(finished, shown, monkeypatch):
    with_store = shown.partition("\n\nIn MLflow")[0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://127.0.0.1:1/mlflow")
    assert show(finished).rstrip() == with_store.rstrip()
    assert json.loads(show(finished, STUDY, "--json"))["links"] is None
