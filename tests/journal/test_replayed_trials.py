"""What a journal file comes to in memory: the same trials as Optuna's own, and small."""

import contextlib
import gc
import json
import pickle
import tracemalloc
from io import FileIO

import optuna
import pytest
from helpers.search_bench import make_experiment
from helpers.simulated_executor import SimulatedExecutor
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from tuner.coordination.coordinator import Observer
from tuner.jobs import Epoch, Outcome, OutcomeState
from tuner.journal.replay import Rows, Steps
from tuner.journal.storage import OUTCOME_ATTR, _LockedFile, read_journal, write_journal

number = st.floats(allow_nan=False)
row = st.lists(number, min_size=4, max_size=4)
fold_row = st.tuples(row, st.integers(0, 3), st.none() | number).map(lambda r: [*r[0], *r[1:]])


@given(rows=st.lists(row | fold_row, max_size=5), at=st.integers(-6, 6))
def test_small_rows_are_the_list_of_them(rows, at):
    small = Rows.of(rows)
    assert isinstance(small, Rows)
    assert small == rows
    assert len(small) == len(rows)
    assert [*map(list, small)] == rows
    assert small[at:] == [*map(tuple, rows)][at:]
    if -len(rows) <= at < len(rows):
        assert list(small[at]) == rows[at]
    assert small != [*rows, [0.0] * 4]


@pytest.mark.parametrize("other", [[1, 2], [[0.5] * 4, None], "ab", {0: 1}, None])
def test_rows_are_not_what_has_no_rows(other):
    assert Rows.of([[0.5] * 4, [0.5] * 4]) != other


@pytest.mark.parametrize("rows", [[[1.0, 2.0, 3, 4.0]], [[1.0, 2.0, 3.0]], [[1.0] * 4, [1.0] * 3]])
def test_rows_of_other_numbers_are_left_alone(rows):
    assert Rows.of(rows) is rows


@pytest.mark.parametrize("rest", [[[1.0]], [{"a": 1}]])
def test_rows_with_lists_or_dictionaries_are_left_alone(rest):
    rows = [[1.0] * 4, [1.0] * 4 + rest]
    assert Rows.of(rows) is rows


def test_a_number_in_a_row_keeps_its_type():
    numbers = [2.0, 2, 1, True, 1.0, 0, False]
    small = Rows.of([[1.0] * 4 + [number] for number in numbers])
    assert isinstance(small, Rows)
    assert [type(row[4]) for row in small] == list(map(type, numbers))


@given(values=st.lists(number, max_size=5), at=st.integers(-6, 6))
def test_small_steps_are_the_dictionary_of_them(values, at):
    steps = dict(enumerate(values))
    small = Steps.of(steps)
    assert isinstance(small, Steps) is bool(values)
    assert small == steps
    assert steps == small
    assert list(small.keys()) == list(steps)
    assert small.get(at) == steps.get(at)


@pytest.mark.parametrize("steps", [{}, {1: 0.5}, {1: 0.5, 0: 0.5}, {0: 1}])
def test_other_steps_are_left_alone(steps):
    assert Steps.of(steps) is steps


@pytest.mark.parametrize("folds", [1, 3])
def test_trials_read_are_those_that_optuna_reads(folds, bench):
    keys = {}
    if folds > 1:
        keys["data"] = {"split": {"validation": {"folds": folds, "size": 0.1}}}
    experiment = make_experiment("random", trials=24, **keys)
    executor = SimulatedExecutor(2, fails=lambda job: job.seed % 5 == 0, p_lost=0.02)
    bench.run(experiment, executor)
    optunas = JournalStorage(JournalFileBackend(bench.location))
    with write_journal(bench.location) as written:
        for ours in (written, read_journal(bench.location)):
            trials = [ours.get_all_trials(s._study_id) for s in ours.get_all_studies()]
            theirs = [optunas.get_all_trials(s._study_id) for s in optunas.get_all_studies()]
            assert trials == theirs
            kinds = {type(t.intermediate_values) for t in trials[0]}
            assert (Steps in kinds) is (ours is written)
            kept = pickle.loads(pickle.dumps(trials))  # as a copy of a study does
            assert kept == theirs
    states = {t.state.name for t in theirs[0]}
    assert states >= {"COMPLETE", "FAIL"} | ({"PRUNED"} if folds == 1 else set())


@pytest.mark.parametrize("to", ["journal", "sqlite"])
def test_optuna_copies_a_study_that_was_read(to, bench, tmp_path):
    bench.run(make_experiment("random", trials=4, epochs=3), SimulatedExecutor(1))
    source = read_journal(bench.location)
    (study,) = (s.study_name for s in source.get_all_studies())
    target = JournalStorage(JournalFileBackend(str(tmp_path / "copy.journal")))
    if to == "sqlite":
        target = RDBStorage(f"sqlite:///{tmp_path}/copy.db")
    optuna.copy_study(from_study_name=study, from_storage=source, to_storage=target)
    kept, copied = (optuna.load_study(study_name=study, storage=s) for s in (source, target))
    assert [t.user_attrs for t in copied.trials] == [t.user_attrs for t in kept.trials]
    values = [t.intermediate_values for t in kept.trials]
    assert [t.intermediate_values for t in copied.trials] == values
    assert all(values)
    if to == "sqlite":
        target.engine.dispose()


