"""Journals: what is written, who may write, and how they are named."""

import contextlib
import errno
import itertools
import json
import socket
import sys
import tempfile
import time
from io import FileIO
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from helpers.ports import free_port
from helpers.postgresql import connect
from helpers.search_bench import DATA, Bench, make_experiment, told
from helpers.simulated_executor import SimulatedExecutor
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages._rdb.models import BaseModel

from tuner.coordination.opening import StudyData, as_begun, open_study
from tuner.errors import JournalError, RunError, StudyError
from tuner.experiment import Experiment
from tuner.journal import locks as server_lock
from tuner.journal.locks import JournalLocked, StudyLock
from tuner.journal.records import read_study
from tuner.journal.storage import (
    STUDY_ATTR,
    _LockedFile,
    is_locked,
    journal_exists,
    journal_location,
    lock_for_reading,
    read_journal,
    study_names,
    write_journal,
)


def names(location):
    return study_names(read_journal(str(location)))


def test_reading_creates_nothing(tmp_path):
    for location in (tmp_path / "none.journal", f"sqlite:///{tmp_path}/none.db"):
        with pytest.raises(JournalError, match="no such journal"):
            read_journal(str(location))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"hello\n", b"\x00\xff", b"[1]\n", b'{"a": 1}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "s.journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal") as error, write_journal(str(path)):
        pass
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


def test_a_torn_tail_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "s.journal"
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
    whole = path.read_bytes()
    half = b'{"op_code": 5, "wor'
    for torn in (half, b"\x00" * 100, half + b"\x00" * 100, b"\xff"):
        path.write_bytes(whole + torn)
        with write_journal(str(path)) as storage:
            optuna.create_study(study_name="b", storage=storage)
        assert names(path) == ["a", "b"]


@given(
    batches=st.lists(st.integers(1, 4), max_size=6),
    asked=st.lists(st.integers(0, 12), max_size=12),
    read_to=st.integers(0, 3),
    grouped=st.booleans(),
)
def test_records_are_read_from_any_one_on(batches, asked, read_to, grouped):
    written = []
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(tempfile.NamedTemporaryFile())
        held = _LockedFile(stack.enter_context(FileIO(path.name, "r+")))
        if grouped:
            stack.enter_context(held.group_commit())
        for k in range(max(len(batches), len(asked))):
            for size in batches[k : k + 1]:
                new = [{"op_code": 1, "k": k, "text": "ä" * n} for n in range(size)]
                held.append_logs(new)
                written += new
            for n in asked[k : k + 1]:
                assert list(held.read_logs(n)) == written[n:]
                # who stops in between misses nothing the next time
                assert list(itertools.islice(held.read_logs(n), read_to)) == written[n:][:read_to]
            assert list(held.read_logs(len(written))) == []


class CountedFile(FileIO):
    """A file that counts what it is asked to write, and may refuse it after some bytes."""

    n_writes, room = 0, None

    def write(self, content):
        self.n_writes += 1
        if self.room is None:
            return super().write(content)
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        n_written = super().write(content[: self.room])
        self.room -= n_written
        return n_written


RECORDS = [{"op_code": 8, "user_attr": {"outcome": {"n": n}}} for n in range(5)]


def append_as_group(held, records, before):
    """Append one after the other; the file is as before until the end."""
    with held.group_commit():
        for record in records:
            held.append_logs([record])
        assert Path(held._file.name).read_bytes() == before


def test_a_group_is_written_at_once_or_not_at_all(tmp_path):
    path = tmp_path / "s.journal"
    path.touch()
    with CountedFile(path, "r+") as file:
        held = _LockedFile(file)
        held.append_logs(RECORDS[:1])
        before = path.read_bytes()
        file.room = 20
        with pytest.raises(RunError, match="No space left"):
            append_as_group(held, RECORDS[1:], before)
        assert path.read_bytes() == before
        file.room, file.n_writes = None, 0
        append_as_group(held, RECORDS[1:], before)
        assert file.n_writes == 1
    assert [json.loads(line) for line in path.read_text().splitlines()] == RECORDS


