"""One real search, every command on what it left behind, and searches from a table."""

import json
import math
import resource
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.cli.app import run
from tuner.experiment import Experiment

STUDY = "air-random-0"
JOURNAL = f"studies/{STUDY}.journal"


@pytest.fixture
def tuner(here, capsys):
    """Runs a command that must have a given status, and returns what it printed."""

    def call(*arguments, status=0):
        capsys.readouterr()
        found = run(list(arguments))
        printed = capsys.readouterr()
        assert found == status, printed.err
        assert (printed.err == "") is (status in (0, 1)), printed.err
        return printed.out + printed.err

    return call


def test_a_search_without_a_terminal_prints_plain_lines(finished):
    log = (finished / "run.log").read_text()
    assert "\x1b" not in log
    lines = log.splitlines()
    assert lines[0].startswith("searching ")
    counted = [f"[{i}/4]" for i in range(1, 5)] + [f"[{i}/6]" for i in range(1, 7)]
    assert [line[:5] for line in lines[1:11]] == counted
    for part in (
        f"{STUDY}: 4 trials trained (4 complete)",
        "Best configuration (trial ",
        "retrained on 2 fresh seeds, gap ",
        "default LSTM, on 2 fresh seeds",
        "training mean  ",
        "Evaluated on the test set once, after 4 trials.",
        "Verdict: ",
        "First and second: too few repeats to tell (2; five or more are needed: the same command "
        "with --set finalists.repeats=5).",
        "test: passengers, 22 rows, 1959-03-01 to 1960-12-01",
        "last value  ",
        "seasonal naive  ",
        "Next:",
        f"tuner export {STUDY} -o best.yaml",
    ):
        assert part in log
    assert sorted(p.name for p in finished.iterdir()) == [
        *("air.csv", "air.yaml", "mlartifacts", "mlflow.db", "run.log", "studies")
    ]


def test_a_finished_study_that_is_run_again_only_prints(finished, here, tuner):
    log = (finished / "run.log").read_text()
    tuner("run", "air.yaml", "--no-tracking")  # `here` is a copy: the data's path is written
    before = (here / JOURNAL).read_bytes()
    printed = tuner("run", "air.yaml", "--no-tracking")
    assert printed.startswith(log[log.index(f"\n{STUDY}:") : log.index("\nNext:")])
    assert (here / JOURNAL).read_bytes() == before


def test_a_resumed_study_may_change_its_budget_and_repeats(here, tuner):
    before = (here / JOURNAL).read_bytes()
    refused = tuner("run", "air.yaml", "--set", "budget.epochs=4", status=2)
    assert "was begun with budget.epochs=3, got 4; put it back, or give another" in refused
    refused = tuner("run", "air.yaml", "--set", "name=other", "--study", STUDY, status=2)
    assert f"study {STUDY!r} belongs to experiment 'air', got 'other'; give another" in refused
    refused = tuner("run", "air.yaml", "--set", "finalists.repeats=1", status=2)
    assert "has finalists.repeats=2, which may be raised and not lowered, got 1; write" in refused
    text = (here / "air.csv").read_text()
    (here / "air.csv").write_text(text.replace("112", "113", 1))
    assert "was begun on other data" in tuner("run", "air.yaml", status=2)
    assert (here / JOURNAL).read_bytes() == before
    assert not (here / "mlflow.db").exists()


def test_show_and_studies_and_strategies_print_json_for_scripts(tuner):
    shown = json.loads(tuner("show", STUDY, "--json"))
    assert shown["study"] == STUDY
    assert shown["trials"] == {
        "trained": 4,
        **{"running": 0, "complete": 4, "pruned": 0, "failed": 0, "repeats": 0},
    }
    assert len(shown["all_trials"]) == 4
    assert len(shown["finalists"]) == 3  # the default is one of them
    assert shown["best"]["mean"] == min(f["mean"] for f in shown["finalists"])
    (listed,) = json.loads(tuner("studies", "--json"))
    assert listed["study"] == STUDY
    strategies = json.loads(tuner("strategies", "--json"))
    assert set(strategies) >= {"random", "tpe", "pso", "woa"}
    assert strategies["woa"]["options"]["population"]["default"] == 10


def test_show_and_studies_and_strategies_print_tables_for_people(tuner):
    shown = tuner("show", STUDY)
    assert "Best trials" in shown
    assert shown.count("hidden_size=") == 1 + 3 + 4  # the best, the finalists, the trials
    assert STUDY in tuner("studies")
    assert "population" in tuner("strategies")


