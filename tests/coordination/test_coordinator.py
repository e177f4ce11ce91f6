"""The laws of the coordinator, on simulated training with random timing."""

import dataclasses
import math
import threading
from pathlib import Path

import optuna
import pytest
from helpers.retrained import repeats
from helpers.search_bench import (
    DATA,
    FINITE_SPACE,
    REF,
    SMALL_SPACE,
    make_experiment,
    run_killed,
    told,
)
from helpers.simulated_executor import Killed, SimulatedExecutor
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.coordination.coordinator import Observer
from tuner.coordination.finalists import objectives, pareto_front, rank_finalists
from tuner.coordination.history import configuration_key, unseen_configuration
from tuner.coordination.opening import StudyData, open_study
from tuner.coordination.pruning import should_prune
from tuner.errors import StudyError
from tuner.executors import Finished, Lost
from tuner.experiment import space_size
from tuner.jobs import OutcomeState, cost, timed_out, train_job
from tuner.journal.records import Status, read_study
from tuner.journal.storage import ASKED_AFTER_ATTR, read_journal, write_journal
from tuner.strategies import STRATEGIES

EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)
SOME_STRATEGIES = pytest.mark.parametrize("strategy", ["tpe", "woa", "brute"])


@EVERY_STRATEGY
def test_the_number_of_workers_and_their_timing_change_nothing(strategy, make_bench):
    experiment = make_experiment(strategy)
    _, reference = make_bench("one").run(experiment, SimulatedExecutor(1))
    assert reference.count(Status.PRUNED) > 0, "a search without pruning would prove little"
    for workers, chaos in [(2, 1), (5, 2), (8, 3)]:
        _, record = make_bench(f"{workers}").run(experiment, SimulatedExecutor(workers, chaos))
        assert told(record) == told(reference)


@EVERY_STRATEGY
def test_a_search_killed_after_any_result_ends_the_same(strategy, make_bench):
    experiment = make_experiment(strategy, trials=14)
    _, reference = make_bench("reference").run(experiment, SimulatedExecutor(2))
    for at in (0, 1, 5, 6, 11, 13):
        bench = make_bench(f"killed{at}")
        with pytest.raises(Killed):
            bench.run(experiment, SimulatedExecutor(3, chaos=at, die_after=at))
        finished, record = bench.run(experiment, SimulatedExecutor(2, chaos=at + 50))
        assert finished
        assert told(record) == told(reference)


def test_a_search_killed_again_and_again_trains_nothing_twice(make_bench):
    experiment = make_experiment("woa")
    _, reference = make_bench("reference").run(experiment, SimulatedExecutor(2))
    record, n_kills, delivered = run_killed(make_bench("killed"), experiment)
    assert n_kills > 10
    assert told(record) == told(reference)
    assert len(delivered) == len(set(delivered)) == len(record.trained)


