"""Bad input of the command line is refused in one line."""

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.cli.run import next_commands
from tuner.cli.studies import _trained
from tuner.results.verdict import gap_in_words

pytestmark = pytest.mark.usefixtures("folder")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bogus"], "no such command 'bogus'; tuner --help shows what there is"),
        (["chek", "air.yaml"], "did you mean 'check'?"),
        (["--bogus"], "no such option: --bogus"),
        (["check"], "missing argument 'EXPERIMENT.yaml'; tuner check --help shows what there is"),
        (["show"], "missing argument 'STUDY'"),
        (["export"], "missing argument 'STUDY'"),
        (["sync"], "missing argument 'STUDY'"),
        (["train"], "missing argument 'EXPERIMENT.yaml'"),
        (["init"], "missing argument 'DATA.csv'"),
        (["check", "air.yaml", "more"], "unexpected extra argument"),
        (["run", "air.yaml", "--trails", "3"], "--trials"),
        (["run", "air.yaml", "--trials"], "option '--trials' requires an argument"),
        (["run", "air.yaml", "--trials", "x"], "--trials: must be a whole number, got 'x'; write"),
        (["run", "air.yaml", "--workers", "1.5"], "--workers: must be a whole number, got '1.5'"),
        (["run", "air.yaml", "--seed", "x"], "--seed: must be a whole number, got 'x'"),
        (["ui", "--port", "x"], "--port: must be a whole number, got 'x'"),
        (["ui", "--port", "99999999"], "--port: must lie between 1 and 65535, got 99999999"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_refused(refused, arguments, text):
    assert text.lower() in refused(*arguments).lower()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ["--trials", "-1"],
            "--trials: budget.trials: must be at least 1, got -1; write `--trials",
        ),
        (["--timeout", "soon"], "--timeout: budget.timeout: must be a time, got 'soon'; write 90s"),
        (["--workers", "0"], "--workers: must be at least 1, got 0; write --workers"),
        (["--seed", "-1"], "--seed: seed: must be at least 0, got -1; write `--seed 0`, say"),
        (["--set", "strategy=woa"], "write `--strategy woa`, which takes that strategy's defaults"),
        (["--executor", "lokal"], "unknown executor 'lokal'; did you mean 'local'?"),
        (["--no-test", "--reopen-test"], "--reopen-test: needs the test set, got --no-test"),
        (["--study", ""], "--study: must not be empty, got ''; write --study first"),
        (["--study", "../x"], "got '../x'; write --study x, say"),
        (["--study", "a\nb"], "got 'a\\nb'"),
        (["--study", "x" * 300], "at most 240 bytes in UTF-8, has"),
        (["--study", "x.finalists"], "names that end in .finalists are reserved"),
        (["--journal", ""], "--journal: must name a file or a database that lasts, got ''"),
        (["--journal", "sqlite://"], "--journal: must name a file or a database that lasts"),
        (["--journal", "air.csv/x.journal"], "--journal: cannot be written in"),
        (["--journal", "no/j.log"], "--journal: no folder no, got 'no/j.log'; create it first"),
        (["--journal", "/no/way/j.log"], "--journal: "),
        (["--journal", "sqlite:///no/x.db"], "--journal: no folder no, got 'sqlite:///no/x.db'; "),
        (["--journal", "sqlite+pysqlite:///no/x.db?a=b"], "--journal: no folder no, got"),
        (["--journal", "air.csv"], "air.csv: is not a journal, its first line is"),
        (["--journal", "."], "is a folder, not a journal"),
        (["--journal", "foo://bar"], "--journal: foo://bar: "),
        (["--journal", "sqlite:///air.csv"], "file is not a database"),
        (["--set", "x"], "--set: must be KEY=VALUE, got 'x'; write budget.epochs=50, say"),
        (["--set", "budget.trials=["], "--set budget.trials: must be YAML, got '['"),
        (["--set", "data.path=nope.csv"], "nope.csv: data.path: no such file"),
        (["--set", "search_space=nope.yaml"], "nope.yaml: no such search space"),
        (["--trials", "3", "--set", "budget.trials=x"], "--set: budget.trials: must be a whole"),
    ],
)
def test_an_option_of_run_that_breaks_a_rule_is_refused(refused, options, text):
    assert text in refused("run", "air.yaml", *options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "bad.yaml: no such experiment file"),
        (
            "name: air\nbudget: {trails: 3}\ndata: {path: a.csv, target: y}\n",
            "bad.yaml: budget.trails: unknown key",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "run", "train"])
