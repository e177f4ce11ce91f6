"""What every executor must hold to; a new one is tested by adding it to `MAKERS`."""

import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.executor_events import events, go_on, n_finished, outcomes
from helpers.prepared import write_series
from helpers.pulled import agents, served
from simulated import Landscape, Recording, SimulatedExecutor

from tuner.executors import Finished, LocalExecutor, Lost, Reported
from tuner.executors.ray_executor import RayExecutor
from tuner.jobs import GroupJob, OutcomeState, TrainJob
from tuner.service.access import Access
from tuner.service.pool import SharedPool, StudyExecutor
from tuner.service.workers import PullWorkers

HYPERPARAMETERS = {"hidden_size": 4, "batch_size": 16}
BAD = {"hidden_size": -1, "batch_size": 16}
N_RECORDED = 60


def simulated(n_workers):
    curves = [tuple(3.0 + seed + 1 / (1 + epoch) for epoch in range(N_RECORDED)) for seed in (0, 1)]
    rows = [(HYPERPARAMETERS, Recording(curve, seconds=6.0)) for curve in curves]
    return SimulatedExecutor(Landscape(HYPERPARAMETERS, rows), n_workers)


def on_ray(n_workers, **options):
    return RayExecutor(n_workers, cpus=0.5, **options)


class OnlyStudy(StudyExecutor):
    """The executor of the one study in a shared pool; the pool ends with it."""

    @classmethod
    def of(cls, n_workers, make=LocalExecutor):
        pool = SharedPool(make, max(1, n_workers))
        executor = pool.executor("owner", "study", max_workers=n_workers)
        executor.__class__ = cls
        return executor

    def close(self):
        super().close()
        self._pool.close()


class PulledStudy(StudyExecutor):
    """The executor of the one study of a service, on one pull worker; they end with it."""

    @classmethod
    def of(cls, n_workers, make=LocalExecutor):
        pool = SharedPool(LocalExecutor, 0)
        executor = pool.executor("local", "study", max_workers=n_workers)
        executor.__class__ = cls
        executor.stack = ExitStack()
        executor.stack.callback(pool.close)
        service = SimpleNamespace(pool=pool, workers=PullWorkers(pool))
        executor.stack.callback(service.workers.close)
        url = executor.stack.enter_context(served(service, Access(), Path("/nowhere")))
        begin = executor.stack.enter_context(agents(url))
        begin(n_workers, make)
        return executor

    def close(self):
        super().close()
        self.stack.close()


def local_hanging(n_workers):
    return LocalExecutor(n_workers, module="helpers.workers.hanging")


MAKERS = {
    "local": LocalExecutor,
    "shared": OnlyStudy.of,
    "pull": PulledStudy.of,
    "ray": on_ray,
    "simulated": simulated,
}
HANGING = {
    "local": local_hanging,
    "shared": lambda n_workers: OnlyStudy.of(n_workers, local_hanging),
    "pull": lambda n_workers: PulledStudy.of(n_workers, local_hanging),
    "ray": lambda n_workers: on_ray(n_workers, training="helpers.workers.hanging"),
}
REAL = tuple(HANGING)  # executors that train


def kinds(names):
    """Names as parameters; Ray's processes, and workers over HTTP, take long to begin."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in ("ray", "pull") else n for n in names]


@pytest.fixture(scope="module")
def hanging_path():
    """Lets every worker import `helpers.workers.hanging`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield


@pytest.fixture(scope="module")
def ray_cluster(hanging_path):
    """One for all executors: they use the connection that is there."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture
def make_named(request):
    """Makes executors, and closes them."""
    made = []

    def make(maker, name, n_workers):
        if name == "ray":
            request.getfixturevalue("ray_cluster")
        made.append(maker(n_workers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=kinds(MAKERS))
def executor(request, make_named):
    """Makes executors of each kind by the number of workers."""
    return lambda n_workers: make_named(MAKERS[request.param], request.param, n_workers)


@pytest.fixture(params=kinds(REAL))
def training(request, make_named):
    """Makes executors of each kind that trains."""
    return lambda n_workers: make_named(MAKERS[request.param], request.param, n_workers)


@pytest.fixture(params=kinds(REAL))
def hanging(request, make_named, hanging_path):
    """Makes executors whose jobs hang where their seed is 0, and raise where it is 13."""
    return lambda n_workers: make_named(HANGING[request.param], request.param, n_workers)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Makes jobs; a model of two weights a gate on a short sine trains at once."""
    folder = tmp_path_factory.mktemp("arrays")
    data = write_series(folder, np.sin(np.arange(120) / 3)[:, None], train_end=80)

    def make(key="a", epochs=2, seed=1, **fields):
        hyperparameters = fields.pop("hyperparameters", HYPERPARAMETERS)
        return TrainJob(key, hyperparameters, seed, epochs, 1000, "rmse", (data,), **fields)

    return make


