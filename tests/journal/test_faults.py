"""Journals whose database or disk fails: nothing is lost, nothing is done twice."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from io import FileIO
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from helpers.examples import examples
from helpers.search_bench import Bench, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from tuner.coordination.coordinator import Observer
from tuner.coordination.opening import recorded_run
from tuner.errors import JournalError, RunError
from tuner.journal.database import ConnectionLost, Refused, RetryingStorage
from tuner.journal.records import read_study
from tuner.journal.storage import (
    STUDY_ATTR,
    open_locked,
    read_journal,
    study_names,
    within,
    write_journal,
)

TESTS = Path(__file__).parents[1]


class Flaky:
    """A storage whose connection is lost before an operation, or after it, as `fault` says."""

    def __init__(self, inner, fault):
        self._inner, self._fault = inner, fault

    def __getattr__(self, name):
        operation = getattr(self._inner, name)

        def run(*args, **kwargs):
            fault = self._fault(name)
            if fault == "before":
                raise ConnectionLost("lost")
            result = operation(*args, **kwargs)
            if fault == "after":
                raise ConnectionLost("lost")
            return result

        return run


WAITING = (
    "; waiting for it; Ctrl-C twice stops the search, what is in the journal is kept, and the "
    "same command resumes"
)


@pytest.fixture
def at_once(monkeypatch):
    """No pauses between attempts."""
    monkeypatch.setattr("tuner.journal.database._LONGEST_PAUSE_S", 1e-6)


def read(bench):
    return read_study(read_journal(bench.location), "s", bench.location)


def search(bench, experiment, **options):
    return bench.run(experiment, SimulatedExecutor(2), **options)[1]


@pytest.mark.parametrize("strategy", ["woa", "tpe"])
@pytest.mark.parametrize("seed", range(3))
def test_a_connection_lost_at_any_operation_changes_nothing(
    strategy, seed, make_bench, monkeypatch, at_once, tmp_path
):
    experiment = make_experiment(strategy, trials=20)
    expected = search(make_bench("calm"), experiment)
    rng, n_faults = random.Random(seed), 0

    def fault(name):
        nonlocal n_faults
        fault = rng.choice(["before", "after"]) if rng.random() < 0.3 else None
        n_faults += fault is not None
        return fault

    # In memory: nothing but what `RetryingStorage` does differs between the two.
    monkeypatch.setattr(
        "tuner.journal.storage.open_locked",
        lambda file, instead: RetryingStorage(Flaky(InMemoryStorage(), fault), "memory"),
    )
    found = search(make_bench("flaky"), experiment)
    assert n_faults > 100
    assert told(found) == told(expected)
    assert [t.number for t in found.trials] == list(range(len(expected.trials)))


OPERATIONS = {
    "create_new_study": lambda s: s.create_new_study([1], "t"),
    "delete_study": lambda s: s.delete_study(0),
    "create_new_trial": lambda s: s.create_new_trial(0),
    "set_trial_state_values": lambda s: s.set_trial_state_values(0, optuna.trial.TrialState.FAIL),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_was_done_although_nobody_said_so_is_not_done_twice(name, when, at_once):
    faults = []

    def fault(operation):
        if operation == name and len(faults) < 2:
            faults.append(operation)
            return when
        return None

    inner, calm = InMemoryStorage(), InMemoryStorage()
    results = []
    for storage in (RetryingStorage(Flaky(inner, fault), "memory"), calm):
        study = optuna.create_study(study_name="s", storage=calm if storage is calm else inner)
        study.ask()
        results.append(OPERATIONS[name](storage))
    assert results[0] == results[1]
    assert faults
    for a, b in zip(inner.get_all_studies(), calm.get_all_studies(), strict=True):
        assert a.study_name == b.study_name
        states = [[t.state for t in s.get_all_trials(a._study_id)] for s in (inner, calm)]
        assert states[0] == states[1]


def test_an_unconfirmed_waiting_trial_is_begun(at_once):
    lost = []

    def fault(operation):
        if operation == "set_trial_state_values" and not lost:
            lost.append(operation)
            return "after"
        return None

    study = optuna.create_study(storage=RetryingStorage(Flaky(InMemoryStorage(), fault), "memory"))
    study.enqueue_trial({"x": 0.5})
    trial = study.ask()
    assert lost
    assert trial.number == 0
    assert trial.suggest_float("x", 0, 1) == 0.5


def away(name):
    return "before"


def test_a_database_that_stays_away_ends_the_search_once():
    notes = []
    storage = RetryingStorage(Flaky(InMemoryStorage(), away), "there", notes.append, retry_for_s=2)
    for _ in range(2):  # the second is not attempted at all
        begun = time.monotonic()
        with pytest.raises(RunError) as error:
            storage.get_all_studies()
        assert str(error.value) == (
            "there: cannot be written: does not answer: lost; what is in it is kept: mend that, "
            "and the same command resumes"
        )
    assert time.monotonic() - begun < 1.5
    assert notes == [f"the journal's database does not answer (lost){WAITING}"]


def test_an_operation_that_is_in_a_hurry_closes_nothing():
    is_away = True
    storage = RetryingStorage(
        Flaky(InMemoryStorage(), lambda name: "before" if is_away else None), "there"
    )
    with pytest.raises(RunError, match="does not answer: lost"), within(storage, 0.3):
        storage.get_all_studies()
    is_away = False
    assert storage.get_all_studies() == []


def test_after_an_inner_hurry_the_outer_one_applies_again():
    is_away = True
    storage = RetryingStorage(
        Flaky(InMemoryStorage(), lambda name: "before" if is_away else None),
        "there",
        retry_for_s=0.2,
    )
    with within(storage, 0.1):
        with pytest.raises(RunError), within(storage, 0.0):
            storage.get_all_studies()
        with pytest.raises(RunError, match="does not answer"):
            storage.get_all_studies()
        assert not storage.failed  # as it would be without a hurry
        is_away = False
        assert storage.get_all_studies() == []
    is_away = True
    with pytest.raises(RunError):
        storage.get_all_studies()
    assert storage.failed


def test_an_operation_that_is_in_a_hurry_waits_for_no_other():
    reached, free = threading.Event(), threading.Event()

    def stall(name):
        if name == "get_all_studies":
            reached.set()
            assert free.wait(60)

    storage = RetryingStorage(Flaky(InMemoryStorage(), stall), "there")
    thread = threading.Thread(target=storage.get_all_studies)
    thread.start()
    assert reached.wait(60)
    with pytest.raises(RunError, match="another operation waits"), within(storage, 0.1):
        storage.get_study_directions(0)
    free.set()
    thread.join(60)


def test_threads_report_an_outage_and_its_end_once():
    notes, is_away = [], True
    storage = RetryingStorage(
        Flaky(InMemoryStorage(), lambda name: "before" if is_away else None), "there", notes.append
    )
    threads = [threading.Thread(target=storage.get_all_studies, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.6)
    is_away = False
    for thread in threads:
        thread.join(60)
    assert notes == [
        f"the journal's database does not answer (lost){WAITING}",
        "the journal's database answers again; the search continues",
    ]


def test_a_connection_that_was_closed_while_idle_is_no_news():
    notes, lost = [], []

    def fault(name):
        lost.append(name)
        return "before" if len(lost) == 1 else None

    storage = RetryingStorage(Flaky(InMemoryStorage(), fault), "there", notes.append)
    assert storage.get_all_studies() == []
    assert notes == []


@pytest.fixture
def lost():
    """A study, and a search that loses its database and does something then."""
    inner, is_away = InMemoryStorage(), []
    storage = RetryingStorage(Flaky(inner, lambda name: "before" if is_away else None), "there")
    study = optuna.create_study(storage=storage)
    study.set_user_attr(STUDY_ATTR, {"experiment": make_experiment().to_dict()})

    def search_that_is_cut_off(then):
        with recorded_run(study, make_experiment()):
            is_away.append(True)
            then()

    return study, search_that_is_cut_off


def test_ctrl_c_ends_the_wait_and_the_clean_up_at_once(lost):
    study, search_that_is_cut_off = lost

    def ask():
        try:
            study.ask()
        finally:
            study.set_user_attr("seconds", 1.0)

    main = threading.main_thread().ident
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGUSR1)).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            search_that_is_cut_off(ask)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - begun < 20
    failures = []

    def read():
        try:
            study.get_trials()
        except RunError as error:
            failures.append(str(error))

    thread = threading.Thread(target=read, daemon=True)  # a tracker that still runs
    thread.start()
    thread.join(60)
    assert failures == ["there: the search was interrupted"]


def test_ctrl_c_elsewhere_does_not_wait_for_a_lost_database(lost):
    def interrupt():
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        lost[1](interrupt)
    assert time.monotonic() - begun < 20


def test_a_reader_does_not_wait():
    storage = RetryingStorage(Flaky(InMemoryStorage(), away), "there", reading=True)
    with pytest.raises(JournalError, match="there: cannot be read: does not answer: lost; try"):
        storage.get_all_studies()


def test_a_closed_storage_is_not_reopened_by_a_late_thread():
    storage = RetryingStorage(InMemoryStorage(), "there")
    storage.close()
    with pytest.raises(RunError, match="there: is closed"):
        storage.get_all_studies()


def test_what_the_database_refuses_ends_a_search_in_one_line():
    class Full:
        def get_all_studies(self):
            raise Refused("No space left on device")

    with pytest.raises(RunError, match="^there: cannot be written: No space left on device; what"):
        RetryingStorage(Full(), "there").get_all_studies()


def die_after(bench, experiment, n_results):
    with pytest.raises(Killed):
        bench.run(experiment, SimulatedExecutor(2, die_after=n_results))


def test_a_search_on_sqlite_resumes_after_a_full_disk(tmp_path, make_bench):
    experiment = make_experiment("woa", trials=12)
    bench = Bench(f"sqlite:///{tmp_path}/s.db")
    die_after(bench, experiment, 3)
    n_before = len(read(bench).trials)

    def fill(connection, record):
        (n_pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {n_pages + 1}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", fill)
    try:
        begun = time.monotonic()
        with pytest.raises(RunError, match="database or disk is full; what is in it is kept"):
            search(bench, experiment)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", fill)
    assert time.monotonic() - begun < 3  # Optuna would try again, five times
    assert n_before <= len(read(bench).trials) < 12
    assert told(search(bench, experiment)) == told(search(make_bench("file"), experiment))


def test_a_database_that_somebody_has_locked_is_waited_for(tmp_path, make_bench, monkeypatch):
    class Browser(Observer):
        def finished(self, key, outcome, earlier=False):
            if key.number == 2:
                connection.execute("BEGIN EXCLUSIVE")

    def note(text):
        notes.append(text)
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    notes = []
    monkeypatch.setattr(
        "helpers.search_bench.write_journal", lambda location: write_journal(location, "s", note)
    )
    experiment = make_experiment("woa", trials=6)
    connection = sqlite3.connect(tmp_path / "s.db", check_same_thread=False, isolation_level=None)
    bench = Bench(f"sqlite:///{tmp_path}/s.db?timeout=0.1")
    found = search(bench, experiment, observer=Browser())
    connection.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.db"]
    assert notes[0] == f"the journal's database does not answer (database is locked){WAITING}"
    assert len(notes) == 2
    assert told(found) == told(search(make_bench("file"), experiment))


UNTIL_FULL = """\
import resource, sys
sys.path.append(sys.argv[1])
from helpers.search_bench import Bench, make_experiment
from helpers.simulated_executor import SimulatedExecutor
from tuner.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    Bench(sys.argv[2]).run(make_experiment("woa", trials=12), SimulatedExecutor(2))
except RunError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_keeps_whole_records(make_bench):
    experiment = make_experiment("woa", trials=12)
    expected = search(make_bench("calm"), experiment)
    calm, path = Path(make_bench("calm").location), Path(make_bench("full").location)
    limit = int(calm.stat().st_size * 0.61)
    command = [sys.executable, "-c", UNTIL_FULL, str(TESTS), str(path), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large; what is in it is kept: make room" in done.stdout
    assert path.read_bytes().endswith(b"\n")
    assert told(search(make_bench("full"), experiment)) == told(expected)


class Halting(FileIO):
    """A file of which one write is short, and then Ctrl-C comes: before the rest, or after it."""

    def __init__(self, path, n_written, whole):
        super().__init__(path, "w+")
        self._n_written, self._whole, self._n_writes = n_written, whole, None

    def halt(self):
        self._n_writes = 0

    def write(self, content):
        if self._n_writes is None:
            return super().write(content)
        self._n_writes += 1
        if self._n_writes == 1:
            return super().write(bytes(content)[: self._n_written])
        if self._whole:
            super().write(content)
        self._n_writes = None
        raise KeyboardInterrupt


DAMAGE_THAT_ENDS_A_JOURNAL = [b'{"op_code"\n', b"\xff\n", b"\0\n", b"\0\0{}\n", b"\n"]


@pytest.mark.parametrize("damage", DAMAGE_THAT_ENDS_A_JOURNAL)
def test_a_whole_last_line_that_is_no_record_is_refused(damage, tmp_path):
    path = tmp_path / "s.journal"
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
    content = path.read_bytes() + damage + b'{"op_code":5,"wor'
    path.write_bytes(content)
    with pytest.raises(JournalError, match="a record in it is damaged"), write_journal(str(path)):
        pass
    assert path.read_bytes() == content


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The journal of a search, as a file's content."""
    path = tmp_path_factory.mktemp("searched") / "s.journal"
    search(Bench(path), make_experiment("woa", trials=6, epochs=1))
    return path.read_bytes()


def open_damaged(path, content):
    """Open a journal for writing; return whether that was refused."""
    path.write_bytes(content)
    try:
        with write_journal(str(path)):
            return False
    except JournalError:
        return True


@given(st.data())
@settings(max_examples=examples(150))
def test_one_damaged_byte_costs_no_record_but_the_last(searched, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.journal"
    place = data.draw(st.integers(0, len(searched) - 2), "place")  # not the newline that ends it
    byte = data.draw(st.just(0) | st.sampled_from(b'\n\\"}]') | st.integers(0, 255), "byte")
    damaged = bytearray(searched)
    damaged[place] = byte
    refused = open_damaged(path, damaged)
    assert path.read_bytes() == damaged
    if byte == 0:
        assert refused


@given(st.data())
@settings(max_examples=examples(60))
def test_a_truncated_journal_keeps_every_whole_record(searched, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut.journal"
    cut = searched[: data.draw(st.integers(16, len(searched)), "length")]
    zeros = bytes(data.draw(st.integers(0, 5000), "zeros"))
    assert not open_damaged(path, cut + zeros)
    assert path.read_bytes() == cut[: cut.rfind(b"\n") + 1]


@pytest.mark.parametrize(("n_written", "whole"), [(1, False), (20, False), (20, True)])
def test_ctrl_c_between_the_parts_of_a_record_leaves_none_of_it(tmp_path, n_written, whole):
    path = tmp_path / "s.journal"
    with Halting(path, n_written, whole) as file:
        storage = open_locked(file, "")
        optuna.create_study(study_name="a", storage=storage)
        before = path.read_bytes()
        file.halt()
        with pytest.raises(KeyboardInterrupt):
            storage.create_new_study([1], "b")
        assert path.read_bytes() == before
        storage.create_new_study([1], "c")  # as who clears up writes that it was interrupted
        assert study_names(storage) == ["a", "c"]
    assert study_names(read_journal(str(path))) == ["a", "c"]
