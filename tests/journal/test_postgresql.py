"""Journals on a PostgreSQL server that is stopped, started and shared."""

import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from helpers.postgresql import SCHEME, connect, schema_of_its_own
from helpers.search_bench import Bench, make_experiment, told
from helpers.simulated_executor import SimulatedExecutor

from tuner.coordination.coordinator import Observer
from tuner.errors import JournalError, RunError
from tuner.journal.locks import JournalLocked, LockOwner, StudyLock
from tuner.journal.storage import (
    is_locked,
    lock_for_reading,
    read_journal,
    study_names,
    write_journal,
)

AWAY = "the journal's database does not answer ("
BACK = "the journal's database answers again; the search continues"
SLOW = pytest.mark.slow


@pytest.fixture
def own_url(postgresql):
    """A journal on the server that a test may stop."""
    with schema_of_its_own(postgresql.url) as url:
        yield url


class Slow(SimulatedExecutor):
    def poll(self, timeout_s):
        time.sleep(0.02)
        return super().poll(timeout_s)


class After(Observer):
    """Does something when a number of trials have ended."""

    def __init__(self, actions):
        self._actions, self._n_ended = dict(actions), 0

    def finished(self, key, outcome, earlier=False):
        self._n_ended += 1
        if action := self._actions.pop(self._n_ended, None):
            action()


def expected_of(experiment, make_bench):
    return told(make_bench("calm").run(experiment, SimulatedExecutor(2))[1])


@pytest.mark.parametrize(
    ("strategy", "seed"),
    [pytest.param(*case, marks=SLOW) for case in (("woa", 0), ("woa", 1), ("tpe", 2))],
)
def test_a_server_that_crashes_at_random_moments_changes_nothing(
    strategy, seed, postgresql, own_url, make_bench, notes
):
    experiment = make_experiment(strategy, trials=24)
    rng, ended, n_crashes = random.Random(seed), threading.Event(), 0

    def crash():
        nonlocal n_crashes
        while not ended.wait(rng.uniform(0.05, 0.6)):
            postgresql.restart()
            n_crashes += 1

    thread = threading.Thread(target=crash)
    try:
        finished, found = Bench(own_url).run(
            experiment, Slow(2, chaos=seed), observer=After({1: thread.start})
        )
    finally:
        ended.set()
        thread.join()
    assert n_crashes >= 3
    assert finished
    assert told(found) == expected_of(experiment, make_bench)
    assert all(note.startswith(AWAY) for note in notes[::2])
    assert set(notes[1::2]) <= {BACK}
    assert len(notes) % 2 == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_connection_lost_around_a_commit_changes_nothing(
    seed, postgresql_url, make_bench, notes, monkeypatch
):
    experiment = make_experiment("woa", trials=18)
    expected = expected_of(experiment, make_bench)
    rng, commit, lost = random.Random(seed), psycopg.Connection.commit, []
    monkeypatch.setattr("tuner.journal.database._LONGEST_PAUSE_S", 0.001)

    def lossy(connection):
        if rng.random() < 0.9:
            return commit(connection)
        if rng.random() < 0.5:
            commit(connection)
        lost.append(connection)
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    class Connected(Observer):
        def asked(self, *trial):  # from the first one on
            monkeypatch.setattr(psycopg.Connection, "commit", lossy)

    _, found = Bench(postgresql_url).run(experiment, SimulatedExecutor(2), observer=Connected())
    monkeypatch.undo()
    assert len(lost) > 20
    assert told(found) == expected
    n_trials = "SELECT count(*), count(DISTINCT number) FROM trials"
    with connect(postgresql_url) as connection:
        assert connection.execute(n_trials).fetchone() == (len(expected), len(expected))