@pytest.mark.parametrize("torn", [b"", b"{", b'{"op_code":0,"wor'])
def test_a_journal_torn_in_its_first_record_is_begun_again(tmp_path, torn):
    path = tmp_path / "s.journal"
    path.write_bytes(torn)
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
    assert names(path) == ["a"]


def test_a_file_made_meanwhile_by_another_process_is_kept(tmp_path, monkeypatch):
    path, exists = tmp_path / "s.journal", Path.exists
    with write_journal(str(path)) as storage:
        optuna.create_study(study_name="a", storage=storage)
        before = path.read_bytes()
        with monkeypatch.context() as patch:  # who looked before it was there
            patch.setattr(Path, "exists", lambda self: self != path and exists(self))
            assert "another search is writing to it" in refusal(str(path))
        assert path.read_bytes() == before
    assert names(path) == ["a"]


def test_a_new_file_is_made_as_the_umask_has_it(tmp_path):
    path, plain = tmp_path / "s.journal", tmp_path / "plain"
    plain.touch()
    with write_journal(str(path)):
        assert path.stat().st_mode == plain.stat().st_mode


def refusal(location, how=write_journal):
    with pytest.raises(JournalError) as error, how(location, "s"):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


WHOLE = '{"op_code":0,"worker_id":"w","study_name":"a","directions":[1]}\n'
DAMAGE = {
    "held": None,
    "no journal": "hello\n",
    "damaged": WHOLE + '{"op_code":77,"worker_id":"w"}\n' + WHOLE,
}
ANOTHER_NAME = "give another --study name"
REMEDIES = [
    ("held", None, f"; wait for it, stop it, or {ANOTHER_NAME}"),
    ("held", "my.journal", "; wait for it, stop it, or give another --journal"),
    ("held", "studies/t.journal", "; wait for it, stop it, or give another --journal"),
    ("held", "sqlite:///my.db", "; wait for it, stop it, or give another --journal"),
    ("no journal", None, f"; {ANOTHER_NAME} or move the file away"),
    ("no journal", "my.journal", "; give another --journal"),
    ("damaged", None, f"; restore the file from a copy, or {ANOTHER_NAME}"),
    ("damaged", "my.journal", "; restore the file from a copy, or give another --journal"),
]


@pytest.mark.parametrize(("why", "journal", "remedy"), REMEDIES)
def test_an_unusable_file_is_refused_by_every_name(why, journal, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tuner.journal.locks._WAIT_S", 0.0)
    location = journal_location("s", journal)
    with contextlib.ExitStack() as stack:
        if (content := DAMAGE[why]) is None:
            stack.enter_context(write_journal(location, "s"))
        else:
            Path(location).parent.mkdir(exist_ok=True)
            Path(location).write_text(content)
        message = refusal(location)
        assert message.endswith(remedy)
        assert message.count("give") == 1
        if why == "held":  # `tuner sync` wants this one
            assert refusal(location, lock_for_reading).endswith(" UTC; wait for it or stop it")


def test_a_database_that_cannot_be_made_is_an_error_of_one_line():
    assert refusal("sqlite:////proc/nowhere/x.db").startswith("--journal: ")


def reopen(bench, experiment, data=DATA):
    with write_journal(bench.location) as storage:
        open_study(storage, bench.location, "s", experiment, StudyData(data))


CHANGES = {
    "seed": {"seed": 4},
    "strategy.population": {"population": 7},
    "budget.epochs": {"budget": {"trials": 6, "epochs": 6}},
    "search_space.dropout.high": {
        "space": {
            "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
            "num_layers": {"type": "int", "low": 1, "high": 3},
            "dropout": {"type": "float", "low": 0.0, "high": 0.4},
            "batch_size": {"type": "categorical", "choices": [8, 16, 32, 64]},
        }
    },
    "hyperparameters.learning_rate": {"hyperparameters": {"learning_rate": 0.5}},
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_resumed_study_may_not_change(key, bench):
    bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))
    with pytest.raises(StudyError) as error:
        reopen(bench, make_experiment(**({"strategy": "woa", "trials": 6} | CHANGES[key])))
    assert f"{key}=" in str(error.value)
    assert "got" in str(error.value)


