"""Journal files: what is refused, what is repaired, who may write."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from search_bench import DATA, Bench, make_experiment, told
from simulated import SimulatedExecutor

from tuner.errors import JournalError, StudyError
from tuner.search.journal import (
    quiet_journal,
    read_journal,
    study_names,
    write_journal,
)
from tuner.search.opening import open_study
from tuner.search.records import read_study
from tuner.strategies.space import to_distributions


def names(location):
    return study_names(read_journal(str(location)))


def test_reading_creates_nothing(tmp_path):
    for location in (tmp_path / "none.journal", f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(JournalError, match="no such journal"):
            read_journal(str(location))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"hello\n", b"\x00\xff", b"[1]\n", b'{"a": 1}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "s.journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal") as error, write_journal(str(path)):
        pass
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_a_torn_tail_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "s.journal"
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
    whole = path.read_bytes()
    for torn in (b'{"op_code": 5, "wor', b"\x00" * 100, b'{"op_code"\n', b"\xff\n"):
        path.write_bytes(whole + torn)
        with write_journal(str(path)) as storage:
            optuna.create_study(study_name="b", storage=storage)
        assert names(path) == ["a", "b"]


@pytest.mark.parametrize("torn", [b"", b"{", b'{"op_code":0,"wor'])
def test_a_journal_torn_in_its_first_record_is_begun_again(tmp_path, torn):
    path = tmp_path / "s.journal"
    path.write_bytes(torn)
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
    assert names(path) == ["a"]


def test_a_second_writer_is_refused_until_the_first_has_gone(tmp_path):
    path = str(tmp_path / "s.journal")
    with write_journal(path) as storage:
        optuna.create_study(study_name="a", storage=storage)
        with pytest.raises(JournalError, match="another search is writing"), quiet_journal(path):
            pass
        with pytest.raises(JournalError, match="another search is writing"), write_journal(path):
            pass
    with quiet_journal(path):
        pass
    with write_journal(path):
        pass


def test_a_killed_writer_leaves_no_lock_behind(tmp_path):
    path = str(tmp_path / "s.journal")
    script = (
        "import os, signal, sys, optuna\n"
        "from tuner.search.journal import write_journal\n"
        "with write_journal(sys.argv[1]) as storage:\n"
        "    optuna.create_study(study_name='a', storage=storage)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, path], check=False, stderr=subprocess.DEVNULL)
    with write_journal(path) as storage:
        assert study_names(storage) == ["a"]
    assert [p.name for p in tmp_path.iterdir()] == ["s.journal"]


def test_an_unknown_database_is_an_error_of_one_line(tmp_path):
    for url in ("nosuch://x/y", f"sqlite:////proc/{tmp_path.name}/x.db", "postgresql://"):
        with pytest.raises(JournalError, match="--journal: ") as error, write_journal(url):
            pass
        assert "\n" not in str(error.value)


def reopen(bench, experiment, data=DATA):
    with write_journal(bench.location) as storage:
        distributions = to_distributions(experiment.search_space)
        open_study(storage, bench.location, "s", experiment, data, dict, distributions)


CHANGES = {
    "seed": {"seed": 4},
    "strategy.population": {"population": 7},
    "budget.epochs": {"budget": {"trials": 6, "epochs": 6}},
    "search_space.dropout.high": {
        "space": {
            "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
            "num_layers": {"type": "int", "low": 1, "high": 3},
            "dropout": {"type": "float", "low": 0.0, "high": 0.4},
            "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
        }
    },
    "hyperparameters.learning_rate": {"hyperparameters": {"learning_rate": 0.5}},
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_resumed_study_may_not_change(key, bench):
    bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))
    with pytest.raises(StudyError) as error:
        reopen(bench, make_experiment(**({"strategy": "woa", "trials": 6} | CHANGES[key])))
    assert f"{key}=" in str(error.value)
    assert "got" in str(error.value)


def test_a_resumed_study_may_change_its_budget_of_trials_and_time(bench):
    bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))
    reopen(bench, make_experiment("woa", budget={"trials": 9, "epochs": 5, "timeout": 60}))


def test_a_study_of_another_experiment_or_other_data_is_refused(bench):
    experiment = make_experiment("woa", trials=6)
    bench.run(experiment, SimulatedExecutor(2))
    with pytest.raises(StudyError, match="belongs to experiment 'simulated', got 'other'"):
        reopen(bench, make_experiment("woa", trials=6, name="other"))
    with pytest.raises(StudyError, match="was begun on other data"):
        reopen(bench, experiment, {**DATA, "sha256": "1" * 64})


def test_a_study_made_by_someone_else_is_refused(tmp_path):
    path = str(tmp_path / "s.journal")
    with write_journal(path) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="was not made by tuner"):
        read_study(read_journal(path), "s", path)
    with pytest.raises(StudyError, match="did you mean 's'|holds no study 'ss'"):
        read_study(read_journal(path), "ss", path)


def test_a_study_is_the_same_on_sqlite(tmp_path, make_bench):
    experiment = make_experiment("woa", trials=8)
    _, on_file = make_bench("file").run(experiment, SimulatedExecutor(2))
    _, on_sqlite = Bench(f"sqlite:///{tmp_path}/s.db").run(experiment, SimulatedExecutor(3, 1))
    assert told(on_file) == told(on_sqlite)