def test_every_command_refuses_a_file_that_is_no_experiment(
    folder, refused, command, text, message
):
    if text is not None:
        (folder / "bad.yaml").write_text(text)
    assert refused(command, "bad.yaml").startswith(message)


SERIES = [f"{1950 + i // 12}-{i % 12 + 1:02}-01,{100 + i}" for i in range(60)]


@pytest.mark.parametrize(
    ("rows", "options", "parts"),
    [
        (SERIES, ["data.target=sale"], ["data.target", "'sale'", "did you mean 'sales'?"]),
        (SERIES, ["data.time=mnth"], ["data.time", "no column 'mnth'"]),
        ([r.replace(",", ",x") for r in SERIES], [], ["data.target", "numeric", "'x100'"]),
        ([*SERIES[:5], "1950-06-01,", *SERIES[6:]], [], ["data.target", "nan", "line 7"]),
        ([*SERIES[:5], "1950-06-01,inf", *SERIES[6:]], [], ["data.target", "inf", "line 7"]),
        ([*SERIES[:5], "soon,3", *SERIES[6:]], [], ["data.time", "'soon'", "line 7"]),
        ([SERIES[1], SERIES[0], *SERIES[2:]], [], ["data.time", "must rise", "sort"]),
        ([SERIES[0] + "5", *SERIES], [], ["data.time", "twice", "1950-01-01"]),
        ([*SERIES[:5], *SERIES[6:]], [], ["data.time", "gaps", "1950-06-01"]),
        ([*SERIES[:5], "1950-06-01,0", *SERIES[6:]], ["data.transform=log"], ["log", "line 7"]),
        (SERIES, ["task.window=90"], ["task.window", "needs 91 rows", "got 39 of 60"]),
        (SERIES, ["task.horizon=30"], ["30", "of 60"]),
        (SERIES, ["data.split.validation=0.9"], ["data.split", "no row is left to train on"]),
        (SERIES, ["data.split.test=1999-01-01"], ["data.split.test", "1999-01-01", "write a date"]),
        ([], [], ["data.path", "no rows"]),
    ],
)
def test_unusable_data_is_refused_before_anything_starts(folder, refused, rows, options, parts):
    (folder / "series.csv").write_text("\n".join(["month,sales", *rows]) + "\n")
    experiment = "name: s\ndata: {path: series.csv, time: month, target: sales}\n"
    (folder / "series.yaml").write_text(experiment + "search_space: {dropout: {type: float, low: "
                                        "0, high: 0.5}}\n")  # fmt: skip
    settings = [word for option in options for word in ("--set", option)]
    for command in ("check", "run", "train") if not rows else ("run",):
        message = refused(command, "series.yaml", *settings)
        assert "series.csv" in message
        assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "nope"], "studies/nope.journal: no study 'nope' in this folder; start one"),
        (["export", "nope"], "no study 'nope'"),
        (["sync", "nope"], "no study 'nope'"),
        (["ui", "nope"], "no study 'nope'"),
        (["ui"], "no such MLflow store; run `tuner run EXPERIMENT.yaml` first"),
        (["export", "nope", "--format", "xml"], "--format: unknown format 'xml'; choose from"),
        (["show", "air.csv"], "air.csv: is a file, not a study's name; write `tuner studies`"),
        (["run", "air.csv"], "air.csv: is a data file, not an experiment; give air.yaml"),
        (["show", "x", "--journal", "nope.journal"], "nope.journal: no such journal"),
        (["show", "x", "--journal", "air.csv"], "air.csv: is not a journal"),
        (["studies", "--journal", "air.csv"], "air.csv: is not a journal"),
        (["studies", "--journal", "sqlite:///nope.db"], "nope.db: no such journal"),
        (["train", "air.yaml", "-o", "air.csv"], "-o: must be a folder, got the file"),
        (["train", "air.yaml", "-o", "air.csv/model"], "-o: must be a folder, got the file"),
        (["train", "air.yaml", "-o", "."], "-o: . is not empty and holds no model"),
        (["init", "nope.csv"], "nope.csv: data.path: no such file"),
        (["init", "air.csv"], "air.yaml: exists already; give another name with -o"),
        (["init", "air.csv", "-o", "no/x.yaml"], "-o: no such folder no; create it first"),
        (["init", "air.csv", "-o", "x.yaml", "--target", "x"], "no column 'x' in the file"),
        (["init", "air.csv", "-o", "x.yaml", "--target", "month"], "'month' must hold numbers"),
    ],
)
def test_what_the_other_commands_cannot_use_is_refused(refused, arguments, text):
    assert text in refused(*arguments)