@pytest.fixture
def group(job):
    """Makes jobs of several members, by their keys; a member differs from others by its seed."""

    def make(keys, **fields):
        jobs = [job(key, seed=seed, **fields) for seed, key in enumerate(keys, start=1)]
        return GroupJob(f"group of {keys[0]}", tuple(jobs))

    return make


def keys_of(seen, kind):
    return [event.key for event in seen if isinstance(event, kind)]


def is_idle(executor):
    return executor.poll(0.2) == []


def test_every_job_comes_back_once(executor, job):
    workers = executor(2)
    for key in "abcde":
        workers.submit(job(key))
    seen = events(workers, n_finished(5))
    assert sorted(keys_of(seen, Finished)) == list("abcde")
    assert is_idle(workers)


def test_one_worker_does_jobs_in_the_order_of_submission(executor, job):
    workers = executor(1)
    for key in "cab":
        workers.submit(job(key))
    seen = events(workers, n_finished(3))
    assert list(dict.fromkeys(event.key for event in seen)) == ["c", "a", "b"]
    assert keys_of(seen, Finished) == ["c", "a", "b"]


def test_a_job_reports_every_epoch_and_then_its_end(executor, job):
    workers = executor(1)
    workers.submit(job(epochs=3))
    *reports, end = events(workers, n_finished(1))
    epochs = tuple(event.epoch for event in reports if isinstance(event, Reported))
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert isinstance(end, Finished)
    assert end.outcome.state is OutcomeState.COMPLETE
    assert end.outcome.history == epochs
    best = min(epochs, key=lambda epoch: epoch.metric)
    assert (end.outcome.objective, end.outcome.best_epoch) == (best.metric, best.epoch)
    assert end.outcome.seconds > 0


def test_a_job_comes_to_the_same_on_one_worker_and_on_two(executor, job):
    found = []
    for n_workers in (1, 2):
        workers = executor(n_workers)
        for seed, key in enumerate("abcd"):
            workers.submit(job(key, seed=seed))
        ended = outcomes(events(workers, n_finished(4)))
        found.append({key: [e.metric for e in ended[key].history] for key in "abcd"})
    assert found[0] == found[1]
    assert found[0]["a"] != found[0]["b"]  # seeds differ


def test_a_job_that_can_be_pruned_waits_for_an_answer(executor, job):
    workers = executor(1)
    workers.submit(job(can_be_pruned=True))
    seen = events(workers, bool)
    assert keys_of(seen, Reported) == ["a"]
    assert is_idle(workers)
    workers.answer("a", True)
    assert n_finished(1)(events(workers, n_finished(1), go_on))


def test_pruning_ends_a_job_after_the_refused_epoch(executor, job):
    workers = executor(1)
    workers.submit(job(epochs=50, can_be_pruned=True))
    workers.submit(job("b"))
    seen = events(workers, n_finished(2), lambda event: event.epoch.epoch < 3)
    reported = [e.epoch for e in seen if isinstance(e, Reported) and e.key == "a"]
    assert [epoch.epoch for epoch in reported] == [0, 1, 2, 3]
    pruned = outcomes(seen)["a"]
    assert pruned.state is OutcomeState.PRUNED
    assert pruned.objective is None
    assert pruned.history == tuple(reported)
    assert outcomes(seen)["b"].state is OutcomeState.COMPLETE


def test_withdrawn_jobs_never_begin(executor, job):
    workers = executor(1)
    for key in "abc":
        workers.submit(job(key, can_be_pruned=True))
    assert keys_of(events(workers, bool), Reported) == ["a"]
    assert workers.withdraw() == ["b", "c"]
    assert workers.withdraw() == []
    workers.answer("a", False)
    assert set(outcomes(events(workers, n_finished(1)))) == {"a"}
    assert is_idle(workers)
    workers.submit(job("b"))  # its key is free again
    assert set(outcomes(events(workers, n_finished(1)))) == {"b"}


