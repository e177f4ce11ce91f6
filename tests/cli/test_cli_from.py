"""`tuner run --from`: an earlier study, or a file of configurations."""

from pathlib import Path

import pytest

from tuner.cli.main import run

RUN = ["run", "air.yaml", "--no-tracking", "--no-test", "--set", "finalists.top=0"]


def refused(capsys, *options):
    capsys.readouterr()
    assert run([*RUN, "--study", "new", *options]) == 2
    assert not Path("studies/new.journal").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error.removeprefix("tuner: ").strip()


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
def test_a_file_that_does_not_fit_is_refused_with_its_line(folder, capsys, text, problem):
    Path("good.csv").write_text(text)
    error = refused(capsys, "--from", "good.csv")
    assert error.startswith("--from: good.csv: ")
    assert problem in error


def test_what_is_not_there_is_refused(folder, capsys):
    assert "no such file" in refused(capsys, "--from", "none.csv")
    assert "no study 'none' in this folder" in refused(capsys, "--from", "none")
    assert "must be another study than the one" in refused(capsys, "--from", "new")


def test_a_table_of_trials_starts_a_search_with_its_best_rows(folder, capsys):
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
    space = ["--set", "search_space.hidden_size.high=7", "--study", "b", "--set", "seed=3"]
    assert run([*RUN, *space, "--from", "air-random-0", "--trials", "8"]) == 0
    assert "takes over " in capsys.readouterr().out
    assert run([*RUN, "--study", "c", "--set", "seed=4", "--from", "trials.csv"]) == 0
    best = trials.sort_values("score")["hidden_size"]
    assert list(load_study("c").trials["hidden_size"][1:4]) == list(best[:3])
