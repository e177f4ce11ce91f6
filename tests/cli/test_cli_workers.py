"""How many workers there are, where they run, and what is said of a number that makes no sense."""

import os
import re
from pathlib import Path

import pytest

from tuner import template
from tuner.cli.app import run
from tuner.errors import InputError
from tuner.executors import LocalExecutor
from tuner.executors.choice import ExecutorChoice
from tuner.experiment import Experiment, Override
from tuner.experiment.schema import Resources
from tuner.orchestrator import choose_workers, worker_notes

WOA = {"name": "woa", "population": 10}


def choice(capacity=4):
    return ExecutorChoice(LocalExecutor, capacity, f"this machine's {capacity} cores")


def experiment(asynchronous=False, **strategy):
    overrides = [Override("asynchronous", asynchronous, "test")]
    if strategy:
        overrides.append(Override("strategy", strategy, "test"))
    return Experiment.load("air.yaml", overrides)


@pytest.mark.parametrize(
    ("capacity", "strategy", "n_workers"),
    [(1, WOA, 1), (4, WOA, 4), (64, WOA, 10), (64, {"name": "tpe", "batch": 3}, 3)],
)
def test_the_default_number_of_workers_fits_room_and_use(folder, capacity, strategy, n_workers):
    assert choose_workers(None, experiment(**strategy), choice(capacity)) == n_workers
    assert worker_notes(None, experiment(**strategy), choice(capacity)) == []


def test_an_asynchronous_search_fills_the_room_up_to_its_trials(folder):
    asynchronous = experiment(asynchronous=True, name="tpe", batch=2)
    assert choose_workers(None, asynchronous, choice(3)) == 3
    assert choose_workers(None, asynchronous, choice(64)) == 4  # budget.trials
    (said,) = worker_notes(None, asynchronous, choice(3))
    assert said.startswith("asynchronous: ")
    assert "other trials" in said


@pytest.mark.parametrize(
    ("workers", "capacity", "strategy", "text"),
    [
        (64, 4, WOA, "--workers 64: more than fit on this machine's 4 cores, they get in each"),
        (64, 4, WOA, ", though 10 at most are used (strategy.population); --workers 4 is enough"),
        (6, 4, WOA, "they get in each other's way; --workers 4 is enough"),
        (5, 4, {"name": "tpe", "batch": 2}, "(strategy.batch is 2); --workers 2 is enough"),
        (100, 4, {"name": "tpe", "batch": 4}, "(strategy.batch is 4); --workers 4 is enough"),
        (16, 32, WOA, "(strategy.population is 10); --workers 10 is enough"),
        (16, 32, {"name": "tpe", "batch": 6}, "(strategy.batch is 6); --workers 6 is enough"),
    ],
)
def test_one_note_names_the_limit_of_too_many_workers(folder, workers, capacity, strategy, text):
    size = strategy.get("population") or strategy["batch"]
    assert choose_workers(workers, experiment(**strategy), choice(capacity)) == min(workers, size)
    (said,) = worker_notes(workers, experiment(**strategy), choice(capacity))
    assert text in said
    enough = re.search(r"--workers (\d+) is enough", said)
    assert enough
    assert worker_notes(int(enough[1]), experiment(**strategy), choice(capacity)) == []


def test_as_many_workers_as_fit_exactly_are_not_warned_of(folder):
    assert worker_notes(10, experiment(**WOA), choice(10)) == []
    with_limit = experiment(asynchronous=True, **WOA)
    assert len(worker_notes(4, with_limit, choice(10))) == 1
    assert "(budget.trials is 4)" in worker_notes(5, with_limit, choice(10))[0]


@pytest.fixture
def printed(folder, capsys):
    def call(*arguments):
        assert run(list(arguments)) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


SMALL = ("run", "air.yaml", "--no-tracking", "--trials", "1", "--set", "finalists.top=0")


@pytest.fixture
def templates(monkeypatch):
    """The templates that are started beside a command; their program ends with a traceback."""
    made = []

    class Noted(template.Template):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr(template, "Template", Noted)
    monkeypatch.setattr(template, "_PROGRAM", "no_such_module")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "air.yaml", "--set", "budget.trials=x"],
        ["run", "air.yaml", "--set", "data.path=nope.csv"],
        ["run", "nope.yaml"],
        ["compare", "air.yaml", "--strategies", "nope"],
        ["train", "nope.yaml"],
    ],
)
def test_refused_input_leaves_no_process(folder, refused, templates, arguments):
    refused(*arguments)
    (started,) = templates
    assert started.has_ended
    assert not Path(f"/proc/{started.pid}").exists()


def test_a_finished_study_leaves_no_process_and_no_trace(here, templates, capfd, monkeypatch):
    command = ["run", "air.yaml", "--no-tracking"]
    assert run(command) == 0  # `here` is a copy: that the data is elsewhere is noted once
    capfd.readouterr()
    assert run(command) == 0
    printed = capfd.readouterr()
    assert len(templates) == 2
    assert all(each.has_ended for each in templates)
    assert not any(Path(f"/proc/{each.pid}").exists() for each in templates)
    monkeypatch.setattr(template, "can_fork", lambda: False)
    assert run(command) == 0
    assert len(templates) == 2
    assert (printed.out, printed.err) == (capfd.readouterr().out, "")


def test_a_warning_precedes_the_search_and_does_not_stop_it(printed):
    lines = printed(*SMALL, "--workers", "64").splitlines()
    assert lines[0].startswith("--workers 64: more than ")
    assert lines[1] == "searching air-random-0: 1 trials, 4 at a time"
    assert "1 trial trained" in "\n".join(lines)


@pytest.mark.parametrize("option", [["--asynchronous"], ["--set", "asynchronous=true"]])
def test_an_asynchronous_search_says_that_it_cannot_be_repeated(printed, option):
    assert printed(*SMALL, "--workers", "1", *option).startswith("asynchronous: ")
    checked = printed("check", "air.yaml", "--set", "asynchronous=true")
    assert re.search(r"asynchronous +workers never wait, and no two searches are alike", checked)
    assert "asynchronous" not in printed("check", "air.yaml")


def test_set_comes_after_the_option(printed):
    said = printed(*SMALL, "--workers", "1", "--asynchronous", "--set", "asynchronous=false")
    assert said.startswith("searching ")


def test_the_chosen_executor_gets_the_experiments_resources(printed, monkeypatch):
    asked = []
    made = []

    def choose(name, resources, note):
        asked.append((name, resources))

        def make(n_workers):
            made.append(n_workers)
            return LocalExecutor(1)

        return ExecutorChoice(make, 7, "the cluster's 14 cores")

    monkeypatch.setattr("tuner.orchestrator.choose_executor", choose)
    text = printed(*SMALL, "--executor", "ray://far:10001", "--set", "resources.cpus=2")
    assert asked == [("ray://far:10001", Resources(cpus=2))]
    assert made == [4]  # random asks for four at a time
    assert "searching" in text


def test_an_executor_that_cannot_be_had_is_bad_input(folder, monkeypatch, capsys):
    def choose(name, resources, note):
        raise InputError(f"--executor: {name} does not answer")

    monkeypatch.setattr("tuner.orchestrator.choose_executor", choose)
    assert run([*SMALL, "--executor", "ray://far:10001"]) == 2
    assert capsys.readouterr() == ("", "tuner: --executor: ray://far:10001 does not answer\n")
    assert not Path("studies").exists()
