"""A search as one watches it: on a terminal, and when Ctrl-C is pressed."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from helpers.simulated_progress import Clock, complete, simulate
from rich.console import Console

from tuner.coordination.events import Asked
from tuner.experiment import Experiment
from tuner.journal.storage import Role
from tuner.progress.reporters import PlainProgress

TUNER = [sys.executable, "-m", "tuner"]
# Trials so long, two seconds or so, that a signal after the first one meets the search at work.
LONG = [
    *("--set", "budget.epochs=800", "--set", "budget.patience=1000"),
    *("--set", "finalists.repeats=1"),
]


def trials_of(folder, study="air-random-0"):
    shown = subprocess.run(
        [*TUNER, "show", study, "--json"], cwd=folder, capture_output=True, check=True
    )
    record = json.loads(shown.stdout)
    scores = [(f["trial"], *f["scores"]) for f in record["finalists"]]
    return [(t["number"], t["params"], t["value"]) for t in record["all_trials"]] + scores


def test_a_retraining_is_called_by_the_trial_that_it_retrains(folder):
    stream = io.StringIO()
    progress = PlainProgress(Experiment.load("air.yaml"), Console(file=stream))
    for number, (role, which) in enumerate([(Role.FINALIST, (3, 1)), (Role.BASELINE, (None, 0))]):
        progress.asked(Asked(role, number, None, {}, *which))
        progress.dispatched(role, number, 1.0)
        progress.lost(role, number, "it died")
        progress.finished(role, number, complete(1.0))
    assert stream.getvalue().splitlines() == [
        "finalist 3 repeat 1 runs again: it died",
        "[1/1] finalist 3 repeat 1 complete  rmse 1",
        "default repeat 0 runs again: it died",
        "[2/2] default repeat 0 complete  rmse 1",
    ]


def test_on_a_terminal_a_search_draws_a_bar(folder):
    ours, theirs = pty.openpty()
    command = [*TUNER, "run", "air.yaml", "--no-tracking", "--workers", "1"]
    environment = os.environ | {"COLUMNS": "100", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not chunk:
            break
        printed += chunk
    os.close(ours)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
    assert "━" in text
    assert re.search(r"trials ━+ 4/4 0:\d\d", text)
    assert re.search(r"best rmse [\d.]+ \(trial \d\)", text)
    assert re.search(r" trial +epoch +rmse +time +configuration", text)
    assert re.search(r"finalists ━+ 6/6", text)
    assert "Best configuration" in text
    assert "[1/4] trial" not in text


@pytest.mark.slow
def test_a_search_stopped_by_ctrl_c_goes_on_to_the_same_result(folder):
    command = [*TUNER, "run", "air.yaml", "--workers", "1", "--no-tracking", *LONG]
    subprocess.run([*command, "--study", "calm"], capture_output=True, check=True)
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("searching air-random-0: 4 trials, 1 at a time")
    first = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the whole group
    out, err = process.communicate(timeout=180)
    finished_first = re.match(r"\[1/4\] (trial \d complete)", first)
    assert finished_first
    assert process.returncode == 130
    assert "stopping when the trials in progress have ended; Ctrl-C again stops now" in out
    assert err == "tuner: stopped; what was finished is kept, and the same command resumes\n"
    assert len([t for t in trials_of(folder) if t[2] is not None]) < 4

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert finished_first[1] not in again.stdout  # what is finished is not shown again
    assert trials_of(folder) == trials_of(folder, "calm")


def test_a_long_trial_prints_a_line_with_the_time_left(folder):
    clock, stream = Clock(), io.StringIO()
    console = Console(file=stream, width=1000)
    progress = PlainProgress(Experiment.load("air.yaml"), console, 1, clock=clock)
    costs = [15.0, 5.0, 5.0, 5.0]
    simulate(progress, clock, costs, n_workers=1, n_epochs=3)
    assert stream.getvalue().splitlines() == [
        "[1/4] trial 0 complete  rmse 0  best 0 (trial 0)  0:15 left, then 6 finalists",
        "[2/4] trial 1 complete  rmse 1  best 0 (trial 0)  0:10 left, then 6 finalists",
        "[3/4] trial 2 complete  rmse 2  best 0 (trial 0)  0:05 left, then 6 finalists",
        "[4/4] trial 3 complete  rmse 3  best 0 (trial 0)",
    ]
    stream.seek(0)
    stream.truncate()
    progress.standing.totals[Role.TRIAL] = 5
    simulate(progress, clock, [1000.0], n_workers=1, n_epochs=10, first=4)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("trial 4 goes on: epoch 1, rmse 1  ")
    assert lines[0].endswith(" left, then 6 finalists")
    assert lines[-1].startswith("[5/5] trial 4 complete")


def test_only_what_this_run_trained_gets_a_line(folder):
    stream = io.StringIO()
    console = Console(file=stream, width=1000)
    progress = PlainProgress(Experiment.load("air.yaml"), console, clock=Clock())
    progress.asked(Asked(Role.TRIAL, 0, None, {}))
    progress.finished(Role.TRIAL, 0, complete(2.0))
    progress.asked(Asked(Role.TRIAL, 1, None, {}))
    progress.dispatched(Role.TRIAL, 1, 1.0)
    progress.lost(Role.TRIAL, 1, "its worker [died]")
    progress.finished(Role.TRIAL, 1, complete(3.0))
    assert stream.getvalue().splitlines() == [
        "trial 1 runs again: its worker [died]",
        "[2/4] trial 1 complete  rmse 3  best 2 (trial 0)",
    ]