def test_a_trial_handed_out_does_not_change(tmp_path):
    with write_journal(str(tmp_path / "s.journal")) as storage:
        study = optuna.create_study(storage=storage)
        trial_id = study.ask()._trial_id
        seen = []
        for step in range(3):
            storage.set_trial_intermediate_value(trial_id, step, float(step))
            seen.append(storage.get_trial(trial_id))
        assert [len(trial.intermediate_values) for trial in seen] == [1, 2, 3]


class Memory(Observer):
    """Notes the memory that is held when half of the trials, and when all have ended."""

    def __init__(self, n_trials):
        self.n_trials, self.n_ended, self.held = n_trials, 0, []

    def finished(self, key, outcome, earlier=False):
        self.n_ended += 1
        if self.n_ended in (self.n_trials // 2, self.n_trials):
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


class Distinct(SimulatedExecutor):
    """One whose numbers have digits, as those of a training do; small integers take no memory."""

    def loss(self, job, epoch):
        return 1.0 / (3 + epoch)


@pytest.mark.parametrize("pruner", [pytest.param("none", marks=pytest.mark.slow), "patient"])
def test_a_trial_of_100_epochs_takes_less_than_20_kb(pruner, bench):
    """Of the search: journal, coordinator, and what pruning compares with."""
    options = {"name": pruner, "patience": 100} if pruner == "patient" else {"name": pruner}
    experiment = make_experiment("random", trials=60, epochs=100, pruner=options)
    memory = Memory(60)
    tracemalloc.start()
    try:
        bench.run(experiment, Distinct(2), observer=memory)
    finally:
        tracemalloc.stop()
    half, whole = memory.held
    assert 2_000 < (whole - half) / 30 < 20_000


@contextlib.contextmanager
def counted_journal(path):
    """Yield a journal's file, and a function that returns how often it was written to."""
    path.touch()
    writes = []

    class Counted(FileIO):
        stops = False

        def write(self, content):
            if self.stops:
                self.stops = False
                super().write(content[:9])
                raise KeyboardInterrupt
            writes.append(content)
            return super().write(content)

    with Counted(path, "r+") as file:
        yield file, writes


LOGS = [{"op_code": 1, "n": n} for n in range(4)]


def test_a_group_within_a_group_is_a_part_of_it(tmp_path):
    with counted_journal(tmp_path / "s.journal") as (file, writes):
        held = _LockedFile(file)
        with held.group_commit():
            held.append_logs(LOGS[:1])
            with held.group_commit():
                held.append_logs(LOGS[1:2])
            held.append_logs(LOGS[2:])
            assert writes == []
        assert len(writes) == 1


def append_and_read(held, logs):
    with held.group_commit():
        held.append_logs(logs)
        assert list(held.read_logs(0)) == logs


def test_a_group_stopped_while_it_is_written_is_written_later(tmp_path):
    """The search has gone on with it, and records the trials that still run."""
    with counted_journal(tmp_path / "s.journal") as (file, _):
        held = _LockedFile(file)
        assert list(held.read_logs(0)) == []
        file.stops = True
        with pytest.raises(KeyboardInterrupt):
            append_and_read(held, LOGS[:3])
        held.append_logs(LOGS[3:])
    lines = (tmp_path / "s.journal").read_text().splitlines()
    assert [json.loads(line) for line in lines] == LOGS


def test_a_group_stopped_while_it_is_synced_is_synced_later(tmp_path, monkeypatch):
    durable = {"op_code": 8, "user_attr": {OUTCOME_ATTR: {}}}
    stops, synced = [KeyboardInterrupt], []

    def fsync(descriptor):
        if stops:
            raise stops.pop()
        synced.append((tmp_path / "s.journal").read_text())

    monkeypatch.setattr("tuner.journal.storage.os.fsync", fsync)
    with counted_journal(tmp_path / "s.journal") as (file, _):
        held = _LockedFile(file)
        with pytest.raises(KeyboardInterrupt), held.group_commit():
            held.append_logs([durable])
        for log in LOGS[:2]:  # no records that a sync is needed for by themselves
            held.append_logs([log])
    (content,) = synced
    assert [json.loads(line) for line in content.splitlines()] == [durable, LOGS[0]]


def test_a_trial_is_asked_in_one_write_and_told_in_one(bench, monkeypatch):
    written, write = [], _LockedFile._write

    def counted(self, **keys):
        if self._pending:
            written.append([json.loads(line)["op_code"] for line in self._pending.splitlines()])
        write(self, **keys)

    monkeypatch.setattr(_LockedFile, "_write", counted)
    experiment = make_experiment("random", trials=6, epochs=7, pruner={"name": "none"})
    bench.run(experiment, SimulatedExecutor(1))
    asked = [4, *[5] * 4, 8, 8]
    told = [*[7] * 7, 6]
    assert written.count(asked) == 5  # all but the first, whose configuration was enqueued
    assert written.count(told) == 6
    assert written.count([8]) == 6  # outcomes


def test_a_metric_that_is_an_integer_stays_one(tmp_path):
    """As text it differs from the same float, and so would the digest of the outcome in MLflow."""
    path = str(tmp_path / "s.journal")
    history = (Epoch(0, 0.5, 0.5, 3, 1.0),)
    with write_journal(path) as storage:
        trial = optuna.create_study(study_name="s", storage=storage).ask()
        record = Outcome(OutcomeState.COMPLETE, 3, history=history).to_json()
        trial.set_user_attr(OUTCOME_ATTR, record)
    study = optuna.load_study(study_name="s", storage=read_journal(path))
    read = Outcome.from_json(study.trials[0].user_attrs[OUTCOME_ATTR])
    assert type(read.history[0].metric) is int
