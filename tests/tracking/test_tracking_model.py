"""The winner's model in MLflow: what it predicts, that it is there once, how it is registered."""

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from helpers.waves import EXPERIMENT, start, tuner, write_series
from mlflow import MlflowClient

from tuner.experiment.yaml_files import read_mapping
from tuner.winner import KeptModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of MLflow about its own types
    import mlflow.pyfunc

# What MLflow and its database library say about themselves when a test reads a store.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

STUDY = "waves-woa-0"
SHORT = EXPERIMENT.replace("trials: 12", "trials: 3").replace(
    "season: 12", "season: 12, horizon: 2"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tracked search, whose winner was registered while it ran."""
    made = tmp_path_factory.mktemp("modelled")
    write_series(made)
    (made / "waves.yaml").write_text(SHORT)
    out = tuner(made, "run", "waves.yaml", "--workers", "2", "--register", "demand")
    assert "version 1 of demand in MLflow's registry" in out
    return made


@pytest.fixture
def client(folder):
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    yield MlflowClient(uri)
    mlflow.set_tracking_uri(None)  # what the environment says holds again


def models(client):
    (experiment,) = client.search_experiments(filter_string="name = 'waves'")
    return client.search_logged_models([experiment.experiment_id])


def study_run(client):
    (experiment,) = client.search_experiments(filter_string="name = 'waves'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.role = 'study'")
    return run


def test_the_run_of_a_study_has_the_winners_model(client, folder):
    (model,) = models(client)
    run = study_run(client)
    assert model.source_run_id == run.info.run_id
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert str(model.status) == "READY"
    files = [path.name for path in (folder / "mlartifacts").rglob("*") if path.is_file()]
    assert {"model.onnx", "weights.safetensors", "pipeline.json", "MLmodel"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_the_model_in_mlflow_predicts_what_the_exported_one_does(client, folder):
    (model,) = models(client)
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    example = loaded.input_example
    assert list(example.columns) == ["y"]
    signature = loaded.metadata.signature
    assert signature.inputs.input_names() == ["y"]
    assert signature.outputs.input_names() == ["row", "step", "y"]
    tuner(folder, "export", STUDY, "--model", "model")
    expected = pd.read_csv(io.StringIO(tuner(folder, "predict", "model", "waves.csv", "--all")))
    found = loaded.predict(pd.read_csv(folder / "waves.csv"), params={"all_windows": True})
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-5)
    assert len(loaded.predict(example)) == 2  # the horizon after the last row
    counts = _series(folder).round().astype(int).assign(more="columns do no harm")
    assert len(loaded.predict(counts)) == 2
    again = yaml(folder, model, "experiment.yaml")
    assert again["data"]["path"] == str(folder / "waves.csv")  # wherever MLflow puts the file


def yaml(folder, model, name):
    (path,) = (folder / "mlartifacts").rglob(f"{model.model_id}/**/{name}")
    return read_mapping(path, "artifact")


def test_what_is_wrong_with_a_model_is_noted_and_never_raised():
    notes = []

    class Fails:
        def write(self, folder):
            raise MemoryError("as large as the disk")

    with KeptModel(notes.append) as kept:
        kept.on_winner(Fails())
        kept.log(None, None, "tuner sync x")  # there is none
    assert notes == ["the winner's model cannot be written: as large as the disk"]


def test_whoever_loads_the_model_needs_no_tuner(client, tmp_path):
    (model,) = models(client)
    code = (
        "import sys, mlflow.pyfunc\n"
        "class Hidden:\n"  # the package that is installed, and what the search stands on
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if top in ('torch', 'optuna', 'pyswarms'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"sys.path[:] = [p for p in sys.path if p != {str(Path(__file__).parents[2])!r}]\n"
        f"model = mlflow.pyfunc.load_model({model.model_uri!r})\n"
        "import tuner\n"
        "print(len(model.predict(model.input_example)), tuner.__file__)\n"
    )
    environment = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, file = done.stdout.split()
    assert count == "2"
    assert "code" in Path(file).parts  # not the one that is installed here


def test_a_model_is_logged_and_registered_once(client, folder):
    (before,) = models(client)
    out = tuner(folder, "sync", STUDY, "--register", "demand")
    assert "version 1 of demand" in out
    assert "training the winner again" not in out
    (after,) = models(client)
    assert after.model_id == before.model_id
    (version,) = client.search_model_versions("name = 'demand'")
    assert version.source == before.model_uri
    assert "version 1 of load" in tuner(folder, "sync", STUDY, "--register", "load")


def test_a_sync_logs_the_mean_of_repeats_once(client, folder):
    (single,) = models(client)
    try:
        out = tuner(folder, "sync", STUDY, "--ensemble", "--register", "together")
        assert "training the winner again" in out
        assert "version 1 of together" in out
        (made,) = [model for model in models(client) if model.model_id != single.model_id]
        assert str(made.status) == "READY"
        assert made.tags["training"] == f"{single.tags['training']} ensemble 2"
        (path,) = (folder / "mlartifacts").rglob(f"{made.model_id}/**/pipeline.json")
        assert json.loads(path.read_text())["models"] == 2
        tuner(folder, "export", STUDY, "--model", "together", "--ensemble")
        expected = pd.read_csv(io.StringIO(tuner(folder, "predict", "together", "waves.csv")))
        found = mlflow.pyfunc.load_model(made.model_uri).predict(_series(folder))
        np.testing.assert_allclose(found.y, expected.y, rtol=1e-5)
        assert "training the winner again" not in tuner(folder, "sync", STUDY, "--ensemble")
        assert len(models(client)) == 2
    finally:
        for model in models(client):
            if model.model_id != single.model_id:
                client.delete_logged_model(model.model_id)


def test_a_sync_remakes_a_lost_or_partial_model(client, folder):
    (whole,) = models(client)
    client.delete_logged_model(whole.model_id)
    run = study_run(client)
    experiment, run_id = run.info.experiment_id, run.info.run_id
    client.create_logged_model(experiment, "winner", run_id, tags=whole.tags)  # and killed
    theirs = client.create_logged_model(experiment, "theirs", run_id)  # somebody uploads it
    assert "training the winner again" in tuner(folder, "sync", STUDY)
    (made,) = [model for model in models(client) if model.name == "winner"]
    assert client.get_logged_model(theirs.model_id).name == "theirs"
    client.delete_logged_model(theirs.model_id)
    assert str(made.status) == "READY"
    assert made.tags["training"] == whole.tags["training"]
    assert len(mlflow.pyfunc.load_model(made.model_uri).predict(_series(folder))) == 2


def test_data_that_has_changed_leaves_all_else_in_mlflow(client, folder, tmp_path):
    (whole,) = models(client)
    client.delete_logged_model(whole.model_id)
    data = (folder / "waves.csv").read_text()
    (folder / "waves.csv").write_text(data + "10.0\n")
    try:
        out = tuner(folder, "sync", STUDY)
        assert "MLflow agrees with the journal" in out
        assert "without the winner's model: " in out
        assert "90 rows then, 91 now" in out
        process = start(folder, "sync", STUDY, "--register", "demand")
        process.communicate()
        assert process.returncode == 1
    finally:
        (folder / "waves.csv").write_text(data)
    assert models(client) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--register", "a/b"], "--register: must be a name without"),
        (["--register", ""], "--register: must be a name without"),
        (["--register", "demand", "--no-tracking"], "--register: needs MLflow"),
    ],
)
def test_a_name_that_cannot_be_registered_is_refused_early(tmp_path, arguments, text):
    write_series(tmp_path)
    (tmp_path / "waves.yaml").write_text(SHORT)
    process = start(tmp_path, "run", "waves.yaml", *arguments)
    _, err = process.communicate()
    assert process.returncode == 2
    assert text in err
    assert {path.name for path in tmp_path.iterdir()} == {"waves.yaml", "waves.csv"}


def _series(folder):
    return pd.read_csv(folder / "waves.csv")
