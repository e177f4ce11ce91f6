"""What a study's record says, whatever has happened to its files and its budget."""

import dataclasses
import math

import pytest
from helpers.search_bench import DATA, SPACE, make_experiment, told
from helpers.simulated_executor import SimulatedExecutor
from test_finalists import repeats

from tuner.coordination.finalists import rank_finalists
from tuner.coordination.opening import open_study
from tuner.errors import RunError
from tuner.experiment import Experiment, space_size
from tuner.experiment.space import to_distributions
from tuner.journal.records import read_study
from tuner.journal.storage import read_journal, write_journal


def test_the_largest_r2_is_the_best(bench):
    experiment = make_experiment("random", trials=8, objective={"metric": "r2"})
    _, record = bench.run(experiment, SimulatedExecutor(2))
    values = [t.value for t in record.trained if t.value is not None]
    assert record.best.value == max(values)
    assert [t.value for t in record.ranked()] == sorted(values, reverse=True)
    a, b, c = (t.number for t in record.ranked()[:3])
    judged = repeats(record, {a: [0.1] * 3, b: [0.5] * 3, c: [0.3] * 3})
    assert [f.trial.number for f in rank_finalists(judged)] == [b, c, a]


def test_a_finalists_spread_is_the_sample_standard_deviation(bench):
    _, record = bench.run(make_experiment("random", trials=8), SimulatedExecutor(2))
    number = record.ranked()[0].number
    (finalist,) = rank_finalists(repeats(record, {number: [1.0, 2.0, 4.0]}))
    assert finalist.mean == pytest.approx(7 / 3)
    assert finalist.std == pytest.approx(math.sqrt(7 / 3))


def test_a_whale_search_keeps_the_budget_it_began_with(make_bench):
    long, extended = make_bench("long"), make_bench("extended")
    _, whole = long.run(make_experiment("woa", trials=24), SimulatedExecutor(2))
    extended.run(make_experiment("woa", trials=12), SimulatedExecutor(2))
    with write_journal(extended.location) as storage:
        experiment = make_experiment("woa", trials=24)
        distributions = to_distributions(experiment.search_space)
        study = open_study(storage, "x", "s", experiment, DATA, dict, distributions)
        assert study.sampler.n_generations == 2
    assert len(whole.trained) == 24


def test_a_study_with_moved_data_reads_it_where_it_is(bench):
    experiment = make_experiment("random", trials=3)
    bench.run(experiment, SimulatedExecutor(1))
    with write_journal(bench.location) as storage:
        moved = {**DATA, "path": "/elsewhere/data.csv"}
        distributions = to_distributions(experiment.search_space)
        open_study(storage, bench.location, "s", experiment, moved, dict, distributions)
    record = read_study(read_journal(bench.location), "s", bench.location)
    assert record.experiment.data.path == "/elsewhere/data.csv"


def test_the_order_of_the_space_changes_nothing(make_bench):
    small = {name: SPACE[name] for name in ("num_layers", "batch_size")}
    turned = dict(reversed(small.items()))
    records = []
    for name, space in (("one", small), ("other", turned)):
        experiment = make_experiment("tpe", space=space, trials=12)
        records.append(make_bench(name).run(experiment, SimulatedExecutor(2))[1])
    assert told(records[0]) == told(records[1])


@pytest.mark.parametrize("step", [0.9 / 11, 0.1, 0.05, 1 / 3])
def test_a_grid_with_any_step_comes_to_an_end(bench, step):
    space = {"dropout": {"type": "float", "low": 0.0, "high": 0.9, "step": step}}
    experiment = make_experiment("random", space=space, trials=100, pruner={"name": "none"})
    finished, record = bench.run(experiment, SimulatedExecutor(2))
    assert finished
    assert len(record.trained) == space_size(experiment.search_space)
    assert len(record.trials) < 1000


def test_choices_equal_but_for_rounding_are_refused():
    choices = {"dropout": {"type": "categorical", "choices": [0.3, 0.1 + 0.2]}}
    with pytest.raises(ValueError, match=r"must differ, got 0\.30* ?.*twice"):
        make_experiment("random", space=choices)


def test_a_full_disk_ends_a_search_in_one_line(bench, monkeypatch):
    import errno
    import os

    from tuner.journal import storage as journal_file

    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bench.run(make_experiment("random", trials=2), SimulatedExecutor(1))
    monkeypatch.setattr(journal_file.os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device"):
        bench.run(make_experiment("random", trials=6), SimulatedExecutor(1))
    monkeypatch.undo()
    _, record = bench.run(make_experiment("random", trials=6), SimulatedExecutor(1))
    assert len(record.trained) == 6


def test_time_unwritten_by_a_killed_run_follows_from_trials(bench):
    _, record = bench.run(make_experiment("random", trials=4), SimulatedExecutor(1))
    assert record.seconds == pytest.approx(4.0, abs=1.0)
    assert dataclasses.replace(record, seconds_recorded=60.0).seconds == 60.0


def test_an_experiment_is_loaded_as_it_was_written(bench):
    _, record = bench.run(make_experiment("random", trials=2), SimulatedExecutor(1))
    assert Experiment.model_validate(record.experiment.to_dict()) == record.experiment