def test_a_mistyped_study_is_answered_with_the_nearest_name(tuner):
    assert f"did you mean {STUDY!r}?" in tuner("show", "air-rando-0", status=2)
    refused = tuner("show", "air-rando-0", "--journal", JOURNAL, status=2)
    assert f"holds no study 'air-rando-0'; did you mean {STUDY!r}?" in refused


def test_a_journal_path_in_studies_names_its_study(here, tuner):
    by_name = tuner("show", STUDY)
    assert tuner("show", JOURNAL) == tuner("show", f"./{JOURNAL}") == by_name
    assert tuner("show", str(here / JOURNAL)) == by_name
    assert tuner("export", JOURNAL) == tuner("export", STUDY)
    shutil.copy(JOURNAL, "other.journal")
    refused = tuner("show", "other.journal", status=2)
    assert "is a file, not a study's name; write `tuner studies --journal other.j" in refused
    shutil.copy(JOURNAL, "my studies")
    refused = tuner("show", "my studies", status=2)
    assert refused.endswith("not a study's name; write `tuner studies --journal 'my studies'`\n")
    sqlite3.connect("all.db").execute("CREATE TABLE studies (name)").connection.close()
    refused = tuner("show", "all.db", status=2)
    assert refused.endswith("write `tuner studies --journal sqlite:///all.db`\n")


def test_fewer_trials_than_trained_change_nothing_with_a_note(tuner):
    before = json.loads(tuner("show", STUDY, "--json"))["best"]
    said = "4 trials are trained already: --trials 2 changes nothing\n"
    assert tuner("run", "air.yaml", "--no-tracking", "--trials", "2").startswith(said)
    said = "4 trials are trained already: budget.trials 3 changes nothing\n"
    assert tuner("run", "air.yaml", "--no-tracking", "--set", "budget.trials=3").startswith(said)
    assert json.loads(tuner("show", STUDY, "--json"))["best"] == before
    assert "already" not in tuner("run", "air.yaml", "--no-tracking", "--trials", "4")


def test_studies_lists_the_others_where_one_journal_is_broken(here, capsys):
    (here / "studies/broken.journal").write_text("dear diary\n")
    assert run(["studies"]) == 2
    printed = capsys.readouterr()
    assert STUDY in printed.out
    assert printed.err.startswith("tuner: studies/broken.journal: is not a journal")
    assert printed.err.count("\n") == 1


def test_an_export_is_yaml_or_json_and_overwrites_only_exports(here, tuner):
    on_stdout = tuner("export", STUDY)
    (here / "printed.yaml").write_text(on_stdout)
    tuner("export", STUDY, "-o", "best.yaml")
    tuner("export", STUDY, "-o", "best.yaml")  # an export may be written again
    tuner("export", STUDY, "-o", "best.json")
    assert json.loads((here / "best.json").read_text())["recorded"]["study"] == STUDY
    assert json.loads(tuner("export", STUDY, "--format", "json"))["name"] == "air"
    loaded = [Experiment.load(name) for name in ("printed.yaml", "best.yaml", "best.json")]
    assert loaded[0].hyperparameters == loaded[1].hyperparameters == loaded[2].hyperparameters
    (here / "notes.yml").write_text("mine")
    tuner("export", STUDY, "-o", "notes.yml", "--force")
    assert Experiment.load("notes.yml").recorded is not None


def test_train_of_a_plain_experiment_prints_its_score(tuner):
    printed = tuner("train", "air.yaml", "--set", "hyperparameters.hidden_size=3")
    first, second = printed.splitlines()
    assert first.startswith("training the values under hyperparameters; not searching hidden_size")
    assert math.isfinite(float(second.removeprefix("validation rmse: ")))


def test_mlflow_nests_every_trial_below_one_parent(finished, tuner):
    from tuner.tracking import open_store

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished)
        client = open_store()
    experiment = client.get_experiment_by_name("air")
    runs = client.search_runs([experiment.experiment_id])
    assert not [r for r in runs if r.info.status != "FINISHED"]
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert parent.info.run_name == STUDY
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1 == 10
    trials = {r.data.tags["trial"]: r for r in children if r.data.tags["role"] == "trial"}
    assert sorted(trials) == ["0", "1", "2", "3"]
    shown = json.loads(tuner("show", STUDY, "--json"))
    for trial in shown["all_trials"]:
        found = trials[str(trial["number"])]
        assert found.data.metrics["objective"] == trial["value"]
        assert len(client.get_metric_history(found.info.run_id, "rmse")) == trial["epochs"] == 3
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"experiment.yaml", "best.yaml", "result.json"} <= names