def test_a_job_that_cannot_be_done_fails_alone(executor, job):
    workers = executor(1)
    workers.submit(job("bad", hyperparameters=BAD))
    workers.submit(job("good"))
    ended = outcomes(events(workers, n_finished(2)))
    failed = ended["bad"]
    assert failed.state is OutcomeState.FAILED
    assert failed.objective is None
    assert failed.reason is not None
    assert "hidden_size" in failed.reason
    assert "\n" not in failed.reason
    assert ended["good"].state is OutcomeState.COMPLETE


def test_an_answer_that_nobody_waits_for_is_no_error(executor, job):
    workers = executor(1)
    workers.answer("a", True)
    workers.submit(job())
    events(workers, n_finished(1))
    workers.answer("a", False)
    assert is_idle(workers)


def test_closing_twice_abandons_jobs_in_progress(executor, job):
    workers = executor(2)
    for key in "abc":
        workers.submit(job(key, epochs=1_000, can_be_pruned=True))
    events(workers, bool)
    workers.close()
    workers.close()
    executor(1).close()  # nothing was begun


def test_fewer_than_one_worker_is_refused(executor):
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        executor(0)


def test_a_job_that_trains_for_too_long_is_ended_alone(executor, job):
    workers = executor(1)
    workers.submit(job("long", epochs=10_000_000, timeout_s=1.5))
    workers.submit(job("next", timeout_s=60))
    ended = outcomes(events(workers, n_finished(2)))
    failed = ended["long"]
    assert failed.state is OutcomeState.FAILED
    assert failed.reason == "it trained for longer than budget.trial_timeout, 1.5 s"
    assert failed.seconds == 1.5
    assert ended["next"].state is OutcomeState.COMPLETE
    assert is_idle(workers)
    workers.submit(job("long"))  # its key is free again, and so is its worker
    assert outcomes(events(workers, n_finished(1)))["long"].state is OutcomeState.COMPLETE


def test_a_limit_excludes_waiting_times(executor, job):
    workers = executor(1)
    for key in "ab":
        workers.submit(job(key, timeout_s=1.0, can_be_pruned=True))
    events(workers, bool)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert workers.poll(0.1) == []
    workers.answer("a", True)
    ended = outcomes(events(workers, n_finished(2), go_on))
    assert {end.state for end in ended.values()} == {OutcomeState.COMPLETE}


def test_a_job_that_hangs_in_c_code_is_ended(hanging, job):
    workers = hanging(2)
    workers.submit(job("hangs", seed=0, timeout_s=1.0))
    for key in "abc":
        workers.submit(job(key, seed=1))
    ended = outcomes(events(workers, n_finished(4)))
    assert ended["hangs"].reason == "it trained for longer than budget.trial_timeout, 1 s"
    assert all(ended[key].state is OutcomeState.COMPLETE for key in "abc")


def test_a_job_that_breaks_its_worker_is_lost_alone(hanging, job):
    workers = hanging(1)
    workers.submit(job("breaks", seed=13))
    workers.submit(job("next", seed=1))
    seen = events(workers, n_finished(1))
    (lost,) = [event for event in seen if isinstance(event, Lost)]
    assert lost.key == "breaks"
    assert lost.reason.startswith("its worker died (")
    assert "for good" in lost.reason
    assert "\n" not in lost.reason
    assert outcomes(seen)["next"].state is OutcomeState.COMPLETE
    workers.submit(job("breaks", seed=1))  # its key is free again
    assert outcomes(events(workers, n_finished(1)))["breaks"].state is OutcomeState.COMPLETE


def test_what_comes_of_a_group_is_that_of_its_members(training, job, group):
    workers = training(1)
    workers.submit(group("abc", epochs=3))
    workers.submit(job("d"))
    seen = events(workers, n_finished(4))
    ended = outcomes(seen)
    for key in "abc":
        epochs = tuple(e.epoch for e in seen if isinstance(e, Reported) and e.key == key)
        assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
        assert ended[key].state is OutcomeState.COMPLETE
        assert ended[key].history == epochs
    assert len({ended[key].objective for key in "abc"}) == 3  # seeds differ
    assert ended["d"].state is OutcomeState.COMPLETE
    assert is_idle(workers)
    workers.submit(group("abc"))  # their keys are free again
    assert set(outcomes(events(workers, n_finished(3)))) == set("abc")