def test_a_resumed_study_may_change_trials_and_time(bench):
    bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))
    reopen(bench, make_experiment("woa", budget={"trials": 9, "epochs": 5, "timeout": 60}))


def test_the_default_population_stays_that_of_the_begun_study(bench):
    def unwritten(trials):
        raw = make_experiment("woa", trials=trials, epochs=2).to_dict()
        return Experiment.model_validate(raw | {"strategy": {"name": "woa"}})

    def went_on(location, *budgets):
        other = Bench(location)
        for trials in budgets:
            experiment = unwritten(trials)
            with write_journal(other.location) as storage:
                study = open_study(storage, other.location, "s", experiment, StudyData(DATA))
                experiment = as_begun(study, experiment)
            assert experiment.strategy.population == 3
            assert experiment.budget.trials == trials
            _, record = other.run(experiment, SimulatedExecutor(2, chaos=trials))
            assert len(record.trained) == trials
        return told(record)

    folder = Path(bench.location).parent
    reference = went_on(folder / "a", 12, 80)
    assert unwritten(80).strategy.population == 10
    assert went_on(folder / "b", 12, 31, 80) == reference
    bench.location = str(folder / "a")
    with pytest.raises(StudyError, match=r"strategy\.population=3, got 4"):
        reopen(bench, make_experiment("woa", trials=80, epochs=2, population=4))


def refusal_of(bench, experiment):
    with pytest.raises(StudyError) as error:
        reopen(bench, experiment)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_all_that_differs_is_said_in_one_line(bench):
    bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))
    other = make_experiment("woa", trials=6, seed=4, population=7)
    assert refusal_of(bench, other).endswith(
        "study 's' was begun with seed=3, got 4; with strategy.population=6, got 7; "
        "put them back, or give another --study name"
    )
    assert "was begun with strategy.name='woa', got 'tpe'; with strategy." in refusal_of(
        bench, make_experiment("tpe", trials=6)
    )
    many = {f"{name}": 0.3 for name in ("learning_rate", "weight_decay")}
    other = make_experiment("woa", seed=4, population=7, epochs=9, hyperparameters=many)
    assert "; and 1 more differ; put them back" in refusal_of(bench, other)


def change_facts(bench, change):
    with write_journal(bench.location) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        facts = study.user_attrs[STUDY_ATTR]
        change(facts)
        study.set_user_attr(STUDY_ATTR, facts)


def test_a_study_of_a_newer_version_is_refused_whoever_opens_it(bench):
    experiment = make_experiment("woa", trials=6)
    bench.run(experiment, SimulatedExecutor(2))
    change_facts(bench, lambda facts: facts.update(format=99))
    assert "was made by a newer tuner (format 99, this one writes 2); upgrade" in refusal_of(
        bench, experiment
    )
    with pytest.raises(StudyError, match=r"a newer tuner \(format 99"):
        read_study(read_journal(bench.location), "s", bench.location)


def test_a_study_with_other_keys_is_refused_with_their_names(bench):
    experiment = make_experiment("woa", trials=6)
    bench.run(experiment, SimulatedExecutor(2))
    change_facts(bench, lambda facts: facts["experiment"]["budget"].update(fuel=3))
    message = refusal_of(bench, experiment)
    assert "was written by another version of tuner: " in message
    assert "budget.fuel" in message