@pytest.mark.parametrize("written", range(0, 250, 11))
def test_a_journal_cut_off_anywhere_ends_like_one_that_was_not(written, make_bench):
    experiment = make_experiment("pso", trials=12)
    whole, cut = make_bench("whole"), make_bench("cut")
    _, reference = whole.run(experiment, SimulatedExecutor(2))
    lines = Path(whole.location).read_bytes().splitlines(keepends=True)
    if written >= len(lines):
        written = len(lines) - 1
    torn = lines[written][: len(lines[written]) // 2]
    Path(cut.location).write_bytes(b"".join(lines[:written]) + torn)
    _, record = cut.run(experiment, SimulatedExecutor(3, chaos=written))
    assert told(record) == told(reference)


def test_a_lost_job_runs_again_and_leaves_no_trace_in_the_result(make_bench):
    experiment = make_experiment("tpe")
    _, reference = make_bench("calm").run(experiment, SimulatedExecutor(2))
    executor = SimulatedExecutor(3, chaos=4, p_lost=0.05)
    _, record = make_bench("losing").run(experiment, executor, retries=1000)
    assert len(executor.begun) > len(record.trained)
    assert told(record) == told(reference)


def test_a_job_that_is_lost_too_often_fails_with_its_reason(bench):
    finished, record = bench.run(
        make_experiment("random", trials=3), SimulatedExecutor(2, p_lost=1.0), retries=2
    )
    assert finished
    assert [t.status for t in record.trials] == [Status.FAILED] * 3
    assert record.trials[0].outcome.reason == "lost 3 times: killed by signal 9"
    assert record.trials[0].lost == ("killed by signal 9",) * 3


def test_a_lost_trial_is_recorded_and_counted_after_a_kill(bench):
    experiment = make_experiment("random", trials=1, epochs=2)
    for _ in range(2):
        executor = SimulatedExecutor(1)
        executor.poll = lambda timeout_s, e=executor: lose_once(e)
        with pytest.raises(Killed):
            bench.run(experiment, executor, retries=2)
    calm = SimulatedExecutor(1)
    _, record = bench.run(experiment, calm, retries=2)
    assert record.trials[0].status is Status.COMPLETE
    assert record.trials[0].lost == ("killed by signal 9",) * 2


def lose_once(executor):
    """Lose the first job that was handed out; die when asked again."""
    if executor.begun:
        raise Killed
    job = executor._queue.pop(0)
    executor.begun.append(job.key)
    return [Lost(job.key, "killed by signal 9")]


def test_a_lost_job_keeps_its_reported_epochs(bench):
    class TimesOut(SimulatedExecutor):
        def poll(self, timeout_s):
            events = super().poll(timeout_s)
            if isinstance(events[0], Finished):
                events = [Finished(events[0].key, timed_out(self.jobs[events[0].key]))]
            return events

        def submit(self, job):
            self.jobs[job.key] = job
            super().submit(job)

    executor = TimesOut(1)
    executor.jobs = {}
    experiment = make_experiment("random", budget={"trials": 2, "epochs": 3, "trial_timeout": 1.5})
    _, record = bench.run(experiment, executor)
    for trial in record.trials:
        assert trial.status is Status.FAILED
        assert trial.outcome.reason == "it trained for longer than budget.trial_timeout, 1.5 s"
        assert [e.epoch for e in trial.outcome.history] == [0, 1, 2]


@SOME_STRATEGIES
def test_failed_trials_do_not_stop_a_search(strategy, bench):
    experiment = make_experiment(strategy)
    executor = SimulatedExecutor(2, fails=lambda job: job.hyperparameters["num_layers"] == 2)
    finished, record = bench.run(experiment, executor)
    assert finished
    assert record.count(Status.FAILED) > 0
    assert record.count(Status.COMPLETE) > 0
    assert len(record.trained) == experiment.budget.trials


@SOME_STRATEGIES
def test_a_search_in_which_everything_fails_comes_to_an_end(strategy, bench):
    finished, record = bench.run(
        make_experiment(strategy), SimulatedExecutor(2, fails=lambda job: True)
    )
    assert finished
    assert record.count(Status.FAILED) == len(record.trained) == 24


@EVERY_STRATEGY
def test_trials_are_asked_exactly_when_earlier_ones_are_told(strategy, bench):
    experiment = make_experiment(strategy)
    bench.run(experiment, SimulatedExecutor(4, chaos=9))
    study = optuna.load_study(study_name="s", storage=read_journal(bench.location))
    for trial in study.trials:
        in_generations = experiment.strategy.rhythm.generational
        expected = trial.number // 6 * 6 if in_generations else max(0, trial.number - 2)
        assert trial.user_attrs[ASKED_AFTER_ATTR] == expected


@EVERY_STRATEGY
def test_a_finite_space_is_exhausted_and_ends_the_search(strategy, bench):
    experiment = make_experiment(strategy, space=SMALL_SPACE, trials=100)
    executor = SimulatedExecutor(3, fails=lambda job: job.hyperparameters["batch_size"] == 8)
    finished, record = bench.run(experiment, executor)
    assert finished
    assert len(record.trained) == 12
    assert len({tuple(t.params.items()) for t in record.trained}) == 12
    assert len(executor.begun) == 12


def test_a_duplicate_takes_the_first_outcome_untrained(bench):
    experiment = make_experiment("random", space=SMALL_SPACE, trials=11)
    executor = SimulatedExecutor(3)
    _, record = bench.run(experiment, executor)
    repeats = [t for t in record.trials if t.repeat_of is not None]
    assert repeats
    for repeat in repeats:
        first = record.trials[repeat.repeat_of]
        assert first.repeat_of is None
        assert first.params == repeat.params
        assert first.outcome == repeat.outcome
        assert f"trial {repeat.number}" not in executor.begun
    study = optuna.load_study(study_name="s", storage=read_journal(bench.location))
    states = [t.state for t in study.trials]
    assert optuna.trial.TrialState.RUNNING not in states


def test_pruning_sees_only_what_was_told_when_a_trial_began(bench, monkeypatch):
    seen = {}

    def spy(pruner, evidence, number, *rest):
        seen.setdefault(number, set()).add(tuple(t.number for t in evidence.trials))
        return False

    monkeypatch.setattr("tuner.coordination.coordinator.should_prune", spy)
    _, record = bench.run(make_experiment("woa"), SimulatedExecutor(4, chaos=2))
    assert len(seen) == 24
    for number, told_then in seen.items():
        earlier = record.trials[: number // 6 * 6]
        assert told_then == {tuple(t.number for t in earlier if t.repeat_of is None)}
    assert any(t.repeat_of is not None for t in record.trials), "repeats must not count as evidence"


def test_trial_0_is_the_experiments_start(bench):
    experiment = make_experiment("pso", hyperparameters={"hidden_size": 77})
    _, record = bench.run(experiment, SimulatedExecutor(1))
    assert record.trials[0].params["hidden_size"] == 77
    assert record.trials[0].params["batch_size"] == 32


def test_a_longer_budget_goes_on_where_the_search_ended(bench):
    bench.run(make_experiment("woa", trials=10), SimulatedExecutor(2))
    executor = SimulatedExecutor(2)
    _, record = bench.run(make_experiment("woa", trials=17), executor)
    assert len(record.trained) == 17
    assert len(executor.begun) == 7
    assert "trial 9" not in executor.begun


def test_a_stopped_search_resumes_to_the_same_end(make_bench):
    experiment = make_experiment("tpe")
    _, reference = make_bench("reference").run(experiment, SimulatedExecutor(2))
    bench, stop = make_bench("stopped"), threading.Event()

    class StopAfter7(Observer):
        count = 0

        def finished(self, key, outcome, earlier=False):
            self.count += 1
            if self.count == 7:
                stop.set()

    executor = SimulatedExecutor(3)
    finished, record = bench.run(experiment, executor, observer=StopAfter7(), stop=stop)
    assert not finished
    assert 7 <= sum(t.outcome is not None for t in record.trials) <= 9
    finished, record = bench.run(experiment, SimulatedExecutor(2))
    assert finished
    assert told(record) == told(reference)


def test_no_trial_starts_when_the_time_is_used_up(bench):
    finished, record = bench.run(
        make_experiment("random"), SimulatedExecutor(2), out_of_time=lambda: True
    )
    assert finished
    assert record.trials == ()


def test_more_time_resumes_a_search_stopped_by_time(make_bench):
    experiment = make_experiment("woa", population=12, trials=24)
    _, reference = make_bench("calm").run(experiment, SimulatedExecutor(2))
    bench, executor = make_bench("timed"), SimulatedExecutor(2)
    finished, record = bench.run(experiment, executor, out_of_time=lambda: executor.finished >= 3)
    assert finished
    assert 3 <= len(record.trained) <= 5
    assert sorted(executor.begun) == sorted(executor.delivered)
    _, resumed = bench.run(experiment, SimulatedExecutor(2))
    assert told(resumed) == told(reference)


def test_a_trial_lost_after_ctrl_c_is_left_to_the_next_run(bench):
    stop = threading.Event()

    class Loses(SimulatedExecutor):
        def poll(self, timeout_s):
            events = super().poll(timeout_s)
            if self.begun and not stop.is_set():
                stop.set()
                self._p_lost = 1.0
            return events

    executor = Loses(2, chaos=1)
    finished, record = bench.run(make_experiment("random"), executor, stop=stop)
    assert not finished
    assert len(executor.begun) == 2
    lost = [t for t in record.trials if t.lost]
    assert lost
    assert all(t.status is Status.RUNNING for t in lost)
    finished, record = bench.run(make_experiment("random"), SimulatedExecutor(2))
    assert finished
    assert record.count(Status.RUNNING) == 0


def test_outcomes_survive_the_journal_field_by_field(bench):
    _, record = bench.run(make_experiment("woa"), SimulatedExecutor(2))
    trial = next(t for t in record.trials if t.status is Status.PRUNED)
    assert trial.outcome.state is OutcomeState.PRUNED
    assert trial.outcome.objective is None
    assert trial.value is None
    assert trial.outcome.history[0].time == 1e9
    assert (trial.generation, trial.individual) == divmod(trial.number, 6)


def test_of_a_generation_the_dearest_trials_are_begun_first(bench):
    executor = SimulatedExecutor(1)
    _, record = bench.run(make_experiment("woa", trials=12), executor)
    for generation in (record.trials[:6], record.trials[6:12]):
        numbers = {f"trial {t.number}": t.params for t in generation if t.repeat_of is None}
        begun = [numbers[key] for key in executor.begun if key in numbers]
        smallest = min(
            begun, key=lambda p: p["hidden_size"] * p["num_layers"] + 1e3 / p["batch_size"]
        )
        assert begun.index(smallest) >= len(begun) // 2


def test_larger_models_and_smaller_batches_cost_more():
    def of(**params):
        return cost(train_job(make_experiment("woa"), (REF,), "j", params, 0))

    for more, less in [
        ({"hidden_size": 128}, {"hidden_size": 8}),
        ({"num_layers": 3}, {"num_layers": 1}),
        ({"batch_size": 8}, {"batch_size": 64}),
        ({"bidirectional": True}, {"bidirectional": False}),
        ({"window": 48}, {"window": 12}),
        ({"segment": 1, "window": 48}, {"segment": 12, "window": 48}),
        ({"conv_channels": 64}, {"conv_channels": 0}),
        ({"decoder": "recursive"}, {"decoder": "direct"}),
        ({"decoder": "segments"}, {"decoder": "direct"}),
    ]:
        assert of(**more) > of(**less)


class Watched(SimulatedExecutor):
    """Notes how many jobs were begun and how many it has whenever it is asked for events."""

    def poll(self, timeout_s):
        n_jobs = len(self._queue) + len(self._running)
        self.seen = [*getattr(self, "seen", []), (len(self.begun) + len(self._queue), n_jobs)]
        return super().poll(timeout_s)


@SOME_STRATEGIES
def test_no_worker_waits_while_there_is_something_to_train(strategy, bench):
    experiment = make_experiment(strategy, asynchronous=True)
    executor = Watched(5, chaos=2)
    finished, record = bench.run(experiment, executor)
    assert finished
    assert len(record.trained) == 24
    assert record.count(Status.RUNNING) == 0
    n_begun = [begun for begun, _ in executor.seen]
    loads = [load for begun, load in executor.seen if begun < 24]
    assert n_begun[-1] == 24
    assert set(loads) == {5}


@SOME_STRATEGIES
def test_killed_again_and_again_it_trains_nothing_twice(strategy, bench):
    record, n_kills, delivered = run_killed(bench, make_experiment(strategy, asynchronous=True))
    assert n_kills > 10
    assert len(delivered) == len(set(delivered)) == len(record.trained) == 24
    assert [t.number for t in record.trials] == list(range(len(record.trials)))


@pytest.mark.parametrize("name", ["successive_halving", "hyperband", "median"])
def test_pruning_compares_with_every_trial_told_so_far(name, bench, monkeypatch):
    """In the repeatable mode a trial of one batch is compared with earlier batches alone."""
    seen = {}

    def spy(pruner, evidence, number, *rest):
        seen.setdefault(number, set()).update(t.number for t in evidence.trials)
        return should_prune(pruner, evidence, number, *rest)

    monkeypatch.setattr("tuner.coordination.coordinator.should_prune", spy)
    options = {"n_startup_trials": 2, "n_warmup_steps": 0} if name == "median" else {}
    experiment = make_experiment(
        "random", pruner={"name": name} | options, asynchronous=True, trials=40
    )
    _, record = bench.run(experiment, SimulatedExecutor(3, chaos=1))
    assert record.count(Status.PRUNED) > 0
    assert any(number // 3 == other // 3 for number, told in seen.items() for other in told)


def test_a_small_space_is_exhausted_and_duplicates_are_reused(bench):
    experiment = make_experiment("pso", space=SMALL_SPACE, trials=40, asynchronous=True)
    finished, record = bench.run(experiment, SimulatedExecutor(4, chaos=3))
    assert finished
    assert len(record.trained) == 12
    for trial in record.trials:
        if trial.repeat_of is not None:
            assert trial.value == record.trials[trial.repeat_of].value


def test_a_grid_is_searched_once(bench):
    experiment = make_experiment(
        "grid", space=FINITE_SPACE | SMALL_SPACE, trials=30, asynchronous=True
    )
    _, record = bench.run(experiment, SimulatedExecutor(4, chaos=3))
    configurations = [tuple(sorted(t.params.items())) for t in record.trials]
    assert len(set(configurations)) == len(configurations)


def test_the_record_keeps_that_a_search_was_asynchronous(bench):
    experiment = make_experiment("woa", trials=6, asynchronous=True)
    _, record = bench.run(experiment, SimulatedExecutor(2))
    assert record.experiment.asynchronous
    with pytest.raises(StudyError, match="asynchronous=true, got false"):
        bench.run(make_experiment("woa", trials=6), SimulatedExecutor(2))


def test_a_search_without_a_better_score_ends_here_too(bench):
    experiment = make_experiment(
        "random", budget={"trials": 500, "epochs": 2, "stagnation": 4}, asynchronous=True
    )
    finished, record = bench.run(experiment, SimulatedExecutor(3, chaos=5))
    assert finished
    assert len(record.trained) < 500


FINITE = {
    "a": IntDistribution(1, 9, step=4),
    "b": FloatDistribution(0.0, 0.3, step=0.1),
    "c": CategoricalDistribution(["x", 1]),
    "d": FloatDistribution(2.0, 2.0),
}


def test_every_configuration_of_a_finite_space_is_found_once():
    trained = set()
    for number in range(3 * 4 * 2):
        params = unseen_configuration(FINITE, trained, seed=1, number=number)
        for name, distribution in FINITE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name]))
        assert configuration_key(params) not in trained
        trained.add(configuration_key(params))
    assert len(trained) == 24