def test_a_group_goes_on_once_all_members_are_answered(training, group):
    workers = training(1)
    workers.submit(group("abc", can_be_pruned=True))
    seen = events(workers, lambda seen: len(seen) == 3)
    assert keys_of(seen, Reported) == list("abc")
    for key in "ca":
        workers.answer(key, True)
        assert is_idle(workers)
    workers.answer("c", False)  # it does not wait any more
    workers.answer("b", True)
    ended = outcomes(events(workers, n_finished(3), go_on))
    assert {end.state for end in ended.values()} == {OutcomeState.COMPLETE}


def test_pruning_ends_one_member_and_no_other(training, group):
    workers = training(1)
    workers.submit(group("abc", epochs=6, can_be_pruned=True))

    def answer(event):
        return event.key != "b" or event.epoch.epoch < 2

    seen = events(workers, n_finished(3), answer)
    ended = outcomes(seen)
    assert ended["b"].state is OutcomeState.PRUNED
    assert [epoch.epoch for epoch in ended["b"].history] == [0, 1, 2]
    for key in "ac":
        assert ended[key].state is OutcomeState.COMPLETE
        assert len(ended[key].history) == 6


def test_members_are_withdrawn_as_jobs_are(training, job, group):
    workers = training(1)
    workers.submit(job("a", can_be_pruned=True))
    workers.submit(group("bcd"))
    events(workers, bool)
    assert workers.withdraw() == ["b", "c", "d"]
    workers.answer("a", False)
    assert set(outcomes(events(workers, n_finished(1)))) == {"a"}
    assert is_idle(workers)


def test_a_member_that_diverges_fails_alone(training, job, group):
    workers = training(1)
    jobs = list(group("abc", epochs=30).jobs)
    wild = HYPERPARAMETERS | {"learning_rate": 10.0, "optimizer": "adamw", "weight_decay": 1.0}
    jobs[1] = job("b", seed=2, epochs=30, hyperparameters=wild)
    workers.submit(GroupJob("group of a", tuple(jobs)))
    ended = outcomes(events(workers, n_finished(3)))
    assert ended["b"].state is OutcomeState.FAILED
    assert {ended[key].state for key in "ac"} == {OutcomeState.COMPLETE}


def test_all_members_are_lost_with_their_worker(hanging, job):
    workers = hanging(1)
    jobs = [job(key, seed=seed) for key, seed in (("a", 1), ("breaks", 13), ("c", 2))]
    workers.submit(GroupJob("group of a", tuple(jobs)))
    workers.submit(job("next", seed=1))
    seen = events(workers, n_finished(1))
    lost = [event for event in seen if isinstance(event, Lost)]
    assert [event.key for event in lost] == ["a", "breaks", "c"]
    assert all("for good" in event.reason for event in lost)
    assert set(outcomes(seen)) == {"next"}
    workers.submit(GroupJob("group of a", (jobs[0], jobs[2])))  # their keys are free again
    assert set(outcomes(events(workers, n_finished(2)))) == {"a", "c"}


@pytest.mark.slow
def test_a_group_comes_to_the_same_bits_on_every_executor(make_named, group):
    found = []
    for name in REAL:
        workers = make_named(MAKERS[name], name, 2)
        widths = {"hidden_size": 12, "num_layers": 2, "dropout": 0.2, "batch_size": 16}
        workers.submit(group("abc", epochs=4, hyperparameters=widths))
        ended = outcomes(events(workers, n_finished(3)))
        found.append([[(e.train_loss, e.val_loss) for e in ended[key].history] for key in "abc"])
    assert all(each == found[0] for each in found)


@pytest.mark.slow
def test_every_executor_that_trains_comes_to_the_same_bits(make_named, job):
    found = []
    for name in REAL:
        workers = make_named(MAKERS[name], name, 2)
        for seed, key in enumerate("ab"):
            widths = {"hidden_size": 12, "num_layers": 2, "dropout": 0.2, "batch_size": 16}
            workers.submit(job(key, seed=seed, epochs=4, hyperparameters=widths, keep_weights=True))
        ended = outcomes(events(workers, n_finished(2)))
        found.append([_timeless(ended[key]) for key in "ab"])
    assert all(each == found[0] for each in found)
    assert found[0][0] != found[0][1]


def _timeless(outcome):
    """What is the same however fast a job was done."""
    assert outcome.weights is not None
    weights = {name: array.tobytes() for name, array in outcome.weights.items()}
    numbers = [(e.epoch, e.train_loss, e.val_loss, e.metric) for e in outcome.history]
    return outcome.state, outcome.objective, outcome.best_epoch, numbers, weights
