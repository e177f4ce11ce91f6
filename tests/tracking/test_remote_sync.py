"""`tuner sync --server` copies a study of a service to a real MLflow server, with its model."""

import dataclasses

import pytest
from helpers.mlflow_server import MlflowServer
from helpers.real_searches import STUDY, make_folder
from helpers.running_service import running_service

from tuner import Client
from tuner.cli.app import run
from tuner.executors.local import LocalExecutor
from tuner.service.settings import Settings
from tuner.tracking import open_store

pytestmark = pytest.mark.filterwarnings("default")  # filters are those of all threads

SOON_S = 120


@pytest.fixture
def mlflow(tmp_path):
    """A running MLflow server."""
    server = MlflowServer(tmp_path).start()
    yield server
    server.kill()


def runs_of(name):
    """Return the runs of an experiment in the store, the newest first."""
    store = open_store()
    experiment = store.get_experiment_by_name(name)
    assert experiment is not None
    return store.search_runs([experiment.experiment_id])


def test_a_study_of_a_service_is_copied_once(tmp_path, mlflow, monkeypatch, capsys):
    monkeypatch.delenv("TUNER_TOKEN", raising=False)
    monkeypatch.chdir(make_folder(tmp_path / "work"))
    settings = dataclasses.replace(Settings(root=tmp_path / "root"), workers=1)
    with running_service(settings, LocalExecutor) as service:
        monkeypatch.setenv("TUNER_SERVER", service.url)
        Client().submit("air.yaml", tracking=False).wait(SOON_S)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
        assert run(["sync", STUDY, "--register", "air"]) == 0
        first = capsys.readouterr().out
        assert "MLflow agrees with the journal: " in first
        assert mlflow.url in first
        copied = runs_of("air")
        assert run(["sync", STUDY]) == 0  # what is there already is not copied again
        assert "0 created, 0 completed, 0 replaced" in capsys.readouterr().out
        summary = Client().study(STUDY).summary()
    assert sorted(r.info.run_id for r in runs_of("air")) == sorted(r.info.run_id for r in copied)
    trials = [r for r in copied if r.info.run_name.startswith("trial ")]
    assert len(trials) == len(summary["all_trials"])
    (study,) = [r for r in copied if "mlflow.parentRunId" not in r.data.tags]
    files = {file.path for file in open_store().list_artifacts(study.info.run_id)}
    assert {"report.html", "best.yaml"} <= files
    (version,) = open_store().search_model_versions("name='air'")
    assert version.run_id in {r.info.run_id for r in copied}
    assert not (tmp_path / "work" / "mlflow.db").exists()
