"""`tuner init` writes an experiment that the other commands accept, whatever the file is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli.main import run
from tuner.experiment import Experiment


def series(header: str, separator: str = ",") -> str:
    rows = [f"{1900 + i}{separator}{i % 7 + 1}" for i in range(60)]
    return "\n".join([header, *rows]) + "\n"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_init_then_check_then_run_works_without_an_editor(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("my data (1).csv").write_text(series('year,"net sales, €"'), encoding="utf-8")
    assert run(["init", "my data (1).csv"]) == 0
    printed = capsys.readouterr().out
    assert "wrote my data (1).yaml: forecasts net sales, € one row ahead" in printed
    assert "tuner check 'my data (1).yaml', then tuner run 'my data (1).yaml'" in printed
    assert run(["check", "my data (1).yaml"]) == 0
    assert "Next: tuner run 'my data (1).yaml'" in capsys.readouterr().out
    options = ["--trials", "2", "--set", "budget.epochs=2", "--set", "finalists.top=1"]
    options += ["--set", "finalists.repeats=1", "--workers", "1", "--no-tracking"]
    assert run(["run", "my data (1).yaml", *options]) == 0
    printed = capsys.readouterr().out
    assert "my_data_1-tpe-0: 2 trials trained" in printed
    assert "net sales, €, 9 rows" in printed


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ("year,yes", "yes"),
        ("year,null", "null"),
        ("year,~", "~"),
        ("year,1e5", "1e5"),
        ("year,2020-01-01", "2020-01-01"),
        ('year,"a: b #c"', "a: b #c"),
        ('year,"[x]"', "[x]"),
        ('year,"[bold]x[/]"', "[bold]x[/]"),
        ('year,"quo""te\\"', 'quo"te\\'),
        ('year,"two\nlines"', "two\nlines"),
        ("year,be\x07ll", "be\x07ll"),
        ("year,line\u2028end", "line\u2028end"),
        ("year,売上", "売上"),
    ],
)
def test_any_name_of_a_column_can_be_the_target(
    header: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text(series(header), encoding="utf-8")
    assert run(["init", "s.csv"]) == 0
    experiment = Experiment.load("s.yaml")
    assert experiment.data.targets == [target]
    assert experiment.data.time == "year"
    capsys.readouterr()
    assert run(["check", "s.yaml"]) == 0
    printed = capsys.readouterr().out
    assert " ".join(target.split()) in " ".join(printed.replace("\x07", "").split()) or (
        "\x07" in target
    )


@pytest.mark.parametrize(
    "name", ["[red].csv", ".csv", "日本.csv", "-x.csv", "a.b.csv", "null.csv", "2020.csv"]
)
def test_any_name_of_a_file_gives_an_experiment(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_text(series("year,sales"))
    assert run(["init", "--", name]) == 0
    (written,) = [p for p in tmp_path.iterdir() if p.name != name]
    assert f"wrote {written.name}: " in capsys.readouterr().out
    assert Experiment.load(written).data.path == str(tmp_path / name)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_columns_that_no_comma_separates_are_refused(
    separator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("s.csv").write_text(series(f"year{separator}sales", separator))
    assert run(["init", "s.csv"]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("tuner: s.csv: data.target: ")
    assert printed.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]


def test_the_file_can_be_written_elsewhere_and_still_finds_its_data(tmp_path: Path) -> None:
    Path("data").mkdir()
    Path("experiments").mkdir()
    Path("data/s.csv").write_text(series("year,sales"))
    assert run(["init", "data/s.csv", "-o", "experiments/s.yaml"]) == 0
    assert 'path: "../data/s.csv"' in Path("experiments/s.yaml").read_text()
    assert Experiment.load("experiments/s.yaml").data.path == str(tmp_path / "data/s.csv")


def test_a_target_can_be_chosen() -> None:
    Path("s.csv").write_text("date,a,b\n" + "".join(f"20{i:02},{i},{-i}\n" for i in range(40)))
    assert run(["init", "s.csv", "--target", "a"]) == 0
    assert Experiment.load("s.yaml").data.targets == ["a"]