def test_an_infinite_space_is_drawn_from_by_seed_and_number():
    space = {**FINITE, "e": FloatDistribution(1e-4, 1e-1, log=True)}
    first = unseen_configuration(space, set(), seed=1, number=5)
    assert first == unseen_configuration(space, set(), seed=1, number=5)
    assert first != unseen_configuration(space, set(), seed=2, number=5)
    assert 1e-4 <= first["e"] <= 1e-1


def test_equal_configurations_have_equal_keys():
    assert configuration_key({"a": 1, "b": 0.3}) == configuration_key({"b": 0.1 + 0.2, "a": 1})
    assert configuration_key({"a": 1}) != configuration_key({"a": 2})


def test_a_range_too_long_to_list_is_not_listed():
    space = {"a": IntDistribution(1, 10**12), "b": FloatDistribution(0.0, 1.0)}
    assert 1 <= unseen_configuration(space, set(), seed=1, number=5)["a"] <= 10**12


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
        study = open_study(storage, "x", "s", experiment, StudyData(DATA))
        assert study.sampler.n_generations == 2
    assert len(whole.trained) == 24


def test_a_study_with_moved_data_reads_it_where_it_is(bench):
    experiment = make_experiment("random", trials=3)
    bench.run(experiment, SimulatedExecutor(1))
    with write_journal(bench.location) as storage:
        moved = {**DATA, "path": "/elsewhere/data.csv"}
        open_study(storage, bench.location, "s", experiment, StudyData(moved))
    record = read_study(read_journal(bench.location), "s", bench.location)
    assert record.experiment.data.path == "/elsewhere/data.csv"


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


