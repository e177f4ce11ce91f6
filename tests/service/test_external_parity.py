"""Trials of an external study through client and service are those of a plain search."""

import math

import pytest
from helpers.external_studies import MEDIAN, curve, make_spec, run_plainly
from helpers.running_service import running_service

from tuner.client import Client
from tuner.journal.external import read_external
from tuner.journal.storage import read_journal
from tuner.service.settings import Settings


@pytest.fixture
def served(tmp_path):
    settings = Settings(root=tmp_path / "root", workers=0)
    with running_service(settings) as running, Client(running.url) as client:
        client.path = str(tmp_path / "root" / "studies" / "local" / "s.journal")
        yield client


def test_threads_of_a_client_give_the_trials_of_a_plain_search(served, tmp_path):
    spec = make_spec("pso", trials=12, pruner=MEDIAN)
    options = {k: v for k, v in spec.to_dict().items() if k not in ("name", "space", "strategy")}
    study = served.external("s", spec.to_dict()["space"], spec.to_dict()["strategy"], **options)

    def objective(trial):
        values = curve(trial.params, trial.seed)
        if trial.seed % 11 == 0:
            trial.report(values[0])
            raise ValueError("it failed")
        for value in values:
            if trial.report(value):
                trial.prune()
                return math.nan
        return values[-1]

    study.optimize(objective, n_jobs=3, catch=[ValueError])
    record = read_external(read_journal(served.path), "s", served.path)
    assert [(t.number, dict(t.params), t.seed, t.status, t.value) for t in record.trials] == [
        t[:5] for t in run_plainly(spec, tmp_path / "plain.journal")
    ]
    assert study.best.trial == record.best.number
