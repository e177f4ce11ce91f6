"""What every journal must hold to; a new one is tested by adding it to the fixture."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import optuna
import pytest
from helpers.search_bench import DATA, Bench, make_experiment, run_killed, told
from helpers.simulated_executor import SimulatedExecutor

from tuner.coordination.coordinator import Observer
from tuner.coordination.opening import StudyData, open_study, recorded_run
from tuner.errors import JournalError
from tuner.journal.records import Status, StudyState, read_study, read_with_state
from tuner.journal.storage import (
    is_locked,
    lock_for_reading,
    read_journal,
    study_names,
    write_journal,
)
from tuner.processes import start_command


@pytest.fixture(params=["file", "sqlite", "postgresql"])
def location(request, tmp_path):
    """Where a journal will be."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_url"))
    path = tmp_path / "here" / "s.journal"
    return str(path) if request.param == "file" else f"sqlite:///{path}"


@contextlib.contextmanager
def another(location, how="write"):
    """Another process that holds the study `s`."""
    command = start_command("helpers.journal_holder", json.dumps([how, location]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holds it\n"
            yield process
        finally:
            process.kill()


def refusal(location, study="s", how="write"):
    with (
        pytest.raises(JournalError) as error,
        (write_journal if how == "write" else lock_for_reading)(location, study),
    ):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def everything(location):
    """All that a journal holds."""
    storage = read_journal(location)
    studies = optuna.study.get_all_study_summaries(storage, include_best_trial=False)
    return [(s.study_name, s.user_attrs) for s in studies], [
        optuna.load_study(study_name=s.study_name, storage=storage).trials for s in studies
    ]


@pytest.mark.parametrize("strategy", ["woa", "tpe"])
def test_the_same_search_has_the_same_trials(location, strategy, tmp_path):
    experiment = make_experiment(strategy, trials=14)
    _, expected = Bench(tmp_path / "expected.journal").run(experiment, SimulatedExecutor(1))
    finished, found = Bench(location).run(experiment, SimulatedExecutor(3, chaos=1))
    assert finished
    assert told(found) == told(expected)


def test_a_search_killed_repeatedly_ends_the_same(location, tmp_path):
    experiment = make_experiment("pso", trials=14)
    _, expected = Bench(tmp_path / "expected.journal").run(experiment, SimulatedExecutor(2))
    found, n_kills, _ = run_killed(Bench(location), experiment, die_after=3)
    assert n_kills > 2
    assert told(found) == told(expected)


def test_a_finished_study_leaves_its_journal_unchanged(location):
    experiment = make_experiment("woa", trials=6)
    Bench(location).run(experiment, SimulatedExecutor(2))
    before = everything(location)
    Bench(location).run(experiment, SimulatedExecutor(2))
    assert everything(location) == before


def test_anyone_may_read_while_it_is_written(location):
    seen = []

    class Reader(Observer):
        def finished(self, key, outcome, earlier=False):
            record = read_study(read_journal(location), "s", location)
            assert record.trials[key.number].outcome == outcome
            seen.append(sum(t.status is Status.RUNNING for t in record.trials))

    Bench(location).run(make_experiment("woa", trials=6), SimulatedExecutor(2), observer=Reader())
    assert len(seen) >= 6
    assert seen[-1] == 0


def test_a_search_that_ends_meanwhile_is_shown_as_done(location, monkeypatch):
    experiment = make_experiment("random", trials=3)
    with write_journal(location, "s") as storage:
        study = open_study(storage, location, "s", experiment, StudyData(DATA))
        with contextlib.ExitStack() as running:
            running.enter_context(recorded_run(study, experiment))
            seen = read_journal(location)
            assert read_with_state(seen, "s", location)[1] is StudyState.RUNNING

            def look_too_late(*where):
                study.add_trial(optuna.create_trial(value=1.0))
                running.close()
                return False

            monkeypatch.setattr("tuner.journal.records.is_locked", look_too_late)
            record, state = read_with_state(seen, "s", location)
    assert (state, len(record.trials)) == (StudyState.DONE, 1)


def test_a_second_writer_is_refused_and_told_who_holds_it(location):
    with another(location) as holder:
        who = rf"process {holder.pid} on {socket.gethostname()[:24]}, since \d{{4}}-\d\d-\d\d "
        for how in ("write", "read"):
            message = refusal(location, how=how)
            assert re.search(rf"another search is writing to it: {who}", message), message
        assert study_names(read_journal(location)) == ["s"]
        assert is_locked(location, "s")
    with write_journal(location, "s"):
        assert f"process {os.getpid()} on" in refusal(location)
    assert not is_locked(location, "s")


def test_who_reads_quietly_keeps_writers_off_and_no_readers(location):
    with write_journal(location, "s") as storage:
        optuna.create_study(study_name="s", storage=storage)
    with another(location, "read"):
        assert "another search is writing to it" in refusal(location)
        with lock_for_reading(location, "s") as storage:
            assert study_names(storage) == ["s"]
    with write_journal(location, "s"):
        pass


def test_a_killed_writer_leaves_no_lock_behind(location):
    with another(location) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock_for_reading(location, "s"):
        assert f"process {holder.pid} " not in refusal(location)
    with write_journal(location, "s") as storage:
        assert study_names(storage) == ["s"]
    if (folder := Path(location.removeprefix("sqlite:///")).parent).exists():
        assert [p.name for p in folder.iterdir()] == ["s.journal"]


def test_a_writer_that_ends_leaves_nothing_open(location):
    with write_journal(location, "s") as storage:
        optuna.create_study(study_name="s", storage=storage)
    with lock_for_reading(location):
        pass
    with write_journal(location):
        pass
