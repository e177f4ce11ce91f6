"""A search over preparations of the data: the same with any number of workers, and after a kill."""

import random

import numpy as np
import pytest
from helpers.simulated_study import everything

from tuner.coordination.finalists import find_winner
from tuner.data.baselines import Baselines, baselines_record, choose, preparations_of
from tuner.data.prepared import open_test_part, prepare
from tuner.executors.base import Finished
from tuner.experiment import Experiment
from tuner.jobs import PredictJob, TrainJob, train_job
from tuner.orchestrator import SearchOptions, search
from tuner.results.export import exported
from tuner.training import run_job

SPACE = {
    "transform": ["none", "log", ["box_cox", {"seasonal_difference": 6}]],
    "scale": ["standard", "minmax"],
    "lags": [{}, {"y": [6, 12]}],
}


class TrainingExecutor:
    """Trains for real where it is called, and brings the results in any order."""

    def __init__(self, n_workers, dies_after=None):
        self.n_workers = n_workers
        self.jobs = []
        self.scored = {}
        self._queue = []
        self._random, self._left = random.Random(n_workers), dies_after

    def submit(self, job):
        self.jobs.append(job)
        if isinstance(job, PredictJob):
            self.scored[job.key] = job.data.evaluate_samples().tolist()
        self._queue.append(job)

    def poll(self, timeout_s):
        if not self._queue:
            return []
        if self._left is not None:
            if self._left == 0:
                raise KeyboardInterrupt
            self._left -= 1
        job = self._queue.pop(self._random.randrange(min(self.n_workers, len(self._queue))))
        return [Finished(job.key, run_job(job, lambda epoch: True))]

    def answer(self, key, go_on):
        raise AssertionError("nothing is pruned")

    def withdraw(self):
        keys, self._queue = [job.key for job in self._queue], []
        return keys

    def close(self):
        pass


def make(folder):
    folder.mkdir(exist_ok=True)
    t = np.arange(110)
    values = np.exp(2 + t / 60 + 0.3 * np.sin(t * np.pi / 3))
    (folder / "y.csv").write_text("y\n" + "".join(f"{float(v)!r}\n" for v in values))
    space = {n: {"type": "categorical", "choices": c} for n, c in SPACE.items()}
    return Experiment.model_validate(
        {
            "name": "prepared",
            "data": {"path": str(folder / "y.csv"), "target": "y",
                     "split": {"validation": 20, "test": 15}},
            "task": {"window": 4, "horizon": 2},
            "hyperparameters": {"hidden_size": 4, "learning_rate": 0.05},
            "search_space": space | {"window": {"type": "int", "low": 3, "high": 6}},
            "strategy": {"name": "tpe", "batch": 4, "n_startup_trials": 4},
            "budget": {"trials": 12, "epochs": 3},
            "pruner": {"name": "none"},
            "finalists": {"top": 2, "repeats": 2},
        }
    )  # fmt: skip


def run(folder, executor):
    return search(
        make(folder),
        SearchOptions("s", str(folder / "s.journal")),
        make_executor=lambda n_workers: executor,
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    executor = TrainingExecutor(1)
    return run(tmp_path_factory.mktemp("calm") / "case", executor), executor


def test_baselines_use_the_best_preparation_of_the_search(calm, tmp_path):
    record, _ = calm
    data = prepare(record.experiment, tmp_path / "search")
    others = [(p, data.of(p).folds[0]) for p in preparations_of(record.experiment)[1:]]
    choices = choose("rmse", data.folds[0], None, others)
    assert choices.preparations["linear"]["transform"] != "none"
    own = baselines_record("rmse", data.folds, None)["baselines"]
    assert record.baselines["linear"] < own["linear"]
    test = open_test_part(record.experiment, tmp_path / "test")
    found = Baselines(test.folds[0], None, choices, lambda p: test.of(p).folds[0]).scores("rmse")
    assert record.test is not None
    assert record.test.baselines == pytest.approx(found)


def test_every_job_has_the_data_of_its_trial(calm):
    record, executor = calm
    jobs = executor.jobs
    by_key = {job.key: job for job in jobs}
    folders = {}
    for run_ in (*record.trials, *record.finalists):
        if run_.repeat_of is not None:
            continue
        job = by_key[f"{run_.role} {run_.number}"]
        assert isinstance(job, TrainJob)
        chosen = record.experiment.preparation(run_.params)
        (ref,) = job.folds
        pointwise = {"none": "none", "log": "log"}.get(chosen["transform"], "box_cox")
        assert ref.transform.pointwise == pointwise
        assert ref.shape.features == 1 + 2 * (chosen["lags"] != "{}")
        assert not job.hyperparameters.keys() & SPACE.keys()
        folders.setdefault(tuple(chosen.values()), set()).add(ref.folder)
    assert len(folders) > 3
    found = {t.params["transform"] for t in record.trials}
    assert found == {"none", "log", "[box_cox, {seasonal_difference: 6}]"}
    assert all(len(of) == 1 for of in folders.values())
    tests = [job for job in jobs if isinstance(job, PredictJob)]
    assert {tuple(samples) for samples in executor.scored.values()} == {tuple(range(95, 109))}
    winner = record.experiment.preparation(find_winner(record).trial.params)
    lags = winner["lags"] != "{}"
    assert tests[0].data.shape.features == 1 + 2 * lags
    assert tests[-1].data.shape.features == 1  # the default's


@pytest.mark.slow
def test_it_is_the_same_with_three_workers(calm, tmp_path):
    record = run(tmp_path / "case", TrainingExecutor(3))
    assert everything(record) == everything(calm[0])
    assert record.test is not None


@pytest.mark.slow
@pytest.mark.parametrize("dies_after", [7, 19])
def test_after_a_kill_it_goes_on_as_if_there_had_been_none(calm, tmp_path, dies_after):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "case", TrainingExecutor(3, dies_after))
    record = run(tmp_path / "case", TrainingExecutor(2))
    assert everything(record) == everything(calm[0])


def test_the_exported_winner_gives_its_score_again(calm, tmp_path):
    record, _ = calm
    file = exported(record, tmp_path, "best.yaml", record.data["path"])
    alone = Experiment.model_validate(file)
    assert not alone.search_space
    chosen = record.experiment.prepared_as(find_winner(record).trial.params).data
    for name in SPACE:
        assert getattr(alone.data, name) == getattr(chosen, name)
    assert alone.recorded is not None
    data = prepare(alone, tmp_path / "arrays")
    job = train_job(alone, data.folds, "again", {}, alone.recorded.seed)
    assert run_job(job, lambda epoch: True).objective == alone.recorded.score
