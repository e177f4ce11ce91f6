"""The log of a study's events: nothing is lost, nothing comes twice, whatever dies."""

import asyncio
import io
import json
import random
import threading
from collections import Counter

import pytest
from helpers.simulated_executor import Killed
from helpers.simulated_study import Case, PretendExecutor
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.coordinator import Asked
from tuner.errors import RunError
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.storage import Role, TrialKey
from tuner.progress.reporters import JsonReporter
from tuner.service import events as module
from tuner.service.events import EventLog, EventLogs, EventReporter

NOTE = {"event": "note", "time": 1.5, "text": ""}
ENDED = {"event": "ended", "time": 2.0, "state": "done", "reason": None, "exit_status": 0}


def note(n, size=0):
    return NOTE | {"text": f"{n} {'x' * size}"}


def numbers(lines):
    return [int(json.loads(line)["text"].split()[0]) for line in lines.splitlines()]


async def follow(log, n, after=0):
    """Read until the events from `after` on are `n`; return their lines."""
    lines = b""
    while lines.count(b"\n") < n:
        batch = log.read(after)
        assert batch.after == after
        assert batch.lines[-1:] in (b"\n", b"")
        lines, after = lines + batch.lines, batch.end
        if not batch.lines:
            await log.wait(after)
    return lines


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 300)),
        st.tuples(st.just("kill"), st.integers(0, 400)),  # this much of a line was written
        st.tuples(st.just("read"), st.integers(0, 3)),
        st.tuples(st.just("connect"), st.integers(0, 3)),
        st.tuples(st.just("drop"), st.integers(0, 3)),
    ),
    max_size=40,
)


@given(steps=STEPS, batch=st.integers(1, 700))
def test_each_event_comes_once_and_in_order(tmp_path_factory, steps, batch):
    path = tmp_path_factory.mktemp("log") / "s.jsonl"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_BATCH", batch)
        asyncio.run(interleave(path, steps))


async def interleave(path, steps):
    log, written = EventLog(path), 0
    had = dict.fromkeys(range(4), 0)  # the id up to which a client has read
    got = {reader: [] for reader in range(4)}
    for step, n in steps:
        match step:
            case "append":
                assert log.append(note(written, n)) == path.stat().st_size
                written += 1
            case "kill":
                line = json.dumps(note(written, 400)).encode()[:n]
                with path.open("ab") as file:
                    file.write(line)  # never a whole one
                log.close()
                log = EventLog(path)
            case "read":
                found = log.read(had[n])
                got[n] += numbers(found.lines)
                had[n] = found.end
            case "connect":
                assert log.position(had[n]) == had[n]
                await asyncio.wait_for(log.wait(had[n]), 5) if log.end > had[n] else None
            case "drop":
                waiter = asyncio.create_task(log.wait(log.end))
                await asyncio.sleep(0)
                waiter.cancel()
    for reader in had:
        rest = await asyncio.wait_for(follow(log, written - len(got[reader]), had[reader]), 5)
        assert got[reader] + numbers(rest) == list(range(written))
    log.close()