@pytest.mark.parametrize("command", ["run", "check", "train"])
@pytest.mark.parametrize("name", ["a load.csv", "load.parquet", "load.CSV"])
def test_a_data_file_as_experiment_suggests_init(folder, refused, command, name):
    (folder / name).write_text("y\n1\n")
    init = f"`tuner init {shlex.quote(name)}`"
    expected = f"{name}: is a data file, not an experiment; write {init} first"
    assert refused(command, name) == expected


def test_a_file_that_is_no_journal_is_not_taken_for_one(folder, refused):
    (folder / "studies").mkdir()
    (folder / "studies/air-random-0.journal").write_text("dear diary\n")
    for command in (["run", "air.yaml"], ["show", "air-random-0"], ["sync", "air-random-0"]):
        message = refused(*command)
        assert message.startswith("studies/air-random-0.journal: is not a journal")
        assert "dear diary" in message


def test_init_refuses_data_that_check_would_refuse(folder, refused):
    (folder / "short.csv").write_text("y\n1\n2\n3\n")
    assert refused("init", "short.csv").startswith("short.csv: data.split.test: ")


@pytest.mark.parametrize("terminal", [False, True])
def test_the_real_command_says_it_in_one_line_whatever_the_width(folder, terminal):
    before = sorted(folder.iterdir())
    command = [sys.executable, "-m", "tuner", "run", "air.yaml", "--set", "budget.trials=-1"]
    environment = os.environ | {"COLUMNS": "40"}
    if terminal:
        ours, theirs = pty.openpty()
        done = subprocess.run(command, env=environment, stderr=theirs, stdout=theirs, check=False)
        os.close(theirs)
        printed = os.read(ours, 65536).decode().replace("\r\n", "\n")
        os.close(ours)
    else:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == ""
        printed = done.stderr
    assert done.returncode == 2
    assert printed == (
        "tuner: --set: budget.trials: must be at least 1, got -1; "
        "write `--set budget.trials=40`, say\n"
    )
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("trained", "budget", "says"),
    [(8, 8, "8"), (5, 8, "5 of 8"), (12, 8, "12 (8 asked for)"), (7, None, "7")],
)
def test_a_list_of_studies_says_how_many_of_how_many(trained, budget, says):
    assert _trained(trained, budget) == says


def test_anothers_file_is_not_offered_for_overwriting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def typed():
        return [command for command, _ in next_commands("air-tpe-0", "", own_code=False)]

    assert typed() == ["tuner export air-tpe-0 -o best.yaml", "tuner train best.yaml"]
    Path("best.yaml").write_text("name: mine\n")
    named = "air-tpe-0-best.yaml"
    assert typed() == [f"tuner export air-tpe-0 -o {named}", f"tuner train {named}"]


@pytest.mark.parametrize("gap", [0.0, -0.0, 1e-9, -1e-9, -0.004, -0.006])
def test_no_gap_is_minus_nothing(gap):
    said = gap_in_words("rmse", gap, 1.0)
    assert "-0 " not in said