@pytest.mark.slow
def test_concurrent_syncs_leave_one_run_per_trial(here, tuner):
    before = (here / JOURNAL).read_bytes()
    command = [sys.executable, "-m", "tuner", "sync", STUDY]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sum("MLflow agrees with the journal: 10 created" in out for out in printed) == 1
    assert sum("0 created, 0 completed, 0 replaced, 10 unchanged" in out for out in printed) == 2
    assert (here / JOURNAL).read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_keeps_the_earlier_file(tuner, here):
    tuner("export", STUDY, "-o", "best.yaml")
    before = (here / "best.yaml").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "export", STUDY, "-o", "best.yaml"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tuner: best.yaml: cannot be written: File too large; make room, or write elsewhere\n"
    )
    assert (here / "best.yaml").read_bytes() == before
    assert not list(here.glob(".*"))


@pytest.mark.slow
def test_a_search_that_ends_by_itself_needs_no_number_of_trials(tuner, here):
    ends = ("--set", "budget.trials=null", "--set", "budget.stagnation=1")
    printed = tuner("run", "air.yaml", "--study", "own", *ends, "--tracking", "--workers", "1")
    assert "MLflow" not in printed
    assert " trained" in printed
    assert "0 created, 0 completed, 0 replaced" in tuner("sync", "own")
    tuner("report", "own", "-o", "own.html")
    assert "trials were trained: " in (here / "own.html").read_text()


def test_a_study_can_live_in_a_database_named_by_url(tuner):
    journal = ("--journal", "sqlite:///studies.db")
    options = ("--trials", "1", "--set", "finalists.top=0", "--no-tracking", "--workers", "1")
    printed = tuner("run", "air.yaml", *journal, *options)
    assert f"tuner export {STUDY} --journal sqlite:///studies.db -o best.yaml" in printed
    assert "1 trial trained" in tuner("show", STUDY, *journal)


def test_a_reader_that_has_seen_enough_is_no_error(here):
    script = f"{sys.executable} -m tuner show {STUDY} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def begin(folder, capsys, *options):
    """Search with a swarm of three, and return the lines printed before the first trial ended."""
    text = (folder / "air.yaml").read_text()
    text = text.replace("strategy: {name: random}", "strategy: {name: pso, population: 3}")
    (folder / "air.yaml").write_text(text)
    capsys.readouterr()
    assert run(["run", "air.yaml", "--no-tracking", "--no-test", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if line.startswith("[1/"))]


def strategy_of(study):
    raw = json.loads(Path("studies", f"{study}.journal").read_text().splitlines()[1])
    found = raw["user_attr"]["tuner"]["experiment"]["strategy"]
    return found