def test_a_study_of_another_experiment_or_other_data_is_refused(bench):
    experiment = make_experiment("woa", trials=6)
    bench.run(experiment, SimulatedExecutor(2))
    with pytest.raises(StudyError, match="belongs to experiment 'simulated', got 'other'"):
        reopen(bench, make_experiment("woa", trials=6, name="other"))
    with pytest.raises(StudyError, match="was begun on other data"):
        reopen(bench, experiment, {**DATA, "sha256": "1" * 64})


def test_a_study_made_by_someone_else_is_refused(tmp_path):
    path = str(tmp_path / "s.journal")
    with write_journal(path) as storage:
        study = optuna.create_study(study_name="s", storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="was not made by tuner"):
        read_study(read_journal(path), "s", path)
    with pytest.raises(StudyError, match="did you mean 's'|holds no study 'ss'"):
        read_study(read_journal(path), "ss", path)


def test_a_study_without_unknown_tokens_resumes_without_them(bench):
    experiment = make_experiment("woa", trials=6, data={"categories": ["shop"]})
    assert experiment.hyperparameters.unknown_rate > 0
    bench.run(experiment, SimulatedExecutor(2))
    change_facts(bench, lambda f: f["experiment"]["hyperparameters"].pop("unknown_rate"))
    record = read_study(read_journal(bench.location), "s", bench.location)
    assert record.experiment.hyperparameters.unknown_rate == 0
    bench.run(record.experiment, SimulatedExecutor(2))
    assert "begun with hyperparameters.unknown_rate=0.0, got 0.01, the default" in refusal_of(
        bench, experiment
    )


def write(url):
    with write_journal(url, "s"):
        pass


def read(url):
    with lock_for_reading(url, "s"):
        pass


def look(url):
    is_locked(url, "s")


