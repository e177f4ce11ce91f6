"""Standard output that cannot be written to: one line names it."""

import errno
import io
import sys
from pathlib import Path

import pytest

from tuner.cli.app import run
from tuner.outputs import Terminal, checked_output

ONE_LINE = "tuner: standard output: No space left on device: stopped; send it elsewhere\n"


@pytest.mark.parametrize("command", [["strategies"], ["strategies", "--json"], ["--help"]])
def test_a_full_disk_is_one_line_and_status_1(capsys, monkeypatch, command):
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert run(command) == 1
        assert sys.stdout is full
    assert capsys.readouterr().err == ONE_LINE


@pytest.mark.slow
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["lines", "events"])
def test_a_search_whose_output_fills_the_disk_stops_and_resumes(folder, json):
    import subprocess

    command = [sys.executable, "-m", "tuner", "run", "air.yaml", "--no-tracking", "--workers", "1"]
    with Path("/dev/full").open("w") as stream:
        done = subprocess.run(
            [*command, *json], stdout=stream, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (1, ONE_LINE)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_closed_terminal_is_no_full_disk(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise OSError(errno.EIO, "Input/output error")

        def fileno(self):
            return free

    with Path("/dev/null").open("w") as file:
        free = file.fileno()
        monkeypatch.setattr(sys, "stdout", Closed())
        with checked_output():
            assert Terminal(sys.stdout).write("a frame") == len("a frame")
        monkeypatch.undo()