def test_time_unwritten_by_a_killed_run_follows_from_trials(bench):
    _, record = bench.run(make_experiment("random", trials=4), SimulatedExecutor(1))
    assert record.seconds == pytest.approx(4.0, abs=1.0)
    assert dataclasses.replace(record, seconds_recorded=60.0).seconds == 60.0


BOTH = {"objective": {"metrics": ["rmse", "weights"]}, "pruner": {"name": "none"}}


def both(trials=24, **keys):
    return make_experiment("nsga2", trials=trials, **BOTH | keys)


def test_any_workers_and_event_order_give_the_same_trials(make_bench):
    _, reference = make_bench("one").run(both(), SimulatedExecutor(1))
    assert len(reference.trained) == 24
    for workers, chaos in ((2, 1), (5, 2), (9, 3)):
        executor = SimulatedExecutor(workers, chaos, p_lost=0.05)
        _, record = make_bench(f"{workers}").run(both(), executor, retries=99)
        assert told(record) == told(reference)


@pytest.mark.parametrize("at", [0, 1, 5, 6, 13, 22])
def test_a_search_killed_at_any_trial_ends_like_one_that_was_not(make_bench, at):
    _, reference = make_bench("calm").run(both(), SimulatedExecutor(3))
    killed = make_bench("killed")
    with pytest.raises(Killed):
        killed.run(both(), SimulatedExecutor(3, chaos=at, die_after=at))
    _, record = killed.run(both(), SimulatedExecutor(2, chaos=at + 1))
    assert told(record) == told(reference)


