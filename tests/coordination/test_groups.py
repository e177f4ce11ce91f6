"""Trials of a generation that are trained together: which ones, and after every interruption."""

import dataclasses
import tempfile
import threading
from pathlib import Path

import optuna
import pytest
from helpers.search_bench import Bench, make_experiment, run_killed, told
from helpers.simulated_executor import Killed, SimulatedExecutor
from helpers.simulated_study import PretendExecutor
from hypothesis import given
from hypothesis import strategies as st

from tuner.coordination.coordinator import Observer
from tuner.coordination.groups import Grouping
from tuner.errors import ExperimentError
from tuner.executors import Finished, Lost, Reported
from tuner.jobs import GroupJob
from tuner.journal.records import Status
from tuner.journal.storage import GPU_ATTR, GROUP_ATTR, LOST_ATTR, read_journal

ALL = Grouping(gpu=False, always=True)
SPACE = {
    "hidden_size": {"type": "int", "low": 8, "high": 128, "log": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.5},
    "batch_size": {"type": "categorical", "choices": [16, 32]},
}
GENERATIONAL = pytest.mark.parametrize("strategy", ["pso", "qpso", "woa", "nsga2"])


def grouped_experiment(strategy="woa", **keys):
    return make_experiment(strategy, **{"space": SPACE, "trials": 24, "population": 8} | keys)


def run(bench, experiment, executor, **options):
    return bench.run(experiment, executor, grouping=ALL, **options)


def groups(record):
    """The trials that were trained together, each group once."""
    found = dict.fromkeys(t.group for t in record.trials if t.group)
    for group in found:
        assert all(record.trials[number].group == group for number in group)
    return set(found)


class Seen(Observer):
    def __init__(self):
        self.ended, self.epochs, self.losses = [], [], []

    def finished(self, key, outcome, earlier=False):
        self.ended.append((key.number, earlier))

    def epoch(self, key, epoch):
        self.epochs.append(key.number)

    def lost(self, key, reason):
        self.losses.append(key.number)


