"""`tuner show` and `tuner studies` from another terminal, while a search runs and after its end."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TUNER = [sys.executable, "-m", "tuner"]
SLOW = [
    *("run", "air.yaml", "--workers", "2", "--study", "slow", "--trials", "3", "--no-tracking"),
    *("--set", "budget.epochs=100000", "--set", "budget.patience=100000"),
]


def tuner(*arguments):
    done = subprocess.run([*TUNER, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def running(folder, request):
    """A search that is training, in a journal file or the database that the test names."""
    journal = getattr(request, "param", [])
    process = subprocess.Popen(
        [*TUNER, *SLOW, *journal, "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "dispatched" and json.loads(line)["trial"] == 2:
            break
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def state():
    (study,) = json.loads(tuner("studies", "--json"))
    shown = json.loads(tuner("show", "slow", "--json"))
    assert shown["state"] == study["state"]
    return str(study["state"])


def test_a_running_search_is_shown_with_its_trials(running):
    assert state() == "running"
    shown = tuner("show", "slow")
    assert "slow: 0 of 3 trials trained (3 asked for, not ended" in shown
    assert "\n  the search is running\n" in shown
    assert shown.count("\n  trial ") == 3
    assert shown.count("hidden_size=") == 3
    assert "running" in tuner("studies")
    trials = json.loads(tuner("show", "slow", "--json"))["all_trials"]
    assert [trial["status"] for trial in trials] == ["running"] * 3


@pytest.mark.parametrize(
    "signum",
    [
        pytest.param(signal.SIGKILL, id="kill"),
        pytest.param(signal.SIGTERM, id="term", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_was_stopped_or_killed_is_not_running(running, signum):
    running.send_signal(signum)
    running.wait(timeout=120)
    assert state() == "interrupted"
    shown = tuner("show", "slow")
    assert "3 asked for, not ended" in shown
    assert "interrupted: the same command resumes" in shown
    assert "running" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("running", [["--journal", "sqlite:///all.db"]], indirect=True)
def test_a_search_in_a_database_is_shown_as_running_too(running):
    journal = ("--journal", "sqlite:///all.db")
    assert json.loads(tuner("show", "slow", *journal, "--json"))["state"] == "running"
    assert "the search is running" in tuner("show", "slow", *journal)
    running.kill()
    running.wait()
    assert json.loads(tuner("show", "slow", *journal, "--json"))["state"] == "interrupted"


def test_a_finished_study_is_done(finished, monkeypatch):
    monkeypatch.chdir(finished)
    (study,) = json.loads(tuner("studies", "--json"))
    assert study["state"] == "done"
    assert " done " in tuner("studies")
    before = Path("studies/air-random-0.journal").read_bytes()
    with Path("studies/air-random-0.journal").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # `tuner run` again, which only prints
        assert json.loads(tuner("show", "air-random-0", "--json"))["state"] == "done"
    assert Path("studies/air-random-0.journal").read_bytes() == before


@pytest.mark.slow
def test_looking_at_a_search_all_the_time_does_not_disturb_it(folder, finished):
    command = [*TUNER, "run", "air.yaml", "--workers", "1", "--no-tracking"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    looked, states = 0, []
    while process.poll() is None:
        if not Path("studies/air-random-0.journal").exists():
            time.sleep(0.01)
            continue
        seen = subprocess.run(
            [*TUNER, "studies", "--json"], capture_output=True, text=True, check=False
        )
        assert seen.returncode == 0
        states += [study["state"] for study in json.loads(seen.stdout)]
        looked += 1
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert looked > 1
    assert set(states) <= {"running", "done"}
    assert "running" in states
    ours, theirs = (
        json.loads(
            subprocess.run(
                [*TUNER, "show", "air-random-0", "--json"], cwd=at, capture_output=True, check=True
            ).stdout
        )
        for at in (folder, finished)
    )
    for summary in (ours, theirs):
        del summary["test"]["opened_at"]
    for key in ("best", "finalists", "test"):
        assert ours[key] == theirs[key]


def test_a_study_that_may_not_be_written_to_can_be_looked_at(running):
    running.kill()
    running.wait()
    Path("studies/slow.journal").chmod(0o444)
    Path("studies").chmod(0o555)
    try:
        assert state() == "interrupted"
    finally:
        Path("studies").chmod(0o755)
