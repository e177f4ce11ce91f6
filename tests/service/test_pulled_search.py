"""A whole search on pull workers, some of which end meanwhile, equals a local one bit for bit."""

from types import SimpleNamespace

import pytest
from helpers.pulled import agents, served
from helpers.real_searches import EXPERIMENT, make_folder
from helpers.simulated_study import everything

from tuner.coordination.coordinator import Observer
from tuner.executors import LocalExecutor
from tuner.experiment import Experiment
from tuner.orchestrator import SearchOptions, search
from tuner.service.access import Access
from tuner.service.pool import SharedPool
from tuner.service.workers import PullWorkers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PRUNER = ("name: none", "name: median, n_startup_trials: 2, n_warmup_steps: 2")
BUDGET = ("budget: {trials: 4, epochs: 3}", "budget: {trials: 14, epochs: 12}")


class Noting(Observer):
    """Collects what a search observes, and calls a function after each epoch."""

    def __init__(self, after_epoch=lambda n: None):
        self.epochs, self.lost_, self.model = [], [], None
        self._after_epoch = after_epoch

    def epoch(self, key, epoch):
        self.epochs.append((str(key), epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.metric))
        self._after_epoch(len(self.epochs))

    def lost(self, key, reason):
        self.lost_.append(key)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    folder = make_folder(tmp_path / "folder")
    (folder / "air.yaml").write_text(EXPERIMENT.replace(*PRUNER).replace(*BUDGET))
    monkeypatch.chdir(folder)
    return Experiment.load(folder / "air.yaml")


def run(experiment, folder, make_executor, observer):
    options = SearchOptions("s", str(folder / "s.journal"), workers=2, tracking=False)
    folder.mkdir()
    return search(experiment, options, [observer], make_executor=make_executor)


def test_a_search_on_pull_workers_equals_a_local_one(experiment, tmp_path):
    pool = SharedPool(LocalExecutor, 0)
    workers = PullWorkers(pool)
    study = pool.executor("local", "s")
    stops = []

    def replace_a_worker(n_epochs):
        """Stop the older of two workers in the middle of its trial, and begin another."""
        if n_epochs in (10, 40, 41):
            stops.pop(0).set()
            stops.append(begin())

    service = SimpleNamespace(pool=pool, workers=workers)
    with served(service, Access(), tmp_path / "root") as url, agents(url) as begin:
        stops += [begin(), begin()]
        observer = Noting(replace_a_worker)
        pulled = run(experiment, tmp_path / "pulled", lambda n: study, observer)
    workers.close()
    pool.close()
    alone = Noting()
    local = run(experiment, tmp_path / "local", LocalExecutor, alone)
    assert everything(pulled) == everything(local)
    assert any(trial.outcome.state == "pruned" for trial in local.trials)
    assert sorted(observer.epochs) == sorted(alone.epochs)  # each once
    assert observer.lost_ == []