@GENERATIONAL
def test_members_are_of_one_generation_and_recorded(strategy, bench):
    executor = SimulatedExecutor(2)
    experiment = grouped_experiment(strategy)
    _, record = run(bench, experiment, executor)
    found = groups(record)
    assert len(found) > 3
    size = experiment.strategy.rhythm.size
    for group in found:
        assert len({number // size for number in group}) == 1
        assert len({record.trials[number].params["batch_size"] for number in group}) == 1
        assert all(record.trials[number].repeat_of is None for number in group)
    assert {tuple(f"trial {number}" for number in group) for group in found} == set(executor.groups)


@given(st.integers(1, 9), st.integers(0, 2**32))
def test_workers_and_the_order_of_arrival_change_no_group(n_workers, chaos):
    experiment = grouped_experiment(trials=16)
    with tempfile.TemporaryDirectory() as folder:
        _, one = run(Bench(Path(folder, "one")), experiment, SimulatedExecutor(1))
        executor = SimulatedExecutor(n_workers, chaos, p_lost=0.02)
        _, other = run(Bench(Path(folder, "other")), experiment, executor, retries=1000)
    assert groups(one) == groups(other)
    assert told(one) == told(other)


@GENERATIONAL
def test_pruning_within_a_group_is_that_of_single_trials(strategy, make_bench):
    experiment = grouped_experiment(strategy)
    _, single = make_bench("single").run(experiment, SimulatedExecutor(2))
    _, together = run(make_bench("together"), experiment, SimulatedExecutor(2))
    assert single.count(Status.PRUNED) > 0
    assert not groups(single)
    assert told(together) == told(single)


@GENERATIONAL
def test_a_search_killed_within_a_group_ends_the_same(strategy, make_bench):
    experiment = grouped_experiment(strategy)
    _, reference = run(make_bench("reference"), experiment, SimulatedExecutor(2))
    for at in (0, 1, 3, 7, 8, 12, 23):
        bench = make_bench(f"killed{at}")
        with pytest.raises(Killed):
            run(bench, experiment, SimulatedExecutor(3, chaos=at, die_after=at))
        _, record = run(bench, experiment, SimulatedExecutor(2, chaos=at + 50))
        assert told(record) == told(reference)
        assert groups(record) == groups(reference)


@pytest.mark.parametrize("written", range(3, 320, 13))
def test_a_journal_cut_off_anywhere_forms_the_same_groups(written, make_bench):
    experiment = grouped_experiment("pso", trials=16)
    whole, cut = make_bench("whole"), make_bench("cut")
    _, reference = run(whole, experiment, SimulatedExecutor(2))
    lines = Path(whole.location).read_bytes().splitlines(keepends=True)
    Path(cut.location).write_bytes(b"".join(lines[: min(written, len(lines) - 1)]))
    _, record = run(cut, experiment, SimulatedExecutor(3, chaos=written))
    assert told(record) == told(reference)
    assert groups(record) == groups(reference)


def test_a_budget_raised_after_any_cut_keeps_what_is_decided(make_bench):
    whole = make_bench("whole")
    _, before = run(whole, grouped_experiment("pso", trials=13), SimulatedExecutor(2))
    lines = Path(whole.location).read_bytes().splitlines(keepends=True)
    decisions = [n for n, line in enumerate(lines) if GROUP_ATTR.encode() in line]
    last = [n for n in decisions if n > decisions[0] + 8]  # of the trials 8 to 12
    assert len(last) == 5
    for written in [*range(last[0] - 2, last[-1] + 30), len(lines) - 1]:
        cut, executor = make_bench(f"cut{written}"), SimulatedExecutor(3, chaos=written)
        Path(cut.location).write_bytes(b"".join(lines[:written]))
        _, record = run(cut, grouped_experiment("pso", trials=24), executor)
        begun = {tuple(int(key.split()[1]) for key in group) for group in executor.groups}
        assert begun <= groups(record)  # which checks that members agree
        decided = groups(before) if written > last[-1] else set()
        assert decided <= groups(record)
        for group in groups(record) - decided:
            assert group[0] >= 13 or not decided or group[0] < 8


def test_a_half_recorded_group_is_trained_again_whole(make_bench):
    experiment = grouped_experiment(trials=8)
    _, reference = run(make_bench("reference"), experiment, SimulatedExecutor(1))
    bench = make_bench("killed")
    first = SimulatedExecutor(1, die_after=2)
    with pytest.raises(Killed):
        run(bench, experiment, first)
    begun, recorded = first.groups[0], first.delivered
    assert len(begun) > 2
    assert set(recorded) < set(begun)
    seen, again = Seen(), SimulatedExecutor(1)
    _, record = run(bench, experiment, again, observer=seen)
    assert begun in again.groups  # with the recorded ones
    assert told(record) == told(reference)
    numbers = {int(key.split()[1]) for key in recorded}
    assert {number for number, earlier in seen.ended if earlier} == numbers
    assert not numbers & set(seen.epochs)  # what is recorded is trained again unseen
    kept = {n: record.trials[n].outcome.finished_at for n in numbers}
    assert sorted(kept.values()) == [1e9 + 1, 1e9 + 2]  # of the first run


def test_a_recorded_member_is_pruned_again_where_it_was(make_bench):
    experiment = grouped_experiment("woa")
    _, reference = run(make_bench("whole"), experiment, SimulatedExecutor(1))
    lengths = {
        f"trial {t.number}": len(t.outcome.history)
        for t in reference.trials
        if t.status is Status.PRUNED and len(t.group) > 1
    }
    stops, seen = {}, set()

    class Answers(SimulatedExecutor):
        def answer(self, key, go_on):
            if not go_on:
                stops[key] = len(self._running[key][1])
            super().answer(key, go_on)

    for at in range(8, 24, 2):
        bench, first = make_bench(f"at{at}"), SimulatedExecutor(1, chaos=at, die_after=at)
        with pytest.raises(Killed):
            run(bench, experiment, first)
        begun = [group for group in first.groups if set(first.delivered) & set(group)]
        half = [key for group in begun if set(group) - set(first.delivered) for key in group]
        stops.clear()
        run(bench, experiment, Answers(1))
        again = [key for key in half if key in lengths and key in first.delivered]
        assert {key: stops.get(key) for key in again} == {key: lengths[key] for key in again}
        seen.update(again)
    assert seen


def test_a_search_killed_again_and_again_comes_to_an_end(make_bench):
    experiment = grouped_experiment()
    _, reference = run(make_bench("reference"), experiment, SimulatedExecutor(2))
    bench = make_bench("killed")
    grouping = bench.run
    bench.run = lambda *args, **keys: grouping(*args, grouping=ALL, **keys)
    record, n_kills, _ = run_killed(bench, experiment, die_after=3)
    assert n_kills > 6
    assert told(record) == told(reference)
    assert groups(record) == groups(reference)


@pytest.mark.parametrize(("retries", "as_groups"), [(0, 1), (1, 1), (2, 2)])
def test_the_last_retry_of_a_lost_group_is_of_single_trials(retries, as_groups, bench):
    seen = Seen()
    executor = SimulatedExecutor(2, p_lost=1.0)
    finished, record = run(
        bench, grouped_experiment(trials=8), executor, retries=retries, observer=seen
    )
    assert finished
    assert {t.status for t in record.trials} == {Status.FAILED}
    reason = f"lost {as_groups + 1} times: killed by signal 9"
    assert {t.outcome.reason for t in record.trials} == {reason}
    assert sorted(seen.losses) == sorted(as_groups * list(range(8)))
    assert len(executor.groups) == as_groups * len(set(executor.groups)) > 0
    assert not groups(record)  # at last, each was trained by itself


class DeadlyMember(SimulatedExecutor):
    """A worker dies that trains trial 3."""

    def poll(self, timeout_s):
        events = super().poll(timeout_s)
        keys = next((keys for keys in self._workers if "trial 3" in keys), None)
        if keys is None or any(event.key in keys for event in events):
            return events
        self._workers.remove(keys)
        for key in keys:
            del self._running[key]
        return [*events, *(Lost(key, "killed by signal 11") for key in keys)]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_member_that_kills_its_worker_fails_alone(retries, make_bench):
    def searched(name):
        executor = DeadlyMember(2)
        experiment = grouped_experiment(trials=8, pruner={"name": "none"})
        return run(make_bench(name), experiment, executor, retries=retries)[1], executor

    record, executor = searched("whole")
    assert [t.number for t in record.trials if t.status is Status.FAILED] == [3]
    assert any("trial 3" in group and len(group) > 2 for group in executor.groups)
    assert told(searched("again")[0]) == told(record)


def test_a_stopped_search_resumes_with_the_same_groups(make_bench):
    experiment = grouped_experiment()
    _, reference = run(make_bench("reference"), experiment, SimulatedExecutor(2))
    bench, executor = make_bench("stopped"), SimulatedExecutor(1)

    class Stops(Observer):
        def finished(self, key, outcome, earlier=False):
            stop.set()

    stop = threading.Event()
    finished, record = run(bench, experiment, executor, stop=stop, observer=Stops())
    assert not finished
    assert len(record.trained) == len(executor.groups[0])  # the group in progress ended
    _, record = run(bench, experiment, SimulatedExecutor(2))
    assert told(record) == told(reference)
    assert groups(record) == groups(reference)


def test_a_larger_budget_groups_what_it_adds_by_itself(make_bench):
    bench = make_bench("extended")
    _, before = run(bench, grouped_experiment(trials=11), SimulatedExecutor(2))
    _, record = run(bench, grouped_experiment(trials=24), SimulatedExecutor(2))
    assert groups(before) < groups(record)
    for group in groups(record) - groups(before):
        assert min(group) >= 11


def test_a_budget_raised_within_a_group_keeps_the_group(make_bench):
    bench, executor = make_bench("extended"), SimulatedExecutor(1, die_after=9)
    with pytest.raises(Killed):  # one of the trials 8 to 12 is recorded
        run(bench, grouped_experiment(trials=13), executor)
    begun = {tuple(int(key.split()[1]) for key in group) for group in executor.groups}
    _, record = run(bench, grouped_experiment(trials=24), SimulatedExecutor(2))
    assert begun <= groups(record)
    assert groups(record) > begun
    assert all(min(group) >= 13 for group in groups(record) - begun)
    assert len(record.trained) == 24


def test_what_a_larger_budget_adds_to_singles_is_grouped(make_bench):
    bench, executor = make_bench("extended"), SimulatedExecutor(1, die_after=9)
    with pytest.raises(Killed):  # one of the trials 8 and 9 is recorded
        run(bench, grouped_experiment("pso", trials=10), executor)
    _, record = run(bench, grouped_experiment("pso", trials=16), SimulatedExecutor(2))
    assert record.trials[8].params["batch_size"] != record.trials[9].params["batch_size"]
    assert {min(group) for group in groups(record) if max(group) > 7} == {10}


def test_groups_of_a_loss_that_a_kill_cut_off_end_the_same(make_bench):
    experiment = grouped_experiment(trials=8)
    whole = make_bench("whole")
    _, reference = run(whole, experiment, SimulatedExecutor(1, p_lost=1.0), retries=1)
    lines = Path(whole.location).read_bytes().splitlines(keepends=True)
    lost = [n for n, line in enumerate(lines) if LOST_ATTR.encode() in line]
    for written in range(lost[0], lost[8], 2):
        cut = make_bench(f"cut{written}")
        Path(cut.location).write_bytes(b"".join(lines[:written]))
        _, record = run(cut, experiment, SimulatedExecutor(1, p_lost=1.0), retries=1)
        assert {t.status for t in record.trials} == {Status.FAILED}
        assert all(not t.group or len(t.lost) < 2 for t in record.trials)


def test_a_group_that_has_begun_is_not_broken_up_by_a_limit(make_case):
    narrow = {"hidden_size": {"type": "int", "low": 4, "high": 12}}
    case, timed = make_case("case"), {"epochs": 3, "trial_timeout": 60}
    first, again = PretendExecutor(1, die_after=2), PretendExecutor(2)
    with pytest.raises(Killed):
        case.run(8, space=narrow, executor=first, **PSO)
    begun = first.groups[0]
    assert set(first.delivered) < set(begun)
    record = case.run(8, space=narrow, executor=again, **PSO, budget=timed | {"trials": 8})
    assert begun in again.groups
    assert {tuple(f"trial {n}" for n in group) for group in groups(record)} == {begun}
    assert all(job.timeout_s is None for key, job in again._jobs.items() if key in begun)
    assert again._jobs["trial 4"].timeout_s == 60


def test_a_limit_that_is_lifted_lets_later_trials_be_grouped(make_case):
    narrow = {"hidden_size": {"type": "int", "low": 4, "high": 30}}
    pso = {"strategy": {"name": "pso", "population": 8}}
    timed = {"epochs": 3, "trial_timeout": 60, "trials": 16}
    case, first = make_case("case"), PretendExecutor(1, die_after=2)
    with pytest.raises(Killed):
        case.run(16, space=narrow, executor=first, **pso, budget=timed)
    second, third = PretendExecutor(1, die_after=1), PretendExecutor(1)
    with pytest.raises(Killed):
        case.run(16, space=narrow, executor=second, **pso)
    record = case.run(16, space=narrow, executor=third, **pso)
    alone = {int(key.split()[1]) for key in first.delivered}
    assert alone.isdisjoint({number for group in groups(record) for number in group})
    assert second.groups
    assert set(second.groups) <= {tuple(f"trial {n}" for n in group) for group in groups(record)}


def test_a_duplicate_is_in_no_group(bench):
    space = {
        "hidden_size": {"type": "int", "low": 8, "high": 12},
        "batch_size": SPACE["batch_size"],
    }
    executor = SimulatedExecutor(2)
    _, record = run(bench, grouped_experiment("pso", space=space, trials=9), executor)
    assert any(t.repeat_of is not None for t in record.trials)
    assert executor.groups
    assert all(not t.group for t in record.trials if t.repeat_of is not None)


def test_the_longest_group_starts_first(bench):
    costs = {}

    class Costs(Observer):
        def dispatched(self, key, cost):
            costs[f"trial {key.number}"] = cost

    class Submitted(SimulatedExecutor):
        def submit(self, job):
            keys = [each.key for each in job.jobs] if isinstance(job, GroupJob) else [job.key]
            self.submitted.append(sum(costs[key] for key in keys))
            super().submit(job)

    executor = Submitted(1)
    executor.submitted = []
    run(bench, grouped_experiment(trials=8), executor, observer=Costs())
    assert len(executor.submitted) > 1
    assert executor.submitted == sorted(executor.submitted, reverse=True)


# In whole searches.

PSO = {"strategy": {"name": "pso", "population": 4}}
BATCHED = PSO | {"training": {"execution": "batched"}}


def test_finalists_are_trained_one_by_one(case):
    record = case.run(8, **BATCHED)
    keys = [key for group in case.executor.groups for key in group]
    assert keys
    assert all(key.startswith("trial") for key in keys)
    assert len(record.finalists) > 3
    assert not [run for run in record.finalists if run.group]


def test_auto_groups_only_narrow_models_where_there_is_no_gpu(make_case):
    narrow = {"hidden_size": {"type": "int", "low": 4, "high": 12}}
    wide = {"hidden_size": {"type": "int", "low": 100, "high": 128}}
    assert groups(make_case("narrow").run(8, space=narrow, **PSO))
    assert not groups(make_case("wide").run(8, space=wide, **PSO))


def test_the_choice_of_auto_is_kept_on_another_machine(make_case):
    wide = {"hidden_size": {"type": "int", "low": 100, "high": 128}}
    case, reference = make_case("case"), make_case("reference")
    on_gpu = PretendExecutor(2)
    on_gpu.has_gpus = True
    whole = reference.run(8, space=wide, executor=on_gpu, **PSO)
    begun = PretendExecutor(2, die_after=2)
    begun.has_gpus = True
    with pytest.raises(Killed):
        case.run(8, space=wide, executor=begun, **PSO)
    record = case.run(8, space=wide, **PSO)  # without a GPU
    assert groups(whole)
    assert groups(record) == groups(whole)
    study = optuna.load_study(study_name="s", storage=read_journal(case.location))
    assert study.user_attrs[GPU_ATTR] is True


@pytest.mark.parametrize(
    "keys",
    [
        {"strategy": {"name": "random", "batch": 4}},
        PSO | {"asynchronous": True},
        PSO | {"budget": {"trial_timeout": 60}},
        PSO | {"training": {"execution": "single"}},
    ],
)
def test_auto_trains_one_by_one_where_it_must(keys, case):
    small = {"hidden_size": {"type": "int", "low": 4, "high": 12}}
    record = case.run(4, space=small, **keys)
    assert not case.executor.groups
    study = optuna.load_study(study_name="s", storage=read_journal(case.location))
    assert not any(GROUP_ATTR in trial.user_attrs for trial in study.trials)
    assert len(record.trained) == 4


def test_batched_is_refused_where_no_trial_can_be(case):
    space = {"cell": {"type": "categorical", "choices": ["gru", "rnn"]}}
    with pytest.raises(ExperimentError) as error:
        case.run(4, space=space, hyperparameters={"cell": "gru"}, **BATCHED)
    assert str(error.value) == (
        "training.execution: no trial can be trained in a group: the cell gru is not batched, got "
        "batched; write auto, which trains such trials one by one"
    )
    assert not Path(case.location).exists()


def test_batched_is_taken_where_one_combination_can_be(case):
    space = {
        "cell": {"type": "categorical", "choices": ["gru", "lstm"]},
        "optimizer": {"type": "categorical", "choices": ["sgd", "adam"]},
        "hidden_size": {"type": "int", "low": 4, "high": 12},
        "batch_size": {"type": "int", "low": 8, "high": 16},
        "num_layers": {"type": "int", "low": 1, "high": 2},
        "schedule": {"type": "categorical", "choices": ["none", "cosine"]},
        **{
            name: {"type": "float", "low": 0.1, "high": 0.3}
            for name in ("dropout", "learning_rate", "weight_decay", "gradient_clip")
        },
    }
    start = {"cell": "gru", "optimizer": "sgd"}
    case.run(8, space=space, hyperparameters=start, **BATCHED)


def test_batched_is_taken_where_some_trials_can_be(case):
    space = {"cell": {"type": "categorical", "choices": ["gru", "lstm"]},
             "hidden_size": {"type": "int", "low": 4, "high": 12}}  # fmt: skip
    record = case.run(8, space=space, hyperparameters={"cell": "gru"}, **BATCHED)
    assert {record.trials[n].params["cell"] for g in groups(record) for n in g} == {"lstm"}


def test_batched_is_refused_by_an_executor_without_groups(case):
    class Foreign(PretendExecutor):
        has_gpus = property()

    with pytest.raises(ExperimentError, match="the executor trains no groups, got batched"):
        case.run(4, executor=Foreign(2), **BATCHED)


def test_another_execution_is_refused_and_the_default_goes_on(case):
    case.run(4, **BATCHED)
    with pytest.raises(Exception, match=r"was begun with training.execution='batched', got 'sing"):
        case.run(8, **PSO, training={"execution": "single"})
    record = case.run(8, **PSO)  # the file says nothing
    assert record.experiment.training.execution == "batched"
    assert len(groups(record)) > 1


def test_events_of_members_are_those_of_trials(bench):
    class Watches(SimulatedExecutor):
        def poll(self, timeout_s):
            events = super().poll(timeout_s)
            self.events += events
            return events

    executor = Watches(2)
    executor.events = []
    seen = Seen()
    _, record = run(bench, grouped_experiment(trials=8), executor, observer=seen)
    assert len([e for e in executor.events if isinstance(e, Finished)]) == 8
    assert len([e for e in executor.events if isinstance(e, Reported)]) == len(seen.epochs)
    for trial in record.trials:
        epochs = seen.epochs.count(trial.number)
        assert epochs == len(trial.outcome.history)


def test_a_group_takes_the_seconds_of_all_its_members(make_bench):
    bench = make_bench("unequal")
    _, record = run(bench, grouped_experiment(trials=8), SimulatedExecutor(1))
    assert max(len(trial.group) for trial in record.trials) > 2
    # One worker trains group after group; a member that trains longer has a larger share.
    ended, now, trials = {}, 1e9, list(record.trials)
    for group in sorted(groups(record)):
        now += sum(1.0 + number for number in group)
        ended |= {number: now - 0.1 * place for place, number in enumerate(group)}
    trials = [
        dataclasses.replace(
            trial,
            outcome=dataclasses.replace(
                trial.outcome, seconds=1.0 + trial.number, finished_at=ended[trial.number]
            ),
        )
        for trial in record.trials
    ]
    uneven = dataclasses.replace(record, trials=tuple(trials), seconds_recorded=0.0)
    assert uneven.seconds == pytest.approx(sum(1.0 + number for number in range(8)))