def test_failed_trials_are_no_parents_and_the_search_goes_on(make_bench):
    def fails(job):
        return job.hyperparameters["num_layers"] == 3

    _, record = make_bench("a").run(both(), SimulatedExecutor(2, fails=fails))
    _, other = make_bench("b").run(both(), SimulatedExecutor(5, chaos=4, fails=fails))
    assert told(record) == told(other)
    assert record.count(Status.FAILED) > 0
    later = [t for t in record.trained if t.number >= 12]
    assert sum(t.status is Status.FAILED for t in later) < len(later) / 2


def test_the_front_grows_towards_small_models_that_are_good(make_bench):
    _, record = make_bench("a").run(both(trials=60), SimulatedExecutor(4))
    front = pareto_front(record)
    assert len(front) >= 3
    assert front[0].value == record.best.value
    sizes = [t.outcome.n_weights for t in front]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) == min(t.outcome.n_weights for t in record.trained)


def test_stagnation_looks_at_both_objectives(make_bench):
    _, record = make_bench("a").run(both(trials=None, budget={
        "trials": None, "epochs": 5, "stagnation": 2}), SimulatedExecutor(4))  # fmt: skip
    front = {t.number for t in pareto_front(record)}
    size = record.experiment.strategy.population
    last = max(t.number for t in record.trials) // size
    assert max(front) // size <= last - 2
    assert last < 100


def test_one_objective_has_no_front(make_bench):
    _, record = make_bench("a").run(make_experiment("nsga2", trials=12), SimulatedExecutor(2))
    assert pareto_front(record) == []
    assert objectives(record, record.trained[0]) is None


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    from helpers.search_bench import Bench

    bench = Bench(tmp_path_factory.mktemp("front") / "s.journal")
    return bench.run(both(trials=30), SimulatedExecutor(3))[1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=30, max_size=30))
def test_the_front_is_what_no_trial_beats(searched, values):
    trials = [
        dataclasses.replace(
            trial,
            outcome=dataclasses.replace(trial.outcome, objective=float(score), n_weights=cost),
            status=Status.COMPLETE,
        )
        for trial, (score, cost) in zip(searched.trained, values, strict=True)
    ]
    record = dataclasses.replace(searched, trials=tuple(trials))
    known = [objectives(record, t) for t in trials]

    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in known)

    found = [objectives(record, t) for t in pareto_front(record)]
    assert found == sorted({v for v in known if not beaten(v)})