def test_a_study_taken_during_an_outage_is_left_to_its_owner(postgresql_url, notes):
    mine = None

    def take():
        nonlocal mine
        mine = connect(postgresql_url)
        mine.autocommit = False
        end_all_sessions(mine)
        StudyLock("s").acquire(mine)

    experiment = make_experiment("woa", trials=12)
    with pytest.raises(RunError) as error:
        Bench(postgresql_url).run(experiment, SimulatedExecutor(2), observer=After({3: take}))
    assert re.search(
        r"while it did not answer, it was taken: another search is writing to it: process "
        rf"{os.getpid()} on \S+, since .* UTC; what is in it is kept, and this search ends",
        str(error.value),
    )
    mine.close()
    assert Bench(postgresql_url).run(experiment, SimulatedExecutor(2))[0]


def end_all_sessions(connection):
    """End every other session of tuner's, and wait until they are gone."""
    others = (
        "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name LIKE 'tuner %'"
    )
    connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
    while True:
        connection.commit()
        if connection.execute(f"SELECT count(*) {others}").fetchone() == (0,):
            return


def test_a_thread_that_is_left_over_does_not_take_a_study_again(postgresql_url):
    with write_journal(postgresql_url, "s") as storage:
        assert is_locked(postgresql_url, "s")
    with pytest.raises(RunError, match="is closed"):
        study_names(storage)
    deadline = time.monotonic() + 30  # the server misses a session when it has read its end
    while is_locked(postgresql_url, "s"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stale_session_of_ours_does_not_keep_us_out(postgresql_url):
    lock = StudyLock("s")
    plain = postgresql_url.replace(SCHEME, "postgresql://")
    with psycopg.connect(plain) as vanished, psycopg.connect(plain) as new:
        lock.acquire(vanished)
        lock.acquire(new)
        with pytest.raises(psycopg.OperationalError):
            vanished.execute("SELECT 1")
        vanished.close()
        with (
            psycopg.connect(plain) as other,
            pytest.raises(JournalLocked, match=f"process {os.getpid()} "),
        ):
            StudyLock("s").acquire(other)


def test_studies_on_one_server_do_not_keep_each_other_waiting(postgresql_url):
    with write_journal(postgresql_url, "a"), write_journal(postgresql_url, "b"):
        with lock_for_reading(postgresql_url, "c"):
            pass
        for who in (lock_for_reading, write_journal):  # of all studies
            with (
                pytest.raises(JournalError, match="another search is writing"),
                who(postgresql_url),
            ):
                pass
        assert [is_locked(postgresql_url, name) for name in "abc"] == [True, True, False]
    with write_journal(postgresql_url):
        with pytest.raises(JournalError, match="another search is writing to it: process"):
            write_journal(postgresql_url, "a").__enter__()
        assert is_locked(postgresql_url, "a")


def test_a_journal_in_another_schema_is_another_journal(postgresql_url):
    with (
        schema_of_its_own(postgresql_url.partition("?")[0]) as other,
        write_journal(postgresql_url, "a"),
        write_journal(other, "a") as storage,
    ):
        assert study_names(storage) == []


def test_simultaneous_searches_create_tables_once(postgresql_url):
    def begin(name):
        with write_journal(postgresql_url, name) as storage:
            storage.create_new_study([1], name)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(begin, "abcdef"))
    assert study_names(read_journal(postgresql_url)) == list("abcdef")


