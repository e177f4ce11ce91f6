"""A search seen from another terminal, and studies that have not ended."""

import dataclasses
import fcntl
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.made_study import study

from tuner.journal.records import StudyState, TestScore
from tuner.progress.display import show_result, show_running

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


def test_what_a_running_search_lacks_yet_has_status_3(running, refused):
    assert refused("export", "slow", status=3) == (
        "study 'slow' has no complete trial yet; wait for it"
    )
    assert refused("report", "slow", status=3) == (
        "study 'slow' has no trial that has ended yet; wait for it"
    )
    for arguments in (["sync", "slow"], SLOW):
        assert "another search is writing to it" in refused(*arguments, status=3)
    running.kill()
    running.wait()  # now waiting does not help
    assert refused("report", "slow").endswith(
        "has no trial that has ended; the same `tuner run` resumes it"
    )


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


def test_a_study_that_may_not_be_written_to_can_be_looked_at(running):
    running.kill()
    running.wait()
    Path("studies/slow.journal").chmod(0o444)
    Path("studies").chmod(0o555)
    try:
        assert state() == "interrupted"
    finally:
        Path("studies").chmod(0o755)


def score(after_trials, finalists=None):
    return TestScore([1.0], 1.0, None, after_trials=after_trials, finalists=finalists)


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, StudyState.DONE),
        ({"test": None}, StudyState.INTERRUPTED),
        ({"test": score(1)}, StudyState.INTERRUPTED),  # resumed since
        ({"trials": ()}, StudyState.INTERRUPTED),
        ({"raised": True}, StudyState.INTERRUPTED),
        ({"raised": True, "test": score(2, [0, 1])}, StudyState.DONE),
    ],
)
def test_a_killed_study_is_done_if_nothing_remains(folder, changed, state):
    whole = dataclasses.replace(study([1.0, 2.0], trials=2), test=score(2))
    settings = whole.experiment.finalists.model_copy(update={"top": 0, "repeats": 1})
    experiment = whole.experiment.model_copy(update={"finalists": settings})
    assert dataclasses.replace(whole, experiment=experiment, **changed).state() is state


@pytest.fixture
def show(folder, capsys):
    def call(record, state):
        show_result(record, state)
        if state is StudyState.RUNNING:
            show_running(record)
        return re.sub(" +\n", "\n", capsys.readouterr().out)

    return call


def test_an_interrupted_search_says_how_to_resume(show):
    shown = show(study([3.0, None, None]), StudyState.INTERRUPTED)
    assert "air: 1 of 4 trials trained (2 asked for, not ended, 1 complete)" in shown
    assert "\n  interrupted: the same command resumes\n" in shown
    assert "Best configuration so far (trial 0)" in shown
    assert "in progress" not in shown


def test_what_runs_and_what_waits_is_not_told_apart(show):
    shown = show(study([3.0, None, None]), StudyState.RUNNING)
    assert "\n  the search is running\n" in shown
    assert "Asked for, not ended\n  trial 1  hidden_size=1\n  trial 2  hidden_size=2\n" in shown
    assert "in progress" not in shown


def test_where_nobody_can_tell_it_is_said_that_it_may_run(show):
    shown = show(study([3.0, None]), StudyState.UNKNOWN)
    assert "running or killed (unknown for a database): the same command resumes" in shown


def test_every_failure_reason_is_shown_with_its_count(show):
    why = "the loss is [nan]"
    shown = show(study([why, "out of\nmemory", why, 2.0], [(3, why), (3, 1.0)]), StudyState.RUNNING)
    assert "\n  2 trials failed: the loss is [nan]\n  1 trial failed: out of memory\n" in shown
    assert "\n  1 finalist failed: the loss is [nan]\n" in shown
    many = show(study([f"reason {k}" for k in range(9)], trials=9), StudyState.INTERRUPTED)
    assert many.count("1 trial failed: ") == 5
    assert "and for 4 other reasons" in many
    assert "no trial completed" in many
    assert "resumes" not in many
    repeated = study([why, why])
    (first, second) = repeated.trials
    repeat = dataclasses.replace(second, repeat_of=0)
    shown = show(dataclasses.replace(repeated, trials=(first, repeat)), StudyState.RUNNING)
    assert "1 trial failed" in shown


@pytest.mark.parametrize("state", [StudyState.RUNNING, StudyState.INTERRUPTED])
def test_the_best_waits_for_all_finalists(show, state):
    scores = [1.0, 2.0, 3.0, 4.0]
    some = show(study(scores, [(0, 5.0), (0, None), (1, 6.0), (1, None)]), state)
    assert "\n  finalists: 2 of 6 retrained; which is the best is decided when all are\n" in some
    assert "Best configuration so far" in some
    # asked for one by one, they are as many all the same; a former finalist is none
    fewer = show(study(scores, [(0, 5.0), (3, 6.0), (3, 6.0)]), state)
    assert "finalists: 1 of 6 retrained" in fewer
    assert re.search(r"retrained on 1 fresh seed, gap \+4 \(\+400 %\)  +5 *\n", fewer)
    done = study(scores, [(0, 5.0), (0, 5.0), (1, 6.0), (1, 6.0)], ended="done")
    assert "retrained;" not in show(done, StudyState.DONE)
    assert "Best configuration (trial 0)" in show(done, StudyState.DONE)


def test_finalists_of_an_earlier_run_are_not_the_current_state(show):
    former = [(0, 5.0), (0, 5.0), (1, 6.0), (1, 6.0)]
    shown = show(study([1.0, 2.0, 3.0, 4.0, None], former, trials=9), StudyState.RUNNING)
    assert "retrained;" not in shown
    assert "finalists:" not in shown
    assert "trial 4  hidden_size=4" in shown


def test_a_search_ended_by_its_time_has_nothing_in_progress(show):
    trials = [1.0, 2.0, None, None]
    done = show(study(trials, ended="done", seconds=90.2, timeout=90), StudyState.DONE)
    assert "air: 2 of 4 trials trained (2 asked for, never trained, 2 complete)" in done
    assert "\n  the time is up (90 s)\n" in done
    endless = study(trials, ended="done", seconds=90, timeout=90, trials=None)
    endless = show(endless, StudyState.DONE)
    assert "the time is up (90 s)" in endless

    open_finalists = [(0, 5.0), (0, None)]  # of two, and the default
    running = study(trials, open_finalists, seconds=91, timeout=90)
    shown = show(running, StudyState.RUNNING)
    assert "the time is up (90 s)" in shown
    assert "finalists: 1 of 6 retrained" in shown
    assert "2 asked for, never trained" in shown
    assert "hidden_size=2" not in shown
    assert "interrupted: the same command resumes\n  the time is up (90 s)" in show(
        running, StudyState.INTERRUPTED
    )


def test_trials_running_at_the_time_limit_finish(show):
    shown = show(study([1.0, None], seconds=91, timeout=90), StudyState.RUNNING)
    assert "asked for, not ended" in shown
    assert "trial 1  hidden_size=1" in shown
    assert "the time is up" not in shown


def test_a_full_budget_within_the_time_is_no_timeout(show):
    trials = [1.0, 2.0, 3.0, 4.0]
    assert "time" not in show(study(trials, ended="done", seconds=99, timeout=90), StudyState.DONE)