def test_appends_of_many_threads_are_whole_and_have_their_ids(tmp_path):
    log, ids = EventLog(tmp_path / "s.jsonl"), {}

    def append(k):
        for i in range(100):
            n = 100 * k + i
            ids[log.append(note(n, 200))] = n

    async def read():
        threads = [threading.Thread(target=append, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        return await asyncio.wait_for(follow(log, 400), 30)

    lines, at = asyncio.run(read()), 0
    for line in lines.splitlines(keepends=True):
        at += len(line)
        assert numbers(line) == [ids[at]]
    assert len(ids) == 400


@pytest.mark.parametrize("size", [0, 60, 100_000])
def test_a_torn_line_is_cut_off_and_the_rest_is_kept(tmp_path, size):
    path = tmp_path / "s.jsonl"
    log = EventLog(path)
    log.append(note(0, size))
    whole = path.read_bytes()
    log.close()
    for torn in (b"", b"{", whole[:-1], b"\0" * 5000):
        path.write_bytes(whole + torn)
        assert EventLog(path).end == len(whole) == path.stat().st_size
    path.write_bytes(whole[:-1])
    assert (EventLog(path).end, path.read_bytes()) == (0, b"")


def test_the_newest_event_is_known_when_a_log_is_opened(tmp_path):
    path = tmp_path / "s.jsonl"
    log = EventLog(path)
    assert not log.ended
    for event, ended in ((ENDED, True), (note(1, 90_000), False), (ENDED, True)):
        log.append(event)
        assert log.ended is EventLog(path).ended is ended
    log.close()


def test_what_is_no_id_of_the_log_is_the_beginning(tmp_path):
    log = EventLog(tmp_path / "s.jsonl")
    assert log.position(7) == 0
    first = log.append(note(0))
    second = log.append(note(1))
    log.close()
    for after in range(-3, second + 50):
        assert log.position(after) == (after if after in (first, second) else 0)


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "s.jsonl"
    log = EventLog(path)
    log.append(note(0))
    real, left = module.os.write, [5]

    def write(file, data):
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        n = real(file, data[: left[0]])
        left[0] -= n
        return n

    before = path.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(module.os, "write", write)
        with pytest.raises(RunError, match="No space left on device; make room"):
            log.append(note(1))
    assert path.read_bytes() == before
    log.append(note(2))
    log.close()
    assert numbers(path.read_bytes()) == [0, 2]


def test_logs_are_private_and_one_for_each_study(tmp_path):
    logs = EventLogs(tmp_path / "events")
    assert logs.of("ann", "s") is logs.of("ann", "s")
    logs.of("ann", "s").append(note(0))
    assert logs.of("bob", "s").lines() == []
    path = tmp_path / "events" / "ann" / "s.jsonl"
    assert [p.stat().st_mode & 0o777 for p in (path, path.parent)] == [0o600, 0o700]
    logs.close()


def test_a_removed_log_is_not_written_by_its_last_run(tmp_path):
    logs = EventLogs(tmp_path)
    log = logs.of("ann", "s")
    log.append(note(0))
    logs.remove("ann", "s")
    log.append(ENDED)
    assert log.closed
    assert not (tmp_path / "ann" / "s.jsonl").exists()
    again = logs.of("ann", "s")
    assert (again.end, again.closed) == (0, False)


def test_readers_leave_when_streams_end(tmp_path):
    async def wait():
        logs = EventLogs(tmp_path)
        waiting = [asyncio.create_task(logs.of("ann", str(i)).wait(0)) for i in range(3)]
        await asyncio.sleep(0)
        threading.Thread(target=logs.end_streams).start()
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        return [logs.of("ann", str(i)).closed for i in range(4)]

    assert asyncio.run(wait()) == [True] * 4  # the fourth is opened after


def test_many_readers_of_a_busy_log_share_what_is_read(tmp_path, monkeypatch):
    """Batches are few, and each is read and formatted once."""
    opened = []
    real = module._read.__wrapped__
    monkeypatch.setattr(
        module, "_read", module.lru_cache(8)(lambda *a: opened.append(a) or real(*a))
    )

    async def read():
        log = EventLog(tmp_path / "s.jsonl")
        readers = [asyncio.create_task(follow(log, 1000)) for _ in range(50)]
        for n in range(1000):
            log.append(note(n))
            if n % 10 == 0:
                await asyncio.sleep(0.001)
        found = await asyncio.wait_for(asyncio.gather(*readers), 30)
        log.close()
        return found

    found = asyncio.run(read())
    assert all(numbers(lines) == list(range(1000)) for lines in found)
    assert len(opened) < 40


# The reporter


def facts(lines):
    """Events without times, and what differs between two runs of one search."""
    found = []
    for line in lines:
        event = json.loads(line)
        for key in ("time", "trained", "id", "seconds"):
            event.pop(key, None)
        if event["event"] == "result":
            event = {key: event[key] for key in ("event", "trials", "best", "finalists", "worth")}
        if event["event"] != "note":
            found.append(event)
    return found


def seeds(fast, slow):
    """Seeds of a test, of which the first ones are fast."""
    return [*range(fast), *(pytest.param(n, marks=pytest.mark.slow) for n in range(fast, slow))]


def counted(events):
    return Counter(json.dumps(event, sort_keys=True) for event in events)


class DyingLog(EventLog):
    """The process is killed before or after an event is written."""

    def die(self, n, after):
        self.left, self.after = n, after

    def append(self, event):
        self.left -= 1
        if self.left < 0 and not self.after:
            raise Killed
        end = super().append(event)
        if self.left < 0:
            raise Killed
        return end


def run(case, log, chaos=0, **keys):
    reporter = EventReporter(log, clock=lambda: 1.0)
    executor = PretendExecutor(2, chaos)
    record = case.run(6, executor=executor, observers=[reporter], **keys)
    reporter.result(record, [])
    reporter.ended("done", None, 0)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A search that nothing disturbs, and its events."""
    folder = tmp_path_factory.mktemp("calm")
    log = EventLog(folder / "s.jsonl")
    run(Case(folder / "case"), log)
    return facts(log.lines())


@pytest.mark.parametrize("seed", seeds(fast=3, slow=40))
def test_a_search_killed_anywhere_logs_each_event_once(calm, tmp_path, seed):
    rng = random.Random(seed)
    lives = [(rng.randint(0, 60), rng.random() < 0.5, rng.randint(0, 9)) for _ in range(6)]
    case, path = Case(tmp_path / "case"), tmp_path / "s.jsonl"
    for n, after, chaos in lives:
        log = DyingLog(path)
        log.die(n, after)
        try:
            run(case, log, chaos)
        except Killed:
            log.close()
            if after and n % 2:  # the line was not whole
                path.write_bytes(path.read_bytes()[:-3])
        if log.ended:
            break
    log = EventLog(path)
    if not log.ended:
        run(case, log, 7)
    found = facts(log.lines())
    assert counted(found) == counted(calm)
    assert (found[0]["event"], found[-2]["event"], found[-1]["event"]) == (
        "begun",
        "result",
        "ended",
    )
    of_trial = {}
    for event in found:
        if "role" in event:
            of_trial.setdefault((event["role"], event["trial"]), []).append(event["event"])
    for events in of_trial.values():
        assert events == ["asked", "dispatched", *["epoch"] * 3, "finished"]


def test_events_are_those_of_a_search_on_this_machine(calm, tmp_path):
    stream = io.StringIO()
    reporter = JsonReporter(stream)
    record = Case(tmp_path / "case").run(6, observers=[reporter])
    reporter.result(record, [])
    reporter.ended("done", None, 0)
    local = facts(stream.getvalue().splitlines())
    assert local[0].pop("journal").endswith("s.journal")
    assert calm[0]["journal"] is None
    assert [{k: v for k, v in e.items() if k != "journal"} for e in calm] == local


def test_an_extended_study_goes_on_after_ended(tmp_path):
    case, log = Case(tmp_path / "case"), EventLog(tmp_path / "s.jsonl")
    run(case, log)
    before = facts(log.lines())
    reporter = EventReporter(log)
    record = case.run(8, observers=[reporter])
    reporter.result(record, [])
    reporter.ended("done", None, 0)
    found = facts(log.lines())
    assert found[: len(before)] == before
    rest = found[len(before) :]
    assert (rest[0]["event"], rest[0]["trials"], rest[-1]["event"]) == ("begun", 8, "ended")
    of_trials = [e for e in rest if e.get("role") == "trial"]
    assert {e["trial"] for e in of_trials} == {6, 7}
    assert len(of_trials) == 2 * 6


def reporter_of(path):
    return EventReporter(EventLog(path), clock=lambda: 1.0)


def names(path):
    return [json.loads(line)["event"] for line in path.read_bytes().splitlines()]


EPOCHS = tuple(Epoch(n, 1.0, 1.0, 1.0, 1.0) for n in range(4))
KEY = TrialKey(Role.TRIAL, 3)


def test_a_lost_trial_reports_its_epochs_again(tmp_path):
    path = tmp_path / "s.jsonl"
    for life in range(2):
        reporter = reporter_of(path)
        reporter.asked(Asked(KEY, None, {"x": 1}))
        reporter.dispatched(KEY, 1.0)
        for epoch in EPOCHS[: 2 + life]:
            reporter.epoch(KEY, epoch)
    assert names(path) == ["asked", "dispatched", "epoch", "epoch", "epoch"]
    reporter.lost(KEY, "it died")
    reporter.dispatched(KEY, 1.0)
    reporter.epoch(KEY, EPOCHS[0])
    reporter = reporter_of(path)
    reporter.dispatched(KEY, 1.0)
    reporter.epoch(KEY, EPOCHS[0])
    reporter.epoch(KEY, EPOCHS[1])
    assert names(path)[5:] == ["lost", "dispatched", "epoch", "epoch"]


def test_a_trial_that_ended_as_the_service_died_is_of_this_run(tmp_path):
    path = tmp_path / "s.jsonl"
    reporter = reporter_of(path)
    reporter.dispatched(KEY, 1.0)
    reporter.epoch(KEY, EPOCHS[0])
    outcome = Outcome(OutcomeState.COMPLETE, 1.0, history=EPOCHS)
    reporter_of(path).finished(KEY, outcome, earlier=True)
    reporter_of(path).finished(KEY, outcome, earlier=True)
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [e.get("epoch") for e in found] == [None, 1, 2, 3, 4, None]
    assert found[-1]["earlier"] is False


def test_a_cancelled_study_begins_anew_when_it_is_resumed(tmp_path):
    path = tmp_path / "s.jsonl"
    for _ in range(2):
        reporter = reporter_of(path)
        reporter.note("searching")
        reporter.asked(Asked(KEY, None, {"x": 1}))
        reporter.dispatched(KEY, 1.0)
        reporter.epoch(KEY, EPOCHS[0])
        reporter.ended("interrupted", "cancelled", 130)
    first = ["note", "asked", "dispatched", "epoch", "ended"]
    assert names(path) == [*first, *(name for name in first if name != "asked")]


def test_a_trial_asked_otherwise_is_reported_anew(tmp_path):
    """After a power failure, an asynchronous study may give a number to another configuration."""
    path = tmp_path / "s.jsonl"
    for x in (1, 2):
        reporter = reporter_of(path)
        reporter.asked(Asked(KEY, None, {"x": x}))
        reporter.dispatched(KEY, 1.0)
        reporter.epoch(KEY, EPOCHS[0])
    assert names(path) == ["asked", "dispatched", "epoch"] * 2


def test_a_note_is_repeated_only_within_a_life(tmp_path):
    path = tmp_path / "s.jsonl"
    for text in ("a", "a", "b"):
        (reporter := reporter_of(path)).note("a")
        reporter.note(text)
    assert [json.loads(line)["text"] for line in path.read_bytes().splitlines()] == ["a", "a", "b"]


def test_a_study_that_never_began_ends_and_shows_no_path(tmp_path):
    root = tmp_path / "root"
    log = EventLog(root / "events" / "s.jsonl")
    reporter = EventReporter(log, root)
    reporter.note(f"{root}/datasets/ann/0/sales.csv is odd")
    reporter.ended("failed", f"{root}/datasets/ann/0/sales.csv: no column 'y'", 2)
    said, ended = (json.loads(line) for line in log.lines())
    assert said["text"] == "sales.csv is odd"
    assert ended["reason"] == "sales.csv: no column 'y'"
