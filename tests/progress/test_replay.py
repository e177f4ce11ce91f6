"""Events that come over a wire look on a reporter as those of a search here."""

import contextlib
import io
import json
import re

import pytest
from helpers.simulated_executor import Killed
from helpers.simulated_study import Case, PretendExecutor
from rich.console import Console

from tuner.coordination.coordinator import Observer
from tuner.progress.replay import EventClock, Replay, newest_run
from tuner.progress.reporters import JsonReporter, LiveReporter, PlainReporter

HEADS = {  # kinds of searches: what else is in their experiment, and how their workers are
    "median": ({"pruner": {"name": "median", "n_startup_trials": 2}}, {}),
    "lost": ({}, {"p_lost": 0.2}),
    "failing": ({}, {"fails": lambda job: job.key in ("trial 1", "trial 2")}),
    "repeats": (
        {"space": {"num_layers": {"type": "int", "low": 1, "high": 3}}, "hyperparameters": {}},
        {},
    ),
}
TIMES = re.compile(r"(at most |up to )?\d+:\d\d left")


def plain(**progress):
    console = Console(file=io.StringIO(), width=500, highlight=False)
    return PlainReporter(console, **progress)


def printed(reporter):
    return TIMES.sub("", reporter.console.file.getvalue())


class Keeper(Observer):
    """Keeps the record that a search starts with, as a service would send it."""

    def on_start(self, start):
        self.record = start.record


def searched(case, **keys):
    """Run a case; return what a plain reporter printed, the events, and the first record."""
    reporter, stream, keeper = plain(), io.StringIO(), Keeper()
    reporters = [reporter, JsonReporter(stream), keeper]
    with contextlib.suppress(Killed):
        case.run(observers=reporters, **keys)
    return reporter, list(map(json.loads, stream.getvalue().splitlines())), keeper.record


@pytest.mark.parametrize("head", HEADS)
def test_replayed_events_print_the_lines_of_the_search(head, tmp_path):
    keys, workers = HEADS[head]
    executor = PretendExecutor(2, chaos=7, **workers)
    reporter, events, record = searched(Case(tmp_path / "case"), executor=executor, **keys)
    clock = EventClock(0.0)
    again = plain(clock=clock, wall=clock)
    replay = Replay(again, clock, lambda: record)
    for event in events:
        replay.show(event)
    assert printed(again) == printed(reporter)
    assert "finalist" in printed(again)
    assert again.best == reporter.best
    assert again.stages.keys() == reporter.stages.keys()
    for role, stage in again.stages.items():
        assert (stage.counts, stage.total) == (
            reporter.stages[role].counts,
            reporter.stages[role].total,
        )


def test_what_was_before_is_counted_and_not_printed(tmp_path):
    _, events, record = searched(Case(tmp_path / "case"))
    for number, event in enumerate(events):
        event["time"] = 1000.0 + number
    clock = EventClock(0.0)
    reporter = plain(clock=clock, wall=clock)
    half = len(events) // 2
    replay = Replay(reporter, clock, lambda: record, muted_until=1000.0 + half)
    for event in events[:half]:
        replay.show(event)
    assert printed(reporter) == ""
    assert reporter.best is not None
    assert abs(clock() - (999.0 + half)) < 5
    stage = reporter.begun_stages()[0]
    assert stage.done > 0
    assert 0 < reporter.elapsed(stage) < half + 5
    for event in events[half:]:
        replay.show(event)
    assert "complete" in printed(reporter)


def test_a_run_that_resumes_begins_the_display_anew(tmp_path):
    case = Case(tmp_path / "case")
    _, first, record = searched(case, executor=PretendExecutor(2, die_after=3))
    _, second, later = searched(case)
    clock = EventClock(0.0)
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    reporter = LiveReporter(console, clock=clock, wall=clock)
    records = iter([record, later])
    replay = Replay(reporter, clock, lambda: next(records), lambda _: ["of the command"])
    for event in first:
        replay.show(event)
    assert reporter.running or reporter.waiting
    for event in second:
        replay.show(event)
    assert not reporter.running
    assert not reporter.waiting
    assert reporter.stages["trial"].done == 8
    assert reporter.frame() is not None
    assert console.file.getvalue().count("of the command") == 1


def test_unknown_events_and_those_before_begun_show_nothing():
    clock = EventClock(0.0)
    reporter = plain(clock=clock, wall=clock)
    replay = Replay(reporter, clock, lambda: pytest.fail("read"))
    replay.show({"event": "lost", "time": 1.0, "role": "trial", "trial": 0, "reason": "x"})
    replay.show({"event": "of a newer version", "time": 2.0})
    assert printed(reporter) == ""


def test_a_log_of_two_runs_reads_as_the_newest_run():
    def event(name, number, **facts):
        return {"event": name, "time": float(number), **facts, "event_id": str(number)}

    def of(trial):
        return {"role": "trial", "trial": trial}

    log = [
        event("begun", 1),
        event("asked", 2, **of(0)),
        event("finished", 3, **of(0), earlier=False),
        event("asked", 4, **of(1)),
        event("ended", 5),
        event("begun", 6),
        event("note", 7),
        event("finished", 8, **of(0), earlier=True),
        event("asked", 9, **of(1)),
        event("finished", 10, **of(1), earlier=False),
    ]
    found = [(e["event"], e["time"], e.get("earlier")) for e in newest_run(log, after="5")]
    assert found == [
        ("begun", 6.0, None),
        ("note", 7.0, None),
        ("asked", 9.0, None),
        ("finished", 9.0, True),
        ("asked", 9.0, None),
        ("finished", 10.0, False),
    ]
    events = list(newest_run(log))
    assert not [event for event in events if "event_id" in event]
    assert all("event_id" in event for event in log)
    whole = [e["event"] for e in events]
    names = ["note", "asked", "finished", "asked", "finished"]
    assert whole == [e["event"] for e in log[:6]] + names
