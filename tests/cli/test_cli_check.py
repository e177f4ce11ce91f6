"""What `tuner check` prints, and the help that leads to it."""

import shlex

import pytest

from tuner.cli.main import run


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
    assert star == f"pso (population 2, topology star, {shown}"
    ring = ["--set", "strategy.topology=ring", "--set", "strategy.c1_end=1"]
    shown = "inertia 0.7298, c1 1.49618, c1_end 1.0, c2 1.49618, velocity_clamp 0.5)"
    line = strategy_line(check("air.yaml", "--strategy", "pso", *ring))
    assert line == f"pso (population 3, topology ring, neighbors 3, {shown}"


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
    assert ": the pruner median can never act" in after
    printed = check("air.yaml", "--set", "data.transform=difference", "--set", "pruner.name=none",
                    "--strategy", "random")  # fmt: skip
    assert "stands in the way" not in printed
