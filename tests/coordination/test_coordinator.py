"""The laws of the coordinator, on simulated training with random timing."""

import threading
from pathlib import Path

import optuna
import pytest
from helpers.search_bench import REF, SMALL_SPACE, make_experiment, told
from helpers.simulated_executor import Killed, SimulatedExecutor

from tuner.coordination.events import Observer
from tuner.executors import Finished, Lost
from tuner.executors.base import cost, train_job
from tuner.jobs import OutcomeState, timed_out
from tuner.journal.records import Status
from tuner.journal.storage import TOLD_ATTR, read_journal
from tuner.strategies.registry import STRATEGIES

EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)


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
    for at in range(14):
        bench = make_bench(f"killed{at}")
        with pytest.raises(Killed):
            bench.run(experiment, SimulatedExecutor(3, chaos=at, die_after=at))
        finished, record = bench.run(experiment, SimulatedExecutor(2, chaos=at + 50))
        assert finished
        assert told(record) == told(reference)


def test_a_search_killed_again_and_again_trains_nothing_twice(make_bench):
    experiment = make_experiment("woa")
    _, reference = make_bench("reference").run(experiment, SimulatedExecutor(2))
    bench, delivered = make_bench("killed"), []
    for life in range(100):
        executor = SimulatedExecutor(3, chaos=life, die_after=1)
        try:
            _, record = bench.run(experiment, executor)
            break
        except Killed:
            continue
        finally:
            delivered += executor.delivered
    assert life > 10
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


@EVERY_STRATEGY
def test_failed_trials_do_not_stop_a_search(strategy, bench):
    experiment = make_experiment(strategy)
    executor = SimulatedExecutor(2, fails=lambda job: job.hyperparameters["num_layers"] == 2)
    finished, record = bench.run(experiment, executor)
    assert finished
    assert record.count(Status.FAILED) > 0
    assert record.count(Status.COMPLETE) > 0
    assert len(record.trained) == experiment.budget.trials


@EVERY_STRATEGY
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
        in_generations = STRATEGIES[strategy].generational
        expected = trial.number // 6 * 6 if in_generations else max(0, trial.number - 2)
        assert trial.user_attrs[TOLD_ATTR] == expected


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

    def spy(pruner, evidence, number, *rest, n_folds):
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

        def finished(self, role, number, outcome):
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
