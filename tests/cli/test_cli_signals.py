"""Ctrl-C, SIGTERM, SIGHUP and a reader that has gone: nothing is lost, nothing is left behind."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tuner.errors import Interrupted
from tuner.signals import stopped_by_signals

TUNER = [sys.executable, "-m", "tuner"]
LONG = [
    *("run", "air.yaml", "--workers", "2", "--study", "long"),
    *("--set", "finalists.top=0", "--set", "budget.patience=100000"),
    *("--set", "budget.epochs=100000"),
]
AT_ONCE = "tuner: stopped at once; what was finished is kept, and the same command resumes\n"


def folders_in(temporary):
    """Return the folders of prepared data; an empty lock of a store may be left."""
    return [path.name for path in temporary.glob("*tuner-*") if path.is_dir()]


class Search:
    """A search of trials that take an hour, in a process with a temporary folder of its own."""

    def __init__(self, folder, *options, prefix=()):
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [*prefix, *TUNER, *LONG, *options],
            env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.workers = []

    def wait_until_it_trains(self):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(self.workers) < 2:
            time.sleep(0.1)
            assert self.process.poll() is None, self.process.communicate()
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.workers = [child for child in children if self._has_data(child)]
        assert len(self.workers) == 2

    def _has_data(self, child):
        """Whether a process is a worker that has come to its trial."""
        try:
            return any(file.path.startswith(str(self.temporary)) for file in child.memory_maps())
        except psutil.Error:  # it has just ended
            return False

    def end(self):
        """Wait for the end; return status, output and errors."""
        out, err = self.process.communicate(timeout=180)
        return self.process.returncode, out, err

    def leaves(self):
        """Return what is left of it: workers that live, folders of data."""
        _, alive = psutil.wait_procs(self.workers, timeout=3)
        return [f"worker {worker.pid}" for worker in alive] + self.folders()

    def folders(self):
        return folders_in(self.temporary)


@pytest.fixture
def searches(folder):
    started = []
    yield started
    for search in started:
        for process in [search.process, *search.workers]:
            if process.pid and psutil.pid_exists(process.pid):
                process.kill()
        search.process.communicate()


def begin(searches, *options, prefix=()):
    searches.append(Search(Path.cwd(), *options, prefix=prefix))
    searches[-1].wait_until_it_trains()
    return searches[-1]


@pytest.mark.parametrize(
    ("signum", "status"),
    [
        pytest.param(signal.SIGTERM, 143, id="term"),
        pytest.param(signal.SIGHUP, 129, id="hup", marks=pytest.mark.slow),
    ],
)
def test_a_search_of_long_trials_ends_at_once_and_leaves_nothing(searches, signum, status):
    prefix = ("env", "--default-signal=HUP") if signum == signal.SIGHUP else ()
    search = begin(searches, "--no-tracking", prefix=prefix)
    assert search.folders()
    sent = time.monotonic()
    search.process.send_signal(signum)
    found, _, err = search.end()
    assert time.monotonic() - sent < 10
    assert (found, err) == (status, AT_ONCE)
    assert search.leaves() == []


@pytest.mark.parametrize(("first", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_during_the_clearing_up_raises_nothing(first, status):
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.getsignal(signum) for signum in handled}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
    cleared = []

    def search():
        with stopped_by_signals() as stop:
            try:
                os.kill(os.getpid(), first)
                time.sleep(1)
            finally:
                for signum in handled:
                    os.kill(os.getpid(), signum)
                cleared.append(stop.is_set())

    try:
        with pytest.raises(Interrupted) as caught:
            search()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    assert caught.value.exit_status == status
    assert cleared == [False]


@pytest.mark.slow
def test_ctrl_c_again_stops_a_search_of_long_trials_now(searches):
    search = begin(searches, "--no-tracking")
    os.killpg(search.process.pid, signal.SIGINT)
    assert search.process.stdout is not None
    for line in search.process.stdout:
        if "stopping when the trials in progress have ended; Ctrl-C again stops now" in line:
            break
    time.sleep(1)
    assert search.process.poll() is None, "the trials in progress go on"
    assert all(worker.is_running() for worker in search.workers)
    os.killpg(search.process.pid, signal.SIGINT)
    status, _, err = search.end()
    assert (status, err) == (130, AT_ONCE)
    assert search.leaves() == []


@pytest.mark.slow
def test_under_nohup_a_search_outlives_its_terminal(searches):
    search = begin(searches, "--no-tracking", prefix=("nohup",))
    search.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert search.process.poll() is None
    search.process.terminate()
    assert search.end()[0] == 143
    assert search.leaves() == []


@pytest.mark.slow
@pytest.mark.parametrize("log", [False, True], ids=["all on the terminal", "errors in a file"])
def test_a_closed_terminal_ends_the_search_without_a_traceback(folder, log):
    temporary, errors = folder / "temporary", folder / "errors"
    temporary.mkdir()
    pid, terminal = pty.fork()
    if pid == 0:  # the child: what a terminal starts
        os.environ |= {"TMPDIR": str(temporary), "TERM": "xterm"}
        if log:
            os.dup2(os.open(errors, os.O_CREAT | os.O_WRONLY), 2)
        os.execvp("env", ["env", "--default-signal=HUP", *TUNER, *LONG, "--no-tracking"])
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline and b"1/100000" not in seen:
        seen += os.read(terminal, 65536)
    workers = psutil.Process(pid).children(recursive=True)
    assert workers
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert folders_in(temporary) == []
    assert not log or errors.read_text() == AT_ONCE


@pytest.mark.parametrize("json", [[], ["--json"]], ids=["lines", "events"])
def test_a_search_without_a_reader_stops_and_reports_it(folder, json):
    command = [*TUNER, "run", "air.yaml", "--no-tracking", "--workers", "1", *json]
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as search,
    ):
        search.stdout.readline()
        search.stdout.close()
    assert search.returncode == 130
    text = "stopped: nobody reads its output; the same command resumes\n"
    assert (folder / "errors").read_text() == f"tuner: {text}"
