"""The benchmark of the service, with few clients and trials."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "service.py"

pytestmark = pytest.mark.slow


def run(*arguments):
    """Return the figures that a command prints, by what they are."""
    command = [sys.executable, str(SCRIPT), *arguments]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert "load of the machine" in ended.stdout
    found = re.findall(r"^(\S.*?|  \S.*?)  +([\d,.e+-]+)(?: |$)", ended.stdout, re.MULTILINE)
    return {what.strip(): float(value.replace(",", "")) for what, value in found}


def check_all_told(figures, n):
    assert figures["trials told and acknowledged"] == n
    assert figures["acknowledged, but not there or with another value"] == 0
    assert figures["trials with the value of another configuration"] == 0


def test_an_empty_handler_stands_beside_the_steady_load():
    figures = run("steady", "--clients", "10", "--trials", "2", "--pause", "0.1")
    check_all_told(figures, 20)
    assert figures["of an empty handler at the same time"] > 0


def test_kills_lose_nothing_and_change_no_winner():
    figures = run("kills", "--clients", "10", "--kills", "2", "--told", "50")
    check_all_told(figures, 50)
    assert figures["winners that differ from that of an undisturbed run"] == 0


def test_a_study_made_of_one_trial_is_shown_and_goes_on():
    figures = run("page", "--trials", "30")
    assert sum(what.startswith("first: /v1/studies/large/trials") for what in figures) == 2
    assert figures["an ask that opens the journal of 30 trials"] > 0


def test_a_peer_has_the_storm_of_the_service():
    figures = run("peers", "--clients", "3")
    assert figures["optuna, SQLite"] > 0


def test_a_trial_here_and_in_tuner_run_are_compared():
    figures = run("overhead", "--trials", "4")
    assert figures["a trial in tuner run, best of 3"] > 0
