"""Commands with `--server`: the output, files and exit statuses of the same ones here."""

import dataclasses
import difflib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from helpers.running_service import running_service
from helpers.simulated_study import SPACE, START, everything
from helpers.thread_pool import ThreadPool

from tuner import Client, RunError
from tuner.coordination.finalists import find_winner
from tuner.executors.choice import ExecutorChoice
from tuner.executors.local import LocalExecutor
from tuner.experiment import dump_yaml
from tuner.jobs import Exported, ExportJob, Outcome, OutcomeState, TrainJob
from tuner.report.page import is_report
from tuner.studies import read

STUDY = "waves-random-0"
EXPERIMENT = {
    "name": "waves",
    "data": {"path": "waves.csv", "target": "y", "split": {"validation": 15, "test": 12}},
    "task": {"window": 6, "season": 5},
    "search_space": SPACE,
    "hyperparameters": START,
    "strategy": {"name": "random", "batch": 4},
    "budget": {"trials": 6, "epochs": 2},
    "pruner": {"name": "none"},
    "finalists": {"top": 1, "repeats": 2, "refit": False, "baseline": False},
}
RUN = ["run", "waves.yaml", "--no-tracking", "--workers", "1"]
TIMES = (
    r"  (?:at most |up to )?\d+:\d\d left(?:, then \d+ finalists?)?",
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC",
    r'"(?:time|created|seconds|latency_ms|opened_at|id|journal|executor)": ?(?:"[^"]*"|[^,}\n]*)',
)
SOON_S = 60


@pytest.fixture(autouse=True)
def _surroundings(baselines_fitted_once, no_mlflow_settings, monkeypatch):
    monkeypatch.delenv("TUNER_TOKEN", raising=False)
    monkeypatch.delenv("TUNER_SERVER", raising=False)


class Pool(ThreadPool):
    """Workers as threads; the graph of a model is no graph."""

    def run_job(self, job, report):
        if isinstance(job, ExportJob):
            exported = Exported(b"no graph", 0.0)
            return Outcome(OutcomeState.COMPLETE, finished_at=time.time(), exported=exported)
        return super().run_job(job, report)