def test_readers_do_not_disturb_the_creation_of_tables(postgresql_url, tmp_path):
    found, refusals, over = [], set(), threading.Event()

    def read():
        while not over.is_set():
            try:
                found.append(study_names(read_journal(postgresql_url)))
            except JournalError as error:
                refusals.add(str(error).partition(": ")[2].partition(": ")[2])

    with write_journal(f"sqlite:///{tmp_path}/s.db", "a"):
        pass  # imports what threads must not import together
    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        try:
            with write_journal(postgresql_url, "a") as storage:
                storage.create_new_study([1], "a")
                deadline = time.monotonic() + 60
                while ["a"] not in found and not any(r.done() for r in readers):
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        finally:
            over.set()
        for reader in readers:
            reader.result()
    assert refusals <= {"holds no studies; check the URL"}
    with connect(postgresql_url) as connection:
        for table in ("alembic_version", "version_info"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (1,)


def test_a_suspended_creator_is_named_and_not_waited_for(postgresql_url, monkeypatch):
    monkeypatch.setattr("tuner.journal.locks._CREATION_WAIT_S", 0.5)
    with connect(postgresql_url) as suspended:
        StudyLock("a").acquire_for_schema_creation(suspended)
        resumed = threading.Timer(20, suspended.close)  # or who waits for it would wait for ever
        resumed.start()
        begun = time.monotonic()
        with pytest.raises(JournalError) as error, write_journal(postgresql_url, "b"):
            pass
        resumed.cancel()
        resumed.join()
    assert time.monotonic() - begun < 15
    assert re.search(
        rf": another search is creating its tables: process {os.getpid()} on \S+, since .* UTC; "
        r"wait for it, stop it, or give another --journal$",
        str(error.value),
    )
    monkeypatch.undo()
    with write_journal(postgresql_url, "b"):
        pass


@pytest.mark.slow
def test_another_process_that_creates_tables_is_waited_for(postgresql_url, monkeypatch):
    monkeypatch.setattr("tuner.journal.locks._CREATION_WAIT_S", 3.0)
    first, second = connect(postgresql_url), connect(postgresql_url)
    StudyLock("a").acquire_for_schema_creation(first)
    key = (
        "SELECT objid::bigint | (classid::bigint << 32) FROM pg_locks "
        f"WHERE locktype = 'advisory' AND granted AND pid = {first.info.backend_pid}"
    )

    def one_after_the_other():
        time.sleep(1.8)
        first.close()
        next_one.result()
        time.sleep(1.8)
        second.close()

    with ThreadPoolExecutor(2) as pool:
        next_one = pool.submit(second.execute, f"SELECT pg_advisory_lock(({key}))")
        while not (second.pgconn.transaction_status or next_one.done()):
            time.sleep(0.01)
        begun = time.monotonic()
        pool.submit(one_after_the_other)
        with write_journal(postgresql_url, "c"):
            assert time.monotonic() - begun > 3.5


def test_a_server_refusal_ends_a_search_in_one_line(postgresql_url, make_bench, notes):
    def forbid():
        with connect(postgresql_url) as connection:
            connection.execute("ALTER TABLE trial_user_attributes RENAME TO gone")

    experiment = make_experiment("woa", trials=12)
    begun = time.monotonic()
    with pytest.raises(RunError, match="cannot be written: relation .* does not exist") as error:
        Bench(postgresql_url).run(experiment, SimulatedExecutor(2), observer=After({3: forbid}))
    assert "\n" not in str(error.value)
    assert time.monotonic() - begun < 20
    with connect(postgresql_url) as connection:
        connection.execute("ALTER TABLE gone RENAME TO trial_user_attributes")
    _, found = Bench(postgresql_url).run(experiment, SimulatedExecutor(2))
    assert told(found) == expected_of(experiment, make_bench)
    assert notes == []


def test_a_commit_waits_for_the_disk_whatever_the_server_does(postgresql_url):
    relaxed = postgresql_url + "%20-csynchronous_commit%3Doff"
    lock = StudyLock("s")
    with psycopg.connect(relaxed.replace(SCHEME, "postgresql://")) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        lock.acquire(connection)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_holder_is_read_as_it_was_written():
    holder = LockOwner.here()
    assert LockOwner.read(holder.written) == holder
    assert len(LockOwner(4194304, "h" * 24, holder.since).written) <= 63
    for text in ("", "psql", "tuner 1@h soon abcdef"):
        assert LockOwner.read(text) is None
    assert str(LockOwner(1, "h", "20261340T000000Z")) == "process 1 on h"
