"""A search as one watches it: on a terminal, and when Ctrl-C is pressed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from tuner.cli.progress import PlainProgress
from tuner.experiment import Experiment
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.search.seeds import Role

TUNER = [sys.executable, "-m", "tuner"]


def trials_of(folder: Path, study: str = "air-random-0") -> list[tuple[object, ...]]:
    shown = subprocess.run(
        [*TUNER, "show", study, "--json"], cwd=folder, capture_output=True, check=True
    )
    record = json.loads(shown.stdout)
    scores = [(f["trial"], *f["scores"]) for f in record["finalists"]]
    return [(t["number"], t["params"], t["value"]) for t in record["all_trials"]] + scores


def test_on_a_terminal_a_search_draws_a_bar(folder: Path) -> None:
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
    assert re.search(r"trials ━+ 4/4 0 pruned, best rmse [\d.]+", text)
    assert re.search(r"finalists ━+ 4/4", text)
    assert "Best configuration" in text
    assert "[1/4]" not in text


def test_a_search_stopped_by_ctrl_c_goes_on_to_the_same_result(
    finished: Path, folder: Path
) -> None:
    command = [*TUNER, "run", "air.yaml", "--workers", "1", "--no-tracking"]
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
    out, err = process.communicate(timeout=60)
    finished_first = re.match(r"\[1/4\] (trial \d complete)", first)
    assert finished_first
    assert process.returncode == 130
    assert "stopping when the trials in progress have ended; Ctrl-C again stops now" in out
    assert err == "tuner: stopped; what was finished is kept, and the same command resumes\n"
    assert len([t for t in trials_of(folder) if t[2] is not None]) < 4

    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert finished_first[1] not in again.stdout  # what is finished is not shown again
    assert trials_of(folder) == trials_of(finished)


def test_a_search_killed_by_sigterm_says_so_in_one_line_and_can_go_on(folder: Path) -> None:
    command = [*TUNER, "run", "air.yaml", "--workers", "1", "--no-tracking", "--trials", "2"]
    options = ["--set", "finalists.top=0", "--set", "budget.patience=100000"]
    long = [*options, "--set", "budget.epochs=100000", "--study", "long"]
    process = subprocess.Popen([*command, *long], stderr=subprocess.PIPE, text=True)
    journal = folder / "studies/long.journal"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.1)
    time.sleep(0.5)
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("tuner: stopped at once; ")
    assert err.count("\n") == 1


def test_the_time_left_does_not_count_the_start_of_the_workers(folder: Path) -> None:
    experiment = Experiment.load("air.yaml")
    progress = PlainProgress(experiment, Console(quiet=True))
    progress.asked(Role.TRIAL, 0, None)
    progress._begun[Role.TRIAL] -= 100  # loading torch took long
    progress.epoch(Role.TRIAL, 0, Epoch(0, 1.0, 1.0, 1.0, time.time()))
    outcome = Outcome(OutcomeState.COMPLETE, objective=0.0, finished_at=time.time())
    progress.finished(Role.TRIAL, 0, outcome)
    assert progress.best == (0.0, 0)
    assert progress.time_left(Role.TRIAL) == "0:00 left"
    assert progress.done(Role.TRIAL) == 1


def test_the_totals_are_what_can_be_trained(folder: Path) -> None:
    path = folder / "small.yaml"
    path.write_text(
        "name: small\ndata: {path: air.csv, target: passengers}\n"
        "search_space: {num_layers: {type: int, low: 1, high: 2}}\nfinalists: {top: 3}\n"
    )
    progress = PlainProgress(Experiment.load(path), Console(quiet=True))
    assert progress.totals[Role.TRIAL] == 2
    for number in range(6):  # two configurations, three repeats
        progress.asked(Role.FINALIST, number, None)
    assert progress.totals[Role.FINALIST] == 6