def folder_of(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    t = np.arange(90)
    rows = "".join(f"{float(v)!r}\n" for v in 10 + 3 * np.sin(t / 2) + t % 5)
    (folder / "waves.csv").write_text(f"y\n{rows}")
    (folder / "waves.yaml").write_text(dump_yaml(EXPERIMENT | changes))
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The current folder, with an experiment and its data."""
    monkeypatch.chdir(folder_of(tmp_path / "work"))
    return tmp_path / "work"


@pytest.fixture
def make_service(settings):
    """Serves searches whose trials take no time, or `epoch_s` an epoch."""
    settings = dataclasses.replace(settings, workers=2)

    def make(epoch_s=0.0, pool=Pool, **options):
        return running_service(settings, lambda n: pool(n, epoch_s), **options)

    return make


@pytest.fixture
def service(make_service, monkeypatch):
    """A service that commands use, as TUNER_SERVER names it."""
    with make_service() as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        yield running


@pytest.fixture
def command(run_command):
    """Runs a command; returns status, standard output and standard error, without times."""

    def call(*arguments):
        status, out, err = run_command(*arguments)
        return status, without_times(out).splitlines(), without_times(err)

    return call


def without_times(text):
    for pattern in TIMES:
        text = re.sub(pattern, "", text)
    return text


@pytest.fixture
def here(command, tmp_path, monkeypatch):
    """Runs a command on this machine, in a folder of its own, with the workers of the service."""

    def call(*arguments, pool=Pool, **changes):
        def choose(*_):
            return ExecutorChoice(pool, 2, "this machine's 2 cores")

        folder = tmp_path / "here"
        if not folder.exists():
            folder_of(folder, **changes)
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("TUNER_SERVER", "local")
            patch.setattr("tuner.orchestrator.choose_executor", choose)
            return command(*arguments)

    return call


SAME = [
    RUN,
    RUN,
    ["studies"],
    ["show", STUDY],
    ["show", STUDY, "--json"],
    ["export", STUDY],
    ["export", STUDY, "--format", "json"],
    ["export", STUDY, "--trial", "2", "--data", "elsewhere.csv"],
    ["export", STUDY, "-o", "best.yaml"],
    ["export", STUDY, "--all-data"],
    ["export", STUDY, "--trial", "77"],
    ["report", STUDY],
    [*RUN, "--trials", "8"],
    [*RUN, "--set", "task.window=7"],
    [*RUN, "--seed", "1", "--strategy", "pso"],
    ["studies"],
]


def changed_lines(expected, found):
    lines = list(difflib.unified_diff(expected, found, n=0, lineterm=""))[3:]
    return [line for line in lines if not line.startswith("@@")]


def test_a_service_prints_what_the_same_commands_print_here(service, work, here, command):
    for arguments in SAME:
        expected = here(*arguments)
        if arguments[-1] in ("task.window=7", "--all-data"):  # worded by the service, or refused
            assert command(*arguments)[0] == expected[0] == 2
            continue
        found = command(*arguments)
        assert "\n".join(changed_lines(expected[1], found[1])) == "", arguments
        assert found == expected, arguments
    best = [(folder / "best.yaml").read_text() for folder in (work, work.parent / "here")]
    assert best[0] == best[1]
    assert is_report(work / f"{STUDY}.html", STUDY)


def test_a_check_at_a_service_is_that_of_one_here(service, work, here, command):
    for options in ([], ["--strategy", "woa", "--set", "budget.epochs=3"]):
        arguments = ["check", "waves.yaml", *options]
        assert command(*arguments) == here(*arguments)


def test_a_search_at_a_service_has_the_trials_of_one_here(service, work, here, command):
    assert here(*RUN)[0] == command(*RUN)[0] == 0
    record, _ = Client(service.url).study(STUDY).record()
    journal = work.parent / "here" / "studies" / f"{STUDY}.journal"
    assert everything(record) == everything(read(STUDY, str(journal)))
    assert record.data["path"] == str(work / "waves.csv")


def test_the_events_for_programs_are_those_of_a_search_here(service, work, here, command):
    for more in ([], ["--trials", "8"]):
        arguments = [*RUN, *more, "--json"]
        expected, found = here(*arguments), command(*arguments)
        assert found[0] == expected[0] == 0
        assert sorted(found[1]) == sorted(expected[1])
        names = [line.partition('"event":"')[2].partition('"')[0] for line in found[1]]
        assert (names[0], *names[-2:]) == ("begun", "result", "ended")


def test_a_default_that_wins_is_listed_as_the_best(service, work, here, command):
    finalists = EXPERIMENT["finalists"] | {"baseline": True}
    folder_of(work, finalists=finalists)
    assert here(*RUN, finalists=finalists)[0] == command(*RUN)[0] == 0
    journal = work.parent / "here" / "studies" / f"{STUDY}.journal"
    winner = find_winner(read(STUDY, str(journal)))
    assert winner.is_default
    assert command("studies") == here("studies")
    study = Client(service.url).study(STUDY)
    facts = study.facts()["best"]
    assert (facts["trial"], facts["score"]) == (winner.number, winner.mean)
    assert facts["params"] == winner.params
    assert repr(study).endswith(" of the untuned default)")
    page = requests.get(f"{service.url}/page/view?study={STUDY}", timeout=SOON_S).text
    assert f"<b>{winner.mean:.4g}</b><span>best rmse, the untuned default" in page
    for name, value in winner.params.items():
        assert re.search(f"<dt>{name}</dt><dd>{value:.4g}</dd>", page)
    assert command("show", STUDY) == here("show", STUDY)


def test_a_search_without_trials_is_shown_as_it_stands(make_service, watched, command, monkeypatch):
    with make_service(epoch_s=SOON_S) as running:
        process = watched(running)
        monkeypatch.setenv("TUNER_SERVER", running.url)
        assert until(process, "searching")
        study = Client(running.url).study(STUDY)
        assert study.state == "running"
        line = f"{STUDY}: running, no trial has ended yet"
        assert command("show", STUDY) == (0, [line], "")
        assert json.loads("\n".join(command("show", STUDY, "--json")[1]))["trained"] == 0
        process.kill()
        process.communicate()
        study.cancel()


class FailingPool(Pool):
    """Workers whose trainings all fail."""

    def run_job(self, job, report):
        if isinstance(job, TrainJob):
            return Outcome(OutcomeState.FAILED, reason="no luck", finished_at=time.time())
        return super().run_job(job, report)


def test_a_search_that_fails_ends_as_it_does_here(make_service, work, here, command, monkeypatch):
    with make_service(pool=FailingPool) as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        found = command(*RUN)
        assert Client(running.url).study(STUDY).state == "failed"
        with pytest.raises(RunError, match="no complete trial"):
            Client(running.url).study(STUDY).wait(SOON_S)
    assert found == here(*RUN, pool=FailingPool)
    assert found[0] == 1


def test_what_the_service_refuses_is_one_line_and_status_2(service, work, command):
    status, out, error = command(*RUN, "--from", "nothing")
    assert (status, out) == (2, [])
    assert error == "tuner: no study 'nothing'\n"
    status, _, error = command("show", "nothing")
    assert (status, error) == (2, "tuner: no study 'nothing'\n")


def start(*arguments, **how):
    return subprocess.Popen([sys.executable, "-m", "tuner", *arguments], **how)


@pytest.fixture
def watched(work):
    """Starts a run at a service, whose output is read line by line."""
    started = []

    def begin(running, *more):
        environment = os.environ | {"TUNER_SERVER": running.url, "PYTHONUNBUFFERED": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(start(*RUN, *more, env=environment, cwd=work, **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def until(process, text):
    for line in process.stdout:
        if text in line:
            return line
    pytest.fail(f"no {text!r}: {process.stderr.read()}")


@pytest.mark.parametrize(
    ("signum", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_the_search_running(signum, status, make_service, watched, monkeypatch):
    with make_service(epoch_s=0.2) as running:
        process = watched(running)
        until(process, "complete")
        process.send_signal(signum)
        _, error = process.communicate(timeout=SOON_S)
        assert process.returncode == status
        assert error == (
            f"tuner: {STUDY} goes on at the service; the same command follows it again, "
            f"`tuner show {STUDY}` shows it, `tuner cancel {STUDY}` ends it\n"
        )
        study = Client(running.url).study(STUDY)
        assert study.state == "running"
        again = watched(running)
        until(again, f"joining {STUDY}: ")
        rest, _ = again.communicate(timeout=SOON_S)
        assert again.returncode == 0
        assert "Best configuration" in rest
        assert "trial 2 complete" not in rest or "[1/6]" not in rest  # that was before
        assert study.wait(SOON_S).state == "done"


def test_events_for_programs_end_with_detached_after_ctrl_c(make_service, watched):
    with make_service(epoch_s=0.2) as running:
        process = watched(running, "--json")
        until(process, '"finished"')
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=SOON_S)
        last = json.loads(out.splitlines()[-1])
        assert (last["event"], last["state"], last["exit_status"]) == ("ended", "detached", 130)
        assert f"tuner: {last['reason']}\n" == error


def test_ctrl_c_twice_on_a_terminal_cancels_the_search(make_service, work):
    with make_service(epoch_s=0.5) as running:
        master, slave = pty.openpty()
        environment = os.environ | {"TUNER_SERVER": running.url, "COLUMNS": "150"}
        terminal = {"stdin": slave, "stdout": slave, "stderr": subprocess.PIPE, "text": True}
        process = start(*RUN, env=environment, cwd=work, **terminal)
        os.close(slave)
        seen, told = b"", 0
        while told < 2:
            seen += os.read(master, 4096)
            if told == 0 and b"1/6" in seen:
                process.send_signal(signal.SIGINT)
                told = 1
            if told == 1 and b"cancels the search" in seen:
                process.send_signal(signal.SIGINT)
                told = 2
        reader = threading.Thread(target=lambda: drain(master), daemon=True)
        reader.start()
        _, error = process.communicate(timeout=SOON_S)
        os.close(master)
        assert process.returncode == 130
        assert error == f"tuner: {STUDY} is cancelled; the same command resumes it\n"
        assert Client(running.url).study(STUDY).state == "cancelled"


def drain(master):
    try:
        while os.read(master, 4096):
            pass
    except OSError:
        pass


def test_a_search_that_is_cancelled_ends_its_followers(make_service, watched):
    with make_service(epoch_s=0.2) as running:
        process = watched(running)
        until(process, "complete")
        study = Client(running.url).study(STUDY)
        study.cancel()
        _, error = process.communicate(timeout=SOON_S)
        assert process.returncode == 130
        assert error == f"tuner: {STUDY}: cancelled; the same command resumes it\n"
        again = watched(running)
        line = until(again, "complete")
        assert not line.startswith("[1/6]")  # the earlier ones count
        out, _ = again.communicate(timeout=SOON_S)
        assert (again.returncode, study.state) == (0, "done")
        assert f"{STUDY}: 6 trials trained" in out


@pytest.mark.slow
def test_a_run_goes_on_over_a_restart_of_the_service(make_service, watched, here):
    expected = here(*RUN)[1]
    with make_service(epoch_s=0.1) as running:
        process = watched(running)
        first = until(process, "complete")
    with make_service(epoch_s=0.1, port=running.port):
        rest, error = process.communicate(timeout=SOON_S)
    assert (process.returncode, error) == (0, "")
    lines = without_times(first + rest).splitlines()
    assert all(lines.count(line) == 1 for line in lines if line.startswith("["))
    assert ended(lines) == ended(expected)
    result = f"{STUDY}: 6 trials trained (6 complete)"
    assert lines[lines.index(result) :] == expected[expected.index(result) :]


def ended(lines):
    """Return which trainings ended, and with what score."""
    found = [line.partition("] ")[2].partition("  best")[0] for line in lines]
    return sorted(text for text in found if " complete" in text)


def test_a_queued_search_prints_its_place(make_service, watched, monkeypatch):
    monkeypatch.setattr("tuner.service.searches.MOST_RUNNING", 0)
    with make_service() as running:
        process = watched(running)
        assert until(process, "queued") == "queued, number 1 in the queue\n"
        monkeypatch.setattr("tuner.service.searches.MOST_RUNNING", 8)
        with running.service.searches._changed:
            running.service.searches._changed.notify_all()
        out, _ = process.communicate(timeout=SOON_S)
    assert process.returncode == 0
    assert "Best configuration" in out


@pytest.mark.slow
def test_a_real_search_and_its_model_are_those_of_a_search_here(
    settings, tmp_path, command, monkeypatch
):
    from helpers.real_searches import STUDY as AIR
    from helpers.real_searches import make_folder

    arguments = ["run", "air.yaml", "--no-tracking", "--workers", "1"]
    here, there = make_folder(tmp_path / "here"), make_folder(tmp_path / "there")
    monkeypatch.chdir(here)
    expected = [command(*arguments), command("export", AIR, "--model", "model")]
    expected.append(command("predict", "model", "air.csv", "--all"))
    monkeypatch.chdir(there)
    with running_service(settings, LocalExecutor) as running:
        monkeypatch.setenv("TUNER_SERVER", running.url)
        found = [command(*arguments), command("export", AIR, "--model", "model")]
        found.append(command("predict", AIR, "air.csv", "--all"))
        record, _ = Client(running.url).study(AIR).record()
    assert found[0] == expected[0]
    assert found[1][:1] == (0,)
    assert found[2] == expected[2]
    local = read(AIR, str(here / "studies" / f"{AIR}.journal"))
    assert everything(record) == everything(local)
    for mine, other in zip(record.trials, local.trials, strict=True):
        assert [e.metric for e in mine.outcome.history] == [e.metric for e in other.outcome.history]
    for name in ("model.onnx", "weights.safetensors"):
        assert Path("model", name).read_bytes() == (here / "model" / name).read_bytes()