def test_the_files_strategy_keeps_options_and_another_is_noted(folder, capsys):
    same = begin(folder, capsys, "--strategy", "pso")
    assert strategy_of("air-pso-0")["population"] == 3
    assert not any("in place of" in line for line in same)
    other = begin(folder, capsys, "--strategy", "woa", "--trials", "12")
    (said,) = [line for line in other if "in place of" in line]
    assert said.endswith(
        "woa (population 3, candidates 1, b 1.0, a_start 2.0, a_end 0.0) in place of the file's "
        "pso (population 3)"
    )
    assert run(["check", "air.yaml", "--strategy", "woa"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "replaces pso (population 3) of the file" in printed


def test_what_never_acts_is_said_before_the_search(folder, capsys):
    pruner = ("--set", "pruner.name=median")
    said = begin(folder, capsys, *pruner, "--set", "strategy.population=4")
    (swarm,) = [line for line in said if "pso cannot move: all 4 trials" in line]
    (idle,) = [line for line in said if "the median pruner cannot stop any trial" in line]
    assert "budget.trials" in swarm
    assert idle.startswith("pruner.n_warmup_steps: ")
    again = ["run", "air.yaml", "--no-tracking", "--no-test", *pruner]
    assert run([*again, "--set", "strategy.population=4"]) == 0
    before, _, _ = capsys.readouterr().out.partition("What stands in the way")
    assert "cannot move" not in before  # nothing is left to search
    assert run([*again, "--set", "strategy.population=4", "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert (out.count("cannot move"), out.count("cannot stop any trial")) == (1, 1)


def test_a_study_of_any_letters_is_found_by_every_command(folder, capsys):
    (folder / "air.yaml").rename(folder / "销量 '24.yaml")
    named = ["--set", "name=Umsätze [x] 销量", "--set", "finalists.top=1", "--no-tracking"]
    assert run(["run", "销量 '24.yaml", *named]) == 0
    out = capsys.readouterr().out
    study = "Umsätze [x] 销量-random-0"
    assert f"{study}: 4 trials trained" in out
    printed = [line.strip() for line in out.partition("\nNext:\n")[2].splitlines()]
    (export,) = [line for line in printed if line.startswith("tuner export ")]
    assert run(shlex.split(export)[1:]) == 0
    assert Experiment.load("best.yaml").name == "Umsätze [x] 销量"
    capsys.readouterr()
    assert run(["show", study]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].startswith(f"{study}: 4 trials")
    assert run(["report", study]) == 0
    assert study in Path(f"{study}.html").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run(["studies"]) == 0
    assert study in capsys.readouterr().out
    assert run(["show", "Umsätze [x] 销-random-0"]) == 2
    assert f"did you mean {study!r}?" in capsys.readouterr().err


RUN = ["run", "air.yaml", "--no-tracking", "--no-test", "--set", "finalists.top=0"]


NEW = [*RUN, "--study", "new"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no configuration; write a line for each"),
        ("hidden_size,rate\n4,0.01\n", "unknown column 'rate'; "),
        ("hidden_sizes,learning_rate\n4,0.01\n", "did you mean 'hidden_size'?"),
        ("hidden_size\n4\n", "learning_rate: has no column; add one, as it is searched"),
        ("hidden_size,learning_rate\n4,0.01\n9,0.01\n",
         "line 3: hidden_size: must lie in the search space, from 2 to 8, got '9'"),
        ("hidden_size,learning_rate\n4.5,0.01\n", "line 2: hidden_size: must lie in"),
        ("hidden_size,learning_rate\n4,\n", "line 2: learning_rate: must lie in"),
        ("hidden_size,learning_rate,score\n4,0.01,good\n", "score: must be a number, got 'good'"),
        ("hidden_size,learning_rate\n4,inf\n", "line 2: learning_rate: must lie in"),
        ("hidden_size,learning_rate\nnan,0.1\n", "line 2: hidden_size: must lie in"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_with_its_line(folder, refused, text, problem):
    Path("good.csv").write_text(text)
    error = refused(*NEW, "--from", "good.csv")
    assert error.startswith("--from: good.csv: ")
    assert problem in error


def test_what_is_not_there_is_refused(folder, refused):
    assert "no such file" in refused(*NEW, "--from", "none.csv")
    assert "no study 'none' in this folder" in refused(*NEW, "--from", "none")
    assert "must be another study than the new one" in refused(*NEW, "--from", "new")


def test_a_table_of_trials_starts_a_search_with_its_best_rows(folder, refused, capsys):
    from tuner import load_study

    Path("good.csv").write_text(
        "trial,hidden_size,learning_rate,rmse,reason\n"
        "0,3,0.01,9,\n1,5,0.02,1,\n2,7.0,0.03,,it failed\n3,6,0.04,2,\n"
    )
    assert run([*RUN, "--from", "good.csv", "--trials", "5"]) == 0
    assert "tries the 3 best configurations of good.csv first" in capsys.readouterr().out
    trials = load_study("air-random-0").trials
    assert list(trials["hidden_size"][1:4]) == [5, 6, 3]  # trial 0 has the default learning rate
    trials.to_csv("trials.csv")
    error = refused(*NEW, "--from", "air-random-0", "--trials", "5")
    assert error.startswith("--from: leaves nothing to train: 5 trials are taken over")
    space = ["--set", "search_space.hidden_size.high=7", "--study", "b", "--set", "seed=3"]
    assert run([*RUN, *space, "--from", "air-random-0", "--trials", "8"]) == 0
    assert "takes over " in capsys.readouterr().out
    assert run([*RUN, "--study", "c", "--set", "seed=4", "--from", "trials.csv"]) == 0
    best = trials.sort_values("score")["hidden_size"]
    assert list(load_study("c").trials["hidden_size"][1:4]) == list(best[:3])
