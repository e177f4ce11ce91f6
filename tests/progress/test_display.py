"""The table and the bars of a search on a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest
from helpers.simulated_progress import Clock, complete, epoch, simulate, taken_up
from rich.console import Console

from tuner.coordination.coordinator import Asked
from tuner.experiment import Experiment, Override
from tuner.jobs import Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.progress.progress import InProgress
from tuner.progress.reporters import LiveReporter, PlainReporter, Rows

PARAMS = {"hidden_size": 122, "num_layers": 3, "dropout": 0.366514, "learning_rate": 0.00512345}
TRIAL, FINALIST = Role.TRIAL, Role.FINALIST


class Screen:
    """A progress display, and what a terminal of a given size would show of it."""

    def __init__(self, width=80, height=24, n_workers=2, **keys):
        overrides = [Override("budget.trials", 100, "test"), Override("budget.epochs", 100, "test")]
        overrides += [
            Override(key.replace("__", "."), value, "test") for key, value in keys.items()
        ]
        self.clock, self.stopping = Clock(), False
        self.console = Console(
            file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None
        )
        self.progress = taken_up(
            LiveReporter(self.console, stopping=lambda: self.stopping, clock=self.clock),
            Experiment.load("air.yaml", overrides),
            n_workers,
        )

    def hand_out(self, *numbers):
        for number in numbers:
            self.progress.asked(Asked(TrialKey(TRIAL, number), None, PARAMS))
        for number in numbers:
            self.progress.dispatched(TrialKey(TRIAL, number), 1.0)

    def lines(self):
        with self.console.capture() as capture:
            self.console.print(self.progress.frame())
        return [line.rstrip() for line in capture.get().splitlines()]

    def text(self):
        return "\n".join(self.lines())

    def rows(self):
        found = (re.match(r" +(\d+) +(?:\d+/\d+|starting) ", line) for line in self.lines())
        return [int(match[1]) for match in found if match]


def test_a_frame_shows_running_trials_the_best_and_the_eta(folder):
    screen = Screen(pruner__name="median")
    assert screen.text() == ""
    screen.hand_out(*range(12))
    for number in range(4):
        for k in range(10):
            screen.clock.now += 1
            screen.progress.epoch(TrialKey(TRIAL, number), epoch(k, 30.0 - number))
        state = [OutcomeState.COMPLETE, OutcomeState.PRUNED, OutcomeState.FAILED][number % 3]
        value = 27.25 - number if state is OutcomeState.COMPLETE else None
        outcome = Outcome(state, objective=value, reason="NaN")
        screen.progress.finished(TrialKey(TRIAL, number), outcome)
    screen.clock.now += 5
    screen.progress.began(TrialKey(TRIAL, 5), time.time() - 5)
    screen.progress.epoch(TrialKey(TRIAL, 5), epoch(36, 21.4567))
    assert screen.lines() == [
        "    trial     epoch     rmse   time  configuration",
        "        4  starting        -      -  hidden_size=122  num_layers=3  dropout=0.3…",
        "        5    37/100    21.46   0:05  hidden_size=122  num_layers=3  dropout=0.3…",
        "",
        f"   trials ╸{' ' * 23} 4/100 0:45 14:32 left, then 6 finalists",
        "          best rmse 24.25 (trial 3), 1 pruned, 1 failed, 6 waiting",
    ]


@pytest.mark.parametrize("n_workers", [1, 2, 12, 64, 1000])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 11), (40, 24), (200, 60), (80, 3)])
def test_a_frame_fits_the_terminal(folder, n_workers, width, height):
    screen = Screen(width, height, n_workers)
    screen.hand_out(*range(n_workers + 3))
    for number in range(n_workers):
        screen.progress.epoch(TrialKey(TRIAL, number), epoch(99, 123456.789))
    lines = screen.lines()
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= max(height - 2, 8)
    assert len(screen.rows()) >= 1
    if n_workers > 12:
        assert re.search(rf"… and {n_workers - len(screen.rows())} more", screen.text())
        assert len(screen.rows()) <= 12


def test_every_trial_keeps_its_row_until_it_ends(folder):
    screen = Screen(n_workers=3)
    screen.hand_out(*range(7))
    assert screen.rows() == [0, 1, 2]
    screen.progress.finished(TrialKey(TRIAL, 1), complete())
    assert screen.rows() == [0, 3, 2]
    screen.progress.finished(TrialKey(TRIAL, 0), complete())
    screen.progress.finished(TrialKey(TRIAL, 2), complete())
    assert screen.rows() == [4, 3, 5]


def test_the_table_does_not_shrink_between_two_generations(folder):
    screen = Screen(n_workers=3)
    screen.hand_out(0, 1, 2)
    height = len(screen.lines())
    for number in range(3):
        screen.progress.finished(TrialKey(TRIAL, number), complete())
        assert len(screen.lines()) == height
    screen.hand_out(3, 4, 5)
    assert len(screen.lines()) == height


def test_a_trial_without_a_row_gets_the_next_one_that_is_free():
    running = [InProgress(TrialKey(TRIAL, number)) for number in range(5)]
    rows = Rows()

    def shown(trials, most):
        return [trial.key.number if trial else None for trial in rows.update(trials, most)]

    assert shown(running[:3], 2) == [0, 1]
    assert shown(running[1:3], 2) == [2, 1]
    assert shown(running[2:3], 2) == [2, None]
    assert shown(running[3:5], 2) == [3, 4]
    assert shown(running[3:5], 1) == [3]  # the window became smaller
    assert shown(running[3:5], 4) == [3, 4]


def test_columns_stay_where_they_are_while_numbers_grow(folder):
    screen = Screen(n_workers=1)
    screen.hand_out(0)
    found = set()
    found.add(screen.lines()[1].index("hidden_size"))
    for k, value in ((0, 1.0), (8, 21.456789), (99, 1234.5), (99, 123456.0), (99, 1.2e-7)):
        screen.progress.epoch(TrialKey(TRIAL, 0), epoch(k, value))
        found.add(screen.lines()[1].index("hidden_size"))
    assert len(found) == 1


def test_bars_remain_at_the_end_and_the_table_does_not(folder):
    screen = Screen(budget__trials=2)
    screen.hand_out(0, 1)
    screen.clock.now += 10
    for number in range(2):
        screen.progress.finished(TrialKey(TRIAL, number), complete(2.5))
    screen.clock.now += 100
    for number in range(3):
        screen.progress.asked(Asked(TrialKey(FINALIST, number, 1, number), None, PARAMS))
        screen.progress.dispatched(TrialKey(FINALIST, number), 1.0)
    screen.clock.now += 3
    names = [found[0] for line in screen.lines() if (found := re.search(r"finalist \d.*\d", line))]
    assert [re.split(r" {2,}", name)[0] for name in names] == [
        "finalist 1 repeat 0",
        "finalist 1 repeat 1",
    ]
    for number in range(3):
        screen.progress.finished(TrialKey(FINALIST, number), complete(1.0))
    with screen.progress:
        pass
    trials, finalists, counts = screen.lines()
    assert trials == "   trials ━━━━━━━━━━━━━━━━━━━━━━━━ 2/2 0:10"
    assert finalists == "finalists ━━━━━━━━━━━━━━━━━━━━━━━━ 3/3 0:03"
    assert counts == "          best rmse 2.5 (trial 0)"


def test_of_a_search_that_was_interrupted_only_the_bars_remain(folder):
    screen = Screen()
    screen.hand_out(0, 1, 2)
    assert screen.rows() == [0, 1]
    with screen.progress:
        pass
    assert screen.rows() == []
    assert "trials" in screen.text()


def test_a_search_that_stops_says_so_and_has_nothing_waiting(folder):
    screen = Screen(n_workers=2)
    screen.hand_out(*range(5))
    screen.stopping = True
    screen.progress.finished(TrialKey(TRIAL, 0), complete())
    assert screen.rows() == [1]
    assert "stopping" in screen.text()
    assert "waiting" not in screen.text()


def test_square_brackets_in_a_value_are_no_markup(folder):
    screen = Screen(n_workers=1)
    screen.progress.asked(Asked(TrialKey(TRIAL, 0), None, {"choice": "[red]"}))
    screen.progress.dispatched(TrialKey(TRIAL, 0), 1.0)
    assert "choice=[red]" in screen.text()
    screen.progress.note("a note [bold]with[/] brackets [/]")
    assert "[bold]with[/]" in screen.console.file.getvalue()  # type: ignore[attr-defined]


def test_failures_losses_and_notes_get_a_line_of_their_own(folder):
    screen = Screen()
    screen.progress.asked(Asked(TrialKey(TRIAL, 0), None, {}))
    failed = Outcome(OutcomeState.FAILED, reason="the loss is nan")
    screen.progress.finished(TrialKey(TRIAL, 0), failed, earlier=True)
    screen.hand_out(1, 2)
    screen.progress.lost(TrialKey(TRIAL, 1), "its worker died")
    screen.progress.finished(TrialKey(TRIAL, 2), failed)
    printed = screen.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert printed == ["trial 1 runs again: its worker died", "trial 2 failed: the loss is nan"]


def test_an_epoch_is_only_counted_however_many_there_are(folder):
    screen = Screen(n_workers=64)
    screen.hand_out(*range(64))
    with screen.progress:
        begun, n_epochs = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begun) < 1.0:
            screen.progress.epoch(TrialKey(TRIAL, n_epochs % 64), epoch(n_epochs % 100))
            n_epochs += 1
    assert n_epochs > 5_000, "at most 0.2 ms each: thousands a second cost little"
    frames = screen.console.file.getvalue().count("configuration")  # type: ignore[attr-defined]
    assert frames <= 2 + 8 * seconds


def test_frames_are_drawn_while_another_thread_counts(folder):
    screen = Screen(n_workers=8)
    screen.hand_out(*range(400))  # so many that adding them up takes a while
    screen.clock.now += 1
    screen.progress.epoch(TrialKey(TRIAL, 0), epoch(0))
    screen.clock.now += 1
    over = threading.Event()
    problems = []

    def draw():
        try:
            while not over.is_set():
                screen.lines()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=draw)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        for number in range(400, 2000):
            screen.hand_out(number)
            screen.progress.epoch(TrialKey(TRIAL, number - 400), epoch(1))
            screen.progress.finished(TrialKey(TRIAL, number - 400), complete())
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
    assert problems == []


def test_a_blocked_terminal_holds_up_no_epoch(folder):
    class Stuck(io.StringIO):
        def __init__(self):
            super().__init__()
            self.stuck, self.released = threading.Event(), threading.Event()

        def write(self, text):
            if "configuration" in text:  # Ctrl-S
                self.stuck.set()
                assert self.released.wait(30)
            return len(text)

    screen = Screen()
    stream = screen.console.file = Stuck()
    screen.hand_out(0)
    with screen.progress:
        assert stream.stuck.wait(60)
        for k in range(100):
            screen.progress.epoch(TrialKey(TRIAL, 0), epoch(k))
        screen.progress.finished(TrialKey(TRIAL, 0), complete())
        stream.released.set()


TUNER = [sys.executable, "-m", "tuner"]


def test_a_retraining_is_called_by_the_trial_that_it_retrains(folder):
    stream = io.StringIO()
    progress = taken_up(PlainReporter(Console(file=stream)), Experiment.load("air.yaml"))
    retrained = [
        TrialKey(Role.FINALIST, 0, configuration=3, repeat=1),
        TrialKey(Role.BASELINE, 1, repeat=0),
    ]
    for key in retrained:
        progress.asked(Asked(key, None, {}))
        progress.dispatched(key, 1.0)
        progress.lost(key, "it died")
        progress.finished(key, complete(1.0))
    assert stream.getvalue().splitlines() == [
        "finalist 3 repeat 1 runs again: it died",
        "[1/1] finalist 3 repeat 1 complete  rmse 1",
        "default repeat 0 runs again: it died",
        "[2/2] default repeat 0 complete  rmse 1",
    ]


def test_on_a_terminal_a_search_draws_a_bar(folder):
    ours, theirs = pty.openpty()
    long = ["--set=budget.epochs=60", "--set=budget.patience=60"]  # trials are seen running
    long += ["--set=finalists.repeats=1"]
    command = [*TUNER, "run", "air.yaml", "--no-tracking", "--workers", "1", *long]
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
    assert re.search(r"finalists ━+ 3/3", text)
    assert "Best configuration" in text
    assert "[1/4] trial" not in text


def test_a_long_trial_prints_a_line_with_the_time_left(folder):
    clock, stream = Clock(), io.StringIO()
    console = Console(file=stream, width=1000)
    progress = taken_up(PlainReporter(console, clock=clock), Experiment.load("air.yaml"))
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
    progress.stages[Role.TRIAL].total = 5
    simulate(progress, clock, [1000.0], n_workers=1, n_epochs=10, first=4)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("trial 4 is running: epoch 1, rmse 1  ")
    assert lines[0].endswith(" left, then 6 finalists")
    assert lines[-1].startswith("[5/5] trial 4 complete")


def test_only_what_this_run_trained_gets_a_line(folder):
    stream = io.StringIO()
    console = Console(file=stream, width=1000)
    progress = taken_up(PlainReporter(console, clock=Clock()), Experiment.load("air.yaml"))
    progress.asked(Asked(TrialKey(Role.TRIAL, 0), None, {}))
    progress.finished(TrialKey(Role.TRIAL, 0), complete(2.0), earlier=True)
    progress.asked(Asked(TrialKey(Role.TRIAL, 1), None, {}))
    progress.dispatched(TrialKey(Role.TRIAL, 1), 1.0)
    progress.lost(TrialKey(Role.TRIAL, 1), "its worker [died]")
    progress.finished(TrialKey(Role.TRIAL, 1), complete(3.0))
    assert stream.getvalue().splitlines() == [
        "trial 1 runs again: its worker [died]",
        "[2/4] trial 1 complete  rmse 3  best 2 (trial 0)",
    ]