@pytest.mark.parametrize("way", [write, read, look])
def test_a_connection_lost_on_opening_is_one_line(postgresql_url, monkeypatch, caplog, capfd, way):
    write(postgresql_url)
    introduce = StudyLock._name_connection

    def lose(lock, connection):
        introduce(lock, connection)
        pid = connection.info.backend_pid
        with connect(postgresql_url) as another:
            another.execute("SELECT pg_terminate_backend(%s)", [pid])

    def taken(lock, connection):
        lose(lock, connection)
        connection.execute("SELECT 1")

    monkeypatch.setattr(StudyLock, "_name_connection", lose)
    monkeypatch.setattr(StudyLock, "is_locked", taken)
    with pytest.raises(JournalError) as error:
        way(postgresql_url)
    assert "terminating connection" in str(error.value)
    assert "\n" not in str(error.value)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_slowly_ending_own_connection_is_waited_for(monkeypatch):
    lock, now = StudyLock("s"), [0.0]
    own = [(7, lock._me.written, "tuner", "ExclusiveLock")]

    def query(connection, statement):
        now[0] += 0.3  # a slow server; it ends the connection between two questions
        return [(now[0] > 9,)] if "pg_try" in statement else [(True,)]

    monkeypatch.setattr(server_lock, "_query", query)
    monkeypatch.setattr(server_lock, "_key", lambda *_: 1)
    monkeypatch.setattr(server_lock, "_owners", lambda *_: own if now[0] < 8.5 else [])
    monkeypatch.setattr(server_lock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(server_lock.time, "sleep", lambda s: None)
    lock._acquire(None, "s", shared=False)
    now[0] = -1000.0
    with pytest.raises(JournalLocked):  # one that does not end is given up
        lock._acquire(None, "s", shared=False)
    assert -971 < now[0] < -965


def refusal_of_url(url):
    """What every way of opening a journal says."""
    messages, begun = set(), time.monotonic()
    for way in (write, read_journal, read):
        with pytest.raises(JournalError) as error:
            way(url)
        messages.add(str(error.value))
    assert time.monotonic() - begun < 30
    (message,) = messages
    assert "\n" not in message
    assert message.startswith("--journal: ")
    assert "secret" not in message
    return message


def test_a_server_that_is_not_there_is_named():
    port = free_port()
    message = refusal_of_url(f"postgresql+psycopg://me:secret@127.0.0.1:{port}/studies")
    assert f"postgresql+psycopg://127.0.0.1:{port}/studies: cannot be opened: " in message
    assert "Connection refused" in message


def test_a_host_without_an_address_is_named(monkeypatch):
    def unknown(*arguments, **options):  # at once, whatever this machine's name servers do
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refusal_of_url("postgresql+psycopg://me:secret@nowhere.invalid/studies")
    assert "nowhere.invalid/studies: cannot be opened: " in message
    assert "Name or service not known" in message


@pytest.fixture
def silent():
    """A port that takes connections and never says a word, as behind many a firewall."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_silent_server_is_given_up_within_ten_seconds(silent):
    begun = time.monotonic()
    with pytest.raises(JournalError, match=f"127.0.0.1:{silent}/studies: ") as error:
        read_journal(f"postgresql+psycopg://me:secret@127.0.0.1:{silent}/studies")
    assert 3 < time.monotonic() - begun < 10
    assert "secret" not in str(error.value)


@pytest.mark.slow
def test_many_addresses_that_never_answer_take_no_longer(silent):
    hosts = "&".join(f"host=127.0.0.1:{silent}" for _ in range(4))
    begun = time.monotonic()
    with pytest.raises(JournalError, match="does not answer within 7 s; check the host"):
        read_journal(f"postgresql+psycopg:///studies?{hosts}")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgres://me:secret@h/d", "pip install 'lstm-tuner[postgresql]'"),
        ("mysql://me:secret@h/d", "its driver MySQLdb is not installed; pip install mysqlclient"),
        ("mysql+pymysql://me:secret@h/d", "its driver pymysql is not installed; pip install"),
        ("nosuch://x/y", "there is no such kind of database, got 'nosuch'; write sqlite:///"),
        ("postgresql+psycopg://h:port/d", "cannot be opened: "),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_told_what_to_write(url, text):
    assert text in refusal_of_url(url)


def test_a_url_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    assert refusal_of_url("postgresql+psycopg://me:secret@h/d") == (
        "--journal: postgresql+psycopg://h/d: its driver psycopg is not installed; "
        "pip install 'lstm-tuner[postgresql]'"
    )
    assert refusal_of_url("postgresql://me:secret@h/d") == (
        "--journal: postgresql://h/d: names no driver that is installed; "
        "write postgresql+psycopg://..., and pip install 'lstm-tuner[postgresql]'"
    )


def test_a_wrong_password_and_an_unknown_database_are_said(postgresql):
    wrong = postgresql.url.replace("tuner@", "locked:secret@")
    assert 'password authentication failed for user "locked"' in refusal_of_url(wrong)
    unknown = postgresql.url.replace("/postgres", "/nosuch")
    assert 'database "nosuch" does not exist' in refusal_of_url(unknown)


def test_reading_a_database_without_studies_creates_nothing(postgresql_url):
    for _ in range(2):
        with pytest.raises(JournalError, match="holds no studies; check the URL"):
            read_journal(postgresql_url)


def test_partial_tables_are_no_journal_and_stay_unchanged(postgresql_url):
    engine = sqlalchemy.create_engine(postgresql_url)
    BaseModel.metadata.create_all(engine)  # as a search does first, which is killed then
    before = sqlalchemy.inspect(engine).get_table_names()
    with pytest.raises(JournalError, match="holds no studies; check the URL"):
        read_journal(postgresql_url)
    assert not journal_exists(postgresql_url)
    assert sqlalchemy.inspect(engine).get_table_names() == before
    assert "alembic_version" not in before
    with write_journal(postgresql_url, "a") as storage:
        storage.create_new_study([1], "a")
    assert study_names(read_journal(postgresql_url)) == ["a"]
    engine.dispose()
